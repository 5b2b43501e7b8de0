//! The spool's rows in a file of `SQLite`: with each group the position is committed up to which the spool is in the log.

use super::{Sqlite, statements};
use crate::StoreError;
use crate::change::Change;
use crate::replay::{self, Note};
use crate::rows::ExistingColumns;
use crate::store::Applied;

impl Sqlite {
    pub(crate) async fn replay(
        &mut self,
        note: Note,
        changes: &mut Vec<Change>,
    ) -> Result<Applied, StoreError> {
        self.clean_up().await;
        self.expect_file()?;
        // Nobody else writes as long as the transaction lasts.
        self.begin().await?;
        let result = self.replay_steps(note, changes).await;
        let applied = self.commit_after(result).await?;
        self.checkpointer.committed(changes.len());
        Ok(applied)
    }

    async fn replay_steps(&mut self, note: Note, changes: &mut Vec<Change>) -> Result<Applied, StoreError> {
        let ids: Vec<i64> = replay::inserted(changes)
            .iter()
            .map(|(row, _)| row.id.get())
            .collect();
        if !ids.is_empty() {
            let archived: Vec<ExistingColumns> = sqlx::query_as(statements::ARCHIVED)
                .bind(serde_json::json!(ids).to_string())
                .fetch_all(&mut self.writer)
                .await
                .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
            replay::without_archived(changes, &archived)?;
        }
        let mut applied = Applied::default();
        self.steps(changes, &mut applied).await?;
        sqlx::query(statements::NOTE)
            .bind(note.spool.0)
            .bind(note.through)
            .execute(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        Ok(applied)
    }

    pub(crate) async fn spooled(&mut self) -> Result<Option<(i64, i64)>, StoreError> {
        self.clean_up().await;
        sqlx::query_as(statements::SPOOLED)
            .fetch_optional(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    pub(crate) async fn end_open_sessions(&mut self) -> Result<(), StoreError> {
        self.clean_up().await;
        sqlx::query(statements::SESSIONS_LEFT_OPEN)
            .execute(&mut self.writer)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    pub(crate) async fn skip_ids(&mut self, sequence: i64) -> Result<(), StoreError> {
        self.clean_up().await;
        sqlx::query(statements::SKIP)
            .bind(sequence)
            .execute(&mut self.writer)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }
}
