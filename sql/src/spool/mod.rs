//! Where changes wait, durably, while the log's database is away: an `SQLite` file of this server's own.
//!
//! Keeps groups of changes in the order they came, and ids for a time without the database. When to use it, and that nothing
//! leaves it before it is in the database, is the journal's business.

mod ids;
mod record;
#[cfg(test)]
mod tests;

use crate::StoreError;
use crate::Work;
use crate::change::{Change, GapRow};
use crate::sqlite::{WRITER, create, lock};
use crate::store::BUSY_TIMEOUT;
use nufw_proto::Timestamp;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The form of the file and of what is in it; another form of [`Change`] needs another number.
const FORMAT: i64 = 5;
/// What a group costs in the file beside its changes, estimated.
const RECORD_BYTES: u64 = 64;
/// The word in `log_gap` for the time in which rows went to the spool.
const SPOOLED: &str = "spooled";

const TABLES: &str = "\
    CREATE TABLE IF NOT EXISTS spool ( \
        position INTEGER PRIMARY KEY AUTOINCREMENT, \
        rows     INTEGER NOT NULL, \
        at       INTEGER NOT NULL, \
        changes  BLOB    NOT NULL); \
    CREATE TABLE IF NOT EXISTS meta ( \
        one           INTEGER PRIMARY KEY CHECK (one = 1), \
        format        INTEGER NOT NULL, \
        server_number INTEGER NOT NULL, \
        name          INTEGER NOT NULL, \
        next_id       INTEGER NOT NULL DEFAULT 0, \
        end_id        INTEGER NOT NULL DEFAULT 0, \
        since         INTEGER, \
        counted       INTEGER NOT NULL DEFAULT 0)";

/// Which spool it is: a number that a new file draws by lot, so that positions of another one mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolName(pub(crate) i64);

/// A group of changes that belong in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolRecord {
    /// Its place in the order; a place is never used again.
    pub position: i64,
    /// What is to be done.
    pub changes: Vec<Change>,
}

/// What lies in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Changes.
    pub rows: u64,
    /// Bytes that count for the limit.
    pub bytes: u64,
    /// When the oldest group came.
    pub oldest: Option<Timestamp>,
}

