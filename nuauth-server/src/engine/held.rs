//! What agents tell before it is known which rows were live when the server started, as after a start without the database.
//!
//! No event is taken before that: it could be bound to a row of this run although it is of one of the run before. What is
//! held here is not acknowledged either, so that an agent sends it again should the server end meanwhile. Dumps are asked
//! for anew afterwards.

use super::Engine;
use super::types::{Effect, LinkId, Now};
use nufw_proto::gateway::ToServer;
use nufw_proto::{BootId, ConnId, EventSeq};
use nulog::ActiveRow;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Events that are held; a link that brings more is ended when the rows are known, so that its agent sends them again.
const EVENTS: usize = 65_536;

/// What waits for the rows.
#[derive(Default)]
pub(super) struct Held {
    messages: VecDeque<(LinkId, ToServer)>,
    events: usize,
    /// Links of which something was not taken.
    cut: BTreeSet<LinkId>,
    /// Ids of this run: what became of their rows is known here better than in the log.
    own: Vec<Range<u64>>,
}

impl Held {
    pub(super) fn ids(&mut self, block: &Range<u64>) {
        self.own.push(block.clone());
    }

    pub(super) fn hold(&mut self, link: LinkId, message: ToServer) {
        let weight = match &message {
            ToServer::Events(events) => events.events.iter().count(),
            ToServer::Gap(_) | ToServer::Elsewhere(_) | ToServer::LetGo(_) => 1,
            _ => return,
        };
        if self.cut.contains(&link) {
            return;
        }
        if self.events + weight > EVENTS {
            self.cut.insert(link);
            return;
        }
        self.events += weight;
        self.messages.push_back((link, message));
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        self.cut.remove(&link);
        self.messages.retain(|(of, _)| *of != link);
        self.events = self
            .messages
            .iter()
            .map(|(_, message)| match message {
                ToServer::Events(events) => events.events.iter().count(),
                _ => 1,
            })
            .sum();
    }

    fn is_own(&self, id: ConnId) -> bool {
        let id = u64::from(id);
        self.own.iter().any(|block| block.contains(&id))
    }
}

impl Engine {
    /// The rows of before are known now: what was held is taken, in its order.
    pub(super) fn loaded_late(
        &mut self,
        mut held: Held,
        mut rows: Vec<ActiveRow>,
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        rows.retain(|row| !held.is_own(row.id));
        self.load(rows, acknowledged, out);
        for (link, message) in std::mem::take(&mut held.messages) {
            self.gateway_says(link, message, now, out);
        }
        let by_flags: Vec<_> = self
            .gateways
            .linked()
            .filter_map(|(gateway, link)| link.by_flags.then_some(gateway))
            .collect();
        for gateway in by_flags {
            self.begin_by_flags(gateway, now, out);
        }
        for link in held.cut {
            self.link_down(link);
            out.push(Effect::EndLink {
                link,
                reason: "the log was away: send again what is not acknowledged",
            });
        }
        let linked = self.gateways.linked();
        let tracking: Vec<_> = linked
            .filter_map(|(gateway, link)| link.relays_events.then_some(gateway))
            .collect();
        for gateway in tracking {
            self.look_at_table(gateway, now, out);
        }
    }
}
