//! The packets that wait for an answer: which ask is which packet, and until when.
//!
//! Pure: time is a parameter, nothing is sent from here, and no packet is forgotten: each leaves by an answer, by its
//! deadline or by [`Pending::drain`].

use hashbrown::HashMap;
use nufw_proto::AskId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The table is full; the packet must be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many packets wait for an answer as may")]
pub struct Full;

/// The table; `P` is what the caller knows a packet by.
#[derive(Debug)]
pub struct Pending<P> {
    timeout: Duration,
    max: usize,
    next: u64,
    waiting: HashMap<AskId, P>,
    /// Deadlines in the order of asking, which is theirs since the timeout is one; answered asks linger in it until
    /// they come to the front or are more than half of it.
    deadlines: VecDeque<(Instant, AskId)>,
}

impl<P> Pending<P> {
    /// An empty table for at most `max` packets, each of which waits for `timeout`.
    pub fn new(max: usize, timeout: Duration) -> Self {
        Self {
            timeout,
            max,
            next: 1,
            waiting: HashMap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Names packets from `first` on, which must be beyond all names that this boot has given before.
    pub fn begin_at(&mut self, first: u64) {
        self.next = self.next.max(first);
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no packet waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes a packet and names it.
    pub fn insert(&mut self, packet: P, now: Instant) -> Result<AskId, Full> {
        if self.waiting.len() >= self.max {
            return Err(Full);
        }
        if self.deadlines.len() >= 2 * self.max.max(16) {
            let waiting = &self.waiting;
            self.deadlines.retain(|(_, ask)| waiting.contains_key(ask));
        }
        let ask = AskId(self.next);
        self.next += 1;
        self.waiting.insert(ask, packet);
        self.deadlines.push_back((now + self.timeout, ask));
        Ok(ask)
    }

    /// The packet of an ask, which waits no longer; `None` if it did not.
    pub fn answer(&mut self, ask: AskId) -> Option<P> {
        let packet = self.waiting.remove(&ask);
        self.trim();
        packet
    }

    /// The packet that has waited longest, if its time is over by `now`; it waits no longer.
    pub fn expire(&mut self, now: Instant) -> Option<(AskId, P)> {
        self.trim();
        let (deadline, ask) = *self.deadlines.front()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_front();
        self.waiting.remove(&ask).map(|packet| (ask, packet))
    }

    /// Every packet that waits, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (AskId, &P)> {
        self.deadlines
            .iter()
            .filter_map(|(_, ask)| Some((*ask, self.waiting.get(ask)?)))
    }

    /// The same, to be changed. Oldest first.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(AskId, &mut P)) {
        for (_, ask) in &self.deadlines {
            if let Some(packet) = self.waiting.get_mut(ask) {
                change(*ask, packet);
            }
        }
    }

    /// All packets, which wait no longer; for the loss of the link.
    pub fn drain(&mut self) -> impl Iterator<Item = P> {
        self.deadlines.clear();
        self.waiting.drain().map(|(_, packet)| packet)
    }

    fn trim(&mut self) {
        while self
            .deadlines
            .front()
            .is_some_and(|(_, ask)| !self.waiting.contains_key(ask))
        {
            self.deadlines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
