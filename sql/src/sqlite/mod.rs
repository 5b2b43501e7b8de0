//! The log in a file of `SQLite`: opened once, locked, written by one connection.
//!
//! Every durable promise is kept here or in `write`; when to write what is the journal's business.

mod checkpoint;
mod replay;
mod statements;
mod write;

use crate::ids::IdBlock;
use crate::rows::{self, Acknowledged};
use crate::store::{BUSY_TIMEOUT, WAL_SIZE_LIMIT};
use crate::upkeep::{Pace, STEP_IN_FILE, Upkeep, UpkeepDone};
use crate::{ActiveRow, StoreError, schema};
use checkpoint::Checkpointer;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};
use statements::{Statement, Updates};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The end of the name of the only writer's lock.
pub(crate) const WRITER: &str = ".lock";
/// How long a server waits for that lock at its start, while a program that does upkeep in its absence gives way.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Kibibytes of pages that a connection keeps in memory. SQLite looks through all of them at every commit that balanced a tree
/// (it then takes pages beyond the end for cached), so that a large cache makes each commit slower; what it lacks is in the
/// system's page cache.
const CACHE_KIB: u32 = 8 * 1024;

/// The open log. There is one at a time for a database file, in all processes.
pub(crate) struct Sqlite {
    pub(crate) writer: SqliteConnection,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) path: PathBuf,
    in_transaction: bool,
    insert: Statement,
    live: Updates,
    archive: Updates,
    /// How large steps of upkeep may be.
    pub(crate) pace: Pace,
    server_number: u16,
    /// Device and inode of the file, which tell when it was replaced under us.
    identity: (u64, u64),
    /// Held for as long as the store lives; the kernel releases it with the descriptor, however the process ends.
    _lock: File,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.path)
            .field("server_number", &self.server_number)
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    pub(crate) async fn open(path: &Path, server_number: u16) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            return Err(StoreError::NoDirectory(directory.to_path_buf()));
        }
        let lock = lock_patiently(&path).await?;
        let identity = create(&path)?;
        let error = |source| StoreError::from_sqlx(&path, source);
        let options = options(&path);
        let mut writer = options.connect().await.map_err(error)?;
        schema::bring_up_to_date(&mut writer, &path).await?;
        claim(&mut writer, &path, server_number).await?;
        sqlx::query(statements::SESSIONS_LEFT_OPEN)
            .execute(&mut writer)
            .await
            .map_err(error)?;
        let checkpointer = Checkpointer::start(options.connect().await.map_err(error)?);
        Ok(Self::new(
            writer,
            checkpointer,
            path,
            server_number,
            identity,
            lock,
        ))
    }

    /// Opens a log that no server has open, for upkeep alone: what a server does at its start is left to it.
    pub(crate) async fn open_for_upkeep(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_path_buf();
        let lock = lock(&path, WRITER)?;
        let options = options(&path).create_if_missing(false);
        let error = |source| StoreError::from_sqlx(&path, source);
        let identity = std::fs::metadata(&path)
            .map(|metadata| (metadata.dev(), metadata.ino()))
            .map_err(|_| StoreError::Missing(path.clone()))?;
        let mut writer = options.connect().await.map_err(error)?;
        schema::expect_current(&mut writer, &path).await?;
        let checkpointer = Checkpointer::start(options.connect().await.map_err(error)?);
        // No id is given out, so no number is needed.
        Ok(Self::new(writer, checkpointer, path, 0, identity, lock))
    }

    fn new(
        writer: SqliteConnection,
        checkpointer: Checkpointer,
        path: PathBuf,
        server_number: u16,
        identity: (u64, u64),
        lock: File,
    ) -> Self {
        Self {
            writer,
            checkpointer,
            path,
            in_transaction: false,
            insert: statements::insert(),
            live: Updates::new("conntrack_ulog"),
            archive: Updates::new("ulog"),
            pace: Pace::new(STEP_IN_FILE),
            server_number,
            identity,
            _lock: lock,
        }
    }

    /// The database file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reserves `count` ids. They are durably taken before this returns: whatever happens, nobody gets them again.
    pub(crate) async fn reserve_ids(&mut self, count: u32) -> Result<IdBlock, StoreError> {
        self.clean_up().await;
        self.expect_file()?;
        // A transaction of its own: RETURNING gives its row before the commit, and the driver loses the error of a commit
        // that it makes by ending the statement early.
        self.begin().await?;
        let first = sqlx::query_scalar(statements::RESERVE)
            .bind(i64::from(count))
            .fetch_one(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source));
        let first: i64 = self.commit_after(first).await?;
        IdBlock::new(self.server_number, first, count)
    }

    /// Does what keeps the log healthy and may wait until nobody waits for a commit: the end of a checkpoint. Cheap when
    /// there is nothing to do.
    pub(crate) async fn tend(&mut self) -> Result<(), StoreError> {
        if !self.checkpointer.take_finished() {
            return Ok(());
        }
        self.checkpointer
            .complete(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    /// Does one step of upkeep, in a transaction of its own.
    pub(crate) async fn upkeep(&mut self, step: &Upkeep) -> Result<UpkeepDone, StoreError> {
        self.clean_up().await;
        self.expect_file()?;
        match step {
            Upkeep::MoveDead { after, before, dry } => self.move_dead(*after, *before, *dry).await,
            Upkeep::CloseLost {
                after,
                before,
                spare,
                dry,
            } => self.close_lost(*after, *before, spare, *dry).await,
            Upkeep::Forget { kept, before, ids } => self.forget(*kept, *before, ids).await,
            Upkeep::Shrink => self.shrink().await,
        }
    }

    /// Moves everything from the write-ahead log into the database and closes it.
    pub(crate) async fn close(mut self) -> Result<(), StoreError> {
        self.clean_up().await;
        self.checkpointer.stop().await;
        let done = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&mut self.writer)
            .await;
        let closed = self.writer.close().await;
        done.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        closed.map_err(|source| StoreError::from_sqlx(&self.path, source))
    }

    pub(crate) async fn active_rows(&mut self) -> Result<Vec<ActiveRow>, StoreError> {
        self.clean_up().await;
        let rows = sqlx::query_as(statements::ACTIVE)
            .fetch_all(&mut self.writer)
            .await;
        let rows = rows.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        rows::active(rows, &self.path)
    }

    pub(crate) async fn acknowledged(&mut self) -> Result<Acknowledged, StoreError> {
        self.clean_up().await;
        let rows = sqlx::query_as(rows::ACKNOWLEDGED)
            .fetch_all(&mut self.writer)
            .await;
        let rows = rows.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        rows::acknowledged(rows, &self.path)
    }

    /// Refuses to write to a file that has no name any more, or whose name is another file's: all of it would be lost.
    pub(crate) fn expect_file(&self) -> Result<(), StoreError> {
        let found = std::fs::metadata(&self.path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()));
        if found == Some(self.identity) {
            Ok(())
        } else {
            Err(StoreError::Gone(self.path.clone()))
        }
    }

    /// Begins a transaction, to be ended by [`Self::commit_after`]. The driver's own transactions are of no use here: it
    /// believes in one for ever that `SQLite` has rolled back by itself, as it does when the disk is full.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        self.clean_up().await;
        self.in_transaction = true;
        // IMMEDIATE: a transaction that reads before it writes fails at once when another program writes meanwhile,
        // whatever the busy timeout.
        let begun = sqlx::query("BEGIN IMMEDIATE").execute(&mut self.writer).await;
        if let Err(source) = begun {
            self.in_transaction = false;
            return Err(StoreError::from_sqlx(&self.path, source));
        }
        Ok(())
    }

    /// Commits if `result` is good, and takes everything back otherwise.
    pub(crate) async fn commit_after<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let result = match result {
            Ok(value) => {
                let committed = sqlx::query("COMMIT").execute(&mut self.writer).await;
                committed
                    .map(|_| value)
                    .map_err(|source| StoreError::from_sqlx(&self.path, source))
            }
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.in_transaction = false;
        } else {
            self.clean_up().await;
        }
        result
    }

    /// Ends a transaction that an error or a dropped future left behind.
    pub(crate) async fn clean_up(&mut self) {
        if self.in_transaction {
            // SQLite has ended it itself after some errors; then this fails, as it should.
            let _ = sqlx::query("ROLLBACK").execute(&mut self.writer).await;
            self.in_transaction = false;
        }
    }
}

