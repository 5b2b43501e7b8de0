//! Dropping old rows and giving space back in a file of `SQLite`, on the connection that writes it.
//!
//! Each step is bounded, and drops only rows that it was given the ids of: what was not seen, or not exported, stays.

use super::Kept;
use crate::StoreError;
use crate::sqlite::Sqlite;
use crate::upkeep::{Pace, UpkeepDone};
use sqlx::AssertSqlSafe;

/// Most ids that one step is given.
pub const MOST_IDS: usize = 1024;

impl Sqlite {
    /// Drops the first of these rows, as many as fit a step, if they are over and older than `before`.
    pub(crate) async fn forget(
        &mut self,
        kept: Kept,
        before: i64,
        ids: &[i64],
    ) -> Result<UpkeepDone, StoreError> {
        let stride = Pace::begin();
        let rows = usize::try_from(self.pace.rows())
            .unwrap_or(usize::MAX)
            .min(MOST_IDS);
        let (now, later) = ids.split_at(rows.min(ids.len()));
        let (over, bound) = match kept {
            Kept::Archive => ("oob_time_sec < ?1", before),
            Kept::Sessions => (
                "end_reason IS NOT NULL AND coalesce(end_time, start_time) < ?1",
                before.saturating_mul(1_000_000),
            ),
            Kept::Gaps => ("to_timestamp < ?1", before.saturating_mul(1_000_000)),
        };
        let text = format!(
            "DELETE FROM {} WHERE {over} AND id IN (SELECT value FROM json_each(?2))",
            kept.table()
        );
        let list: Vec<_> = now.iter().map(i64::to_string).collect();
        self.begin().await?;
        let ran = sqlx::query(AssertSqlSafe(text))
            .bind(bound)
            .bind(format!("[{}]", list.join(",")))
            .execute(&mut self.writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(|source| StoreError::from_sqlx(&self.path, source));
        self.pace.learn(&stride, 0, now.len() as u64);
        let dropped = self.commit_after(ran).await?;
        self.checkpointer.committed(now.len());
        Ok(UpkeepDone {
            seen: now.len() as u64,
            moved: dropped,
            more: !later.is_empty(),
            ..UpkeepDone::default()
        })
    }

    /// Gives free pages at the file's end back to the system, as many as fit a step.
    pub(crate) async fn shrink(&mut self) -> Result<UpkeepDone, StoreError> {
        let error = |source| StoreError::from_sqlx(&self.path, source);
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut self.writer)
            .await
            .map_err(error)?;
        if free == 0 {
            return Ok(UpkeepDone::default());
        }
        let stride = Pace::begin();
        let pages = self.pace.rows();
        self.begin().await?;
        // A page a row: it must be read to its end.
        let ran = sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})")))
            .execute(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source));
        self.pace.learn(&stride, 0, pages.into());
        self.commit_after(ran).await?;
        let left: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let freed = free.saturating_sub(left).unsigned_abs();
        self.checkpointer
            .committed(usize::try_from(freed).unwrap_or(usize::MAX));
        Ok(UpkeepDone {
            moved: freed,
            // None went: the file was not made so that any can.
            more: left > 0 && freed > 0,
            ..UpkeepDone::default()
        })
    }
}
