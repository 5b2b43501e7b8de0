//! Steps of upkeep between two commits: asked for from outside, done by the task that owns the log.
//!
//! A step gets its turn when no OPEN waits. Where OPENs always wait it gets one turn in a while all the same: the archive of
//! a log that is never cleaned would end up in the way of everybody.

use super::{Journal, Shared};
use nufw_common::clock;
use nulog::{StoreError, Upkeep, UpkeepDone};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Steps that may wait; a further one is refused.
const MOST_WAITING: usize = 4;
/// After so long a step has its turn although OPENs wait; it takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// Too many wait.
    #[error("{MOST_WAITING} steps of upkeep wait already: ask again when one is done")]
    Full,
    /// The log cannot be written at the moment.
    #[error("the log cannot be written at the moment")]
    Away,
    /// The server ends.
    #[error("the server is being stopped")]
    Ending,
    /// The log refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One step, and who waits for it.
pub(super) struct Step {
    what: Upkeep,
    asked: Instant,
    answer: oneshot::Sender<Result<UpkeepDone, UpkeepError>>,
}

/// The steps that wait.
#[derive(Default)]
pub(super) struct Steps(Mutex<VecDeque<Step>>);

impl Steps {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next step, if it is its turn.
    pub(super) fn take(&self, opens_wait: bool) -> Option<Step> {
        let mut queue = self.queue();
        // Whoever asked for it may have gone.
        while queue.front().is_some_and(|step| step.answer.is_closed()) {
            queue.pop_front();
        }
        queue.pop_front_if(|step| !opens_wait || clock::mono() >= step.asked + PATIENCE)
    }

    /// Tells everybody who waits that nothing will come of it.
    pub(super) fn refuse(&self, error: impl Fn() -> UpkeepError) {
        for step in std::mem::take(&mut *self.queue()) {
            let _ = step.answer.send(Err(error()));
        }
    }
}

impl Step {
    pub(super) async fn run(self, store: &mut nulog::Store) {
        let done = store.upkeep(&self.what).await;
        let _ = self.answer.send(done.map_err(UpkeepError::from));
    }
}

impl Journal {
    /// Has one step of upkeep done when it does not stand in anybody's way.
    pub async fn upkeep(&self, step: Upkeep) -> Result<UpkeepDone, UpkeepError> {
        let (answer, done) = oneshot::channel();
        {
            let mut queue = self.shared.steps.queue();
            if queue.len() >= MOST_WAITING {
                return Err(UpkeepError::Full);
            }
            if self.shared.ends() {
                return Err(UpkeepError::Ending);
            }
            queue.push_back(Step {
                what: step,
                asked: clock::mono(),
                answer,
            });
        }
        self.shared.wake.notify_one();
        done.await.unwrap_or(Err(UpkeepError::Ending))
    }
}

impl Shared {
    fn ends(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.closed.load(Ordering::Acquire)
    }
}
