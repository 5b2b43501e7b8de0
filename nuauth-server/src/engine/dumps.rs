//! Dumps of a gateway's table: what is in one is live, what is missing from a whole one is gone.
//!
//! Judges only what the agent's order of work allows: rows that were granted before the dump was asked for.

use super::Engine;
use super::conns::{Side, Slot};
use super::events::{Sight, sum};
use super::gateways::{Dump, GatewayIdx};
use super::types::{Effect, Now};
use nufw_proto::gateway::{DumpBegin, DumpEnd, DumpPart};
use nufw_proto::{CtEntry, DumpId};
use nulog::{Change, CloseReason};
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

    pub(super) fn dump_part(
        &mut self,
        gateway: GatewayIdx,
        part: &DumpPart,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let present = self.gateways.get(gateway);
        if present.dump.is_none_or(|dump| dump.id != part.dump) {
            return;
        }
        for entry in part.entries.iter() {
            let sight = Sight {
                entry,
                kind: None,
                told: None,
            };
            let known = self.conn_of(gateway, sight, out);
            let passed = known.or_else(|| self.adopt_blind(gateway, sight, now.wall, out));
            // One whose first event was lost; when it came to be only the kernel's time tells.
            let brought = passed.or_else(|| self.related(gateway, sight, entry.start?, out));
            match brought {
                Some(slot) => self.seen(slot, entry, out),
                None => self.adopt(gateway, entry, now, out),
            }
        }
    }

    /// A live connection is in the table.
    pub(super) fn seen(&mut self, slot: Slot, entry: &CtEntry, out: &mut Vec<Effect>) {
        let gateway = self.conns.get(slot).gateway;
        self.conns.get_mut(slot).seen_in = self.gateways.get(gateway).dump_count;
        // When the answer came is not known: only that it has.
        self.answered(slot, entry, None, out);
        self.count(slot, entry, out);
    }

    /// The whole table was seen: what was live and is not in it is gone.
    pub(super) fn dump_end(&mut self, gateway: GatewayIdx, end: DumpEnd, now: Now, out: &mut Vec<Effect>) {
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
        let missed_before = present.missed_before;
        let absent: Vec<(Slot, CloseReason)> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.gateway == gateway && conn.seen_in != dump_count)
            .filter_map(|(slot, conn)| {
                let decided = conn.granted.is_some_and(|granted| granted < dump.judges_before);
                match conn.side {
                    // What passed blind is only known because the kernel had it.
                    Side::Unbound { .. } if conn.user.is_none() => Some((slot, CloseReason::Resync)),
                    Side::Unbound { .. } if decided && asked_again.contains(&conn.id) => {
                        undecided = true;
                        None
                    }
                    // Granted when its packets were lost, and they did not come again.
                    Side::Unbound { .. } if conn.grants == 0 => {
                        decided.then_some((slot, CloseReason::NeverForwarded))
                    }
                    Side::Unbound { .. } => {
                        // Where events were missed, its whole life may be among them.
                        let missed = conn.granted < missed_before;
                        let reason = if missed {
                            CloseReason::Resync
                        } else {
                            CloseReason::NeverConfirmed
                        };
                        decided.then_some((slot, reason))
                    }
                    // A later packet that was granted under it may be making its next entry.
                    Side::Bound { .. } if conn.granted_again && !decided => {
                        undecided = true;
                        None
                    }
                    Side::Bound { .. } => Some((slot, CloseReason::Resync)),
                }
            })
            .collect();
        if undecided {
            self.gateways.get_mut(gateway).doubted = true;
        }
        for (slot, reason) in absent {
            // Whatever the table lacks had ended by the time that it was read.
            let at = reason.is_inferred().then_some(now.wall);
            self.stats.resynced_rows += u64::from(reason == CloseReason::Resync);
            self.end_unseen(slot, reason, at, out);
        }
    }

    /// What a live connection has carried, told to the log when it has carried more.
    fn count(&mut self, slot: Slot, entry: &CtEntry, out: &mut Vec<Effect>) {
        let id = self.conns.get(slot).id;
        let former = self.lingering.get(&id).and_then(|end| end.counters);
        let Some(counters) = entry.counters.and_then(|counters| sum(former, Some(counters))) else {
            return;
        };
        let packets = counters.original.packets.saturating_add(counters.reply.packets);
        let conn = self.conns.get_mut(slot);
        if packets > conn.counted {
            conn.counted = packets;
            Self::log(Change::Counted { id, counters }, out);
        }
    }

    /// Asks a gateway for its table.
    pub(super) fn look_at_table(&mut self, gateway: GatewayIdx, now: Now, out: &mut Vec<Effect>) {
        self.stats.dumps += 1;
        let asked = self.gateways.get(gateway);
        self.stats.resyncs += u64::from(asked.doubted || asked.missed_before == Some(now.mono));
        self.gateways.request_dump(gateway, now, out);
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

    /// Asks for a dump where a granted connection has not been confirmed for long, something may have been missed, or it is
    /// time to count.
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
        if self.held.is_some() {
            // Before the rows are known a dump proves nothing.
            return;
        }
        for gateway in self.gateways.to_look_at(now, &self.limits) {
            self.look_at_table(gateway, now, out);
        }
    }
}
