//! Moves the write-ahead log into the database without standing in the way of a commit.
//!
//! A connection of its own does the bulk while commits go on. Since they append meanwhile, it never reaches the end; the
//! little that is left is done by the writer between two commits, after which the log starts again from its beginning.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Changed rows and commits, in estimated pages, after which a checkpoint is begun.
const PAGES_BETWEEN: u64 = 4096;
/// Pages that a commit costs besides its rows, estimated.
const PAGES_PER_COMMIT: u64 = 4;
/// Pages of the log above which somebody should look for the reader that holds it.
const PAGES_TO_WARN: i64 = 65_536;

#[derive(Default)]
struct Signal {
    begin: Notify,
    finished: AtomicBool,
}

/// The checkpointing task and what it is told.
pub(crate) struct Checkpointer {
    signal: Arc<Signal>,
    task: JoinHandle<()>,
    pages: u64,
    running: bool,
    warned: bool,
}

impl Checkpointer {
    pub(crate) fn start(mut connection: SqliteConnection) -> Self {
        let signal = Arc::new(Signal::default());
        let shared = Arc::clone(&signal);
        let task = tokio::spawn(async move {
            loop {
                shared.begin.notified().await;
                // What fails here fails for the writer too, which reports it.
                let _ = passive(&mut connection).await;
                shared.finished.store(true, Ordering::Release);
            }
        });
        Self {
            signal,
            task,
            pages: 0,
            running: false,
            warned: false,
        }
    }

    /// Counts a commit of `rows` changed rows, and begins a checkpoint when enough was written.
    pub(crate) fn committed(&mut self, rows: usize) {
        self.pages += PAGES_PER_COMMIT + u64::try_from(rows).unwrap_or(u64::MAX) / 2;
        if self.pages >= PAGES_BETWEEN && !self.running {
            self.pages = 0;
            self.running = true;
            self.signal.begin.notify_one();
        }
    }

    /// Whether the bulk of a checkpoint is done; says so once.
    pub(crate) fn take_finished(&mut self) -> bool {
        let finished = self.running && self.signal.finished.swap(false, Ordering::AcqRel);
        if finished {
            self.running = false;
        }
        finished
    }

    /// Does the rest on the writer's connection.
    pub(crate) async fn complete(&mut self, writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let (log, moved) = passive(writer).await?;
        let stuck = log > PAGES_TO_WARN && moved < log;
        if stuck && !self.warned {
            tracing::warn!(
                log_pages = log,
                moved_pages = moved,
                "the write-ahead log of the database cannot be emptied: a program has been reading the log for a long time"
            );
        }
        self.warned = stuck;
        Ok(())
    }

    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Moves what no reader needs, waiting for nobody; pages in the log, and pages moved so far.
async fn passive(connection: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(connection)
        .await?;
    Ok((row.try_get(1)?, row.try_get(2)?))
}