/// Brings the schema of a file up to date that no server uses.
pub(crate) async fn migrate(path: &Path) -> Result<schema::Migrated, StoreError> {
    let _lock = lock(path, WRITER)?;
    create(path)?;
    let error = |source| StoreError::from_sqlx(path, source);
    let mut writer = options(path).connect().await.map_err(error)?;
    let migrated = schema::bring_up_to_date(&mut writer, path).await;
    writer.close().await.map_err(error)?;
    migrated
}

/// The settings of both connections of the server. Checkpoints are made by a connection of their own, so that none ever runs
/// inside a commit.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // Takes effect in a new file alone: what is dropped later gives its space back in small steps.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", WAL_SIZE_LIMIT.to_string())
        .pragma("cache_size", format!("-{CACHE_KIB}"))
        // A confined server can make no temporary file; every statement is bounded.
        .pragma("temp_store", "memory")
        .thread_name(|id| format!("nulog-{id}"))
        .disable_statement_logging()
}

/// Takes the lock of the only writer, which a program that cleans gives back every moment.
async fn lock_patiently(path: &Path) -> Result<File, StoreError> {
    let mut waited = Duration::ZERO;
    loop {
        match lock(path, WRITER) {
            Err(StoreError::InUse { .. }) if waited < LOCK_PATIENCE => {
                tokio::time::sleep(LOCK_RETRY).await;
                waited += LOCK_RETRY;
            }
            result => return result,
        }
    }
}

