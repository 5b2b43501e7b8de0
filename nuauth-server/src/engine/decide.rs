//! What is decided about a packet that was claimed, or not: row, verdict, memory.
//!
//! The row comes first: [`Engine::grant`] writes it, and only [`Engine::release`] answers, when it is durable.

use super::asks::answer;
use super::conns::{Conn, Flow, Side};
use super::modes::{LogMode, OnOverload};
use super::pending::{Granted, Pending};
use super::quality::Quality;
use super::subject::Subject;
use super::types::{Decision, Effect, Identity, LogEntry, Now, Outcome, Refused, Ruling};
use super::who::Who;
use super::{Engine, sessions::Session};
use nufw_proto::client::Mine;
use nufw_proto::gateway::Hook;
use nufw_proto::{BootId, ClaimId, ConnId, EventSeq, Mark, SessionId, Timestamp, Tuple};
use nulog::{Change, CloseReason, OpenRow};
use std::sync::Arc;
use std::time::Duration;

impl Engine {
    /// A session claims a connection: the access lists decide.
    pub(super) fn claimed(
        &mut self,
        question: ClaimId,
        session: SessionId,
        mine: &Mine,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending.get(question) else {
            return;
        };
        let shown = pending.flow.tuple;
        let Some(claimant) = self
            .sessions
            .get(session)
            .filter(|s| s.holds(shown.src()) && same_source(mine, &shown))
        else {
            // A claim for somebody else's address, or for another socket than was asked for, is worth nothing.
            self.stats.foreign_claims += 1;
            self.disclaimed(question, session, now, out);
            return self.odd_claim(session, now, out);
        };
        let claimant = Claimant {
            hash: claimant.hash_for(question),
            ..Claimant::new(session, claimant, mine)
        };
        let subject = self.subject(pending, &claimant, now);
        let ruling = self.judge.judge(&subject);
        self.ruled(question, &claimant, &ruling, now, out);
        if ruling.decision != Decision::Accept {
            self.tell_denied(session, mine, ruling.decision == Decision::Reject, now, out);
        }
    }

    /// A packet from an address at which nobody is logged in: only rules for nobody can let it pass.
    pub(super) fn stranger(&mut self, pending: Pending, now: Now, out: &mut Vec<Effect>) {
        let claimant = Claimant::nobody(&pending);
        let subject = self.subject(&pending, &claimant, now);
        let Some(ruling) = self.judge.judge_stranger(&subject) else {
            return self.refuse(&pending, Refused::Nobody, None, now, out);
        };
        if self.pending.len() >= self.limits.pending_asks {
            return self.refuse(&pending, Refused::Full, None, now, out);
        }
        let question = self.pending.insert(pending);
        self.ruled(question, &claimant, &ruling, now, out);
    }

