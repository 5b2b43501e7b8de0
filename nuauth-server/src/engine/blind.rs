//! Connections that passed without a verdict, as the administrator chose for the time when nobody could be asked.
//!
//! They are known by a reserved bit of their mark, and by nothing else: each gets a row without a user, so that whoever
//! reads the log sees what went unasked. Nothing here lets a packet pass.

use super::Engine;
use super::conns::{Conn, Flow, Side, Slot, too_old};
use super::ended::Ended;
use super::events::{Sight, original_flow};
use super::gateways::GatewayIdx;
use super::types::Effect;
use super::unasked::Unasked;
use nufw_proto::gateway::{Ask, Blind};
use nufw_proto::{Batch, ConnId, CtEntry, CtEvent, Mark, Timestamp};
use nulog::CloseReason;
use std::time::Duration;

/// What stands in the row where a rule's name would.
const LABEL: &str = "(blind)";

impl Engine {
    /// The agent says which bit marks what passed without a verdict.
    pub(super) fn blind(&mut self, gateway: GatewayIdx, blind: Blind) {
        if let Some(link) = &mut self.gateways.get_mut(gateway).link {
            link.blind = blind.bit;
        }
    }

    /// Whether an entry's connection passed without a verdict.
    pub(super) fn is_blind(&self, gateway: GatewayIdx, entry: &CtEntry) -> bool {
        let link = self.gateways.get(gateway).link.as_ref();
        link.is_some_and(|link| entry.mark.0 & link.blind.0 != 0)
    }

    /// An entry without a row: if it passed blind it gets one, and is followed like any other from here on.
    pub(super) fn adopt_blind(
        &mut self,
        gateway: GatewayIdx,
        sight: Sight<'_>,
        at: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Option<Slot> {
        let entry = sight.entry;
        if !self.is_blind(gateway, entry) {
            return None;
        }
        let flow = original_flow(gateway, entry);
        if let Some(younger) = self.conns.bound(&flow)
            && too_old(entry, sight.told, self.conns.get(younger).received)
        {
            return None;
        }
        let id = self.place_for_blind(gateway)?;
        while let Some(older) = self.conns.bound(&flow) {
            self.end_unseen(older, CloseReason::Replaced, entry.start, out);
        }
        let present = self.gateways.get(gateway);
        let (dump, bit) = (present.dump_count, present.link.as_ref().map(|link| link.blind));
        let received = entry.start.unwrap_or(at);
        let unasked = Unasked {
            id,
            gateway,
            entry,
            label: LABEL,
            mark: bit.unwrap_or(Mark(0)),
            who: None,
            parent: None,
            received,
            since: received,
            granted: Duration::ZERO,
            grants: 0,
        };
        let slot = self.open_unasked(unasked, out);
        self.conns.bind(slot, entry, entry.start, dump);
        Some(slot)
    }

    /// All that was ever seen of a connection that passed blind is its end: its row is written whole.
    pub(super) fn blind_end(&mut self, gateway: GatewayIdx, event: &CtEvent, out: &mut Vec<Effect>) -> bool {
        let sight = Sight {
            entry: &event.entry,
            kind: Some(event.kind),
            told: event.at_kernel.then_some(event.at),
        };
        let Some(slot) = self.adopt_blind(gateway, sight, event.at, out) else {
            return false;
        };
        self.answered(slot, &event.entry, None, out);
        self.destroyed(gateway, slot, event, out);
        true
    }

    /// The kernel may tell an end twice; the second must not make another row.
    pub(super) fn remember_blind(&mut self, conn: &Conn, reason: CloseReason) {
        let Side::Bound { ct_id, .. } = conn.side else {
            return;
        };
        if conn.user.is_some() {
            return;
        }
        let flow = Flow {
            gateway: conn.gateway,
            zone: conn.zone,
            tuple: conn.original,
        };
        let ended = Ended {
            row: conn.id,
            reason,
            established: conn.established,
            ct_id: Some(ct_id),
            received: conn.received,
            decided_by: Timestamp::from_micros(i64::MAX),
            user_mark: Mark(0),
        };
        self.ended.keep(flow, ended);
    }

    /// The id of another such row, if there is room for one.
    fn place_for_blind(&mut self, gateway: GatewayIdx) -> Option<ConnId> {
        if !self.limits.levels.connections {
            return None;
        }
        let id = (self.conns.len() < self.limits.connections)
            .then(|| self.next_id())
            .flatten();
        if id.is_some() {
            self.stats.blind += 1;
        } else {
            // A later dump finds it again, if it still lives.
            self.stats.blind_unlogged += 1;
            self.gateways.get_mut(gateway).doubted = true;
        }
        id
    }

    /// Asks that another server was asked instead, since the link was lost before their answers came. What this one
    /// granted never reached a packet: those rows are over.
    pub(super) fn elsewhere(&mut self, gateway: GatewayIdx, asks: &Batch<Ask>, out: &mut Vec<Effect>) {
        for ask in asks.iter() {
            let flow = Flow {
                gateway,
                zone: ask.zone,
                tuple: ask.tuple,
            };
            let is_its_row = |slot: &Slot| {
                let conn = self.conns.get(*slot);
                conn.received == ask.received && conn.granted.is_some()
            };
            let superseded: Vec<Slot> = self.conns.unbound(flow).filter(is_its_row).collect();
            for slot in superseded {
                self.close(slot, CloseReason::Superseded, out);
            }
        }
    }
}
