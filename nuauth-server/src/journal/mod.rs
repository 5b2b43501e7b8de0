//! Makes the engine's changes durable: one task owns the log and commits whatever waits, as one transaction.
//!
//! It never decides what a row means, and never waits for company: while one group commits the next one gathers. Nothing
//! that was submitted is lost but DROP rows above a limit, which are counted, and urgent rows that failed, which are told.
//! While the database is away groups go to the spool ([`spooling`]), and what is there is as durable as in the database.

mod index;
mod lanes;
mod opening;
mod spooling;
mod stats;
mod task;
#[cfg(test)]
mod tests;
mod upkeep;

pub use nufw_common::waits::{WAIT_BUCKETS_MS, WaitHistogram};
pub use stats::{Durable, LogStats};

pub use index::SpooledRow;
pub use opening::{Known, Opened, empty_spool};
pub use spooling::{SpoolSettings, SpoolStatus};

use lanes::Lanes;
use nufw_common::clock;
use nufw_proto::{BootId, ConnId, EventSeq, Tuple};
use nulog::{ActiveRow, Change, IdBlock, Store, StoreError};
use spooling::Away;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use upkeep::Steps;
pub use upkeep::UpkeepError;

/// The bounds of the journal.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Changes in one transaction; what is beyond waits for the next one. It is also how long a packet waits behind the
    /// ends of others: the events of thousands of connections come at once, and 512 changes take about five milliseconds.
    pub rows_per_commit: usize,
    /// Updates that wait (ESTABLISHED, CLOSE, sessions, acknowledgements). Above it [`Journal::backpressure`] tells the
    /// gateways to stop reading events; what they have read already is still taken.
    pub updates: usize,
    /// DROP rows that wait; above it they are left out and counted into one row of `log_gap` for each gateway.
    pub drops: usize,
    /// Ids that are reserved at once; the next block is ordered when half of one is used.
    pub ids_per_block: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows_per_commit: 512,
            updates: 65_536,
            drops: 16_384,
            ids_per_block: 65_536,
        }
    }
}

/// One change to be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The change.
    pub change: Change,
    /// An OPEN whose verdict waits for it: when it cannot be committed it fails at once instead of being tried again.
    pub urgent: bool,
}

/// What the journal tells the engine.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// These are durable.
    Committed {
        /// Rows that were opened, urgent or not.
        opened: Vec<ConnId>,
        /// Events that need not be sent again.
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
    },
    /// These rows are not in the log: their packets must be dropped. Should a commit have reached the disk although it
    /// failed, the journal closes the row as `log-failed` itself.
    Failed {
        /// Urgent OPENs, and OPENs of any kind that can never be stored.
        opened: Vec<ConnId>,
        /// Why, for people.
        error: String,
    },
    /// Commits succeed again after a failure.
    Recovered,
    /// Ids to be used for new rows, after those of earlier blocks.
    Ids(IdBlock),
    /// What the log knew when the server started, where it could not be read then. Comes once.
    Loaded {
        /// Rows in state OPEN or ESTABLISHED, those of this run among them.
        rows: Vec<ActiveRow>,
        /// Gateway, its boot, its last durable event.
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
    },
}

/// How many changes wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    /// New rows of accepted packets.
    pub opens: usize,
    /// Changes of rows, sessions and acknowledgements.
    pub updates: usize,
    /// DROP rows.
    pub drops: usize,
    /// Counters of live rows.
    pub counts: usize,
}

impl Waiting {
    fn total(self) -> usize {
        self.opens + self.updates + self.drops
    }
}

/// The log was left before everything was in it.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The database failed for all the time that was given.
    #[error("{} changes could not be logged before the end: the database did not take them in time", .0.total())]
    Unwritten(Waiting),
    /// Everything is committed, but the database could not be closed in order.
    #[error("the log is complete, but could not be closed in order")]
    Close(#[from] StoreError),
    /// The task ended by itself.
    #[error("the journal's task had ended already")]
    Ended,
}

/// The handle of the journal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// What handles and task have in common.
struct Shared {
    lanes: Mutex<Lanes>,
    stats: Mutex<LogStats>,
    /// Steps of upkeep that wait for their turn.
    steps: Steps,
    /// Something was submitted, or the end was asked for.
    wake: Notify,
    closing: AtomicBool,
    /// Nothing is taken any more.
    closed: AtomicBool,
    pressure: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    /// Where rows go while the database is away.
    away: Option<Arc<Away>>,
}

