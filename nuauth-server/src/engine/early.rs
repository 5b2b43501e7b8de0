//! Claims that came before their packet, kept for a moment.
//!
//! A client announces what it was opening while it had no session; the retransmitted packet finds the claim here.
//! Bounded; the oldest is forgotten first, and its client is asked instead.

use super::types::Now;
use nufw_proto::client::Mine;
use nufw_proto::{SessionId, Tuple};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

struct Early {
    session: SessionId,
    mine: Mine,
    until: Duration,
}

pub(super) struct EarlyClaims {
    claims: HashMap<Tuple, Early>,
    order: VecDeque<(Duration, Tuple)>,
    max: usize,
    age: Duration,
}

impl EarlyClaims {
    pub(super) fn new(max: usize, age: Duration) -> Self {
        Self {
            claims: HashMap::new(),
            order: VecDeque::new(),
            max,
            age,
        }
    }

    pub(super) fn keep(&mut self, session: SessionId, mine: Mine, now: Now) {
        let tuple = mine.seen;
        let until = now.mono + self.age;
        let early = Early { session, mine, until };
        if self.claims.insert(tuple, early).is_some() {
            self.order.retain(|(_, other)| *other != tuple);
        }
        self.order.push_back((until, tuple));
        while self.order.len() > self.max {
            self.forget_oldest();
        }
    }

    /// Takes the claim of exactly this tuple. A translated destination does not match, so that its client is asked.
    pub(super) fn take(&mut self, shown: &Tuple, now: Now) -> Option<(SessionId, Mine)> {
        let early = self.claims.remove(shown)?;
        self.order.retain(|(_, tuple)| tuple != shown);
        (now.mono < early.until).then_some((early.session, early.mine))
    }

    pub(super) fn expire(&mut self, now: Now) {
        while self.order.front().is_some_and(|&(until, _)| until <= now.mono) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, tuple)) = self.order.pop_front() {
            self.claims.remove(&tuple);
        }
    }
}
