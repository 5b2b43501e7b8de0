//! The spool's rows on `PostgreSQL`: with each group the position is committed up to which the spool is in the log.

use super::{Postgres, statements};
use crate::StoreError;
use crate::change::Change;
use crate::ids;
use crate::remote::limited;
use crate::replay::{self, Note};
use crate::rows::ExistingColumns;
use crate::store::Applied;
use sqlx::postgres::PgConnection;

impl Postgres {
    pub(crate) async fn replay(
        &mut self,
        note: Note,
        changes: &mut Vec<Change>,
    ) -> Result<Applied, StoreError> {
        let mut connection = self.take().await?;
        let result = limited(&self.log, self.transaction_timeout, async {
            self.begin(&mut connection).await?;
            self.leave_out_archived(&mut connection, changes).await?;
            let applied = self.write(&mut connection, changes).await?;
            sqlx::query(statements::NOTE)
                .bind(i32::from(self.number))
                .bind(note.spool.0)
                .bind(note.through)
                .execute(&mut connection)
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))?;
            self.commit(&mut connection).await?;
            Ok(applied)
        })
        .await;
        self.give_back(connection, &result).await;
        result
    }

    /// First the rows that are there are held where they are: whoever is moving one has then done so.
    async fn leave_out_archived(
        &self,
        connection: &mut PgConnection,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        let rows = replay::inserted(changes);
        if rows.is_empty() {
            return Ok(());
        }
        let error = |source| StoreError::from_server(&self.log, source);
        let ids: Vec<i64> = rows.iter().map(|(row, _)| row.id.get()).collect();
        let (first, last) = replay::seconds(&rows);
        sqlx::query(statements::HOLD)
            .bind(&ids)
            .execute(&mut *connection)
            .await
            .map_err(error)?;
        let archived: Vec<ExistingColumns> = sqlx::query_as(statements::ARCHIVED)
            .bind(&ids)
            .bind(first)
            .bind(last)
            .fetch_all(connection)
            .await
            .map_err(error)?;
        replay::without_archived(changes, &archived)
    }

    pub(crate) async fn spooled(&mut self) -> Result<Option<(i64, i64)>, StoreError> {
        let mut connection = self.take().await?;
        let result = limited(&self.log, self.transaction_timeout, async {
            sqlx::query_as(statements::SPOOLED)
                .bind(i32::from(self.number))
                .fetch_optional(&mut connection)
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))
        })
        .await;
        self.give_back(connection, &result).await;
        result
    }

    pub(crate) async fn end_open_sessions(&mut self) -> Result<(), StoreError> {
        let mut connection = self.take().await?;
        let (first, end) = ids::range(self.number);
        let result = limited(&self.log, self.transaction_timeout, async {
            sqlx::query(statements::SESSIONS_LEFT_OPEN)
                .bind(first)
                .bind(end)
                .execute(&mut connection)
                .await
                .map(drop)
                .map_err(|source| StoreError::from_server(&self.log, source))
        })
        .await;
        self.give_back(connection, &result).await;
        result
    }

    pub(crate) fn skip_ids(&mut self, sequence: i64) {
        self.reserved = self.reserved.max(sequence);
    }
}
