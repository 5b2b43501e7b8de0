//! Looks into a file of `SQLite`, by connections that cannot write.
//!
//! A file that was replaced must not be answered from; whoever asks then opens the new one.

use super::{Found, LookupOptions, Question};
use crate::{StoreError, schema};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One statement, a line of the union for each way of [`Found`]; of each the newest row. The source's address and port,
/// the destination's, and the protocol are ?1 to ?5; ?6 is the newest row that may still make us wait.
///
/// The plus signs keep the planner from another index than the one meant.
const LOOK: &str = "\
    SELECT 0, * FROM (SELECT id, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE ip_saddr = ?1 AND sport = ?2 AND ip_daddr = ?3 AND dport = ?4 AND ip_protocol = ?5 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 1, * FROM (SELECT id, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE ip_saddr = ?1 AND sport = ?2 AND reply_daddr = ?1 AND reply_dport = ?2 \
      AND reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 2, * FROM (SELECT id, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE reply_daddr = ?1 AND reply_dport = ?2 AND (reply_daddr <> ip_saddr OR reply_dport <> sport) \
      AND reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 3, * FROM (SELECT id, oob_time_sec, oob_time_usec, NULL, NULL, gateway FROM sso \
      WHERE ip_saddr = ?1 AND sport = ?2 AND state = 1 AND ct_id IS NULL \
      AND +reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 AND +id <= ?6 \
      ORDER BY id DESC LIMIT 1) \
    UNION ALL \
    SELECT 4, * FROM (SELECT id, oob_time_sec, oob_time_usec, NULL, NULL, gateway FROM sso \
      WHERE state = 1 AND ct_id IS NULL \
      AND reply_saddr = ?3 AND reply_sport = ?4 AND ip_protocol = ?5 AND id <= ?6 \
      ORDER BY id DESC LIMIT 1)";

#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    pool: SqlitePool,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Sqlite {
    pub(super) async fn open(path: &Path, options: LookupOptions) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        let file = std::fs::File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::Missing(path.clone()),
            _ => StoreError::from_io(&path, &error),
        })?;
        let metadata = file
            .metadata()
            .map_err(|error| StoreError::from_io(&path, &error))?;
        let connect = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .pragma("query_only", "ON")
            .busy_timeout(crate::store::BUSY_TIMEOUT)
            .disable_statement_logging();
        let error = |source| StoreError::from_sqlx(&path, source);
        let pool = SqlitePoolOptions::new()
            .max_connections(options.connections)
            .min_connections(options.connections)
            .acquire_timeout(options.patience)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(connect)
            .await
            .map_err(error)?;
        let mut connection = pool.acquire().await.map_err(error)?;
        schema::expect_current(&mut *connection, &path).await?;
        drop(connection);
        Ok(Self {
            pool,
            path,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    pub(super) fn log(&self) -> &Path {
        &self.path
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn look(&self, question: &Question) -> Result<Vec<Found>, StoreError> {
        self.expect_file()?;
        let rows = sqlx::query(LOOK)
            .bind(question.src.to_string())
            .bind(question.sport)
            .bind(question.dst.to_string())
            .bind(question.dport)
            .bind(question.protocol)
            .bind(question.newest)
            .fetch_all(&self.pool)
            .await;
        rows.and_then(|rows| rows.iter().map(Found::read).collect())
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    fn expect_file(&self) -> Result<(), StoreError> {
        let found = std::fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            Ok(())
        } else {
            Err(StoreError::Missing(self.path.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

    #[tokio::test]
    async fn every_way_of_a_look_is_served_by_its_index() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        schema::bring_up_to_date(&mut connection, Path::new("memory"))
            .await
            .unwrap();
        let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {LOOK}")));
        let plan: Vec<String> = explained
            .fetch_all(&mut connection)
            .await
            .unwrap()
            .iter()
            .map(|row| row.get("detail"))
            .filter(|detail: &String| detail.contains("conntrack_ulog"))
            .collect();
        let expected = [
            "INDEX sso_source (ip_saddr=? AND <expr>=?)",
            "INDEX sso_source (ip_saddr=? AND <expr>=?)",
            "INDEX sso_translated (reply_daddr=? AND reply_dport=?)",
            "INDEX sso_source (ip_saddr=? AND <expr>=?)",
            "INDEX sso_unbound (reply_saddr=? AND reply_sport=? AND ip_protocol=? AND rowid<?)",
        ];
        assert_eq!(plan.len(), expected.len(), "{plan:#?}");
        for (found, expected) in plan.iter().zip(expected) {
            assert!(found.contains(expected), "{plan:#?}");
        }
    }
}
