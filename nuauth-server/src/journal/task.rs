//! The task that owns the log.
//!
//! Commits, reports, and on failure goes to the spool, or waits and tries again. What order things go in is `lanes`' part.

use super::lanes::Batch;
use super::spooling::{Away, Drainer, SPOOL_PATIENCE};
use super::{Limits, Report, Shared, UpkeepError, opening};
use nufw_common::backoff::Backoff;
use nufw_common::clock;
use nufw_proto::ConnId;
use nulog::{Applied, IdBlock, Location, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The first wait after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// After the drainer was waited for in vain, rows go to the spool without waiting for so long.
const BETWEEN_WAITS: Duration = Duration::from_secs(2);

/// A time in which commits fail.
struct Outage {
    backoff: Backoff,
    attempts: u64,
    failed_opens: u64,
}

impl Outage {
    fn count(&mut self, opened: &[ConnId]) {
        self.failed_opens += u64::try_from(opened.len()).unwrap_or(u64::MAX);
    }
}

/// The journal's task.
pub(super) struct Task {
    /// `None` while the drainer has it.
    store: Option<Store>,
    drainer: Option<JoinHandle<()>>,
    /// Until then nobody waits for the drainer.
    no_wait_before: Option<Instant>,
    /// Ids may have been taken out of the spool.
    ids_to_keep: bool,
    shared: Arc<Shared>,
    limits: Limits,
    reports: mpsc::UnboundedSender<Report>,
    outage: Option<Outage>,
}

impl Task {
    pub(super) fn new(
        store: Option<Store>,
        shared: Arc<Shared>,
        limits: Limits,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        Self {
            store,
            drainer: None,
            no_wait_before: None,
            ids_to_keep: false,
            shared,
            limits,
            reports,
            outage: None,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Commits until [`super::Journal::drain`] is called and nothing waits.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        loop {
            // Read before the lanes: what was submitted before the end was asked for is then seen below.
            let closing = self.shared.closing.load(Ordering::Acquire);
            let batch = self.shared.lanes().take(self.store.is_some());
            let nothing_waits = batch.is_empty();
            if !nothing_waits {
                self.commit(batch).await;
            } else if closing {
                self.shared.closed.store(true, Ordering::Release);
                self.shared.steps.refuse(|| UpkeepError::Ending);
                return self.close().await;
            } else {
                self.take_back(Duration::ZERO).await;
            }
            let stepped = self.step().await;
            if nothing_waits && !stepped {
                self.shared.wake.notified().await;
            }
        }
    }

    async fn close(mut self) -> Result<(), StoreError> {
        self.take_back(Duration::ZERO).await;
        if let Some(drainer) = self.drainer.take() {
            drainer.abort();
            let _ = drainer.await;
        }
        if let Some(away) = &self.shared.away {
            let held = away.ground.lock().await.spool.held();
            if held.rows > 0 {
                tracing::warn!(
                    changes = held.rows,
                    "the log database is away: the spool keeps its rows until the next start"
                );
            }
        }
        match self.store.take() {
            Some(store) => store.close().await,
            None => Ok(()),
        }
    }

    /// Commits a group to the database, or while that is away to the spool.
    async fn commit(&mut self, mut batch: Batch) {
        loop {
            if self.store.is_none() {
                let patience = self
                    .shared
                    .away
                    .as_ref()
                    .map_or(Duration::ZERO, |away| away.stall_after);
                self.take_back(patience).await;
            }
            if self.store.is_some() {
                match self.commit_to_database(batch).await {
                    Some(left) => batch = left,
                    None => return,
                }
            }
            match self.commit_to_spool(batch).await {
                Some(left) => batch = left,
                None => return,
            }
        }
    }

    /// Gives the batch back when it is for the spool.
    async fn commit_to_database(&mut self, batch: Batch) -> Option<Batch> {
        match self.attempt(&batch).await {
            Ok(applied) => {
                if applied.missing > 0 {
                    tracing::debug!(
                        updates = applied.missing,
                        "updates of rows that are not in the log changed nothing"
                    );
                }
                self.committed(&batch);
                self.maintain().await;
            }
            Err(error) => match error.spoiled_row().filter(|id| batch.contains(*id)) {
                Some(id) => {
                    let (changes, opened) = self.shared.lanes().spoiled(batch, id);
                    tracing::error!(%error, %id, changes, "a row can never be stored and is left out");
                    if opened {
                        self.shared.stats().gave_up(1);
                        self.report(Report::Failed {
                            opened: vec![id],
                            error: error.to_string(),
                        });
                    }
                }
                None if self.shared.away.is_some() => {
                    self.shared.stats().failed_commits += 1;
                    tracing::warn!(%error, "the log database is away: rows go to the spool");
                    self.send_away(None, None).await;
                    return Some(batch);
                }
                None => self.failed(batch, &error).await,
            },
        }
        None
    }

    /// Gives the batch back when it is for the database.
    async fn commit_to_spool(&mut self, batch: Batch) -> Option<Batch> {
        let away = Arc::clone(self.shared.away.as_ref()?);
        let (batch, put) = {
            let mut ground = away.ground.lock().await;
            if ground.store.is_some() && ground.spool.is_done() {
                drop(ground);
                self.take_back(Duration::ZERO).await;
                return Some(batch);
            }
            let batch = self.shared.lanes().leave_counts(batch);
            let batch = if ground.spool.is_fuller_than(3, 4) {
                self.shared.lanes().leave_out_drops(batch)
            } else {
                batch
            };
            if batch.is_empty() {
                return None;
            }
            let append = ground.spool.append(&batch.changes, clock::wall());
            let put =
                tokio::time::timeout(SPOOL_PATIENCE, append)
                    .await
                    .unwrap_or(Err(StoreError::SpoolSlow {
                        limit: SPOOL_PATIENCE,
                    }));
            away.note(&ground.spool);
            (batch, put)
        };
        match put {
            Ok(()) => {
                away.index().note(&batch.changes);
                self.committed(&batch);
                self.provide_ids().await;
            }
            Err(error) => self.failed(batch, &error).await,
        }
        None
    }

    /// The server starts with rows in the spool or without the database: everything goes to the spool until the database
    /// has what is in it up to `last`, where the run before ended.
    pub(super) async fn begin_away(&mut self, place: (Location, u16), last: i64) {
        self.send_away(Some(place), Some(last)).await;
    }

    async fn send_away(&mut self, place: Option<(Location, u16)>, load_after: Option<i64>) {
        let Some(away) = &self.shared.away else { return };
        away.set_active(true);
        away.note(&away.ground.lock().await.spool);
        let drainer = Drainer {
            away: Arc::clone(away),
            reports: self.reports.clone(),
            store: self.store.take(),
            location: place,
            load_after,
        };
        self.drainer = Some(tokio::spawn(drainer.run(Arc::clone(&self.shared))));
    }

    /// Takes the store back if the spool is in the database; waits a little where that is about to be so.
    async fn take_back(&mut self, patience: Duration) {
        if self.drainer.is_none() {
            return;
        }
        let Some(away) = self.shared.away.clone() else {
            return;
        };
        let late = tokio::time::sleep(patience);
        tokio::pin!(late);
        loop {
            {
                let mut ground = away.ground.lock().await;
                if ground.spool.is_done()
                    && let Some(store) = ground.store.take()
                {
                    self.store = Some(store);
                    break;
                }
                let waits =
                    !patience.is_zero() && self.no_wait_before.is_none_or(|time| clock::mono() >= time);
                if !ground.nearly_done || !waits {
                    return;
                }
            }
            tokio::select! {
                () = away.progress.notified() => {}
                () = &mut late => {
                    self.no_wait_before = Some(clock::mono() + BETWEEN_WAITS);
                    return;
                }
            }
        }
        self.drainer = None;
        self.no_wait_before = None;
        self.ids_to_keep = true;
        away.set_active(false);
        away.index().clear();
        tracing::info!("the spool is in the log database, and rows go there again");
        tokio::spawn(sweep(away));
    }

    /// Applies a batch. While the log is away an attempt may last until the database's timeout: what is urgent meanwhile is
    /// given up at once, since it is not even part of the attempt.
    async fn attempt(&mut self, batch: &Batch) -> Result<Applied, StoreError> {
        let Self {
            store,
            shared,
            reports,
            outage,
            ..
        } = self;
        let Some(store) = store else {
            return Ok(Applied::default());
        };
        let apply = Box::pin(store.apply(&batch.changes));
        if let Some(away) = &shared.away {
            return answered(apply, away.stall_after).await;
        }
        let Some(outage) = outage else {
            return apply.await;
        };
        tokio::pin!(apply);
        loop {
            tokio::select! {
                applied = &mut apply => return applied,
                () = shared.wake.notified() => {
                    let opened = shared.lanes().give_up_urgent();
                    if !opened.is_empty() {
                        outage.count(&opened);
                        shared.stats().gave_up(opened.len());
                        let error = "the log database is being tried again".to_owned();
                        // Without an engine nobody waits for it.
                        let _ = reports.send(Report::Failed { opened, error });
                    }
                }
            }
        }
    }

    fn committed(&mut self, batch: &Batch) {
        self.shared.stats().committed(batch, clock::mono());
        let updates = {
            let mut lanes = self.shared.lanes();
            lanes.committed();
            lanes.waiting().updates
        };
        self.shared.update_pressure(updates, self.limits.updates);
        let (opened, acknowledged) = (batch.opened(), batch.acknowledged());
        if !opened.is_empty() || !acknowledged.is_empty() {
            self.report(Report::Committed { opened, acknowledged });
        }
        if let Some(outage) = self.outage.take() {
            tracing::info!(
                attempts = outage.attempts,
                failed_opens = outage.failed_opens,
                "the log can be written again"
            );
            self.report(Report::Recovered);
        }
    }

    /// Does one step of upkeep, if one waits and it is its turn.
    async fn step(&mut self) -> bool {
        let Some(store) = self.store.as_mut().filter(|_| self.outage.is_none()) else {
            self.shared.steps.refuse(|| UpkeepError::Away);
            return false;
        };
        let opens_wait = self.shared.lanes().waiting().opens > 0;
        let Some(step) = self.shared.steps.take(opens_wait) else {
            return false;
        };
        step.run(store).await;
        if let Err(error) = store.tend().await {
            tracing::warn!(%error, "the write-ahead log of the database could not be moved into it");
        }
        true
    }

    /// What may wait until nobody waits for a commit.
    async fn maintain(&mut self) {
        self.provide_ids().await;
        let Some(store) = &mut self.store else { return };
        if let Err(error) = store.tend().await {
            tracing::warn!(%error, "the write-ahead log of the database could not be moved into it");
        }
        if std::mem::take(&mut self.ids_to_keep)
            && let Some(away) = &self.shared.away
        {
            let kept = Box::pin(async {
                let mut ground = away.ground.lock().await;
                opening::keep_ids(store, &mut ground.spool).await
            });
            if let Err(error) = answered(kept, away.stall_after).await {
                tracing::warn!(%error, "no row ids could be kept for a time without the database");
            }
        }
    }

    /// Reserves further ids, in the database or while that is away among those that are kept for such a time.
    async fn provide_ids(&mut self) {
        if !self.shared.lanes().ids_wanted() {
            return;
        }
        match self.reserve_ids().await {
            Ok(Some(block)) => {
                self.shared.lanes().ids_reserved(block.middle());
                self.report(Report::Ids(block));
            }
            Ok(None) => {
                tracing::warn!(
                    "no row ids are left in the spool: packets are dropped when the last are used"
                );
            }
            // Tried again after the next commit; half a block is left.
            Err(error) => tracing::warn!(%error, "no further row ids could be reserved"),
        }
    }

    async fn reserve_ids(&mut self) -> Result<Option<IdBlock>, StoreError> {
        let count = self.limits.ids_per_block;
        match (&mut self.store, &self.shared.away) {
            (Some(store), None) => Box::pin(store.reserve_ids(count)).await.map(Some),
            (Some(store), Some(away)) => {
                let reserved = answered(Box::pin(store.reserve_ids(count)), away.stall_after).await;
                reserved.map(Some)
            }
            (None, Some(away)) => away.ground.lock().await.spool.take_ids(count).await,
            (None, None) => Ok(None),
        }
    }

    /// Gives up what is urgent, keeps the rest, and waits before the next attempt.
    async fn failed(&mut self, batch: Batch, error: &StoreError) {
        self.shared.stats().failed();
        let (given_up, waiting) = {
            let mut lanes = self.shared.lanes();
            let given_up = lanes.failed(batch);
            (given_up, lanes.waiting())
        };
        if self.outage.is_none() {
            tracing::warn!(
                %error,
                failed_opens = given_up.len(),
                kept = waiting.total(),
                "the log cannot be written: packets that need a row are dropped, everything else is kept and tried again"
            );
        }
        let outage = self.outage.get_or_insert_with(|| Outage {
            backoff: Backoff::new(FIRST_RETRY, LAST_RETRY),
            attempts: 0,
            failed_opens: 0,
        });
        outage.attempts += 1;
        let delay = outage.backoff.next();
        let error = error.to_string();
        self.give_up(given_up, &error);
        let pause = tokio::time::sleep(delay);
        tokio::pin!(pause);
        let away = self.shared.away.clone();
        let progress = async {
            match &away {
                Some(away) => away.progress.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(progress);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = &mut progress => break,
                () = self.shared.wake.notified() => {
                    let given_up = self.shared.lanes().give_up_urgent();
                    self.give_up(given_up, &error);
                }
            }
        }
    }

    fn give_up(&mut self, opened: Vec<ConnId>, error: &str) {
        if opened.is_empty() {
            return;
        }
        self.shared.stats().gave_up(opened.len());
        if let Some(outage) = &mut self.outage {
            outage.count(&opened);
        }
        self.report(Report::Failed {
            opened,
            error: error.to_owned(),
        });
    }

    fn report(&self, report: Report) {
        // Without an engine nobody waits for reports, but what was submitted is still to be written.
        let _ = self.reports.send(report);
    }
}

/// Gives up what is not answered in time. What becomes of it is not known then.
async fn answered<T>(
    work: impl Future<Output = Result<T, StoreError>>,
    limit: Duration,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(StoreError::Stalled { limit }))
}

/// Gives the disk back what the spool took of it.
async fn sweep(away: Arc<Away>) {
    let mut ground = away.ground.lock().await;
    if let Err(error) = ground.spool.sweep().await {
        tracing::warn!(%error, "the spool's file could not be made small again");
    }
    away.note(&ground.spool);
}
