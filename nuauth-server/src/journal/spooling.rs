//! The time without the database: rows go to the spool, and a task of its own brings them to the database when it is back.
//!
//! The journal's task alone puts in, the drainer alone takes out; both look at the file under one lock. The store goes to the
//! drainer with the first row that is spooled and comes back when nothing is left in the spool: until then every row goes
//! behind those that wait, so that none is overtaken.
//!
//! A server that starts without the database, or with a spool that is not empty, works like that from its first moment: it
//! takes ids from those that were reserved in good time, and answers. Which rows were live is not known before the spool of
//! the run before is in the database; then they are read and [reported](Report::Loaded). The engine takes no events until
//! then, so that none is taken for another connection's.

use super::index::SpoolIndex;
use super::{Report, Shared};
use nufw_common::backoff::Backoff;
use nufw_common::clock;
use nufw_proto::Timestamp;
use nulog::{Change, Location, Spool, Store, StoreError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Changes that go to the database in one transaction when the spool is drained: nobody waits for them.
const CHANGES_PER_REPLAY: usize = 2048;
/// How long the spool's disk may take; after that what is urgent fails.
pub(super) const SPOOL_PATIENCE: Duration = Duration::from_secs(5);
/// How long opening the log may take altogether.
pub(super) const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// Ids kept for a time without the database: at twenty thousand connections a second they last for half a day.
pub(super) const IDS_KEPT: u32 = 1 << 30;
/// The first wait after a failure to reach the database.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait between two attempts: so much later the spool is drained at most.
const LAST_RETRY: Duration = Duration::from_secs(2);
/// That the database is still away is said again after so many attempts.
const ATTEMPTS_BETWEEN_WARNINGS: u32 = 150;

/// What the configuration says of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Its file.
    pub path: PathBuf,
    /// Bytes that it may hold. At the limit what is urgent fails; DROP rows are left out from three quarters of it on.
    pub limit: u64,
    /// A commit that was not answered after so long goes to the spool.
    pub stall_after: Duration,
}

/// What the spool is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// New rows go to it.
    pub active: bool,
    /// Changes that are in it and not known to be in the database.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest of them was put in.
    pub oldest: Option<Timestamp>,
    /// The database takes rows of it.
    pub draining: bool,
}

/// What journal and drainer share.
pub(super) struct Away {
    pub(super) ground: tokio::sync::Mutex<Ground>,
    /// The drainer has come further, or given the store back.
    pub(super) progress: Notify,
    pub(super) stall_after: Duration,
    status: Mutex<SpoolStatus>,
    index: Mutex<SpoolIndex>,
}

/// What only one of them may touch at a time.
pub(super) struct Ground {
    pub(super) spool: Spool,
    /// The store, when the drainer is done with it.
    pub(super) store: Option<Store>,
    /// The drainer has the last rows in hand: it pays to wait for it.
    pub(super) nearly_done: bool,
}

impl Away {
    pub(super) fn new(spool: Spool, stall_after: Duration) -> Self {
        Self {
            ground: tokio::sync::Mutex::new(Ground {
                spool,
                store: None,
                nearly_done: false,
            }),
            progress: Notify::new(),
            stall_after,
            status: Mutex::new(SpoolStatus::default()),
            index: Mutex::new(SpoolIndex::default()),
        }
    }

    pub(super) fn status(&self) -> SpoolStatus {
        *self.lock_status()
    }

    fn lock_status(&self) -> MutexGuard<'_, SpoolStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, SpoolIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, spool: &Spool) {
        let held = spool.held();
        let mut status = self.lock_status();
        status.rows = held.rows;
        status.bytes = held.bytes;
        status.oldest = held.oldest;
    }

    pub(super) fn set_active(&self, active: bool) {
        let mut status = self.lock_status();
        status.active = active;
        status.draining &= active;
    }

    fn set_draining(&self, draining: bool) {
        self.lock_status().draining = draining;
    }
}

/// Brings what is in the spool to the database.
pub(super) struct Drainer {
    pub(super) away: Arc<Away>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    /// The store; `None` until it could be opened for the first time.
    pub(super) store: Option<Store>,
    pub(super) location: Option<(Location, u16)>,
    /// The engine does not know yet what was live: it is read when the spool is in the database up to here, where the run
    /// before ended.
    pub(super) load_after: Option<i64>,
}

