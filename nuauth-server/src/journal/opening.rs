//! How the journal begins: with the database, or with what it needs of it already at hand.
//!
//! Without the database it begins only where ids were kept for that, and only if the database may be there again: what an
//! administrator has to mend ends the start.

use super::lanes::Lanes;
use super::spooling::{Away, Drainer, IDS_KEPT, SpoolSettings, open_store};
use super::task::Task;
use super::{Journal, Limits, Report, Shared};
use nufw_proto::{BootId, EventSeq};
use nulog::{ActiveRow, IdBlock, Location, Spool, Store, StoreError};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Changes read at once when what lies in the spool is made known to look-ups.
const CHANGES_PER_LOOK: usize = 4096;

/// What the log knew at the start.
#[derive(Debug)]
pub struct Known {
    /// Rows in state OPEN or ESTABLISHED.
    pub rows: Vec<ActiveRow>,
    /// Gateway, its boot, its last durable event.
    pub acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
}

/// A journal at work.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: Journal,
    /// What the log knew; `None` when that is [told later](Report::Loaded).
    pub known: Option<Known>,
}

impl Journal {
    /// Opens the log of server `number` and starts the task that owns it; with a spool also where the database is away. The
    /// first thing that is sent is a block of ids, before this returns.
    pub async fn open(
        location: &Location,
        number: u16,
        spool: Option<&SpoolSettings>,
        limits: Limits,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Opened, StoreError> {
        let Some(settings) = spool else {
            let mut store = open_store(location, number).await?;
            let known = known(&mut store).await?;
            let journal = Self::start(store, limits, reports).await?;
            return Ok(Opened {
                journal,
                known: Some(known),
            });
        };
        // The log first: what is wrong with it is the better message where both are on one disk, or in use.
        let opened = match open_store(location, number).await {
            Err(error) if !error.is_absence() => return Err(error),
            opened => opened,
        };
        let mut spool = Spool::open(&settings.path, number, settings.limit).await?;
        let left = spool.held().rows;
        let begun = match opened {
            Ok(store) => begin(store, &mut spool, limits.ids_per_block).await,
            Err(error) => Err(error),
        };
        let (store, known, ids) = match begun {
            Ok((store, known, ids)) => (Some(store), known, ids),
            Err(error) if error.is_absence() => (None, None, without(&error, &mut spool, limits).await?),
            Err(error) => return Err(error),
        };
        let last = spool.last();
        let away = Arc::new(Away::new(spool, settings.stall_after));
        if left > 0 {
            tracing::info!(changes = left, "what the spool holds goes to the log first");
            tokio::spawn(index(Arc::clone(&away), last));
        }
        let shared = Shared::new(Lanes::new(limits, ids.middle()), Some(away));
        // The engine may have gone already; then it has no use for ids.
        let _ = reports.send(Report::Ids(ids));
        let mut task = Task::new(store, Arc::new(shared), limits, reports);
        if known.is_none() {
            task.begin_away((location.clone(), number), last).await;
        }
        Ok(Opened {
            journal: Self::run(task),
            known,
        })
    }
}

/// Brings what an earlier run left in the spool to the database, for a server that uses no spool.
pub async fn empty_spool(
    location: &Location,
    number: u16,
    settings: &SpoolSettings,
) -> Result<(), StoreError> {
    if !settings.path.exists() {
        return Ok(());
    }
    let spool = Spool::open(&settings.path, number, settings.limit).await?;
    if spool.held().rows == 0 {
        return spool.close().await;
    }
    tracing::info!(
        changes = spool.held().rows,
        "what the spool holds goes to the log first"
    );
    let (reports, _) = mpsc::unbounded_channel();
    let away = Arc::new(Away::new(spool, settings.stall_after));
    Drainer {
        away: Arc::clone(&away),
        reports,
        store: None,
        location: Some((location.clone(), number)),
        load_after: None,
    }
    .once()
    .await?;
    let mut ground = away.ground.lock().await;
    if let Some(store) = ground.store.take() {
        store.close().await?;
    }
    ground.spool.sweep().await
}

/// Takes from the database what is needed at once. What was live is not known while rows of it are in the spool.
async fn begin(
    mut store: Store,
    spool: &mut Spool,
    ids_per_block: u32,
) -> Result<(Store, Option<Known>, IdBlock), StoreError> {
    store.skip_ids(spool.ids_end().await?).await?;
    let through = store.spooled(spool.name()).await?;
    spool.forget(through).await?;
    let ids = store.reserve_ids(ids_per_block).await?;
    keep_ids(&mut store, spool).await?;
    let known = if spool.is_done() {
        Some(known(&mut store).await?)
    } else {
        None
    };
    Ok((store, known, ids))
}

/// Ids for a start without the database.
async fn without(error: &StoreError, spool: &mut Spool, limits: Limits) -> Result<IdBlock, StoreError> {
    match spool.take_ids(limits.ids_per_block).await? {
        Some(ids) => {
            tracing::warn!(%error, "the log database is away: the server starts without it, and rows go to the spool");
            Ok(ids)
        }
        None => Err(StoreError::NoIds {
            reason: error.to_string(),
        }),
    }
}

async fn known(store: &mut Store) -> Result<Known, StoreError> {
    let rows = store.active_rows().await?;
    let acknowledged = store.acknowledged().await?;
    Ok(Known {
        rows,
        acknowledged: acknowledged
            .into_iter()
            .map(|(name, (boot, seq))| (name, boot, seq))
            .collect(),
    })
}

/// Sees to it that the spool has ids for a long time.
pub(super) async fn keep_ids(store: &mut Store, spool: &mut Spool) -> Result<(), StoreError> {
    if spool.ids_left().await? < u64::from(IDS_KEPT / 2) {
        let block = store.reserve_ids(IDS_KEPT).await?;
        spool.keep_ids(&block).await?;
    }
    Ok(())
}

/// Makes known to look-ups what an earlier run left in the spool.
async fn index(away: Arc<Away>, last: i64) {
    let mut position = 0;
    while position < last {
        let read = away
            .ground
            .lock()
            .await
            .spool
            .read_after(position, CHANGES_PER_LOOK)
            .await;
        match read {
            Ok(records) if !records.is_empty() => {
                for record in records {
                    position = record.position;
                    if position <= last {
                        away.index().note(&record.changes);
                    }
                }
            }
            // What cannot be read is said by whoever brings it to the database.
            _ => return,
        }
        tokio::task::yield_now().await;
    }
}
