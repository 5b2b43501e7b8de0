//! The sessions: who is logged in, at which proven addresses.
//!
//! Passwords, tokens and sockets are the edge's business; here a session exists once the edge says so, and the limits allow
//! it. How it grows old is in `lifetimes`, what an address alone may say in `addressed`.

use super::Engine;
use super::addressed::NO_CLIENT;
use super::denials::Told;
use super::kills::Leaving;
use super::limits::Limits;
use super::quality::Quality;
use super::types::{Effect, Identity, Now, ProofId, SessionFacts, SessionWord};
use nufw_proto::client::{EndCause, ProgramHash, Refusal};
use nufw_proto::{Addr, Batch, ClaimId, ConnId, SessionId, Timestamp};
use nulog::{Change, EndReason, SessionRow};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// An address of a session.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) address: Addr,
    /// When it is forgotten; `None` for the address of the login, which lives as long as its connection.
    pub(super) until: Option<Duration>,
}

/// One login.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) identity: Arc<Identity>,
    pub(super) os: Arc<str>,
    pub(super) quality: Quality,
    /// Its client can tell hashes of programs.
    hashes: bool,
    /// Those of the claims that come next.
    program_hashes: Vec<ProgramHash>,
    pub(super) addresses: Vec<Held>,
    /// The row of the session in the log; `None` when no id could be had, or sessions are not logged.
    row: Option<ConnId>,
    /// When it began.
    pub(super) since: Timestamp,
    /// When a connection of it was last granted, or seen.
    pub(super) used: Duration,
    /// When its credentials must have been shown again.
    pub(super) ages_out: Option<Duration>,
    /// Whether the client can show them on its connection.
    pub(super) renewable: bool,
    pub(super) renewal_asked: bool,
    /// The refusals that it was told of; `None` when it does not want to hear of them.
    pub(super) told: Option<Told>,
}

impl Session {
    /// The hash that its client told with the answer to a question.
    pub(super) fn hash_for(&self, question: ClaimId) -> Option<[u8; 32]> {
        let mut hashes = self.program_hashes.iter();
        hashes.find(|hash| hash.id == question).map(|hash| hash.sha256)
    }

    pub(super) fn holds(&self, address: Addr) -> bool {
        self.addresses.iter().any(|held| held.address == address)
    }

    /// Whether it ends by itself when it is not used.
    pub(super) fn is_leased(&self) -> bool {
        self.addresses.iter().all(|held| held.until.is_some())
    }

    /// Prolongs the lease of an address that the session has; tells whether it has it.
    pub(super) fn renew(&mut self, address: Addr, until: Option<Duration>) -> bool {
        match self.addresses.iter_mut().find(|held| held.address == address) {
            Some(held) => {
                held.until = held.until.and(until);
                true
            }
            None => false,
        }
    }
}

/// All logins.
pub(super) struct Sessions {
    pub(super) all: HashMap<SessionId, Session>,
    by_address: HashMap<Addr, Vec<SessionId>>,
    /// Of each user, oldest first.
    by_user: HashMap<u64, Vec<SessionId>>,
    pub(super) max: usize,
    max_per_address: usize,
    max_addresses: usize,
    /// When ages are looked at next.
    pub(super) next_look: Duration,
    /// When idleness is.
    pub(super) next_idle_look: Duration,
}

