//! The sessions: who is logged in, at which proven addresses.
//!
//! Passwords, tokens and sockets are the edge's business; here a session exists once the edge says so.

use super::Engine;
use super::kills::Leaving;
use super::quality::Quality;
use super::types::{Effect, Identity, Limits, Now, ProofId, SessionFacts};
use nufw_proto::client::{ProgramHash, Refusal};
use nufw_proto::{Addr, Batch, ClaimId, ConnId, SessionId};
use nulog::{Change, SessionRow};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// An address of a session.
#[derive(Debug)]
struct Held {
    address: Addr,
    /// When it is forgotten; `None` for the address of the login, which lives as long as its connection.
    until: Option<Duration>,
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
    addresses: Vec<Held>,
    /// The row of the session in the log; `None` when no id could be had, or sessions are not logged.
    row: Option<ConnId>,
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

    /// Prolongs the lease of an address that the session has; tells whether it has it.
    fn renew(&mut self, address: Addr, until: Option<Duration>) -> bool {
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
    all: HashMap<SessionId, Session>,
    by_address: HashMap<Addr, Vec<SessionId>>,
    max: usize,
    max_per_address: usize,
    max_addresses: usize,
}

impl Sessions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: HashMap::new(),
            by_address: HashMap::new(),
            max: limits.sessions,
            max_per_address: limits.sessions_per_address,
            max_addresses: limits.addresses_per_session,
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

    pub(super) fn addresses(&self) -> impl Iterator<Item = Addr> {
        self.by_address.keys().copied()
    }

    fn has_room(&self, address: Addr) -> bool {
        self.at(address).len() < self.max_per_address
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
        if self.sessions.len() >= self.sessions.max || !self.sessions.has_room(facts.address) {
            out.push(Effect::NotAdmitted {
                session,
                cause: Refusal::Full,
            });
            return;
        }
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
        self.sessions.all.insert(
            session,
            Session {
                identity: facts.identity,
                // NuFW's order: name, version, release.
                os: Arc::from(format!("{}-{}-{}", os[0], os[2], os[1])),
                quality: facts.quality,
                hashes: facts.hashes,
                program_hashes: Vec::new(),
                addresses: Vec::new(),
                row,
            },
        );
        self.address_gained(session, facts.address, None, out);
        out.push(Effect::Admitted { session });
        if facts.hashes && self.judge.looks_at_hashes() {
            out.push(Effect::HashPrograms {
                session,
                wanted: true,
            });
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

    pub(super) fn session_down(
        &mut self,
        session: SessionId,
        leaving: Leaving,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(s) = self.sessions.get(session) else {
            return;
        };
        if let Some(id) = s.row {
            Self::log(Change::SessionEnd { id, at: now.wall }, out);
        }
        let addresses: Vec<Addr> = s.addresses.iter().map(|held| held.address).collect();
        for address in addresses {
            self.address_lost(session, address, leaving, now, out);
        }
        self.sessions.all.remove(&session);
        self.nobody_answers(session, now, out);
    }

    pub(super) fn expire_addresses(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut expired: Vec<(SessionId, Addr)> = self
            .sessions
            .all
            .iter()
            .flat_map(|(&id, s)| s.addresses.iter().map(move |held| (id, held)))
            .filter(|(_, held)| held.until.is_some_and(|until| until <= now.mono))
            .map(|(id, held)| (id, held.address))
            .collect();
        expired.sort_unstable();
        for (session, address) in expired {
            self.address_lost(session, address, Leaving::Lost, now, out);
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
            out.push(Effect::EndSession {
                session,
                reason: "the user is not known here any more",
            });
            self.session_down(session, Leaving::Removed, now, out);
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
        self.ask_newcomer(session, address, out);
    }
}
