//! The story of a packet: asked for, matched with a claim, decided, logged, answered.
//!
//! [`Engine::packet`] tells it from the top. What the kernel says of the connection afterwards is in `events`.

use super::Engine;
use super::conns::{Flow, Side, Slot};
use super::gateways::GatewayIdx;
use super::kills::Rejects;
use super::pending::{Packet, Pending, Ports};
use super::types::{Effect, Identity, LinkId, Now, Outcome, Refused};
use nufw_proto::client::{Claim, ClaimRequest, Finding, Mine};
use nufw_proto::gateway::{Answer, Ask, Unused, Verdict};
use nufw_proto::{Addr, ClaimId, SessionId, Timestamp};
use nulog::{Change, CloseReason};
use std::time::Duration;

impl Engine {
    /// A packet waits. It joins a question that is open, gets a drop that was decided, or begins a question of its own.
    pub(super) fn packet(
        &mut self,
        gateway: GatewayIdx,
        link: LinkId,
        (ask, ports): (Ask, Ports),
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.stats.asks += 1;
        let flow = Flow {
            gateway,
            zone: ask.zone,
            tuple: ask.tuple,
        };
        let packet = (link, ask.id);
        if let Some(open) = self.pending.about(&flow) {
            return self.join(open, packet, &ask, out);
        }
        if self.draining {
            // Its agent holds it, and asks another server as soon as this one has said goodbye.
            return;
        }
        let mut at_source = self.sessions.clients_at(ask.tuple.src());
        // Nobody can be asked, but the address may say enough.
        let by_address = at_source
            .is_empty()
            .then(|| self.addressed(ask.tuple.src(), now, out))
            .flatten();
        at_source.extend(by_address);
        let early = self
            .early
            .take(&flow.tuple, now)
            // Who announces tells no hash, but does when asked.
            .filter(|(session, _)| at_source.contains(session) && !self.judge.looks_at_hashes());
        let before = self.drops.repeat(&flow, now);
        // Who did not answer the first packet may well answer its retransmission, and who announces it has.
        if let Some(why) = before.filter(|&why| why != Refused::Timeout && early.is_none()) {
            self.stats.repeated += 1;
            return answer(&[packet], Outcome::Refused(why), self.limits.rejects, out);
        }
        let pending = Pending {
            flow,
            hook: ask.hook,
            in_dev: ask.in_dev,
            out_dev: ask.out_dev,
            ports,
            received: ask.received,
            last_received: ask.received,
            tracked: ask.tracked,
            packets: vec![packet],
            waiting_for: at_source.clone(),
            asked: at_source,
            dropped_before: before.is_some(),
            again: self.conns.unbound(flow).map(|slot| self.conns.get(slot).id).max(),
            deadline: now.mono + self.patience(gateway),
            granted: None,
        };
        if pending.asked.is_empty() {
            return self.stranger(pending, now, out);
        }
        if self.pending.len() >= self.limits.pending_asks {
            return self.refuse(&pending, Refused::Full, None, now, out);
        }
        let question = self.pending.insert(pending);
        let early = early.or_else(|| {
            let seen = ask.tuple;
            by_address.map(|session| (session, Mine { seen, program: None }))
        });
        match early {
            Some((session, mine)) => self.claimed(question, session, &mine, now, out),
            None => self.ask(question, out),
        }
    }

    /// How long a question may stay open: the agent gives up a little later.
    fn patience(&self, gateway: GatewayIdx) -> Duration {
        let packet_timeout = self
            .gateways
            .get(gateway)
            .link
            .as_ref()
            .map_or(Duration::ZERO, |link| link.packet_timeout);
        packet_timeout
            .saturating_sub(self.limits.ask_margin)
            .max(packet_timeout / 2)
    }

    fn join(&mut self, question: ClaimId, packet: Packet, ask: &Ask, out: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get_mut(question) else {
            return;
        };
        if pending.packets.len() < self.limits.packets_per_ask {
            pending.packets.push(packet);
            pending.last_received = pending.last_received.max(ask.received);
        } else {
            self.stats.refused_full += 1;
            answer(
                &[packet],
                Outcome::Refused(Refused::Full),
                self.limits.rejects,
                out,
            );
        }
    }

