//! How long things waited: a histogram of plain numbers that costs an addition to keep.
//!
//! Counts only; what waited is the counter's business.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Upper ends of the buckets, milliseconds; one more bucket takes what is beyond.
pub const WAIT_BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// How many waits were of which length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitHistogram {
    /// Waits in each bucket of [`WAIT_BUCKETS_MS`]; the last counts those beyond. Not cumulative.
    pub buckets: [u64; WAIT_BUCKETS_MS.len() + 1],
    /// The sum of all waits, microseconds.
    pub sum_us: u64,
    /// The longest, microseconds.
    pub max_us: u64,
}

impl WaitHistogram {
    /// Counts one.
    pub fn add(&mut self, wait: Duration) {
        let bucket = WAIT_BUCKETS_MS.partition_point(|&end| Duration::from_millis(end) < wait);
        self.buckets[bucket] += 1;
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.sum_us = self.sum_us.saturating_add(wait);
        self.max_us = self.max_us.max(wait);
    }

    /// How many waits there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The end of the bucket that holds the wait which `hundredths` of all do not exceed; `None` without a wait, and for
    /// one beyond the last bucket.
    pub fn at_most(&self, hundredths: u64) -> Option<Duration> {
        let rank = (self.count() * hundredths).div_ceil(100);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank && rank > 0
        })?;
        WAIT_BUCKETS_MS.get(bucket).copied().map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_in_the_bucket_that_holds_it() {
        let mut waits = WaitHistogram::default();
        for micros in [0, 1000, 1001, 5_000_000, 5_000_001] {
            waits.add(Duration::from_micros(micros));
        }
        assert_eq!(waits.buckets[..3], [2, 1, 0]);
        assert_eq!(waits.buckets[11..], [1, 1]);
        assert_eq!((waits.count(), waits.max_us), (5, 5_000_001));
    }

    #[test]
    fn a_share_of_the_waits_ends_with_a_bucket_or_beyond_all() {
        let mut waits = WaitHistogram::default();
        assert_eq!(waits.at_most(50), None);
        for millis in [1, 1, 15, 6000] {
            waits.add(Duration::from_millis(millis));
        }
        assert_eq!(waits.at_most(50), Some(Duration::from_millis(1)));
        assert_eq!(waits.at_most(75), Some(Duration::from_millis(20)));
        assert_eq!(waits.at_most(99), None);
    }
}