    fn subject<'a>(&'a self, pending: &'a Pending, claimant: &'a Claimant, now: Now) -> Subject<'a> {
        Subject {
            quality: claimant.quality.unwrap_or_default(),
            program: claimant.program.as_deref(),
            program_hash: claimant.hash.as_ref(),
            os: claimant.os.as_deref(),
            in_dev: &pending.in_dev,
            out_dev: &pending.out_dev,
            phys_in: &pending.ports.phys_in,
            phys_out: &pending.ports.phys_out,
            gateway: &self.gateways.get(pending.flow.gateway).name,
            ..Subject::new(claimant.identity.as_deref(), &pending.flow.tuple, now.wall)
        }
    }

    fn ruled(
        &mut self,
        question: ClaimId,
        claimant: &Claimant,
        ruling: &Ruling,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let reject = match ruling.decision {
            Decision::Accept => {
                if let Some(session) = claimant.session {
                    self.session_used(session, now);
                }
                return self.grant(question, claimant, ruling, now, out);
            }
            Decision::Drop => false,
            Decision::Reject => true,
        };
        if let Some(pending) = self.pending.remove(question) {
            let why = Refused::ByRule { reject };
            self.refuse(&pending, why, Some((claimant, ruling)), now, out);
        }
    }

    /// The row first, then the verdict: see [`Engine::committed`].
    fn grant(
        &mut self,
        question: ClaimId,
        claimant: &Claimant,
        ruling: &Ruling,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending.remove(question) else {
            return;
        };
        if let Some(outcome) = self.granted_before(&pending, claimant.identity.as_deref(), now, out) {
            self.stats.repeated += 1;
            return answer(&pending.packets, outcome, self.limits.rejects, out);
        }
        let flow = pending.flow;
        let mode = self.mode_of_accept(ruling.log);
        if mode == LogMode::None {
            return self.grant_unlogged(&pending, claimant, ruling, out);
        }
        if self.conns.len() >= self.limits.connections {
            return self.refuse(&pending, Refused::Full, None, now, out);
        }
        let Some(urgent) = self.place_in_log(mode) else {
            return self.refuse(&pending, Refused::Unlogged, None, now, out);
        };
        let Some(id) = self.next_id() else {
            return self.refuse(&pending, Refused::Unlogged, None, now, out);
        };
        if mode == LogMode::Strict {
            self.end_older(&flow, pending.received, out);
        }
        let mark = self.mark_of(flow.gateway, claimant.identity.as_deref(), ruling.mark);
        let row = self.row(id, &pending, mark, Some((claimant, ruling)));
        let who = self.conns.who.keep(claimant.who(&row));
        self.conns.insert(Conn {
            id,
            gateway: flow.gateway,
            zone: flow.zone,
            original: row.original,
            side: Side::Unbound { shown: flow.tuple },
            user: claimant.identity.as_ref().map(|identity| identity.user.id),
            user_mark: mark,
            mark,
            established: false,
            grants: 0,
            granted_again: false,
            counted: 0,
            seen_in: 0,
            granted: None,
            received: row.received,
            last_asked: row.received,
            born: None,
            before_nat: matches!(pending.hook, Hook::Prerouting | Hook::Output),
            who,
        });
        if let Some(left) = ruling.time_left(Duration::ZERO, now.wall) {
            self.kills.ends_at(id, now.mono + left);
        }
        self.drops.forget(&flow);
        out.push(Effect::Log(LogEntry {
            change: Change::Open(Box::new(row)),
            urgent,
        }));
        if urgent {
            self.logging.insert(id, Some(question));
            let granted = Granted {
                to: claimant.session,
                row: id,
                until: self.patience_with_log(&pending, now),
            };
            self.pending.wait_for_log(question, granted, pending);
        } else {
            self.unwritten.insert(id);
            self.release(id, &pending, now, out);
        }
    }

    /// How an accepted connection is logged under the levels in force.
    fn mode_of_accept(&self, of_rule: LogMode) -> LogMode {
        match of_rule {
            _ if !self.limits.levels.connections => LogMode::None,
            LogMode::Default if self.limits.log_sync => LogMode::Sync,
            LogMode::Default => LogMode::Async,
            mode => mode,
        }
    }

    /// Whether the packet waits for its row; `None` when there is no room for the row.
    fn place_in_log(&self, mode: LogMode) -> Option<bool> {
        let room_to_wait = self.logging.len() < self.limits.waiting_commits;
        if matches!(mode, LogMode::Sync | LogMode::Strict) {
            return room_to_wait.then_some(true);
        }
        if self.unwritten.len() < self.limits.waiting_async {
            return Some(false);
        }
        (self.limits.on_overload == OnOverload::Wait && room_to_wait).then_some(true)
    }

    /// Until when packets wait for their row: not longer than their agent holds them.
    fn patience_with_log(&self, pending: &Pending, now: Now) -> Duration {
        let held = pending.deadline + self.limits.ask_margin / 2;
        held.min(now.mono + self.limits.commit_timeout)
    }

    /// A packet that nobody has decided about shows that the kernel has no entry of its flow any more: what the log still takes
    /// for live there is over. The rule wants it to be so in the log, too, before this packet goes on.
    fn end_older(&mut self, flow: &Flow, at: Timestamp, out: &mut Vec<Effect>) {
        if let Some(slot) = self.conns.bound(flow) {
            self.end_unseen(slot, CloseReason::Replaced, Some(at), out);
        }
    }

    /// The packet goes on and nothing is kept of it: what the kernel says of the connection belongs to no row.
    fn grant_unlogged(
        &mut self,
        pending: &Pending,
        claimant: &Claimant,
        ruling: &Ruling,
        out: &mut Vec<Effect>,
    ) {
        self.stats.granted += 1;
        self.stats.granted_unlogged += 1;
        self.drops.forget(&pending.flow);
        let mark = self.mark_of(pending.flow.gateway, claimant.identity.as_deref(), ruling.mark);
        let row = ConnId::UNLOGGED;
        answer(
            &pending.packets,
            Outcome::Granted { row, mark },
            self.limits.rejects,
            out,
        );
    }

    /// A row did not become durable in time. Its packets are dropped; should it reach the disk, it is closed there.
    pub(super) fn commit_too_late(
        &mut self,
        question: ClaimId,
        row: ConnId,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.stats.late_commits += 1;
        // It still waits, and counts for the limit until the journal tells what became of it.
        self.logging.insert(row, None);
        if let Some(slot) = self.conns.by_id(row) {
            self.close(slot, CloseReason::LogFailed, out);
        }
        self.give_up(question, Refused::Unlogged, now, out);
    }

    /// Rows are durable: their packets go on.
    pub(super) fn committed(
        &mut self,
        opened: &[ConnId],
        acknowledged: &[(Arc<str>, BootId, EventSeq)],
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        for &id in opened {
            let Some(question) = self.logging.remove(&id) else {
                // The packets went on when the row was made.
                self.unwritten.remove(&id);
                continue;
            };
            if let Some(pending) = question.and_then(|question| self.pending.remove(question)) {
                self.release(id, &pending, now, out);
            }
        }
        for (gateway, boot, through) in acknowledged {
            self.acknowledged(gateway, *boot, *through, out);
        }
    }

    fn release(&mut self, id: ConnId, pending: &Pending, now: Now, out: &mut Vec<Effect>) {
        let Some(slot) = self.conns.by_id(id) else { return };
        let tracked = self
            .gateways
            .get(pending.flow.gateway)
            .link
            .as_ref()
            .is_none_or(|l| l.relays_events || l.by_flags);
        // The link was lost meanwhile, and with it every packet that waited for this row. Over the next they may come again.
        let lost = pending.packets.is_empty();
        if lost && !tracked {
            return self.close(slot, CloseReason::NeverForwarded, out);
        }
        let conn = self.conns.get_mut(slot);
        conn.granted = Some(now.mono);
        conn.last_asked = pending.last_received;
        conn.grants = u8::try_from(pending.packets.len()).unwrap_or(u8::MAX);
        let mark = conn.user_mark;
        if !lost {
            self.stats.granted += 1;
        }
        answer(
            &pending.packets,
            Outcome::Granted { row: id, mark },
            self.limits.rejects,
            out,
        );
        if self.by_flags(pending.flow.gateway) && pending.tracked {
            self.follow_by_flags(id, false, now);
        } else if tracked && pending.tracked {
            self.gateways.note_grant(now.mono, id, &self.conns);
        } else {
            self.close(slot, CloseReason::Untracked, out);
        }
    }

    /// Rows could not be logged: their packets are dropped.
    pub(super) fn log_failed(&mut self, opened: &[ConnId], now: Now, out: &mut Vec<Effect>) {
        for id in opened {
            let question = self.logging.remove(id).flatten();
            if question.is_none() && !self.unwritten.remove(id) {
                continue;
            }
            if let Some(slot) = self.conns.by_id(*id) {
                // Should it have reached the disk all the same, the journal closes it.
                self.conns.remove(slot);
                self.kills.forget(*id);
                self.flagged.forget(*id);
            }
            if let Some(question) = question {
                self.give_up(question, Refused::Unlogged, now, out);
            }
        }
    }

    pub(super) fn give_up(&mut self, question: ClaimId, why: Refused, now: Now, out: &mut Vec<Effect>) {
        if let Some(pending) = self.pending.remove(question) {
            self.refuse(&pending, why, None, now, out);
        }
    }

    /// Drops the packets, writes the DROP row once, and remembers the decision for retransmissions.
    pub(super) fn refuse(
        &mut self,
        pending: &Pending,
        why: Refused,
        decided: Option<(&Claimant, &Ruling)>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.count_refusal(why);
        answer(&pending.packets, Outcome::Refused(why), self.limits.rejects, out);
        if matches!(why, Refused::Unlogged | Refused::Full) {
            // The next packet may find room again; and a row for each would fill what is full already.
            return;
        }
        let has_row =
            pending.dropped_before || pending.again.is_some_and(|row| self.conns.by_id(row).is_some());
        if !has_row {
            self.log_drop(pending, why, decided, now, out);
        }
        self.drops.remember(pending.flow, why, now);
    }

    /// Writes the DROP row, where one is wanted and there is room for it.
    fn log_drop(
        &mut self,
        pending: &Pending,
        why: Refused,
        decided: Option<(&Claimant, &Ruling)>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let none = decided.is_some_and(|(_, ruling)| ruling.log == LogMode::None);
        if none || !self.limits.levels.drops {
            self.stats.drops_unlogged += 1;
            return;
        }
        let Flow { gateway, tuple, .. } = pending.flow;
        let room = self.flood.has_room(gateway, tuple.src(), now);
        let Some(id) = room.then(|| self.next_id()).flatten() else {
            return self.aggregate(gateway, pending.received, now);
        };
        let mut row = self.row(id, pending, Mark(0), decided);
        if decided.is_none() {
            row.acl = Arc::from(why.label());
        }
        Self::log(Change::Drop(Box::new(row)), out);
    }

    fn count_refusal(&mut self, why: Refused) {
        *match why {
            Refused::ByRule { .. } => &mut self.stats.refused_by_rule,
            Refused::Nobody => &mut self.stats.refused_nobody,
            Refused::Disclaimed => &mut self.stats.refused_disclaimed,
            Refused::Timeout => &mut self.stats.refused_timeout,
            Refused::Unlogged => &mut self.stats.refused_unlogged,
            Refused::Full => &mut self.stats.refused_full,
        } += 1;
    }

    fn row(
        &self,
        id: ConnId,
        pending: &Pending,
        mark: Mark,
        decided: Option<(&Claimant, &Ruling)>,
    ) -> OpenRow {
        let empty = || Arc::from("");
        OpenRow {
            id,
            gateway: Arc::clone(&self.gateways.get(pending.flow.gateway).name),
            received: pending.received,
            prefix: decided.map_or_else(empty, |(_, ruling)| Arc::clone(&ruling.prefix)),
            mark,
            in_dev: Arc::from(pending.in_dev.as_str()),
            out_dev: Arc::from(pending.out_dev.as_str()),
            phys_in: Arc::from(pending.ports.phys_in.as_str()),
            phys_out: Arc::from(pending.ports.phys_out.as_str()),
            zone: pending.flow.zone,
            original: decided.map_or(pending.flow.tuple, |(claimant, _)| claimant.seen),
            shown: pending.flow.tuple,
            user: decided.and_then(|(claimant, _)| Some(claimant.identity.as_ref()?.user.clone())),
            client_os: decided.and_then(|(claimant, _)| claimant.os.clone()),
            client_app: decided.and_then(|(claimant, _)| claimant.program.clone()),
            acl: decided.map_or_else(empty, |(_, ruling)| Arc::clone(&ruling.rule)),
            parent: None,
            policy: decided.map_or_else(empty, |_| self.judge.version()),
            auth: decided
                .and_then(|(claimant, _)| claimant.quality)
                .map(|q| Arc::from(q.word())),
        }
    }
}

