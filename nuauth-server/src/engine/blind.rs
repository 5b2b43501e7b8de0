//! Connections that passed without a verdict, as the administrator chose for the time when nobody could be asked.
//!
//! They are known by a reserved bit of their mark, and by nothing else: each gets a row without a user, so that whoever
//! reads the log sees what went unasked. Nothing here lets a packet pass.

use super::Engine;
use super::conns::{Conn, Flow, Side, Slot, shown_by, too_old};
use super::ended::Ended;
use super::events::{Sight, original_flow};
use super::gateways::GatewayIdx;
use super::types::Effect;
use nufw_proto::gateway::{Ask, Blind};
use nufw_proto::{Batch, CtEntry, CtEvent, Mark, Timestamp};
use nulog::{Change, CloseReason, OpenRow};
use std::sync::Arc;
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
        let row = self.blind_row(gateway, entry, at)?;
        while let Some(older) = self.conns.bound(&flow) {
            self.end_unseen(older, CloseReason::Replaced, entry.start, out);
        }
        let slot = self.conns.insert(Conn {
            id: row.id,
            gateway,
            zone: entry.zone,
            original: entry.original,
            side: Side::Bound {
                ct_id: entry.id,
                reply: entry.reply,
            },
            user: None,
            user_mark: row.mark,
            mark: entry.mark,
            established: false,
            grants: 0,
            granted_again: false,
            counted: 0,
            seen_in: self.gateways.get(gateway).dump_count,
            granted: Some(Duration::ZERO),
            received: row.received,
            last_asked: row.received,
            born: entry.start,
            before_nat: false,
            who: None,
        });
        Self::log(Change::Open(Box::new(row)), out);
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

    fn blind_row(&mut self, gateway: GatewayIdx, entry: &CtEntry, at: Timestamp) -> Option<OpenRow> {
        if !self.limits.levels.connections {
            return None;
        }
        let id = (self.conns.len() < self.limits.connections)
            .then(|| self.next_id())
            .flatten();
        let Some(id) = id else {
            // A later dump finds it again, if it still lives.
            self.stats.blind_unlogged += 1;
            self.gateways.get_mut(gateway).doubted = true;
            return None;
        };
        self.stats.blind += 1;
        let gateway = self.gateways.get(gateway);
        let bit = gateway.link.as_ref().map_or(Mark(0), |link| link.blind);
        let empty = || Arc::from("");
        Some(OpenRow {
            id,
            gateway: Arc::clone(&gateway.name),
            received: entry.start.unwrap_or(at),
            prefix: empty(),
            mark: bit,
            in_dev: empty(),
            out_dev: empty(),
            zone: entry.zone,
            original: entry.original,
            shown: shown_by(entry).unwrap_or(entry.original),
            user: None,
            client_os: None,
            client_app: None,
            acl: Arc::from(LABEL),
            parent: None,
            policy: empty(),
            auth: None,
        })
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
