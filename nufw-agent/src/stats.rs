//! What the agent counts, and when it says so.
//!
//! Counters only ever grow. Lines about things that repeat are written at most once in [`WARN_EVERY`], with the numbers
//! since the last such line.

use crate::queue::KernelCounters;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How often the counters are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Least time between two warnings of the same kind.
pub const WARN_EVERY: Duration = Duration::from_secs(30);
/// Time between two lines of statistics at DEBUG.
const REPORT_EVERY: Duration = Duration::from_mins(1);

/// The counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Packets read from the queue.
    pub packets: u64,
    /// Packets asked for.
    pub asked: u64,
    /// Packets accepted.
    pub accepted: u64,
    /// Packets that the server had dropped.
    pub dropped: u64,
    /// Packets that the server had rejected.
    pub rejected: u64,
    /// Packets that passed without a verdict, as the administrator chose.
    pub blind: u64,
    /// Packets asked for again, since the link was lost before their answer came.
    pub asked_again: u64,
    /// Packets dropped because they have no tuple.
    pub unparsable: u64,
    /// Packets not asked for because there was no link to the server, those waiting when it was lost included.
    pub without_link: u64,
    /// Packets dropped because nobody is logged in at their source and it sent too many.
    pub unknown_source: u64,
    /// Packets not asked for because too many were waiting.
    pub table_full: u64,
    /// Packets of which no answer came in time.
    pub timed_out: u64,
    /// Answers for packets that were not waiting any more.
    pub late_answers: u64,
    /// Accepted packets that were gone from the kernel.
    pub gone: u64,
    /// Verdicts that the kernel refused for another reason.
    pub refused: u64,
    /// Conntrack events relayed.
    pub events: u64,
    /// Times the kernel dropped events because the agent was too slow.
    pub overruns: u64,
    /// Events forgotten because the server had acknowledged too few.
    pub forgotten_events: u64,
    /// Entries or events that the protocol has no form for.
    pub unrepresentable: u64,
    /// Dumps of the connection table, broken ones included.
    pub dumps: u64,
    /// Orders of the server to end a connection, repeated ones included.
    pub kills_ordered: u64,
    /// Connections that are gone after such an order.
    pub killed: u64,
    /// Orders that could not be carried out.
    pub kills_failed: u64,
}

impl Stats {
    /// Writes one line at INFO.
    pub fn report(&self, why: &'static str) {
        let Self {
            packets,
            asked,
            accepted,
            dropped,
            rejected,
            blind,
            asked_again,
            unparsable,
            without_link,
            unknown_source,
            table_full,
            timed_out,
            late_answers,
            gone,
            refused,
            events,
            overruns,
            forgotten_events,
            unrepresentable,
            dumps,
            kills_ordered,
            killed,
            kills_failed,
        } = *self;
        tracing::info!(
            packets,
            asked,
            accepted,
            dropped,
            rejected,
            blind,
            asked_again,
            unparsable,
            without_link,
            unknown_source,
            table_full,
            timed_out,
            late_answers,
            gone,
            refused,
            events,
            overruns,
            forgotten_events,
            unrepresentable,
            dumps,
            kills_ordered,
            killed,
            kills_failed,
            "{why}"
        );
    }
}

/// Keeps a warning that repeats to one in [`WARN_EVERY`].
#[derive(Debug, Default)]
pub struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it may be written; if so, not again for a while.
    pub fn may_warn(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|last| now >= last + WARN_EVERY);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

/// Looks at the counters from time to time and warns of those that should not grow.
#[derive(Debug)]
pub struct Watch {
    next_look: Instant,
    next_report: Instant,
    next_warning: Instant,
    warned: Stats,
    warned_kernel: KernelCounters,
}

impl Watch {
    /// Begins now, from zero.
    pub fn new(now: Instant) -> Self {
        Self {
            next_look: now + LOOK_EVERY,
            next_report: now + REPORT_EVERY,
            next_warning: now,
            warned: Stats::default(),
            warned_kernel: KernelCounters::default(),
        }
    }

    /// Warns if there is reason to; `kernel` is asked only when it is time to look.
    pub fn look(&mut self, stats: &Stats, kernel: impl FnOnce() -> Option<KernelCounters>, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        if now >= self.next_report {
            self.next_report = now + REPORT_EVERY;
            tracing::debug!(?stats, "statistics");
        }
        if now < self.next_warning {
            return;
        }
        // Absent where /proc hides it from an agent that is not root.
        let kernel = kernel().unwrap_or(self.warned_kernel);
        let queue_full = kernel
            .queue_dropped
            .saturating_sub(self.warned_kernel.queue_dropped);
        let buffer_full = kernel
            .user_dropped
            .saturating_sub(self.warned_kernel.user_dropped);
        let table_full = stats.table_full - self.warned.table_full;
        let timed_out = stats.timed_out - self.warned.timed_out;
        let refused = stats.refused - self.warned.refused;
        if queue_full + buffer_full > 0 {
            tracing::warn!(
                queue_full,
                buffer_full,
                "the kernel dropped packets that should have waited; queue.length or queue.receive-buffer is too small for this rate"
            );
        }
        if table_full > 0 {
            tracing::warn!(
                table_full,
                "packets were dropped because queue.max-pending others were waiting"
            );
        }
        if timed_out > 0 {
            tracing::warn!(
                timed_out,
                "packets were dropped because the server did not answer in time"
            );
        }
        if refused > 0 {
            tracing::warn!(refused, "the kernel refused verdicts");
        }
        if queue_full + buffer_full + table_full + timed_out + refused > 0 {
            self.warned = *stats;
            self.warned_kernel = kernel;
            self.next_warning = now + WARN_EVERY;
        }
    }
}
