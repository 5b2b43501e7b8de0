//! How the agent is, in one value: what its socket tells as JSON, what `/metrics` is made of, what `nufw-agent status` shows.
//!
//! Numbers and what the configuration says; no name of a user and no address of traffic.

use super::kernel::Kernel;
use super::moment::{Moment, Seen};
use crate::queue::QueueStats;
use crate::stats::Stats;
use nufw_common::clock;
use nufw_common::observe::{Report, process::Process};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A main loop that told nothing for so long hangs: it takes a turn ten times a second.
pub const STALE: Duration = Duration::from_secs(10);

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When it began.
    pub began: Instant,
    /// The same, seconds since 1970.
    pub started: u64,
    /// What is set, as it came out.
    pub set: Set,
    /// The inodes of the sockets of queue and events.
    pub inodes: (Option<u64>, Option<u64>),
}

/// What the agent was told to do, and what it was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Set {
    /// The server, host and port.
    pub server: String,
    /// Number of the queue.
    pub queue: u16,
    /// Packets that may wait in the kernel.
    pub queue_length: u64,
    /// Packets that may wait for an answer.
    pub max_pending: u64,
    /// How long a packet waits, milliseconds.
    pub packet_timeout_ms: u64,
    /// Bytes of the queue's receive buffer, as granted.
    pub queue_buffer: u64,
    /// Whether events are relayed.
    pub relays_events: bool,
    /// Whether only those of marked connections are.
    pub marked_only: bool,
    /// Bytes of the events' receive buffer, as granted.
    pub event_buffer: Option<u64>,
    /// Whether the kernel granted what was asked for.
    pub event_buffer_forced: Option<bool>,
    /// Events that are kept until acknowledged.
    pub max_unacknowledged: u64,
    /// Whether verdicts set marks.
    pub sets_marks: bool,
    /// The bits that are the user's number.
    pub mark_mask: u32,
    /// The bit that a later rule rejects by.
    pub reject_bit: u32,
}

/// How the agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The process.
    pub process: Process,
    /// Seconds since the start.
    pub uptime: u64,
    /// How old the main loop's numbers are, milliseconds.
    pub age_ms: u64,
    /// Whether the main loop is gone or hangs.
    pub hung: bool,
    /// What it was told and granted.
    pub set: Set,
    /// The counters.
    pub counters: Stats,
    /// What is counted for observers alone.
    pub seen: Seen,
    /// What the queue has met.
    pub queue: QueueStats,
    /// Packets that wait for an answer.
    pub pending: u64,
    /// Events that the server has not acknowledged.
    pub unacknowledged: u64,
    /// Number of the last event that was sent.
    pub last_sent: u64,
    /// Addresses with a session.
    pub known_sources: u64,
    /// Interfaces whose names are known.
    pub interfaces: u64,
    /// Seconds since the server welcomed the present link; none without one.
    pub link_for: Option<u64>,
    /// Whether a dump is on its way.
    pub dumping: bool,
    /// What the kernel shows.
    pub kernel: Kernel,
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Status {
    /// Puts it together; `ended` tells that no main loop is left.
    pub fn new(facts: &Facts, moment: &Moment, ended: bool) -> Self {
        let now = clock::mono();
        let age = now.saturating_duration_since(moment.at);
        let since = |then: Instant| now.saturating_duration_since(then).as_secs();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: Process::look(facts.started),
            uptime: since(facts.began),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            hung: ended || age > STALE,
            set: facts.set.clone(),
            counters: moment.stats,
            seen: moment.seen,
            queue: moment.queue,
            pending: wide(moment.pending),
            unacknowledged: wide(moment.unacknowledged),
            last_sent: moment.last_sent,
            known_sources: wide(moment.known_sources),
            interfaces: wide(moment.interfaces),
            link_for: moment.link_since.map(since),
            dumping: moment.dumping,
            kernel: Kernel::look(facts.set.queue, facts.inodes.0, facts.inodes.1),
        }
    }

    fn turns(&self, report: Report) -> Report {
        let age = Duration::from_millis(self.age_ms);
        let detail = if self.hung {
            format!("the main loop told nothing for {age:.1?}: it hangs")
        } else {
            format!("the main loop told of itself {age:.1?} ago")
        };
        report.with("loop", !self.hung, detail)
    }

    /// Whether the agent lives: its main loop takes turns.
    pub fn health(&self) -> Report {
        self.turns(Report::new())
    }

    /// Whether packets can be decided: the queue is read and the server linked.
    pub fn ready(&self) -> Report {
        let number = self.set.queue;
        let (bound, queue) = match (self.kernel.queue, self.kernel.queue_socket) {
            (Some(_), _) => (true, format!("queue {number} is bound")),
            (None, Some(_)) => (true, format!("the socket of queue {number} is open")),
            (None, None) => (
                false,
                format!("the kernel shows neither queue {number} nor its socket"),
            ),
        };
        let link = match self.link_for {
            Some(seconds) => format!("linked to {} for {seconds} s", self.set.server),
            None => format!("no link to {}: new connections are dropped", self.set.server),
        };
        self.turns(Report::new())
            .with("queue", bound, queue)
            .with("link", self.link_for.is_some(), link)
    }
}