    /// A packet of a flow that was granted a moment ago, and is claimed by the same user: while the row of that grant
    /// lives, it is the row of this packet too.
    ///
    /// The client was asked again all the same. The kernel may have refused and forgotten the connection of the first
    /// packet, so that this one begins another; by the time of the claim the events that say so are here.
    pub(super) fn granted_before(
        &mut self,
        pending: &Pending,
        who: Option<&Identity>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Option<Outcome> {
        let slot = self.conns.by_id(pending.again?)?;
        let link = self.gateways.get(pending.flow.gateway).link.as_ref()?;
        let (known_since, by_flags) = (link.since, link.by_flags);
        let conn = self.conns.get_mut(slot);
        let granted = conn.granted?;
        let same_user = conn.user == who.map(|who| who.user.id);
        let unbound = matches!(conn.side, Side::Unbound { .. });
        // Older than what is known of this boot of the agent: an entry may have come and gone unseen.
        let fresh = granted >= known_since && now.mono < granted + self.limits.confirm_within;
        // Flags show that it was answered: what is asked about again is another one.
        let fresh = fresh && !(by_flags && conn.established);
        if unbound && !fresh {
            self.end_unseen(slot, CloseReason::Superseded, None, out);
            return None;
        }
        if !same_user {
            // Two users with one tuple: the kernel will confirm one of them and tell whose by its mark.
            return None;
        }
        conn.granted = Some(now.mono);
        conn.last_asked = conn.last_asked.max(pending.last_received);
        let packets = u8::try_from(pending.packets.len()).unwrap_or(u8::MAX);
        // What was granted when its packets were lost has let none through.
        conn.granted_again |= conn.grants > 0;
        conn.grants = conn.grants.saturating_add(packets);
        let (row, mark) = (conn.id, conn.user_mark);
        if !by_flags {
            self.gateways.note_grant(now.mono, row, &self.conns);
        }
        Some(Outcome::Granted { row, mark })
    }

    fn ask(&mut self, question: ClaimId, out: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get(question) else {
            return;
        };
        let request = ClaimRequest {
            id: question,
            hook: pending.hook,
            tuple: pending.flow.tuple,
        };
        out.extend(
            pending
                .asked
                .iter()
                .map(|&session| Effect::Question { session, request }),
        );
    }

    /// Somebody logged in, or proved an address, while packets from there wait.
    pub(super) fn ask_newcomer(&mut self, session: SessionId, address: Addr, out: &mut Vec<Effect>) {
        for question in self
            .pending
            .sorted(|p| p.flow.tuple.src() == address && !p.logging())
        {
            let Some(pending) = self.pending.get_mut(question) else {
                continue;
            };
            for sessions in [&mut pending.asked, &mut pending.waiting_for] {
                if !sessions.contains(&session) {
                    sessions.push(session);
                }
            }
            let request = ClaimRequest {
                id: question,
                hook: pending.hook,
                tuple: pending.flow.tuple,
            };
            out.push(Effect::Question { session, request });
        }
    }

    /// A client answers.
    pub(super) fn claim(&mut self, session: SessionId, claim: Claim, now: Now, out: &mut Vec<Effect>) {
        let Some(pending) = self.pending.get(claim.id) else {
            self.stats.late_claims += 1;
            return self.odd_claim(session, now, out);
        };
        if !pending.asked.contains(&session) {
            self.stats.foreign_claims += 1;
            return self.odd_claim(session, now, out);
        }
        match claim.finding {
            Finding::Mine(_) if pending.granted.is_some_and(|granted| granted.to == Some(session)) => {}
            Finding::Mine(_) if pending.logging() => self.stats.double_claims += 1,
            Finding::Mine(mine) => self.claimed(claim.id, session, &mine, now, out),
            Finding::NotMine => self.disclaimed(claim.id, session, now, out),
        }
    }

    /// A session ended: what it was asked counts as disclaimed.
    pub(super) fn nobody_answers(&mut self, session: SessionId, now: Now, out: &mut Vec<Effect>) {
        for question in self.pending.sorted(|p| p.asked.contains(&session)) {
            if let Some(pending) = self.pending.get_mut(question) {
                pending.asked.retain(|&other| other != session);
            }
            self.disclaimed(question, session, now, out);
        }
    }

    pub(super) fn disclaimed(
        &mut self,
        question: ClaimId,
        session: SessionId,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending.get_mut(question) else {
            return;
        };
        pending.waiting_for.retain(|&other| other != session);
        if pending.waiting_for.is_empty() && !pending.logging() {
            self.give_up(question, Refused::Disclaimed, now, out);
        }
    }

    /// A client claims a connection before, or without, being asked.
    pub(super) fn announce(&mut self, session: SessionId, mine: Mine, now: Now, out: &mut Vec<Effect>) {
        let holds = self
            .sessions
            .get(session)
            .is_some_and(|s| s.holds(mine.seen.src()));
        if !holds {
            self.stats.foreign_claims += 1;
            return self.odd_claim(session, now, out);
        }
        if self.judge.looks_at_hashes() {
            // It is asked about whatever waits, and tells the hash with the answer.
            return;
        }
        let open = self.pending.about_tuple(&mine.seen).to_vec();
        if open.is_empty() {
            return self.early.keep(session, mine, now);
        }
        for id in open {
            let finding = Finding::Mine(mine.clone());
            self.claim(session, Claim { id, finding }, now, out);
        }
    }

    pub(super) fn time_out_asks(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(question) = self.pending.overdue(now.mono) {
            match self.pending.get(question).map(|pending| pending.granted) {
                Some(None) => self.give_up(question, Refused::Timeout, now, out),
                Some(Some(granted)) if granted.until <= now.mono => {
                    self.commit_too_late(question, granted.row, now, out);
                }
                // What is over is only the time of the question: its row is being written.
                Some(Some(_)) | None => {}
            }
        }
    }

    /// An accepting verdict came when its packet was gone.
    pub(super) fn unused(&mut self, gateway: GatewayIdx, unused: Unused, out: &mut Vec<Effect>) {
        self.stats.unused_verdicts += 1;
        let Some(slot) = self.conns.by_id(unused.row) else {
            return;
        };
        let conn = self.conns.get_mut(slot);
        if conn.gateway != gateway || conn.granted.is_none() {
            return;
        }
        conn.grants = conn.grants.saturating_sub(1);
        // Another packet of the connection may have gone on.
        if conn.grants == 0 && matches!(conn.side, Side::Unbound { .. }) {
            self.close(slot, CloseReason::NeverForwarded, out);
        }
    }

    /// Ends a live connection of which the kernel's end was not seen.
    pub(super) fn close(&mut self, slot: Slot, reason: CloseReason, out: &mut Vec<Effect>) {
        self.close_at(slot, reason, None, out);
    }

    /// The same, with a time by which it had ended.
    pub(super) fn close_at(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        at: Option<Timestamp>,
        out: &mut Vec<Effect>,
    ) {
        let conn = self.conns.remove(slot);
        let reason = self.kills.reason(conn.id).unwrap_or(reason);
        self.kills.forget(conn.id);
        self.flagged.forget(conn.id);
        // What is known of the end of an earlier entry is not the end of a later one.
        let known = self.lingering.remove(&conn.id);
        match known.filter(|_| matches!(conn.side, Side::Unbound { .. })) {
            Some(end) => Self::log(Change::Close(Box::new(end)), out),
            None => Self::log_close(conn.id, at, reason, None, conn.binding(), out),
        }
    }
}

/// Answers packets that waited together.
pub(super) fn answer(packets: &[Packet], outcome: Outcome, rejects: Rejects, out: &mut Vec<Effect>) {
    let verdict = match outcome {
        Outcome::Granted { row, mark } => Verdict::Accept { row, mark },
        Outcome::Refused(_) if rejects.tells(outcome) => Verdict::Reject,
        Outcome::Refused(_) => Verdict::Drop,
    };
    out.extend(packets.iter().map(|&(link, id)| Effect::Answer {
        link,
        answer: Answer { id, verdict },
    }));
}