/// The claim of a session, freed from the tables that it came from; or nobody.
pub(super) struct Claimant {
    session: Option<SessionId>,
    identity: Option<Arc<Identity>>,
    quality: Option<Quality>,
    os: Option<Arc<str>>,
    program: Option<Arc<str>>,
    hash: Option<[u8; 32]>,
    seen: Tuple,
}

impl Claimant {
    fn new(id: SessionId, session: &Session, mine: &Mine) -> Self {
        Self {
            session: Some(id),
            identity: Some(Arc::clone(&session.identity)),
            quality: Some(session.quality),
            os: Some(Arc::clone(&session.os)),
            program: mine.program.as_ref().map(|program| Arc::from(program.as_str())),
            hash: None,
            seen: mine.seen,
        }
    }

    fn nobody(pending: &Pending) -> Self {
        Self {
            session: None,
            identity: None,
            quality: None,
            os: None,
            program: None,
            hash: None,
            seen: pending.flow.tuple,
        }
    }

    fn who(&self, row: &OpenRow) -> Who {
        Who {
            user: row.user.clone(),
            os: self.os.clone(),
            app: self.program.clone(),
            hash: self.hash,
            hash_is_forgotten: false,
            in_dev: Arc::clone(&row.in_dev),
            out_dev: Arc::clone(&row.out_dev),
            phys_in: Arc::clone(&row.phys_in),
            phys_out: Arc::clone(&row.phys_out),
            quality: self.quality.unwrap_or_default(),
        }
    }
}

/// Only the destination may differ between what the packet shows and what the socket sees.
fn same_source(mine: &Mine, shown: &Tuple) -> bool {
    let (seen, shown_transport) = (mine.seen.transport(), shown.transport());
    let transport_fits = match (seen.ports(), shown_transport.ports()) {
        (Some(a), Some(b)) => a.src == b.src,
        _ => seen == shown_transport,
    };
    mine.seen.src() == shown.src() && mine.seen.protocol() == shown.protocol() && transport_fits
}