impl Shared {
    fn new(lanes: Lanes, away: Option<Arc<Away>>) -> Self {
        Self {
            lanes: Mutex::new(lanes),
            stats: Mutex::new(LogStats::default()),
            steps: Steps::default(),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            pressure: watch::Sender::new(false),
            task: Mutex::new(None),
            away,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // Nothing panics while it holds the lock; if it did, the queues are still whole values.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, LogStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the gateways to stop or to go on, with room between the two so that it does not flicker.
    fn update_pressure(&self, updates: usize, limit: usize) {
        let pressed = *self.pressure.borrow();
        let next = if pressed {
            updates > limit / 2
        } else {
            updates > limit
        };
        if next != pressed {
            self.pressure.send_replace(next);
        }
    }
}

impl Journal {
    /// Starts the task that owns `store`. The first thing that it sends is a block of ids, before this returns.
    ///
    /// The channel has no bound of its own: there is at most one report for each thing submitted, and what is outstanding
    /// is bounded by the engine. With a bound the two could wait for each other.
    pub async fn start(
        mut store: Store,
        limits: Limits,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Self, StoreError> {
        let ids = store.reserve_ids(limits.ids_per_block).await?;
        let lanes = Lanes::new(limits, ids.middle());
        // The engine may have gone already; then it has no use for ids.
        let _ = reports.send(Report::Ids(ids));
        let task = task::Task::new(Some(store), Arc::new(Shared::new(lanes, None)), limits, reports);
        Ok(Self::run(task))
    }

    fn run(task: task::Task) -> Self {
        let shared = Arc::clone(task.shared());
        let task = tokio::spawn(task.run());
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Self { shared }
    }

    /// What the spool is doing; nothing where there is none.
    pub fn spool_status(&self) -> SpoolStatus {
        self.shared
            .away
            .as_ref()
            .map_or_else(SpoolStatus::default, |away| away.status())
    }

    /// The newest live row of a connection that is in the spool and may not be in the database yet. The tuple is of packets
    /// of the original direction, as the client's side or the service sees them.
    pub fn spooled_row(&self, tuple: &Tuple) -> Option<SpooledRow> {
        let away = self.shared.away.as_ref()?;
        away.index().find(tuple)
    }

    /// Takes changes to be made durable, in their order. Never blocks; the engine bounds how many OPENs are outstanding.
    pub fn submit(&self, changes: Vec<Entry>) {
        if self.shared.closed.load(Ordering::Acquire) {
            tracing::error!(
                changes = changes.len(),
                "changes came after the log was closed and are lost"
            );
            return;
        }
        let (updates, limit) = {
            let mut lanes = self.shared.lanes();
            lanes.at(clock::mono());
            for entry in changes {
                lanes.push(entry);
            }
            (lanes.waiting().updates, lanes.limits().updates)
        };
        self.shared.update_pressure(updates, limit);
        self.shared.wake.notify_one();
    }

    /// Whether gateways must stop reading events, since too many updates wait.
    pub fn backpressure(&self) -> watch::Receiver<bool> {
        self.shared.pressure.subscribe()
    }

    /// How much is not durable yet.
    pub fn waiting(&self) -> Waiting {
        self.shared.lanes().waiting()
    }

    /// What was done since the start, and what waits.
    pub fn stats(&self) -> LogStats {
        let mut stats = self.shared.stats().clone();
        let lanes = self.shared.lanes();
        stats.waiting = lanes.waiting();
        stats.drops_left_out = lanes.left_out_ever();
        stats
    }

    /// Commits everything, empties the write-ahead log and closes the database; gives up after `patience`. While the database
    /// is away everything is put into the spool, and stays there.
    ///
    /// What is submitted from now on is still taken as long as the task is at work, and lost after that: whoever calls
    /// this has stopped everything that submits.
    pub async fn drain(&self, patience: Duration) -> Result<(), DrainError> {
        let task = self
            .shared
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut task) = task else {
            return Err(DrainError::Ended);
        };
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        match tokio::time::timeout(patience, &mut task).await {
            Ok(Ok(closed)) => Ok(closed?),
            Ok(Err(_)) => Err(DrainError::Ended),
            Err(_) => {
                task.abort();
                Err(DrainError::Unwritten(self.waiting()))
            }
        }
    }
}