/// The open spool. There is one at a time for a file, in all processes.
pub struct Spool {
    connection: SqliteConnection,
    path: PathBuf,
    limit: u64,
    name: SpoolName,
    in_transaction: bool,
    held: Held,
    /// The last group's position; 0 if there was none yet.
    last: i64,
    /// Up to where everything is in the database.
    drained: i64,
    /// Whether a time on the spool has begun that `log_gap` has not been told of.
    begun: bool,
    identity: (u64, u64),
    _lock: File,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.path)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the spool of server `number`, and makes it if there is none. `limit` is how many bytes it may hold.
    pub fn open(path: &Path, number: u16, limit: u64) -> Work<'_, Result<Self, StoreError>> {
        Box::pin(async move {
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            if !directory.is_dir() {
                return Err(StoreError::NoDirectory(directory.to_path_buf()));
            }
            let lock = lock(path, WRITER)?;
            let identity = create(path)?;
            let error = |source| StoreError::from_sqlx(path, source);
            let mut connection = SqliteConnectOptions::new()
                .filename(path)
                .auto_vacuum(SqliteAutoVacuum::Incremental)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                // A confined server can make no temporary file.
                .pragma("temp_store", "memory")
                .thread_name(|id| format!("nulog-spool-{id}"))
                .disable_statement_logging()
                .connect()
                .await
                .map_err(error)?;
            sqlx::raw_sql(TABLES)
                .execute(&mut connection)
                .await
                .map_err(error)?;
            sqlx::query(
            "INSERT INTO meta (one, format, server_number, name) VALUES (1, ?1, ?2, random()) ON CONFLICT (one) DO NOTHING",
        )
        .bind(FORMAT)
        .bind(i64::from(number))
        .execute(&mut connection)
        .await
        .map_err(error)?;
            let (format, found, name): (i64, i64, i64) =
                sqlx::query_as("SELECT format, server_number, name FROM meta")
                    .fetch_one(&mut connection)
                    .await
                    .map_err(error)?;
            if format != FORMAT {
                return Err(StoreError::SpoolFormat {
                    path: path.to_path_buf(),
                    found: format,
                    known: FORMAT,
                });
            }
            if found != i64::from(number) {
                return Err(StoreError::OtherServer {
                    path: path.to_path_buf(),
                    found,
                    configured: number,
                });
            }
            let mut spool = Self {
                connection,
                path: path.to_path_buf(),
                limit,
                name: SpoolName(name),
                in_transaction: false,
                held: Held::default(),
                last: 0,
                drained: 0,
                begun: false,
                identity,
                _lock: lock,
            };
            spool.look().await?;
            Ok(spool)
        })
    }

    /// Which spool it is.
    pub fn name(&self) -> SpoolName {
        self.name
    }

    /// What lies in it and is not known to be in the database.
    pub fn held(&self) -> Held {
        self.held
    }

    /// The position of the last group that was ever put in.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Whether everything that was put in is in the database, the note of the time on the spool included.
    pub fn is_done(&self) -> bool {
        !self.in_transaction && self.drained >= self.last && !self.begun
    }

    /// Whether more than `part` of `whole` of the room is taken.
    pub fn is_fuller_than(&self, part: u64, whole: u64) -> bool {
        self.held.bytes.saturating_mul(whole) > self.limit.saturating_mul(part)
    }

    /// Puts a group behind the others. When this returns it is on the disk; after an error it is not in the spool, unless
    /// the error came from the disk itself: then it may be.
    pub fn append<'a>(
        &'a mut self,
        changes: &'a [Change],
        now: Timestamp,
    ) -> Work<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let rows = changes
                .iter()
                .filter(|change| matches!(change, Change::Open(_) | Change::Drop(_)))
                .count();
            self.insert(changes, now, rows).await
        })
    }

    async fn insert(&mut self, changes: &[Change], now: Timestamp, counted: usize) -> Result<(), StoreError> {
        let bytes = record::encode(changes).map_err(|message| self.corrupt(message))?;
        let weight = RECORD_BYTES + bytes.len() as u64;
        if self.held.bytes + weight > self.limit {
            return Err(StoreError::SpoolFull {
                path: self.path.clone(),
                limit: self.limit,
            });
        }
        self.begin().await?;
        let inserted = self.insert_group(&bytes, changes.len(), now, counted).await;
        self.last = self.commit_after(inserted).await?;
        self.begun = true;
        self.held.rows += changes.len() as u64;
        self.held.bytes += weight;
        self.held.oldest = self.held.oldest.or(Some(now));
        Ok(())
    }

    /// With it goes what is in the database already: that costs no sync of its own.
    async fn insert_group(
        &mut self,
        bytes: &[u8],
        rows: usize,
        now: Timestamp,
        counted: usize,
    ) -> Result<i64, StoreError> {
        self.delete().await?;
        let error = |source| StoreError::from_sqlx(&self.path, source);
        sqlx::query("UPDATE meta SET since = coalesce(since, ?1), counted = counted + ?2")
            .bind(now.micros())
            .bind(i64::try_from(counted).unwrap_or(i64::MAX))
            .execute(&mut self.connection)
            .await
            .map_err(error)?;
        sqlx::query("INSERT INTO spool (rows, at, changes) VALUES (?1, ?2, ?3)")
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .bind(now.micros())
            .bind(bytes)
            .execute(&mut self.connection)
            .await
            .map(|done| done.last_insert_rowid())
            .map_err(error)
    }

    /// Puts in, as the last group, the row of `log_gap` that says from when to when rows came here and how many. Nothing
    /// when none came since the last one.
    pub fn conclude(&mut self, now: Timestamp) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if !self.begun {
                return Ok(());
            }
            self.clean_up().await?;
            let (since, counted): (Option<i64>, i64) = sqlx::query_as("SELECT since, counted FROM meta")
                .fetch_one(&mut self.connection)
                .await
                .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
            let Some(since) = since else {
                self.begun = false;
                return Ok(());
            };
            let from = Timestamp::from_micros(since);
            let gap = [Change::Gap(Box::new(GapRow {
                gateway: None,
                from,
                to: now.max(from),
                cause: Arc::from(SPOOLED),
                count: u64::try_from(counted).ok(),
            }))];
            let bytes = record::encode(&gap).map_err(|message| self.corrupt(message))?;
            self.begin().await?;
            let mut inserted = self.insert_group(&bytes, 1, now, 0).await;
            if inserted.is_ok() {
                let ended = sqlx::query("UPDATE meta SET since = NULL, counted = 0")
                    .execute(&mut self.connection)
                    .await
                    .map_err(|source| StoreError::from_sqlx(&self.path, source));
                inserted = inserted.and_then(|position| ended.map(|_| position));
            }
            self.last = self.commit_after(inserted).await?;
            self.begun = false;
            self.held.rows += 1;
            self.held.bytes += RECORD_BYTES + bytes.len() as u64;
            self.held.oldest = self.held.oldest.or(Some(now));
            Ok(())
        })
    }

    /// The oldest groups that are not in the database, in their order: as many as fit in `most` changes, and at least one if
    /// there is any.
    pub fn read(&mut self, most: usize) -> Work<'_, Result<Vec<SpoolRecord>, StoreError>> {
        Box::pin(async move { self.read_after(self.drained, most).await })
    }

    /// The same of those after a position.
    pub fn read_after(
        &mut self,
        position: i64,
        most: usize,
    ) -> Work<'_, Result<Vec<SpoolRecord>, StoreError>> {
        Box::pin(async move {
            self.clean_up().await?;
            let error = |source| StoreError::from_sqlx(&self.path, source);
            let upto: Option<i64> = sqlx::query_scalar(
                "SELECT max(position) FROM (SELECT position, sum(rows) OVER (ORDER BY position) AS so_far, \
             row_number() OVER (ORDER BY position) AS number \
             FROM (SELECT position, rows FROM spool WHERE position > ?1 ORDER BY position LIMIT ?2)) \
             WHERE so_far <= ?2 OR number = 1",
            )
            .bind(position)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_one(&mut self.connection)
            .await
            .map_err(error)?;
            let Some(upto) = upto else {
                return Ok(Vec::new());
            };
            let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT position, changes FROM spool WHERE position > ?1 AND position <= ?2 ORDER BY position",
        )
        .bind(position)
        .bind(upto)
        .fetch_all(&mut self.connection)
        .await
        .map_err(error)?;
            rows.into_iter()
                .map(|(position, bytes)| {
                    let changes = record::decode(&bytes)
                        .map_err(|message| self.corrupt(format!("group {position}: {message}")))?;
                    Ok(SpoolRecord { position, changes })
                })
                .collect()
        })
    }

    /// Everything up to this position is in the database. What that frees is used again with the next group; a crash before
    /// that forgets it, and the database tells it anew.
    pub fn forget(&mut self, through: i64) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.clean_up().await?;
            if through <= self.drained {
                return Ok(());
            }
            let gone = self.weigh(self.drained, through).await?;
            let oldest: Option<i64> =
                sqlx::query_scalar("SELECT at FROM spool WHERE position > ?1 ORDER BY position LIMIT 1")
                    .bind(through)
                    .fetch_optional(&mut self.connection)
                    .await
                    .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
            self.drained = through;
            self.held.rows = self.held.rows.saturating_sub(gone.rows);
            self.held.bytes = self.held.bytes.saturating_sub(gone.bytes);
            self.held.oldest = oldest.map(Timestamp::from_micros);
            Ok(())
        })
    }

    /// Frees the file of what is in the database.
    pub fn sweep(&mut self) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.begin().await?;
            let deleted = self.delete().await;
            self.commit_after(deleted).await?;
            if self.last > self.drained {
                return Ok(());
            }
            let error = |source| StoreError::from_sqlx(&self.path, source);
            for pragma in ["PRAGMA incremental_vacuum", "PRAGMA wal_checkpoint(TRUNCATE)"] {
                sqlx::query(pragma)
                    .fetch_all(&mut self.connection)
                    .await
                    .map_err(error)?;
            }
            Ok(())
        })
    }

    async fn delete(&mut self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM spool WHERE position <= ?1")
            .bind(self.drained)
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    /// Reads from the file what is kept in memory of it.
    async fn look(&mut self) -> Result<(), StoreError> {
        let error = |source| StoreError::from_sqlx(&self.path, source);
        let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'spool'")
            .fetch_optional(&mut self.connection)
            .await
            .map_err(error)?;
        let begun = sqlx::query_scalar("SELECT since IS NOT NULL FROM meta")
            .fetch_one(&mut self.connection)
            .await
            .map_err(error)?;
        self.held = self.weigh(self.drained, i64::MAX).await?;
        self.last = last.unwrap_or(0);
        self.begun = begun;
        Ok(())
    }

    async fn weigh(&mut self, after: i64, through: i64) -> Result<Held, StoreError> {
        let (groups, rows, bytes, oldest): (i64, i64, i64, Option<i64>) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(length(changes)), 0), min(at) FROM spool \
             WHERE position > ?1 AND position <= ?2",
        )
        .bind(after)
        .bind(through)
        .fetch_one(&mut self.connection)
        .await
        .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Held {
            rows: unsigned(rows),
            bytes: unsigned(bytes) + unsigned(groups) * RECORD_BYTES,
            oldest: oldest.map(Timestamp::from_micros),
        })
    }

    /// Closes the file in order.
    pub fn close(self) -> Work<'static, Result<(), StoreError>> {
        Box::pin(async move {
            self.connection
                .close()
                .await
                .map_err(|source| StoreError::from_sqlx(&self.path, source))
        })
    }

    fn corrupt(&self, message: String) -> StoreError {
        StoreError::Corrupt {
            path: self.path.clone(),
            message,
        }
    }

    /// What goes into a file without a name is lost with the process.
    async fn begin(&mut self) -> Result<(), StoreError> {
        self.clean_up().await?;
        let found = std::fs::metadata(&self.path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()));
        if found != Some(self.identity) {
            return Err(StoreError::Gone(self.path.clone()));
        }
        self.in_transaction = true;
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await;
        if let Err(source) = begun {
            self.in_transaction = false;
            return Err(StoreError::from_sqlx(&self.path, source));
        }
        Ok(())
    }

    async fn commit_after<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let result = match result {
            Ok(value) => {
                let committed = sqlx::query("COMMIT").execute(&mut self.connection).await;
                committed
                    .map(|_| value)
                    .map_err(|source| StoreError::from_sqlx(&self.path, source))
            }
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.in_transaction = false;
        } else {
            // What cannot be looked at now is looked at before the file is used again.
            let _ = self.clean_up().await;
        }
        result
    }

    /// Ends a transaction that an error or a dropped future left behind, and looks what became of it.
    async fn clean_up(&mut self) -> Result<(), StoreError> {
        if self.in_transaction {
            // SQLite has ended it itself after some errors; then this fails, as it should.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
            self.look().await?;
            self.in_transaction = false;
        }
        Ok(())
    }
}
