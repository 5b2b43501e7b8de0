//! Ids that are kept in the spool, for a time without the database.
//!
//! They were reserved there before; what is taken out here is durably taken.

use super::Spool;
use crate::StoreError;
use crate::Work;
use crate::ids::IdBlock;

impl Spool {
    /// How many ids are kept for a time without the database.
    pub fn ids_left(&mut self) -> Work<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let (next, end) = self.ids().await?;
            Ok(IdBlock::again(next, end).remaining())
        })
    }

    /// The id after the last that was ever kept here.
    pub fn ids_end(&mut self) -> Work<'_, Result<i64, StoreError>> {
        Box::pin(async move { Ok(self.ids().await?.1) })
    }

    async fn ids(&mut self) -> Result<(i64, i64), StoreError> {
        self.clean_up().await?;
        sqlx::query_as("SELECT next_id, end_id FROM meta")
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    /// Keeps a block that was reserved in the database; what was left of the one before is given up.
    pub fn keep_ids<'a>(&'a mut self, block: &'a IdBlock) -> Work<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (next, end) = block.bounds();
            self.begin().await?;
            let kept = self.set_ids(next, end).await;
            self.commit_after(kept).await
        })
    }

    /// Takes at most `count` of the ids that are kept; they are durably taken before this returns.
    pub fn take_ids(&mut self, count: u32) -> Work<'_, Result<Option<IdBlock>, StoreError>> {
        Box::pin(async move {
            let (next, end) = self.ids().await?;
            let middle = next.saturating_add(i64::from(count)).min(end);
            if middle <= next {
                return Ok(None);
            }
            self.begin().await?;
            let taken = self.set_ids(middle, end).await;
            self.commit_after(taken).await?;
            Ok(Some(IdBlock::again(next, middle)))
        })
    }

    async fn set_ids(&mut self, next: i64, end: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE meta SET next_id = ?1, end_id = ?2")
            .bind(next)
            .bind(end)
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }
}