/// Takes a lock beside the file, [`WRITER`] for the one that makes this process the only writer, and writes its number into it.
pub(crate) fn lock(path: &Path, suffix: &str) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    let name = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(&name)
        .map_err(|error| StoreError::from_io(&name, &error))?;
    if let Err(error) = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(StoreError::from_io(&name, &error.into()));
        }
        let mut text = String::new();
        let pid = file
            .read_to_string(&mut text)
            .ok()
            .and_then(|_| text.trim().parse().ok());
        return Err(StoreError::InUse { lock: name, pid });
    }
    // Who holds it is a help for people only: a full disk must not hide the better message that follows.
    let _ = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Makes sure that the file exists and can be written, and tells its device and inode.
pub(crate) fn create(path: &Path) -> Result<(u64, u64), StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
        .and_then(|file| file.metadata())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .map_err(|error| StoreError::from_io(path, &error))
}

/// Writes the server's number into a new log, and refuses one that belongs to another server.
async fn claim(writer: &mut SqliteConnection, path: &Path, server_number: u16) -> Result<(), StoreError> {
    let error = |source| StoreError::from_sqlx(path, source);
    sqlx::query(
        "INSERT INTO meta (one, server_number, next_sequence) VALUES (1, ?1, 1) ON CONFLICT (one) DO NOTHING",
    )
    .bind(i64::from(server_number))
    .execute(&mut *writer)
    .await
    .map_err(error)?;
    let found: i64 = sqlx::query_scalar("SELECT server_number FROM meta WHERE one = 1")
        .fetch_one(writer)
        .await
        .map_err(error)?;
    if found == i64::from(server_number) {
        Ok(())
    } else {
        Err(StoreError::OtherServer {
            path: path.to_path_buf(),
            found,
            configured: server_number,
        })
    }
}
