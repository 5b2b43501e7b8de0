//! The story of a connection after its verdict: what the kernel's events say, and which row they are about.
//!
//! A connection is bound to an entry by zone, original source and reply source; from then on its entry's original
//! tuple and id name it. Only here, in `dumps` and in `asks` do rows change state.

use super::Engine;
use super::conns::{Conn, Flow, Side, Slot, shown_by, too_old};
use super::ended::Ended;
use super::gateways::GatewayIdx;
use super::quality::Quality;
use super::types::{Effect, Now};
use super::who::Who;
use nufw_proto::gateway::Events;
use nufw_proto::{
    BootId, ConnId, Count, Counters, CtEntry, CtEvent, CtEventKind, EventSeq, Mark, Removal, TcpState,
    Timestamp, Transport,
};
use nulog::{ActiveRow, Binding, Change, Close, CloseReason, Established, State, Translated, User};
use std::sync::Arc;
use std::time::Duration;

/// An entry's first event and its own account of its birth differ by less than this, microseconds: some hundred of them
/// were measured, and no tuple is used again so soon.
const SAME_BIRTH: u64 = 1_000_000;

/// What was seen of an entry.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) entry: &'a CtEntry,
    /// The event that told it; `None` for a dump.
    pub(super) kind: Option<CtEventKind>,
    /// The kernel's time of the event. The agent's would prove nothing: it reads events late.
    pub(super) told: Option<Timestamp>,
}

impl Sight<'_> {
    /// When the entry was confirmed, as far as this tells it.
    pub(super) fn born(&self) -> Option<Timestamp> {
        let first = self.told.filter(|_| self.kind == Some(CtEventKind::New));
        self.entry.start.or(first)
    }
}

impl Engine {
    /// What the log knew at start. The rows wait, bound or not, for their gateways.
    pub(super) fn load(
        &mut self,
        mut rows: Vec<ActiveRow>,
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
        out: &mut Vec<Effect>,
    ) {
        for (name, boot, through) in acknowledged {
            self.gateways.loaded(&name, boot, through);
        }
        // The crash may have come between a row and the end of the one before it.
        rows.sort_by_key(|row| (row.received, row.id));
        for row in rows {
            let gateway = self.gateways.intern(&row.gateway);
            let heard = &mut self.gateways.get_mut(gateway).heard;
            *heard = (*heard).max(Some(row.received));
            let side = match row.translated {
                Translated::Shown(shown) => Side::Unbound { shown },
                Translated::Bound(Binding { ct_id, reply, .. }) => {
                    let flow = Flow {
                        gateway,
                        zone: row.zone,
                        tuple: row.original,
                    };
                    if let Some(older) = self.conns.bound(&flow) {
                        self.end_unseen(older, CloseReason::Replaced, None, out);
                    }
                    Side::Bound { ct_id, reply }
                }
            };
            let who = row.user_id.zip(row.username).and_then(|(id, name)| {
                self.conns.who.keep(Who {
                    user: Some(User { id, name }),
                    os: row.client_os,
                    app: row.client_app,
                    hash: None,
                    hash_is_forgotten: true,
                    in_dev: row.in_dev,
                    out_dev: row.out_dev,
                    phys_in: row.phys_in,
                    phys_out: row.phys_out,
                    quality: row.auth.as_deref().and_then(Quality::parse).unwrap_or_default(),
                })
            });
            self.conns.insert(Conn {
                id: row.id,
                gateway,
                zone: row.zone,
                original: row.original,
                side,
                user: row.user_id,
                user_mark: row.mark,
                mark: match row.translated {
                    Translated::Bound(binding) => binding.ct_mark,
                    Translated::Shown(_) => row.mark,
                },
                established: row.state == State::Established,
                // How many packets went on is not known: no report of an unused verdict may end it.
                grants: u8::MAX,
                granted_again: false,
                counted: 0,
                seen_in: 0,
                granted: Some(Duration::ZERO),
                received: row.received,
                before_nat: false,
                last_asked: row.received,
                born: None,
                who,
            });
        }
    }

