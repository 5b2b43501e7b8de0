//! The archive in a file of `SQLite`: what is old is found by whoever asks, and dropped by whoever writes.
//!
//! This reads only, on a connection of its own, a bounded number of rows at a time.

use super::columns::{self, Dialect, Kept, Record};
use super::{Part, PartKind, Period, Span, Unit};
use crate::StoreError;
use crate::read::open_file;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use std::path::{Path, PathBuf};

/// Seconds that are counted at a time.
const COUNTED: i64 = 3_600;
/// Days of which a list tells; further ones are left out.
const MOST_PARTS: usize = 10_000;

/// The file, opened for reading.
pub(super) struct File {
    connection: SqliteConnection,
    path: PathBuf,
}

impl File {
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = open_file(path).await?;
        Ok(Self {
            connection,
            path: path.to_path_buf(),
        })
    }

    fn error(&self, source: sqlx::Error) -> StoreError {
        StoreError::from_sqlx(&self.path, source)
    }

    /// The days or months of the archive, counted.
    pub(super) async fn parts(&mut self, unit: Unit) -> Result<Vec<Part>, StoreError> {
        let mut parts = Vec::new();
        let mut from = i64::MIN;
        while parts.len() < MOST_PARTS {
            let first: Option<i64> =
                sqlx::query_scalar("SELECT min(oob_time_sec) FROM ulog WHERE oob_time_sec >= ?1")
                    .bind(from)
                    .fetch_one(&mut self.connection)
                    .await
                    .map_err(|source| self.error(source))?;
            let Some(period) = first.and_then(|first| Period::of(unit, first)) else {
                break;
            };
            parts.push(Part {
                name: period.name(),
                kind: PartKind::Rows,
                span: Span {
                    from: Some(period.from),
                    to: Some(period.to),
                },
                rows: self.count(period).await?,
                exact: true,
                bytes: None,
            });
            from = period.to;
        }
        Ok(parts)
    }

    /// An hour at a time, so that no read lasts long: the file of changes could not be emptied meanwhile.
    async fn count(&mut self, period: Period) -> Result<u64, StoreError> {
        let (mut rows, mut from) = (0, period.from);
        while from < period.to {
            let to = period.to.min(from.saturating_add(COUNTED));
            let count: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM ulog WHERE oob_time_sec >= ?1 AND oob_time_sec < ?2",
            )
            .bind(from)
            .bind(to)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
            rows += count.unsigned_abs();
            from = to;
        }
        Ok(rows)
    }

    pub(super) async fn expired(
        &mut self,
        kept: Kept,
        before: i64,
        after: Option<&Record>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let id = after.and_then(Record::id).unwrap_or(i64::MIN);
        let micros = before.saturating_mul(1_000_000);
        let columns = columns::as_text(kept, Dialect::Sqlite);
        let (condition, order, bound) = match kept {
            Kept::Archive => (
                "t.oob_time_sec < ?1 AND (t.oob_time_sec, t.oob_time_usec, t.id) > (?4, ?5, ?2)",
                "t.oob_time_sec, t.oob_time_usec, t.id",
                before,
            ),
            Kept::Sessions => (
                "t.end_reason IS NOT NULL AND coalesce(t.end_time, t.start_time) < ?1 AND t.id > ?2",
                "t.id",
                micros,
            ),
            Kept::Gaps => ("t.to_timestamp < ?1 AND t.id > ?2", "t.id", micros),
        };
        let at = after.and_then(Record::at).unwrap_or((i64::MIN, 0));
        let table = kept.table();
        let text = format!("SELECT {columns} FROM {table} AS t WHERE {condition} ORDER BY {order} LIMIT ?3");
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(bound)
            .bind(id)
            .bind(limit)
            .bind(at.0)
            .bind(at.1)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        columns::records(&rows, |source| StoreError::from_sqlx(&self.path, source))
    }

    /// Whether the file was made so that it can give pages back.
    pub(super) async fn shrinks(&mut self) -> Result<bool, StoreError> {
        let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum")
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        Ok(mode != 0)
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        let path = self.path;
        self.connection
            .close()
            .await
            .map_err(|source| StoreError::from_sqlx(&path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However large the archive is, what is old is found by its time.
    #[tokio::test]
    async fn old_rows_are_found_without_reading_the_others() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::schema::bring_up_to_date(&mut connection, Path::new("memory"))
            .await
            .unwrap();
        let text = "EXPLAIN QUERY PLAN SELECT id FROM ulog AS t WHERE t.oob_time_sec < 9 AND (t.oob_time_sec, t.oob_time_usec, t.id) > (1, 2, 3) \
             ORDER BY t.oob_time_sec, t.oob_time_usec, t.id LIMIT 5";
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(text).fetch_all(&mut connection).await.unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].3.contains("INDEX ulog_time"), "{plan:?}");
    }
}
