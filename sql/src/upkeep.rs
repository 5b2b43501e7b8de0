//! Upkeep of the log as bounded steps, the same on every back-end, and how large a step may be.
//!
//! A step says itself where the next one begins, so whoever asks for them keeps the place, and may stop after any. Each is one
//! transaction: done whole or not at all, and harmless to do again.

use crate::rotate::Kept;
use nufw_common::clock;
use nufw_proto::{ConnId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the statements of a step may take in a file of `SQLite`, whose writer is the server's own; its commit comes on
/// top.
pub(crate) const STEP_IN_FILE: Duration = Duration::from_millis(5);
/// The same on a database server, where a step runs beside the servers' transactions.
pub(crate) const STEP_ON_SERVER: Duration = Duration::from_millis(20);
/// Rows of a step at first, at least, and at most.
const FIRST_ROWS: u32 = 64;
const LEAST_ROWS: u32 = 8;
const MOST_ROWS: u32 = 2048;
/// Rows that a step looks at for each row that it may change: looking is so much cheaper.
const SEEN_PER_ROW: u32 = 8;
/// Row ids in [`UpkeepDone::held`]; further ones are only counted.
pub(crate) const MOST_HELD: usize = 16;

/// One bounded step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Upkeep {
    /// Moves rows that were dead before a time from the live table to the archive.
    MoveDead {
        /// Only rows with larger ids; 0 at first.
        after: i64,
        /// Only rows that ended before this: by the time of their end, or of their packet where no end is known.
        before: Timestamp,
        /// Only count them.
        dry: bool,
    },
    /// Closes live rows whose packet came before a time and whose gateway was last heard of before that time.
    CloseLost {
        /// Only rows with larger ids; 0 at first.
        after: i64,
        /// The time.
        before: Timestamp,
        /// Gateways whose rows are left alone, since they are known to be there.
        spare: Vec<String>,
        /// Only count them.
        dry: bool,
    },
    /// Drops rows that are too old, in a file of `SQLite`: the first of these as many as fit a step, which
    /// [`UpkeepDone::seen`] tells.
    Forget {
        /// The table.
        kept: Kept,
        /// Only rows that are over and older than this, in seconds since 1970.
        before: i64,
        /// Their ids, at most [`crate::rotate::MOST_IDS`].
        ids: Vec<i64>,
    },
    /// Gives free pages of a file of `SQLite` back to the system; [`UpkeepDone::moved`] tells how many.
    Shrink,
}

/// What a step came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpkeepDone {
    /// Rows that were looked at.
    pub seen: u64,
    /// Rows that were moved; in a dry step, that would be.
    pub moved: u64,
    /// Rows that were closed; in a dry step, that would be.
    pub closed: u64,
    /// Rows whose id is in the archive already, with whatever content: they were left where they are.
    pub held: u64,
    /// The first of those.
    pub held_ids: Vec<i64>,
    /// Live rows from before the time, by gateway.
    pub aged: BTreeMap<String, Aged>,
    /// Where the next step begins.
    pub after: i64,
    /// Whether a next step may find anything.
    pub more: bool,
}

/// Old live rows of one gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aged {
    /// How many.
    pub rows: u64,
    /// Whether the gateway has not been heard of since the time.
    pub lost: bool,
    /// When it was last heard of, if ever.
    pub last_heartbeat: Option<Timestamp>,
}

impl UpkeepDone {
    /// Adds what a later step of the same kind came to; its place is the later one.
    pub fn add(&mut self, later: Self) {
        self.seen += later.seen;
        self.moved += later.moved;
        self.closed += later.closed;
        self.held += later.held;
        self.held_ids.extend(later.held_ids);
        self.held_ids.truncate(MOST_HELD);
        for (gateway, aged) in later.aged {
            let sum = self.aged.entry(gateway).or_default();
            sum.rows += aged.rows;
            sum.lost = aged.lost;
            sum.last_heartbeat = aged.last_heartbeat;
        }
        self.after = later.after;
        self.more = later.more;
    }

    /// The ids of [`Self::held_ids`], as rows have them.
    pub fn held_rows(&self) -> impl Iterator<Item = ConnId> {
        self.held_ids
            .iter()
            .filter_map(|id| u64::try_from(*id).ok().and_then(|id| ConnId::try_from(id).ok()))
    }
}

/// Sizes steps by how long the last ones took.
#[derive(Debug)]
pub(crate) struct Pace {
    rows: u32,
    target: Duration,
}

/// A step under way.
pub(crate) struct Stride {
    began: Instant,
}

impl Pace {
    pub(crate) fn new(target: Duration) -> Self {
        Self {
            rows: FIRST_ROWS,
            target,
        }
    }

    /// Rows that the next step may change.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Rows that the next step may look at.
    pub(crate) fn seen(&self) -> u32 {
        self.rows.saturating_mul(SEEN_PER_ROW)
    }

    pub(crate) fn begin() -> Stride {
        Stride { began: clock::mono() }
    }

    /// Learns from a step that looked at `seen` rows and changed `changed`: one that took too long makes the next ones smaller
    /// at once, one that was quick and full makes them larger slowly.
    pub(crate) fn learn(&mut self, stride: &Stride, seen: u64, changed: u64) {
        let took = clock::mono().saturating_duration_since(stride.began);
        self.learn_from(took, seen, changed);
    }

    fn learn_from(&mut self, took: Duration, seen: u64, changed: u64) {
        let fitting = self.target.as_secs_f64() / took.as_secs_f64().max(1e-6);
        if fitting < 1.0 {
            self.rows = scaled(self.rows, fitting.max(0.25));
        } else if changed >= u64::from(self.rows) || seen >= u64::from(self.seen()) {
            self.rows = scaled(self.rows, fitting.min(1.25));
        }
    }
}

/// Within the bounds.
fn scaled(rows: u32, factor: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates, and the bounds follow"
    )]
    let scaled = (f64::from(rows) * factor).ceil() as u32;
    scaled.clamp(LEAST_ROWS, MOST_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_step_makes_the_next_smaller_and_quick_full_ones_make_it_larger() {
        let mut pace = Pace::new(Duration::from_millis(4));
        pace.learn_from(Duration::from_millis(8), 64, 64);
        assert_eq!(pace.rows(), 32);
        pace.learn_from(Duration::from_millis(1), 32, 32);
        assert_eq!(pace.rows(), 40);
        // It was quick because there was little to do.
        pace.learn_from(Duration::from_millis(1), 7, 7);
        assert_eq!(pace.rows(), 40);
        for _ in 0..100 {
            pace.learn_from(Duration::from_secs(9), 1, 1);
        }
        assert_eq!(pace.rows(), LEAST_ROWS);
        for _ in 0..100 {
            pace.learn_from(Duration::ZERO, u64::MAX, 0);
        }
        assert_eq!(pace.rows(), MOST_ROWS);
    }

    #[test]
    fn a_step_travels_as_json() {
        let step = Upkeep::MoveDead {
            after: i64::MAX - 1,
            before: Timestamp::from_micros(7),
            dry: false,
        };
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(
            text,
            r#"{"step":"move-dead","after":9223372036854775806,"before":7,"dry":false}"#
        );
        assert_eq!(serde_json::from_str::<Upkeep>(&text).unwrap(), step);
        assert!(serde_json::from_str::<Upkeep>(r#"{"step":"drop-everything"}"#).is_err());
    }
}