    /// A run of events. What is received again is passed over; the rest is acknowledged once it is durable.
    pub(super) fn events(&mut self, gateway: GatewayIdx, run: &Events, now: Now, out: &mut Vec<Effect>) {
        let effects_before = out.len();
        for (offset, event) in (0..).zip(run.events.iter()) {
            let Some(seq) = run.first.0.checked_add(offset) else {
                break;
            };
            if self.gateways.take_event(gateway, EventSeq(seq)) {
                self.event(gateway, event, now, out);
            } else {
                self.stats.repeated_events += 1;
            }
        }
        let changed = out[effects_before..]
            .iter()
            .any(|effect| matches!(effect, Effect::Log(_)));
        self.acknowledge(gateway, changed, out);
    }

    fn event(&mut self, gateway: GatewayIdx, event: &CtEvent, now: Now, out: &mut Vec<Effect>) {
        if self.by_flags(gateway) {
            return self.segment(gateway, event, now, out);
        }
        let entry = &event.entry;
        let sight = Sight {
            entry,
            kind: Some(event.kind),
            told: event.at_kernel.then_some(event.at),
        };
        let mut slot = self.conn_of(gateway, sight, out);
        if slot.is_none() && event.kind != CtEventKind::Destroy {
            slot = self.adopt_blind(gateway, sight, event.at, out);
        }
        match (event.kind, slot) {
            // A first event that already shows the answer was merged with a later one: when the answer came is not known.
            (CtEventKind::New, Some(slot)) => self.answered(slot, entry, None, out),
            (CtEventKind::Update, Some(slot)) => self.answered(slot, entry, Some(event.at), out),
            (CtEventKind::Destroy, Some(slot)) => {
                let row = self.conns.get(slot).id;
                let ours = self.kills.is_ordered(row) || self.kills.is_let_go(row);
                match event.removal {
                    // The agent is that program where the server ordered the end, or the connection was over.
                    Removal::ByProgram if ours => {}
                    Removal::ByProgram => self.note_deleted(gateway, event.at, now),
                    Removal::Early => self.stats.evicted_entries += 1,
                    Removal::Unsaid => {}
                }
                self.destroyed(gateway, slot, event, out);
            }
            (CtEventKind::New, None) => {
                self.replaced_by_stranger(gateway, sight, out);
                match self.related(gateway, sight, event.at, out) {
                    Some(slot) => self.answered(slot, entry, None, out),
                    None => self.stats.unrelated_events += 1,
                }
            }
            (CtEventKind::Update, None) => self.stats.unrelated_events += 1,
            (CtEventKind::Destroy, None) => self.late_destroy(gateway, event, out),
        }
    }

    /// The connection of an entry; one that waits for its entry is bound to it.
    pub(super) fn conn_of(
        &mut self,
        gateway: GatewayIdx,
        sight: Sight<'_>,
        out: &mut Vec<Effect>,
    ) -> Option<Slot> {
        let entry = sight.entry;
        let bound = self
            .conns
            .bound_to(&original_flow(gateway, entry), entry.id)
            .filter(|&slot| !too_old(entry, sight.told, self.conns.get(slot).received));
        let of_user = |conn: &Conn| conn.user_mark.0 == entry.mark.0 & self.limits.mark_mask.0;
        let rivals = |waiting: &Slot| {
            bound.is_none_or(|bound| {
                let (bound, waiting) = (self.conns.get(bound), self.conns.get(*waiting));
                bound.received < waiting.received && (of_user(waiting) || !of_user(bound))
            })
        };
        let Some(waiting) = self.unbound_of(gateway, sight).filter(rivals) else {
            return bound.or_else(|| self.granted_to_another(gateway, sight));
        };
        // A tuple that is used again can get the same id again. Then only its birth tells the entry from the one before.
        let another = match sight.kind {
            Some(CtEventKind::New) => true,
            // Of an update the birth is not known.
            Some(CtEventKind::Update) if bound.is_some() => return None,
            _ => entry.start.is_some_and(|start| {
                let born = bound.and_then(|slot| self.conns.get(slot).born);
                born.is_none_or(|born| start.micros().abs_diff(born.micros()) > SAME_BIRTH)
            }),
        };
        if bound.is_some() && !another {
            return bound;
        }
        self.bind(waiting, gateway, sight, out);
        Some(waiting)
    }