impl Sessions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: HashMap::new(),
            by_address: HashMap::new(),
            by_user: HashMap::new(),
            max: limits.sessions,
            max_per_address: limits.sessions_per_address,
            max_addresses: limits.addresses_per_session,
            next_look: Duration::ZERO,
            next_idle_look: Duration::ZERO,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&Session> {
        self.all.get(&session)
    }

    /// The sessions at an address, oldest first.
    pub(super) fn at(&self, address: Addr) -> &[SessionId] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Those of them that have a client to ask.
    pub(super) fn clients_at(&self, address: Addr) -> Vec<SessionId> {
        let has_client =
            |session: &&SessionId| self.get(**session).is_some_and(|s| s.quality > Quality::Address);
        self.at(address).iter().filter(has_client).copied().collect()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = Addr> {
        self.by_address.keys().copied()
    }

    pub(super) fn has_room(&self, address: Addr) -> bool {
        self.clients_at(address).len() < self.max_per_address
    }

    /// A user's sessions that have a client, oldest first, without the one that is about to be replaced.
    pub(super) fn of_user(&self, user: u64, but: Option<SessionId>) -> Vec<SessionId> {
        let counts = |session: &&SessionId| {
            Some(**session) != but && self.get(**session).is_some_and(|s| s.quality > Quality::Address)
        };
        let all = self.by_user.get(&user).map_or(&[][..], Vec::as_slice);
        all.iter().filter(counts).copied().collect()
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.by_user.entry(session.identity.user.id).or_default().push(id);
        self.all.insert(id, session);
    }

    fn remove(&mut self, id: SessionId) {
        let Some(session) = self.all.remove(&id) else {
            return;
        };
        let user = session.identity.user.id;
        if let Some(of_user) = self.by_user.get_mut(&user) {
            of_user.retain(|&other| other != id);
            if of_user.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }

    /// Gives an address to a session; tells whether it is the first session there.
    fn give(&mut self, session: SessionId, address: Addr, until: Option<Duration>) -> bool {
        if let Some(s) = self.all.get_mut(&session) {
            s.addresses.push(Held { address, until });
        }
        let there = self.by_address.entry(address).or_default();
        there.push(session);
        there.len() == 1
    }

    /// Takes an address from a session; tells whether no session is left there.
    fn take(&mut self, session: SessionId, address: Addr) -> bool {
        let Some(s) = self.all.get_mut(&session) else {
            return false;
        };
        let before = s.addresses.len();
        s.addresses.retain(|held| held.address != address);
        if s.addresses.len() == before {
            return false;
        }
        let Some(there) = self.by_address.get_mut(&address) else {
            return false;
        };
        there.retain(|&other| other != session);
        let empty = there.is_empty();
        if empty {
            self.by_address.remove(&address);
        }
        empty
    }
}

impl Engine {
    pub(super) fn session_up(
        &mut self,
        session: SessionId,
        facts: SessionFacts,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        // A session that came back by its ticket takes the place of the one that had it, if that is still here.
        let replaces = facts.replaces.filter(|&old| {
            self.sessions
                .get(old)
                .is_some_and(|old| old.identity.user.id == facts.identity.user.id)
        });
        if let Some(cause) = self.refuses(&facts, replaces, now, out) {
            self.count_refused_login(cause);
            out.push(Effect::NotAdmitted { session, cause });
            return;
        }
        self.stats.logins += 1;
        let os = [
            facts.os.name.as_str(),
            facts.os.release.as_str(),
            facts.os.version.as_str(),
        ];
        // Without ids the log is away: the login counts all the same.
        let row = self.limits.levels.sessions.then(|| self.next_id()).flatten();
        if let Some(id) = row {
            let row = SessionRow {
                id,
                user: facts.identity.user.clone(),
                address: facts.address,
                os: os.map(Arc::from),
                start: now.wall,
            };
            Self::log(Change::SessionStart(Box::new(row)), out);
        }
        let ages_out = self
            .limits
            .session_age
            .filter(|_| facts.quality > Quality::Address)
            .map(|most| now.mono + most.saturating_sub(facts.age));
        let word = SessionWord {
            session,
            user: facts.identity.user.clone(),
            address: facts.address,
            quality: facts.quality,
            end: None,
        };
        self.sessions.insert(
            session,
            Session {
                identity: facts.identity,
                // NuFW's order: name, version, release.
                os: match facts.quality {
                    Quality::Address => Arc::from(NO_CLIENT),
                    _ => Arc::from(format!("{}-{}-{}", os[0], os[2], os[1])),
                },
                quality: facts.quality,
                hashes: facts.hashes,
                program_hashes: Vec::new(),
                addresses: Vec::new(),
                row,
                since: now.wall,
                used: now.mono,
                ages_out,
                renewable: facts.renewable,
                renewal_asked: false,
                told: facts.hears_refusals.then(Told::default),
            },
        );
        self.address_gained(session, facts.address, facts.lease, out);
        out.push(Effect::Admitted { session });
        if facts.hashes && self.judge.looks_at_hashes() {
            out.push(Effect::HashPrograms {
                session,
                wanted: true,
            });
        }
        self.tell(word, out);
        if let Some(old) = replaces {
            out.push(Effect::EndSession {
                session: old,
                cause: None,
                reason: Arc::from("the same client has come back"),
            });
            self.session_down(old, Leaving::Lost, now, out);
        }
    }

    /// Tells every client that can tell hashes whether they are wanted, which has changed.
    pub(super) fn tell_hashes_wanted(&self, wanted: bool, out: &mut Vec<Effect>) {
        let all = self.sessions.all.iter();
        let mut sessions: Vec<SessionId> = all.filter(|(_, s)| s.hashes).map(|(&id, _)| id).collect();
        sessions.sort_unstable();
        out.extend(
            sessions
                .into_iter()
                .map(|session| Effect::HashPrograms { session, wanted }),
        );
    }

    /// Hashes for the claims that come next: as many as one message holds.
    pub(super) fn learn_hashes(&mut self, session: SessionId, hashes: Batch<ProgramHash>) {
        if let Some(session) = self.sessions.all.get_mut(&session).filter(|s| s.hashes) {
            session.program_hashes = hashes.into_iter().collect();
        }
    }

    pub(super) fn prove(
        &mut self,
        proof: ProofId,
        session: SessionId,
        address: Addr,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let until = Some(now.mono + self.limits.address_lease);
        let has_room = self.sessions.has_room(address);
        let max = self.sessions.max_addresses;
        let renewed = self
            .sessions
            .all
            .get_mut(&session)
            .map(|s| (s.renew(address, until), s.addresses.len()));
        let result = match renewed {
            None => Err(Refusal::Token),
            Some((true, _)) => Ok(address),
            Some((false, held)) if held >= max || !has_room => Err(Refusal::Address),
            Some((false, _)) => {
                self.address_gained(session, address, until, out);
                Ok(address)
            }
        };
        out.push(Effect::Proof { proof, result });
    }

    pub(super) fn withdraw(&mut self, session: SessionId, address: Addr, now: Now, out: &mut Vec<Effect>) {
        // The address of the login stays: the connection itself shows that the host still has it.
        let proven = self.sessions.get(session).is_some_and(|s| {
            s.addresses
                .iter()
                .any(|held| held.address == address && held.until.is_some())
        });
        if proven {
            self.address_lost(session, address, Leaving::LoggedOut, now, out);
        }
    }

    /// Ends a session by the server's will, and tells its client why.
    pub(super) fn end_session(
        &mut self,
        session: SessionId,
        cause: EndCause,
        reason: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.sessions.get(session).is_none() {
            return;
        }
        *match cause {
            EndCause::Ordered => &mut self.stats.ended_ordered,
            EndCause::Removed => &mut self.stats.ended_removed,
            EndCause::Replaced => &mut self.stats.ended_replaced,
            EndCause::Idle => &mut self.stats.ended_idle,
            EndCause::Expired => &mut self.stats.ended_expired,
            EndCause::Hours => &mut self.stats.ended_hours,
            EndCause::Misbehaved => &mut self.stats.ended_misbehaved,
        } += 1;
        out.push(Effect::EndSession {
            session,
            cause: Some(cause),
            reason: Arc::from(reason),
        });
        let leaving = match cause {
            EndCause::Ordered | EndCause::Removed | EndCause::Misbehaved => Leaving::Removed,
            EndCause::Replaced | EndCause::Idle | EndCause::Expired | EndCause::Hours => Leaving::LoggedOut,
        };
        self.session_over(session, leaving, Some(cause), now, out);
    }

    pub(super) fn session_down(
        &mut self,
        session: SessionId,
        leaving: Leaving,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.session_over(session, leaving, None, now, out);
    }

    fn session_over(
        &mut self,
        session: SessionId,
        leaving: Leaving,
        cause: Option<EndCause>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(s) = self.sessions.get(session) else {
            return;
        };
        let reason = end_reason(leaving, cause);
        if let Some(id) = s.row {
            let at = now.wall;
            Self::log(Change::SessionEnd { id, at, reason }, out);
        }
        let addresses: Vec<Addr> = s.addresses.iter().map(|held| held.address).collect();
        let word = addresses.first().map(|&address| SessionWord {
            session,
            user: s.identity.user.clone(),
            address,
            quality: s.quality,
            end: Some(reason.word()),
        });
        for address in addresses {
            self.address_lost(session, address, leaving, now, out);
        }
        self.sessions.remove(session);
        self.nobody_answers(session, now, out);
        if let Some(word) = word {
            self.tell(word, out);
        }
    }

    fn tell(&self, word: SessionWord, out: &mut Vec<Effect>) {
        if self.limits.tells_sessions {
            out.push(Effect::Session(word));
        }
    }

    /// The server ends: every session's row says when.
    pub(super) fn sessions_stop(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut open: Vec<SessionId> = self.sessions.all.keys().copied().collect();
        open.sort_unstable();
        for session in open {
            let Some(s) = self.sessions.get(session) else {
                continue;
            };
            if let Some(id) = s.row {
                let (at, reason) = (now.wall, EndReason::Stopped);
                Self::log(Change::SessionEnd { id, at, reason }, out);
            }
            let address = s.addresses.first().map(|held| held.address);
            if let Some(address) = address {
                let word = SessionWord {
                    session,
                    user: s.identity.user.clone(),
                    address,
                    quality: s.quality,
                    end: Some(EndReason::Stopped.word()),
                };
                self.tell(word, out);
            }
        }
    }

    pub(super) fn expire_addresses(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut expired: Vec<(SessionId, Addr, Quality)> = self
            .sessions
            .all
            .iter()
            .flat_map(|(&id, s)| s.addresses.iter().map(move |held| (id, held, s.quality)))
            .filter(|(_, held, _)| held.until.is_some_and(|until| until <= now.mono))
            .map(|(id, held, quality)| (id, held.address, quality))
            .collect();
        expired.sort_unstable();
        for (session, address, quality) in expired {
            if quality == Quality::Address {
                self.session_down(session, Leaving::LoggedOut, now, out);
            } else {
                self.address_lost(session, address, Leaving::Lost, now, out);
            }
        }
    }

    /// A session does not hold an address any more.
    fn address_lost(
        &mut self,
        session: SessionId,
        address: Addr,
        leaving: Leaving,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let user = self.sessions.get(session).map(|s| s.identity.user.id);
        if self.sessions.take(session, address) {
            self.address_changed(address, false, out);
        }
        if let Some(user) = user {
            self.departed(user, address, leaving, now);
        }
    }

    /// The users were read again: sessions get their new groups and marks, or end.
    pub(super) fn users_changed(
        &mut self,
        users: &HashMap<Arc<str>, Arc<Identity>>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.drops.forget_all();
        let mut gone = Vec::new();
        for (&id, session) in &mut self.sessions.all {
            match users.get(&session.identity.user.name) {
                Some(identity) if identity.user.id == session.identity.user.id => {
                    session.identity = Arc::clone(identity);
                }
                _ => gone.push(id),
            }
        }
        gone.sort_unstable();
        for session in gone {
            let reason = "the user is not known here any more";
            self.end_session(session, EndCause::Removed, reason, now, out);
        }
    }

    fn address_gained(
        &mut self,
        session: SessionId,
        address: Addr,
        until: Option<Duration>,
        out: &mut Vec<Effect>,
    ) {
        if self.sessions.give(session, address, until) {
            self.address_changed(address, true, out);
        }
        self.drops.forget_source(address);
        if self
            .sessions
            .get(session)
            .is_some_and(|s| s.quality > Quality::Address)
        {
            self.ask_newcomer(session, address, out);
        }
    }
}

/// How a session ended, for the log and the hooks.
fn end_reason(leaving: Leaving, cause: Option<EndCause>) -> EndReason {
    match (cause, leaving) {
        (Some(EndCause::Ordered), _) => EndReason::Ordered,
        (Some(EndCause::Removed), _) | (None, Leaving::Removed) => EndReason::Removed,
        (Some(EndCause::Replaced), _) => EndReason::Replaced,
        (Some(EndCause::Idle), _) => EndReason::Idle,
        (Some(EndCause::Expired), _) => EndReason::Expired,
        (Some(EndCause::Hours), _) => EndReason::Hours,
        (Some(EndCause::Misbehaved), _) => EndReason::Misbehaved,
        (None, Leaving::LoggedOut) => EndReason::Logout,
        (None, Leaving::Lost) => EndReason::Lost,
    }
}
