//! Connections of gateways whose kernel tells nothing, followed by what TCP segments show: SYN/ACK, FIN and RST.
//!
//! Such a row has no kernel's entry: it stays as its packet showed it, without counters and without the NAT side. A segment is
//! found by what it shows, in either direction. One whose end is not seen is closed when its time is over.

use super::Engine;
use super::conns::{Flow, Side, Slot, answered_by};
use super::gateways::GatewayIdx;
use super::types::{Effect, Now};
use nufw_proto::{ConnId, CtEvent, TcpState, Transport};
use nulog::{Change, CloseReason, Established};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long an answer may take: a SYN is repeated for two minutes, and the kernel waits two more.
const UNANSWERED: Duration = Duration::from_mins(5);

/// What is known of a row beyond its state.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    /// When it is closed if nothing more is seen.
    until: Duration,
    /// Which sides have finished: the one that began, the other.
    finished: [bool; 2],
}

/// The rows that are followed so; as many as there are live connections at most.
#[derive(Default)]
pub(super) struct ByFlags {
    rows: HashMap<ConnId, Shown>,
    due: BTreeSet<(Duration, ConnId)>,
}

impl ByFlags {
    fn keep(&mut self, row: ConnId, until: Duration) -> &mut Shown {
        let shown = self.rows.entry(row).or_default();
        self.due.remove(&(shown.until, row));
        shown.until = until;
        self.due.insert((until, row));
        shown
    }

    /// It is over, or followed in another way.
    pub(super) fn forget(&mut self, row: ConnId) {
        if let Some(shown) = self.rows.remove(&row) {
            self.due.remove(&(shown.until, row));
        }
    }
}

impl Engine {
    /// Whether this gateway's connections are followed so.
    pub(super) fn by_flags(&self, gateway: GatewayIdx) -> bool {
        let link = self.gateways.get(gateway).link.as_ref();
        link.is_some_and(|link| link.by_flags)
    }

    /// A row is live from here on.
    pub(super) fn follow_by_flags(&mut self, row: ConnId, established: bool, now: Now) {
        let patience = self.limits.flags_timeout;
        let patience = if established {
            patience
        } else {
            patience.min(UNANSWERED)
        };
        self.flagged.keep(row, now.mono + patience);
    }

    /// A gateway is linked. What was bound to entries of its kernel cannot be followed by flags; what can be goes on.
    pub(super) fn begin_by_flags(&mut self, gateway: GatewayIdx, now: Now, out: &mut Vec<Effect>) {
        let rows: Vec<(Slot, ConnId, bool, bool)> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.gateway == gateway && conn.granted.is_some())
            .map(|(slot, conn)| {
                let is_tcp = matches!(conn.original.transport(), Transport::Tcp(_));
                let unbound = matches!(conn.side, Side::Unbound { .. });
                (slot, conn.id, conn.established, is_tcp && unbound)
            })
            .collect();
        for (slot, row, established, can_be) in rows {
            if !can_be {
                self.close(slot, CloseReason::Untracked, out);
            } else if !self.flagged.rows.contains_key(&row) {
                self.follow_by_flags(row, established, now);
            }
        }
    }

    /// A gateway is linked whose kernel tells what happens.
    pub(super) fn end_by_flags(&mut self, gateway: GatewayIdx) {
        let rows: Vec<ConnId> = self
            .flagged
            .rows
            .keys()
            .copied()
            .filter(|&row| {
                let slot = self.conns.by_id(row);
                slot.is_none_or(|slot| self.conns.get(slot).gateway == gateway)
            })
            .collect();
        for row in rows {
            self.flagged.forget(row);
        }
    }

    /// A segment was seen.
    pub(super) fn segment(&mut self, gateway: GatewayIdx, event: &CtEvent, now: Now, out: &mut Vec<Effect>) {
        let Some((slot, from_client)) = self.of_segment(gateway, event) else {
            self.stats.unrelated_events += 1;
            return;
        };
        let conn = self.conns.get(slot);
        let (row, was_established) = (conn.id, conn.established);
        let answers = event.entry.tcp_state == Some(TcpState::SYN_RECV);
        match event.entry.tcp_state {
            Some(TcpState::CLOSE) => {
                let reason = if was_established {
                    CloseReason::Reset
                } else {
                    CloseReason::Refused
                };
                return self.close_at(slot, reason, Some(event.at), out);
            }
            // Only the other side answers; whoever finishes there has answered before, unseen.
            Some(TcpState::SYN_RECV | TcpState::FIN_WAIT) if !from_client && !was_established => {
                self.conns.get_mut(slot).established = true;
                let established = Established {
                    id: row,
                    at: answers.then_some(event.at),
                    binding: None,
                };
                Self::log(Change::Established(Box::new(established)), out);
            }
            _ => {}
        }
        let until = now.mono + self.limits.flags_timeout;
        let shown = self.flagged.keep(row, until);
        if event.entry.tcp_state == Some(TcpState::FIN_WAIT) {
            shown.finished[usize::from(!from_client)] = true;
            if shown.finished == [true; 2] {
                self.close_at(slot, CloseReason::Finished, Some(event.at), out);
            }
        }
    }

    /// The youngest connection that a segment can be of, and whether it comes from the side that began.
    fn of_segment(&self, gateway: GatewayIdx, event: &CtEvent) -> Option<(Slot, bool)> {
        let there = event.entry.original;
        let of = |tuple| {
            let flow = Flow {
                gateway,
                zone: event.entry.zone,
                tuple,
            };
            let live = self.conns.unbound(flow).filter(|&slot| {
                let conn = self.conns.get(slot);
                conn.granted.is_some() && conn.received <= event.at
            });
            live.max_by_key(|&slot| self.conns.get(slot).received)
        };
        let back = || Some((of(answered_by(&there)?)?, false));
        of(there).map(|slot| (slot, true)).or_else(back)
    }

    /// What nothing was seen of for too long is over, whenever that was.
    pub(super) fn time_out_flags(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(&(at, row)) = self.flagged.due.first() {
            if at > now.mono {
                return;
            }
            self.flagged.forget(row);
            if let Some(slot) = self.conns.by_id(row) {
                let reason = if self.conns.get(slot).established {
                    CloseReason::IdleTimeout
                } else {
                    CloseReason::Unanswered
                };
                self.close(slot, reason, out);
            }
        }
    }
}