    /// The connection whose entry is gone unseen, and of which a later packet that was granted has made this one.
    fn granted_to_another(&mut self, gateway: GatewayIdx, sight: Sight<'_>) -> Option<Slot> {
        let slot = self.conns.bound(&original_flow(gateway, sight.entry))?;
        let conn = self.conns.get(slot);
        if !conn.granted_again || too_old(sight.entry, sight.told, conn.received) {
            return None;
        }
        let shown = shown_by(sight.entry)?;
        self.conns.unbind(slot, shown);
        let dump = self.gateways.get(gateway).dump_count;
        self.conns.bind(slot, sight.entry, sight.born(), dump);
        self.kills.on_bound(self.conns.get(slot).id);
        Some(slot)
    }

    /// The connection that waits for this entry.
    fn unbound_of(&self, gateway: GatewayIdx, sight: Sight<'_>) -> Option<Slot> {
        let entry = sight.entry;
        let mask = self.limits.mark_mask.0;
        let users = entry.mark.0 & mask;
        // What passed without a verdict is of no row that was granted, and the other way round.
        let blind = self.is_blind(gateway, entry);
        let fits = |slot: Slot| {
            let conn = self.conns.get(slot);
            if conn.user.is_none() != blind {
                return false;
            }
            // The mark is the user's own number: another one is of a packet of another user.
            let of_another = users != 0 && conn.user_mark.0 != 0 && conn.user_mark.0 & mask != users;
            // A connection whose row is not durable has no verdict yet, so that the entry cannot be its own.
            conn.granted.is_some() && !of_another && !too_old(entry, sight.told, conn.received)
        };
        // In FORWARD and INPUT a packet shows its translated destination, before that its original one.
        [shown_by(entry), Some(entry.original)]
            .into_iter()
            .flatten()
            .find_map(|tuple| {
                let flow = Flow {
                    gateway,
                    zone: entry.zone,
                    tuple,
                };
                let fitting = self.conns.unbound(flow).filter(|&slot| fits(slot));
                fitting.max_by_key(|&slot| {
                    let conn = self.conns.get(slot);
                    (conn.user_mark.0 == users, conn.received, conn.id)
                })
            })
    }

    pub(super) fn bind(&mut self, slot: Slot, gateway: GatewayIdx, sight: Sight<'_>, out: &mut Vec<Effect>) {
        let entry = sight.entry;
        // The kernel has one entry a tuple and zone: whatever was bound to it before is gone.
        while let Some(older) = self.conns.bound(&original_flow(gateway, entry)) {
            // Learnt from a dump, or from the other's own event: each says how.
            let reason = match sight.kind {
                None => CloseReason::Resync,
                Some(_) => CloseReason::Replaced,
            };
            self.end_unseen(older, reason, sight.born(), out);
        }
        let dump = self.gateways.get(gateway).dump_count;
        self.conns.bind(slot, entry, sight.born(), dump);
        self.kills.on_bound(self.conns.get(slot).id);
    }

    /// A new entry that belongs to no row shows all the same that the one before it is gone.
    fn replaced_by_stranger(&mut self, gateway: GatewayIdx, sight: Sight<'_>, out: &mut Vec<Effect>) {
        let Some(told) = sight.told else { return };
        let entry = sight.entry;
        if let Some(older) = self.conns.bound(&original_flow(gateway, entry))
            && self.conns.bound_to(&original_flow(gateway, entry), entry.id) != Some(older)
            && told > self.conns.get(older).last_asked
        {
            self.end_unseen(older, CloseReason::Replaced, Some(told), out);
        }
    }

