//! Whose an address is where no client can be asked: told by the edge, or by a table of networks.
//!
//! Such an identity is a session of quality [`Quality::Address`]: it has a row, an end and its place among the limits, and
//! nothing is asked of it. A session with a client at the same address goes before it.

use super::Engine;
use super::kills::Leaving;
use super::quality::Quality;
use super::sessions::Session;
use super::types::{Effect, Identity, Now, SessionFacts};
use ipnet::IpNet;
use nufw_proto::client::OsInfo;
use nufw_proto::{Addr, SessionId, Text};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What stands in rows in the place of an operating system: no client says one.
pub(super) const NO_CLIENT: &str = "(address)";
/// Sessions that the engine makes have this bit, those of the edge do not.
const OWN: u64 = 1 << 63;

/// What is known of addresses.
#[derive(Default)]
pub(super) struct Addressed {
    /// Names by network, the narrowest first.
    networks: Vec<(IpNet, Arc<str>)>,
    users: HashMap<Arc<str>, Arc<Identity>>,
    /// The session of quality address that an address has, at most one.
    at: HashMap<Addr, SessionId>,
    last: u64,
}

impl Addressed {
    fn in_network(&self, address: Addr) -> Option<&Arc<str>> {
        let ip = address.ip();
        let (_, user) = self.networks.iter().find(|(network, _)| network.contains(&ip))?;
        Some(user)
    }

    /// Whether an address that no session holds may have somebody all the same.
    pub(super) fn covers_networks(&self) -> bool {
        !self.networks.is_empty()
    }
}

impl Engine {
    /// Other networks: who was let in by one that is gone, or is somebody else's, is let in no more.
    pub(super) fn networks(&mut self, mut networks: Vec<(IpNet, Arc<str>)>, now: Now, out: &mut Vec<Effect>) {
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        self.addressed.networks = networks;
        self.drops.forget_all();
        let mut over: Vec<SessionId> = self
            .addressed
            .at
            .iter()
            .filter(|&(&address, &session)| {
                self.sessions.get(session).is_some_and(|s| {
                    let user = self.addressed.in_network(address);
                    s.is_leased() && user != Some(&s.identity.user.name)
                })
            })
            .map(|(_, &session)| session)
            .collect();
        over.sort_unstable();
        for session in over {
            self.session_down(session, Leaving::LoggedOut, now, out);
        }
        self.tell_whom_to_ask_for(out);
    }

    pub(super) fn addressed_users(&mut self, users: &HashMap<Arc<str>, Arc<Identity>>) {
        self.addressed.users.clone_from(users);
    }

    /// The edge learnt whose an address is; it also says when that is over.
    pub(super) fn identified(&mut self, address: Addr, user: &Arc<str>, now: Now, out: &mut Vec<Effect>) {
        let held = self.address_session(address);
        if let Some((session, name)) = held {
            let leased = self.sessions.get(session).is_some_and(Session::is_leased);
            if name == *user && !leased {
                return;
            }
            self.session_down(session, Leaving::LoggedOut, now, out);
        }
        self.address_up(address, user, None, now, out);
    }

    /// The edge learnt that nobody is there any more.
    pub(super) fn unidentified(&mut self, address: Addr, now: Now, out: &mut Vec<Effect>) {
        if let Some((session, _)) = self.address_session(address) {
            self.session_down(session, Leaving::LoggedOut, now, out);
        }
    }

    /// Who is at the source of a packet that no client can be asked about.
    pub(super) fn addressed(&mut self, address: Addr, now: Now, out: &mut Vec<Effect>) -> Option<SessionId> {
        let lease = Some(now.mono + self.limits.address_lease);
        if let Some((session, _)) = self.address_session(address) {
            if let Some(s) = self.sessions.all.get_mut(&session) {
                s.renew(address, lease);
            }
            return Some(session);
        }
        let user = Arc::clone(self.addressed.in_network(address)?);
        self.address_up(address, &user, lease, now, out)
    }

    /// The session of quality address that is there, with its user's name.
    fn address_session(&mut self, address: Addr) -> Option<(SessionId, Arc<str>)> {
        let &session = self.addressed.at.get(&address)?;
        let name = self
            .sessions
            .get(session)
            .map(|s| Arc::clone(&s.identity.user.name));
        if name.is_none() {
            self.addressed.at.remove(&address);
        }
        Some((session, name?))
    }

    fn address_up(
        &mut self,
        address: Addr,
        user: &Arc<str>,
        lease: Option<Duration>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Option<SessionId> {
        let Some(identity) = self.addressed.users.get(user).map(Arc::clone) else {
            self.stats.unknown_identities += 1;
            return None;
        };
        self.addressed.last += 1;
        let session = SessionId(OWN | self.addressed.last);
        let os = OsInfo {
            name: Text::lossy(NO_CLIENT),
            ..OsInfo::default()
        };
        let facts = SessionFacts {
            quality: Quality::Address,
            lease,
            ..SessionFacts::new(identity, address, os)
        };
        self.session_up(session, facts, now, out);
        self.sessions.get(session)?;
        // What is stale there is of addresses whose session ended, and goes before there are more of them than sessions.
        if self.addressed.at.len() > 2 * self.sessions.len() + 64 {
            let sessions = &self.sessions;
            self.addressed
                .at
                .retain(|_, session| sessions.get(*session).is_some());
        }
        self.addressed.at.insert(address, session);
        Some(session)
    }
}
