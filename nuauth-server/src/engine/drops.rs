//! Drops of the last minute, so that a retransmission gets the same answer without another row.
//!
//! Bounded; the oldest is forgotten first. Decides nothing.

use super::conns::Flow;
use super::types::{Now, Refused};
use nufw_proto::Addr;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
struct Drop {
    why: Refused,
    last_packet: Duration,
    /// Tells the entry of the queue that is in force from those that a later packet has overtaken.
    turn: u64,
}

pub(super) struct RecentDrops {
    flows: HashMap<Flow, Drop>,
    /// In the order of their last packet; an entry is stale when its turn is not the flow's.
    order: VecDeque<(Duration, u64, Flow)>,
    turn: u64,
    max: usize,
    memory: Duration,
}

impl RecentDrops {
    pub(super) fn new(max: usize, memory: Duration) -> Self {
        Self {
            flows: HashMap::new(),
            order: VecDeque::new(),
            turn: 0,
            max,
            memory,
        }
    }

    /// Remembers a drop.
    pub(super) fn remember(&mut self, flow: Flow, why: Refused, now: Now) {
        self.turn += 1;
        self.flows.insert(
            flow,
            Drop {
                why,
                last_packet: now.mono,
                turn: self.turn,
            },
        );
        self.order.push_back((now.mono, self.turn, flow));
        // Twice the bound: stale entries are only markers, and are as many as there were retransmissions.
        while self.flows.len() > self.max || self.order.len() > 2 * self.max {
            self.forget_oldest();
        }
    }

    /// The decision of a drop that is remembered for this flow; its memory begins anew, since the gaps between the
    /// retransmissions of one `connect()` stay below it.
    pub(super) fn repeat(&mut self, flow: &Flow, now: Now) -> Option<Refused> {
        let drop = self.flows.get(flow)?;
        if now.mono >= drop.last_packet + self.memory {
            return None;
        }
        let why = drop.why;
        self.remember(*flow, why, now);
        Some(why)
    }

    /// Forgets every drop of a source: somebody logged in there.
    pub(super) fn forget_source(&mut self, source: Addr) {
        self.flows.retain(|flow, _| flow.tuple.src() != source);
    }

    /// Forgets this flow: it was granted.
    pub(super) fn forget(&mut self, flow: &Flow) {
        self.flows.remove(flow);
    }

    /// Forgets everything: the policy changed.
    pub(super) fn forget_all(&mut self) {
        self.flows.clear();
        self.order.clear();
    }

    pub(super) fn expire(&mut self, now: Now) {
        while self
            .order
            .front()
            .is_some_and(|&(last, ..)| last + self.memory <= now.mono)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, turn, flow)) = self.order.pop_front()
            && self.flows.get(&flow).is_some_and(|drop| drop.turn == turn)
        {
            self.flows.remove(&flow);
        }
    }
}