    /// OPEN → ESTABLISHED, once, when packets were seen in both directions.
    pub(super) fn answered(
        &mut self,
        slot: Slot,
        entry: &CtEntry,
        at: Option<Timestamp>,
        out: &mut Vec<Effect>,
    ) {
        let conn = self.conns.get_mut(slot);
        if conn.established || !entry.status.seen_reply() {
            return;
        }
        conn.established = true;
        conn.mark = entry.mark;
        let (id, binding) = (conn.id, conn.binding());
        self.kills.tell_end(id);
        if let Some(binding) = binding {
            Self::log(
                Change::Established(Box::new(Established {
                    id,
                    at,
                    binding: Some(binding),
                })),
                out,
            );
        }
    }

    pub(super) fn destroyed(
        &mut self,
        gateway: GatewayIdx,
        slot: Slot,
        event: &CtEvent,
        out: &mut Vec<Effect>,
    ) {
        let entry = &event.entry;
        let conn = self.conns.get_mut(slot);
        conn.mark = entry.mark;
        let let_go = self.kills.is_let_go(conn.id);
        let seen = close_reason(event, conn.established, let_go);
        let mut end = Close {
            id: conn.id,
            at: Some(entry.stop.unwrap_or(event.at)),
            reason: self.kills.reason_seen(conn.id, seen),
            counters: entry.counters,
            binding: conn.binding(),
        };
        if let Some(former) = self.lingering.remove(&end.id) {
            end.counters = sum(former.counters, end.counters);
        }
        if self.begins_anew(slot, event)
            && let Some(shown) = shown_by(entry)
        {
            self.lingering.insert(end.id, end);
            self.conns.unbind(slot, shown);
            self.gateways.get_mut(gateway).doubted = true;
            return;
        }
        let conn = self.conns.remove(slot);
        self.kills.forget(end.id);
        self.remember_blind(&conn, end.reason);
        Self::log(Change::Close(Box::new(end)), out);
    }

    /// Whether a packet that was granted under this row may make another entry after the end of this one: the agent holds a
    /// packet for a known time, so that its verdict may have come after that end. The row goes on with that entry rather
    /// than leave it without.
    fn begins_anew(&self, slot: Slot, event: &CtEvent) -> bool {
        let conn = self.conns.get(slot);
        let decided_by = self.decided_by(conn).unwrap_or(conn.last_asked);
        conn.granted_again && conn.grants > 1 && event.at < decided_by
    }

    /// When the gateway drops the last packet of a connection that was granted, if no verdict comes; `None` while it has no
    /// link that tells how long it holds packets.
    fn decided_by(&self, conn: &Conn) -> Option<Timestamp> {
        let held = self.gateways.get(conn.gateway).link.as_ref()?.packet_timeout;
        let held = i64::try_from(held.as_micros()).unwrap_or(i64::MAX);
        Some(Timestamp::from_micros(
            conn.last_asked.micros().saturating_add(held),
        ))
    }

    /// The end of a connection whose row was closed without having seen it: counters and end can still be filled.
    fn late_destroy(&mut self, gateway: GatewayIdx, event: &CtEvent, out: &mut Vec<Effect>) {
        let entry = &event.entry;
        let told = event.at_kernel.then_some(event.at);
        let users = entry.mark.0 & self.limits.mark_mask.0;
        let fits = |ended: &Ended, ct_id: Option<u32>| {
            // A row that never had an entry does not get that of another user, nor one of a packet that came later.
            let another = users != 0 && ended.user_mark.0 != 0 && ended.user_mark.0 != users;
            let younger = entry.start.is_some_and(|start| start > ended.decided_by);
            ended.ct_id == ct_id
                && !too_old(entry, told, ended.received)
                && (ct_id.is_some() || !(another || younger))
        };
        let original = original_flow(gateway, entry);
        let bound = self
            .ended
            .youngest(&original, |ended| fits(ended, Some(entry.id)))
            .map(|ended| (original, ended));
        let waited = shown_by(entry).and_then(|tuple| {
            let shown = Flow { tuple, ..original };
            let ended = self.ended.youngest(&shown, |ended| fits(ended, None))?;
            Some((shown, ended))
        });
        // An entry belongs to the last of its tuple that was asked for before it was confirmed.
        let youngest = [bound, waited]
            .into_iter()
            .flatten()
            .max_by_key(|(_, ended)| ended.received);
        let Some((flow, ended)) = youngest else {
            if !self.blind_end(gateway, event, out) {
                self.stats.unrelated_events += 1;
            }
            return;
        };
        // What passed blind has no other memory: a third telling of its end must still find the row.
        if !self.is_blind(gateway, entry) {
            self.ended.remove(&flow, ended.row);
        }
        let binding = Binding {
            ct_id: entry.id,
            ct_mark: entry.mark,
            original: entry.original,
            reply: entry.reply,
        };
        let end = entry.stop.unwrap_or(event.at);
        let reason = if ended.reason.is_inferred() {
            close_reason(event, ended.established, false)
        } else {
            ended.reason
        };
        Self::log_close(ended.row, Some(end), reason, entry.counters, Some(binding), out);
    }

