//! The task that owns the log.
//!
//! Commits, reports, and on failure waits and tries again. What order things go in is `lanes`' part.

use super::lanes::Batch;
use super::{Limits, Report, Shared, UpkeepError};
use nufw_common::backoff::Backoff;
use nufw_common::clock;
use nufw_proto::ConnId;
use nulog::{Applied, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

/// The first wait after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const LAST_RETRY: Duration = Duration::from_secs(5);

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

struct Task {
    store: Store,
    shared: Arc<Shared>,
    limits: Limits,
    reports: mpsc::UnboundedSender<Report>,
    outage: Option<Outage>,
}

/// Commits until [`super::Journal::drain`] is called and nothing waits.
pub(super) async fn run(
    store: Store,
    shared: Arc<Shared>,
    limits: Limits,
    reports: mpsc::UnboundedSender<Report>,
) -> Result<(), StoreError> {
    let mut task = Task {
        store,
        shared,
        limits,
        reports,
        outage: None,
    };
    loop {
        // Read before the lanes: what was submitted before the end was asked for is then seen below.
        let closing = task.shared.closing.load(Ordering::Acquire);
        let batch = task.shared.lanes().take();
        let nothing_waits = batch.is_empty();
        if !nothing_waits {
            task.commit(batch).await;
        } else if closing {
            task.shared.closed.store(true, Ordering::Release);
            task.shared.steps.refuse(|| UpkeepError::Ending);
            return task.store.close().await;
        }
        let stepped = task.step().await;
        if nothing_waits && !stepped {
            task.shared.wake.notified().await;
        }
    }
}

impl Task {
    async fn commit(&mut self, batch: Batch) {
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
                None => self.failed(batch, &error).await,
            },
        }
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
        let apply = store.apply(&batch.changes);
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
        if self.outage.is_some() {
            self.shared.steps.refuse(|| UpkeepError::Away);
            return false;
        }
        let opens_wait = self.shared.lanes().waiting().opens > 0;
        let Some(step) = self.shared.steps.take(opens_wait) else {
            return false;
        };
        step.run(&mut self.store).await;
        if let Err(error) = self.store.tend().await {
            tracing::warn!(%error, "the write-ahead log of the database could not be moved into it");
        }
        true
    }

    /// What may wait until nobody waits for a commit.
    async fn maintain(&mut self) {
        if self.shared.lanes().ids_wanted() {
            match self.store.reserve_ids(self.limits.ids_per_block).await {
                Ok(block) => {
                    self.shared.lanes().ids_reserved(block.middle());
                    self.report(Report::Ids(block));
                }
                // Tried again after the next commit; half a block is left.
                Err(error) => tracing::warn!(%error, "no further row ids could be reserved"),
            }
        }
        if let Err(error) = self.store.tend().await {
            tracing::warn!(%error, "the write-ahead log of the database could not be moved into it");
        }
    }

    /// Gives up what is urgent, keeps the rest, and waits before the next attempt.
    async fn failed(&mut self, batch: Batch, error: &StoreError) {
        self.shared.stats().failed_commits += 1;
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
        loop {
            tokio::select! {
                () = &mut pause => break,
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
