//! What the journal did: counted for whoever watches the server.
//!
//! Numbers only; nothing here names a user or an address, and nothing is decided by it.

use super::Waiting;
use super::lanes::Batch;
use nulog::Change;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Upper ends of the buckets of the commit wait, milliseconds; one more bucket takes what is beyond.
pub const WAIT_BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// What the journal did since the start, and what waits in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogStats {
    /// Changes that became durable, by kind.
    pub durable: Durable,
    /// Transactions that succeeded.
    pub commits: u64,
    /// Transactions that failed.
    pub failed_commits: u64,
    /// OPEN rows that were given up, so that their packets were dropped.
    pub failed_opens: u64,
    /// DROP rows that found no room in their lane, and are in `log_gap` as a number.
    pub drops_left_out: u64,
    /// What waits, by lane.
    pub waiting: Waiting,
    /// How long OPEN rows took from the decision to the disk.
    pub commit_wait: WaitHistogram,
}

/// Durable changes by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Durable {
    /// Rows of accepted connections.
    pub open: u64,
    /// Rows of dropped packets.
    pub drop: u64,
    /// OPEN → ESTABLISHED.
    pub established: u64,
    /// Ends of connections.
    pub close: u64,
    /// Beginnings and ends of sessions.
    pub sessions: u64,
    /// Rows of `log_gap`.
    pub gaps: u64,
    /// Interim counters of live rows.
    pub counts: u64,
}

/// How many waits were of which length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WaitHistogram {
    /// Waits in each bucket of [`WAIT_BUCKETS_MS`]; the last counts those beyond. Not cumulative.
    pub buckets: [u64; WAIT_BUCKETS_MS.len() + 1],
    /// The sum of all waits, microseconds.
    pub sum_us: u64,
    /// The longest, microseconds.
    pub max_us: u64,
}

impl WaitHistogram {
    fn add(&mut self, wait: Duration) {
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
}

impl LogStats {
    /// Everything in the batch became durable at `now`.
    pub(super) fn committed(&mut self, batch: &Batch, now: Instant) {
        self.commits += 1;
        for (change, since) in batch.with_times() {
            *match change {
                Change::Open(_) => {
                    self.commit_wait.add(now.saturating_duration_since(since));
                    &mut self.durable.open
                }
                Change::Drop(_) => &mut self.durable.drop,
                Change::Established(_) => &mut self.durable.established,
                Change::Close(_) => &mut self.durable.close,
                Change::SessionStart(_) | Change::SessionEnd { .. } => &mut self.durable.sessions,
                Change::Gap(_) => &mut self.durable.gaps,
                Change::Counted { .. } => &mut self.durable.counts,
                Change::Acknowledge { .. } | Change::Heartbeat { .. } => continue,
            } += 1;
        }
    }

    /// OPEN rows were given up.
    pub(super) fn gave_up(&mut self, opens: usize) {
        self.failed_opens += u64::try_from(opens).unwrap_or(u64::MAX);
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
}