    /// Closes a connection whose end was not seen, and remembers it in case the end comes late. It had ended by `bound`, if
    /// that much is known.
    pub(super) fn end_unseen(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        bound: Option<Timestamp>,
        out: &mut Vec<Effect>,
    ) {
        let conn = *self.conns.get(slot);
        let reason = self.kills.reason(conn.id).unwrap_or(reason);
        // The kernel ended it, and nobody was there.
        let bound = bound.filter(|_| reason != CloseReason::Expired);
        let (tuple, ct_id) = match conn.side {
            Side::Bound { ct_id, .. } => (conn.original, Some(ct_id)),
            Side::Unbound { shown } => (shown, None),
        };
        let flow = Flow {
            gateway: conn.gateway,
            zone: conn.zone,
            tuple,
        };
        let ended = Ended {
            row: conn.id,
            reason,
            established: conn.established,
            ct_id,
            received: conn.received,
            decided_by: self.decided_by(&conn).unwrap_or(Timestamp::from_micros(i64::MAX)),
            user_mark: Mark(conn.user_mark.0 & self.limits.mark_mask.0),
        };
        if ct_id.is_some() || !self.lingering.contains_key(&conn.id) {
            self.ended.keep(flow, ended);
        }
        self.close_at(slot, reason, bound, out);
    }

    pub(super) fn log_close(
        id: ConnId,
        at: Option<Timestamp>,
        reason: CloseReason,
        counters: Option<Counters>,
        binding: Option<Binding>,
        out: &mut Vec<Effect>,
    ) {
        Self::log(
            Change::Close(Box::new(Close {
                id,
                at,
                reason,
                counters,
                binding,
            })),
            out,
        );
    }
}

pub(super) fn original_flow(gateway: GatewayIdx, entry: &CtEntry) -> Flow {
    Flow {
        gateway,
        zone: entry.zone,
        tuple: entry.original,
    }
}

pub(super) fn sum(former: Option<Counters>, latter: Option<Counters>) -> Option<Counters> {
    let add = |a: Count, b: Count| Count {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
    };
    match (former, latter) {
        (Some(former), Some(latter)) => Some(Counters {
            original: add(former.original, latter.original),
            reply: add(former.reply, latter.reply),
        }),
        (one, None) | (None, one) => one,
    }
}

/// What the last state of an entry says of the connection's end. One that was let go was over before it was deleted.
fn close_reason(event: &CtEvent, established: bool, let_go: bool) -> CloseReason {
    let entry = &event.entry;
    let answered = established || entry.status.seen_reply();
    if event.removal == Removal::ByProgram && !let_go {
        return CloseReason::Deleted;
    }
    match (entry.original.transport(), entry.tcp_state) {
        (Transport::Tcp(_), Some(TcpState::CLOSE)) if answered => CloseReason::Reset,
        (Transport::Tcp(_), Some(TcpState::CLOSE)) => CloseReason::Refused,
        (Transport::Tcp(_), Some(TcpState::TIME_WAIT | TcpState::LAST_ACK)) => CloseReason::Finished,
        _ if event.removal == Removal::Early => CloseReason::Evicted,
        _ if entry.status.fixed_timeout() && !let_go => CloseReason::Expired,
        _ if answered => CloseReason::IdleTimeout,
        _ => CloseReason::Unanswered,
    }
}
