//! What the journal did: counted for whoever watches the server.
//!
//! Numbers only; nothing here names a user or an address, and nothing is decided by it.

use super::Waiting;
use super::lanes::Batch;
use nufw_common::waits::WaitHistogram;
use nulog::Change;
use serde::Serialize;
use std::time::Instant;

/// What the journal did since the start, and what waits in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogStats {
    /// Changes that became durable, by kind.
    pub durable: Durable,
    /// Transactions that succeeded.
    pub commits: u64,
    /// Transactions that failed.
    pub failed_commits: u64,
    /// Whether the last transaction failed with nowhere else to go.
    pub failing: bool,
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

impl LogStats {
    /// Everything in the batch became durable at `now`.
    pub(super) fn committed(&mut self, batch: &Batch, now: Instant) {
        self.commits += 1;
        self.failing = false;
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

    /// A transaction failed, and what was in it waits.
    pub(super) fn failed(&mut self) {
        self.failed_commits += 1;
        self.failing = true;
    }

    /// OPEN rows were given up.
    pub(super) fn gave_up(&mut self, opens: usize) {
        self.failed_opens += u64::try_from(opens).unwrap_or(u64::MAX);
    }
}
