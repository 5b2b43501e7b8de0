//! What the agent tells those who watch it: a copy of its numbers, four times a second.
//!
//! One look at the time of the turn and, when it is due, one copy; nothing is asked of the kernel.

use super::Agent;
use crate::conntrack::Events;
use crate::observe::{Facts, Moment, Seen, Set, TELL_EVERY};
use nufw_common::clock;
use std::time::Instant;
use tokio::sync::watch;

/// Who is told, and what is counted for them.
#[derive(Debug)]
pub(super) struct Observer {
    moments: Option<watch::Sender<Moment>>,
    next: Instant,
    pub(super) seen: Seen,
    link_since: Option<Instant>,
    /// When the present turn began.
    pub(super) turn: Instant,
}

impl Observer {
    /// Nobody is told.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            moments: None,
            next: now,
            seen: Seen::default(),
            link_since: None,
            turn: now,
        }
    }

    /// The server welcomed a link.
    pub(super) fn linked(&mut self, now: Instant) {
        self.seen.links += 1;
        self.link_since = Some(now);
    }

    /// A link was lost, or could not be made.
    pub(super) fn link_lost(&mut self) {
        self.seen.link_failures += 1;
        self.link_since = None;
    }
}

impl Agent {
    /// What does not change while it runs; `server` is where it connects to.
    pub fn facts(&self, server: &str) -> Facts {
        let settings = &self.settings;
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let buffer = self.events.as_ref().map(Events::receive_buffer);
        let started = clock::wall().micros() / 1_000_000;
        Facts {
            began: clock::mono(),
            started: u64::try_from(started).unwrap_or_default(),
            set: Set {
                server: server.to_owned(),
                queue: self.queue.number(),
                queue_length: settings.queue_length.into(),
                max_pending: wide(settings.max_pending),
                packet_timeout_ms: u64::try_from(settings.packet_timeout.as_millis()).unwrap_or(u64::MAX),
                queue_buffer: wide(self.queue.granted_receive_buffer()),
                relays_events: self.events.is_some(),
                marked_only: settings.interest != crate::conntrack::Interest::All,
                event_buffer: buffer.map(|(granted, _)| wide(granted)),
                event_buffer_forced: buffer.map(|(_, forced)| forced),
                max_unacknowledged: wide(settings.max_unacknowledged),
                sets_marks: settings.sets_marks,
                mark_mask: settings.mark_mask.0,
                reject_bit: settings.reject_bit.0,
            },
            inodes: (
                self.queue.socket_inode(),
                self.events.as_ref().and_then(Events::socket_inode),
            ),
        }
    }

    /// Tells of itself from now on.
    pub fn watched(&mut self) -> watch::Receiver<Moment> {
        let (moments, receiver) = watch::channel(self.moment(clock::mono()));
        self.observer.moments = Some(moments);
        receiver
    }

    /// Tells of itself, when it is due.
    pub(super) fn tell(&mut self, now: Instant) {
        if now < self.observer.next {
            return;
        }
        self.observer.next = now + TELL_EVERY;
        if let Some(moments) = &self.observer.moments {
            moments.send_replace(self.moment(now));
        }
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment {
            at: now,
            stats: self.stats(),
            seen: self.observer.seen,
            queue: self.queue.stats(),
            pending: self.pending.len(),
            unacknowledged: self.relay.len(),
            last_sent: self.relay.last_sent().0,
            known_sources: self.sources.known(),
            interfaces: self.names.known(),
            link_since: self.observer.link_since.filter(|_| self.link.is_up()),
            dumping: self.dumps.is_running(),
        }
    }
}
