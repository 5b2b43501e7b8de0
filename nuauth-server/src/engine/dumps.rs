//! Dumps of a gateway's table: what is in one is live, what is missing from a whole one is gone.
//!
//! Judges only what the agent's order of work allows: rows that were granted before the dump was asked for.

use super::Engine;
use super::conns::{Side, Slot};
use super::events::Sight;
use super::gateways::{Dump, GatewayIdx};
use super::types::{Effect, Now};
use nufw_proto::DumpId;
use nufw_proto::gateway::{DumpBegin, DumpEnd, DumpPart};
use nulog::CloseReason;
use std::time::Duration;

impl Engine {
    pub(super) fn dump_begin(&mut self, gateway: GatewayIdx, begin: DumpBegin) {
        let gateway = self.gateways.get_mut(gateway);
        gateway.dump_count = gateway.dump_count.wrapping_add(1);
        let judges_before = match gateway.requested {
            // The agent works in order: whatever was granted before the request reached the kernel before the dump.
            Some((dump, at)) if dump == begin.dump && begin.dump != DumpId(0) => at,
            // How the verdicts that are on their way stand to an unasked dump cannot be known, however old they are.
            _ => Duration::ZERO,
        };
        gateway.dump = Some(Dump {
            id: begin.dump,
            judges_before,
        });
    }

    pub(super) fn dump_part(&mut self, gateway: GatewayIdx, part: &DumpPart, out: &mut Vec<Effect>) {
        let present = self.gateways.get(gateway);
        if present.dump.is_none_or(|dump| dump.id != part.dump) {
            return;
        }
        let dump = present.dump_count;
        for entry in part.entries.iter() {
            let sight = Sight {
                entry,
                kind: None,
                told: None,
            };
            if let Some(slot) = self.conn_of(gateway, sight, out) {
                self.conns.get_mut(slot).seen_in = dump;
                // When the answer came is not known: only that it has.
                self.answered(slot, entry, None, out);
            }
        }
    }

    /// The whole table was seen: what was live and is not in it is gone.
    pub(super) fn dump_end(&mut self, gateway: GatewayIdx, end: DumpEnd, out: &mut Vec<Effect>) {
        let present = self.gateways.get_mut(gateway);
        let dump_count = present.dump_count;
        let Some(dump) = present.dump.take_if(|dump| dump.id == end.dump) else {
            return;
        };
        let asked_for = present.requested.take_if(|(id, _)| *id == end.dump).is_some();
        if !end.complete {
            // What it would have told is still to be learnt.
            present.doubted = true;
            return;
        }
        if asked_for {
            present.doubted = false;
        }
        // Their verdicts were lost with a link, and their packets ask once more.
        let asked_again = self.pending.about_rows();
        let mut undecided = false;
        let absent: Vec<(Slot, CloseReason)> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.gateway == gateway && conn.seen_in != dump_count)
            .filter_map(|(slot, conn)| {
                let decided = conn.granted.is_some_and(|granted| granted < dump.judges_before);
                match conn.side {
                    Side::Unbound { .. } if decided && asked_again.contains(&conn.id) => {
                        undecided = true;
                        None
                    }
                    // Granted when its packets were lost, and they did not come again.
                    Side::Unbound { .. } if conn.grants == 0 => {
                        decided.then_some((slot, CloseReason::NeverForwarded))
                    }
                    Side::Unbound { .. } => decided.then_some((slot, CloseReason::NeverConfirmed)),
                    // A later packet that was granted under it may be making its next entry.
                    Side::Bound { .. } if conn.granted_again && !decided => {
                        undecided = true;
                        None
                    }
                    Side::Bound { .. } => Some((slot, CloseReason::Vanished)),
                }
            })
            .collect();
        if undecided {
            self.gateways.get_mut(gateway).doubted = true;
        }
        for (slot, reason) in absent {
            self.end_unseen(slot, reason, out);
        }
    }

    /// A gateway that relays no events tells nothing of its connections: their rows end with what is known.
    pub(super) fn untrack(&mut self, gateway: GatewayIdx, out: &mut Vec<Effect>) {
        let granted: Vec<Slot> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.gateway == gateway && conn.granted.is_some())
            .map(|(slot, _)| slot)
            .collect();
        for slot in granted {
            self.close(slot, CloseReason::Untracked, out);
        }
    }

    /// Doubts these gateways, as far as they relay events; the next tick asks them for dumps.
    pub(super) fn verify(&mut self, gateways: &[String]) {
        let doubted: Vec<GatewayIdx> = self
            .gateways
            .linked()
            .filter(|(index, link)| {
                let name = &self.gateways.get(*index).name;
                link.relays_events && gateways.iter().any(|gateway| **gateway == **name)
            })
            .map(|(index, _)| index)
            .collect();
        for gateway in doubted {
            self.gateways.get_mut(gateway).doubted = true;
        }
    }

    /// Asks for a dump where a granted connection has not been confirmed for long.
    pub(super) fn doubt_unconfirmed(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(&(granted, id)) = self.gateways.grants.front() {
            if granted + self.limits.confirm_within > now.mono {
                break;
            }
            self.gateways.grants.pop_front();
            if let Some(slot) = self.conns.by_id(id).filter(|_| self.conns.is_unbound(id)) {
                let gateway = self.conns.get(slot).gateway;
                self.gateways.get_mut(gateway).doubted = true;
            }
        }
        for gateway in self.gateways.doubted_and_quiet(now, self.limits.dump_interval) {
            self.gateways.request_dump(gateway, now, out);
        }
    }
}