impl Drainer {
    /// Tries until the spool is empty, then gives the store back.
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let (mut attempts, mut said) = (0_u32, String::new());
        loop {
            let Err(error) = self.work(&mut backoff).await else {
                break;
            };
            self.away.set_draining(false);
            self.away.ground.lock().await.nearly_done = false;
            self.away.progress.notify_one();
            let text = error.to_string();
            if said == text && attempts < ATTEMPTS_BETWEEN_WARNINGS {
                attempts += 1;
                tracing::debug!(%error, "the log database is still away");
            } else {
                let status = self.away.status();
                tracing::warn!(
                    %error,
                    rows = status.rows,
                    bytes = status.bytes,
                    "the log database cannot be written; rows wait in the spool"
                );
                (attempts, said) = (0, text);
            }
            tokio::time::sleep(backoff.next()).await;
        }
        // The journal may have nothing to do at the moment, but others may want the store.
        shared.wake.notify_one();
    }

    /// Works until nothing is left, or something fails.
    pub(super) async fn once(mut self) -> Result<(), StoreError> {
        self.work(&mut Backoff::new(FIRST_RETRY, LAST_RETRY)).await
    }

    /// Works until nothing is left. After an error everything that was learnt of the database is learnt anew.
    async fn work(&mut self, backoff: &mut Backoff) -> Result<(), StoreError> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.open().await?,
        };
        loop {
            if let Err(error) = self.drain(&mut store, backoff).await {
                self.store = Some(store);
                return Err(error);
            }
            let mut ground = self.away.ground.lock().await;
            // Under the lock nothing can have come since the spool was found empty.
            if ground.spool.is_done() {
                ground.store = Some(store);
                ground.nearly_done = false;
                drop(ground);
                self.away.progress.notify_one();
                return Ok(());
            }
        }
    }

    async fn open(&self) -> Result<Store, StoreError> {
        let Some((location, number)) = &self.location else {
            // It is only ever missing with a place to open it.
            return Err(StoreError::IdsExhausted);
        };
        let mut store = open_store(location, *number).await?;
        let end = self.away.ground.lock().await.spool.ids_end().await?;
        store.skip_ids(end).await?;
        tracing::info!(database = %location, "log opened");
        Ok(store)
    }

    async fn drain(&mut self, store: &mut Store, backoff: &mut Backoff) -> Result<(), StoreError> {
        let name = self.away.ground.lock().await.spool.name();
        // What was committed although no answer came is there.
        let mut through = store.spooled(name).await?;
        self.forget(through).await?;
        loop {
            if self.load_after.is_some_and(|end| through >= end) {
                self.load(store).await?;
            }
            let Some((mut changes, last)) = self.next().await? else {
                if self.load_after.is_none() {
                    return Ok(());
                }
                // The database is an older copy of what it was; the spool does not have those rows any more.
                self.load(store).await?;
                continue;
            };
            while let Err(error) = store.replay(name, last, &mut changes).await {
                let Some(id) = error.spoiled_row() else {
                    return Err(error);
                };
                let before = changes.len();
                changes.retain(|change| super::lanes::row_of(change) != Some(id));
                if changes.len() == before {
                    return Err(error);
                }
                let left_out = before - changes.len();
                tracing::error!(%error, %id, changes = left_out, "a row of the spool can never be stored and is left out");
            }
            through = last;
            self.forget(through).await?;
            self.away.set_draining(true);
            self.away.progress.notify_one();
            backoff.reset();
            if let Err(error) = store.tend().await {
                tracing::debug!(%error, "the write-ahead log of the database could not be moved into it");
            }
        }
    }

    /// The next changes for one transaction, and the position that they reach.
    async fn next(&self) -> Result<Option<(Vec<Change>, i64)>, StoreError> {
        let mut ground = self.away.ground.lock().await;
        let mut records = ground.spool.read(CHANGES_PER_REPLAY).await?;
        if records.is_empty() {
            ground.spool.conclude(clock::wall()).await?;
            records = ground.spool.read(CHANGES_PER_REPLAY).await?;
        }
        if let Some(end) = self.load_after {
            records.retain(|record| record.position <= end);
        }
        let Some(last) = records.last().map(|record| record.position) else {
            return Ok(None);
        };
        ground.nearly_done = last == ground.spool.last();
        let changes = records.into_iter().flat_map(|record| record.changes).collect();
        Ok(Some((changes, last)))
    }

    async fn forget(&self, through: i64) -> Result<(), StoreError> {
        let mut ground = self.away.ground.lock().await;
        ground.spool.forget(through).await?;
        self.away.note(&ground.spool);
        Ok(())
    }

    /// Everything of the run before is in the database: what was live then is known now.
    async fn load(&mut self, store: &mut Store) -> Result<(), StoreError> {
        store.end_open_sessions().await?;
        let rows = store.active_rows().await?;
        let acknowledged = store.acknowledged().await?;
        tracing::info!(active_rows = rows.len(), "the live rows of the log are known");
        let acknowledged = acknowledged
            .into_iter()
            .map(|(name, (boot, seq))| (name, boot, seq))
            .collect();
        // Without an engine nobody waits for it.
        let _ = self.reports.send(Report::Loaded { rows, acknowledged });
        self.load_after = None;
        Ok(())
    }
}

/// Opens the log in a bounded time.
pub(super) async fn open_store(location: &Location, number: u16) -> Result<Store, StoreError> {
    tokio::time::timeout(OPEN_PATIENCE, Store::open(location, number))
        .await
        .unwrap_or_else(|_| {
            Err(StoreError::TimedOut {
                log: location.to_string().into(),
                limit: OPEN_PATIENCE,
            })
        })
}
