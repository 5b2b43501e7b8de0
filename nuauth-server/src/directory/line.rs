//! The line before whoever checks passwords: some at one time, and of the others only those whose turn will come in time.
//!
//! Whoever would wait in vain hears so at once, while the place that he keeps from others is worth something.

use nufw_common::clock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a turn is taken to last before any was seen.
const FIRST_GUESS: Duration = Duration::from_millis(50);
/// So much of what a turn lasted goes into what the next ones are taken to last.
const WEIGHT: u64 = 8;

/// Too many others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// A line.
pub(super) struct Line {
    places: Semaphore,
    at_once: usize,
    /// How long a turn may be waited for.
    patience: Duration,
    waiting: AtomicUsize,
    /// What a turn lasts, microseconds: a moving mean.
    lasts: AtomicU64,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a> {
    line: &'a Line,
    began: Instant,
    _place: SemaphorePermit<'a>,
}

/// Somebody who waits, until that is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Line {
    /// So many have their turn at one time; the others wait so long.
    pub(super) fn new(at_once: usize, patience: Duration) -> Self {
        let at_once = at_once.max(1);
        Self {
            places: Semaphore::new(at_once),
            at_once,
            patience,
            waiting: AtomicUsize::new(0),
            lasts: AtomicU64::new(micros(FIRST_GUESS)),
        }
    }

    /// Waits for a turn, if it is likely to come in time.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Busy> {
        let (_waiting, before) = Waiting::new(&self.waiting);
        if before >= self.room() {
            return Err(Busy);
        }
        match tokio::time::timeout(self.patience, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(Turn {
                line: self,
                began: clock::mono(),
                _place: place,
            }),
            _ => Err(Busy),
        }
    }

    /// How many may wait, if turns last as long as they did.
    fn room(&self) -> usize {
        let lasts = self.lasts.load(Ordering::Relaxed).max(1);
        let in_time = usize::try_from(micros(self.patience) / lasts).unwrap_or(usize::MAX);
        // One is always let in, or nobody would see that turns are short again.
        in_time.max(1).saturating_mul(self.at_once)
    }

    /// A turn is over.
    fn learn(&self, lasted: Duration) {
        let mixed = |mean: u64| Some(mean - mean / WEIGHT + micros(lasted) / WEIGHT);
        let _ = self
            .lasts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, mixed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.line
            .learn(clock::mono().saturating_duration_since(self.began));
    }
}

impl<'a> Waiting<'a> {
    /// With how many were waiting before.
    fn new(count: &'a AtomicUsize) -> (Self, usize) {
        let before = count.fetch_add(1, Ordering::Relaxed);
        (Self(count), before)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn waits(line: &Arc<Line>) -> tokio::task::JoinHandle<bool> {
        let line = Arc::clone(line);
        tokio::spawn(async move { line.turn().await.is_ok() })
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_would_wait_too_long_hears_so_at_once_and_the_others_in_time() {
        // Two at one time, of the length that is guessed at first: ten rounds fit.
        let line = Arc::new(Line::new(2, 10 * FIRST_GUESS));
        let held = [line.turn().await.unwrap(), line.turn().await.unwrap()];
        let waiting: Vec<_> = (0..20).map(|_| waits(&line)).collect();
        tokio::task::yield_now().await;
        assert_eq!(line.turn().await.err(), Some(Busy));
        assert_eq!(
            line.waiting.load(Ordering::Relaxed),
            20,
            "nobody is counted twice"
        );
        drop(held);
        for waiting in waiting {
            assert!(waiting.await.unwrap());
        }
        assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
        // A turn that never ends.
        let _held = [line.turn().await.unwrap(), line.turn().await.unwrap()];
        let mut waiting = waits(&line);
        let almost = tokio::time::timeout(9 * FIRST_GUESS, &mut waiting);
        assert!(almost.await.is_err(), "it waits");
        assert!(!waiting.await.unwrap());
        assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn how_many_may_wait_follows_from_how_long_turns_are() {
        let line = Line::new(1, Duration::from_secs(1));
        let room_after = |turns: u32, lasted: Duration| {
            (0..turns).for_each(|_| line.learn(lasted));
            line.room()
        };
        assert_eq!(room_after(0, Duration::ZERO), 20);
        let of_short = room_after(50, Duration::from_millis(5));
        assert!((190..=200).contains(&of_short), "{of_short}");
        assert!(room_after(1, Duration::from_secs(1)) < 10, "one slow turn counts");
        assert_eq!(room_after(50, Duration::from_secs(30)), 1, "never shut");
        assert!(room_after(100, Duration::ZERO) > 10_000);
        assert_eq!(room_after(1, Duration::MAX), 1, "without overflow");
    }

    #[tokio::test]
    async fn a_turn_that_is_over_is_learnt_from() {
        let line = Line::new(1, Duration::from_secs(1));
        let before = line.lasts.load(Ordering::Relaxed);
        drop(line.turn().await.unwrap());
        assert_ne!(line.lasts.load(Ordering::Relaxed), before);
    }
}
