//! How long to wait before the next attempt: exponentially longer, with jitter.
//!
//! Pure but for the dice; sleeping is the caller's part.

use rand::RngExt as _;
use std::time::Duration;

/// Delays that double from `min` to `max`, each shortened by up to half at random, so that a thousand clients that
/// lost the same server do not come back in one instant.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at `min`, never above `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            ceiling: min.min(max),
        }
    }

    /// The delay before the next attempt.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so an iterator would promise too much"
    )]
    pub fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        let half = ceiling / 2;
        half + half.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// An attempt succeeded: the next delay is a short one again.
    pub fn reset(&mut self) {
        self.ceiling = self.min.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again_after_a_reset() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(500));
        for ceiling in [100, 200, 400, 500, 500, 500] {
            let delay = backoff.next();
            assert!(
                delay >= ms(ceiling / 2) && delay <= ms(ceiling),
                "{delay:?} of {ceiling} ms"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= ms(100));
    }

    #[test]
    fn delays_are_jittered() {
        let delays: std::collections::HashSet<_> = (0..32)
            .map(|_| Backoff::new(Duration::from_secs(10), Duration::from_secs(10)).next())
            .collect();
        assert!(delays.len() > 1);
    }
}
