//! What the main loop tells those who watch it: plain numbers, copied a few times a second.
//!
//! Nothing here is locked or allocated where packets pass.

use crate::queue::QueueStats;
use crate::stats::Stats;
use nufw_common::waits::WaitHistogram;
use nufw_proto::CtEventKind;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How often the main loop tells of itself, at most.
pub const TELL_EVERY: Duration = Duration::from_millis(250);

/// One moment of the main loop.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// When it was.
    pub at: Instant,
    /// The counters.
    pub stats: Stats,
    /// What is counted for observers alone.
    pub seen: Seen,
    /// What the queue has met.
    pub queue: QueueStats,
    /// Packets that wait for an answer.
    pub pending: usize,
    /// Events that the server has not acknowledged.
    pub unacknowledged: usize,
    /// The last event that the present link has carried.
    pub last_sent: u64,
    /// Addresses with a session.
    pub known_sources: usize,
    /// Interfaces whose names are known.
    pub interfaces: usize,
    /// Since when there has been a link.
    pub link_since: Option<Instant>,
    /// Whether a dump is on its way.
    pub dumping: bool,
}

impl Moment {
    /// Before the first turn.
    pub fn first(at: Instant) -> Self {
        Self {
            at,
            stats: Stats::default(),
            seen: Seen::default(),
            queue: QueueStats::default(),
            pending: 0,
            unacknowledged: 0,
            last_sent: 0,
            known_sources: 0,
            interfaces: 0,
            link_since: None,
            dumping: false,
        }
    }
}

/// What is counted for observers alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// How long packets waited from their asking to the server's answer.
    pub waits: WaitHistogram,
    /// Events of new connections.
    pub new: u64,
    /// Events of changed ones.
    pub updates: u64,
    /// Events of ended ones.
    pub destroys: u64,
    /// Links that the server welcomed.
    pub links: u64,
    /// Links that were lost, and attempts that failed.
    pub link_failures: u64,
}

impl Seen {
    /// An event was read.
    pub fn event(&mut self, kind: CtEventKind) {
        *match kind {
            CtEventKind::New => &mut self.new,
            CtEventKind::Update => &mut self.updates,
            CtEventKind::Destroy => &mut self.destroys,
        } += 1;
    }
}
