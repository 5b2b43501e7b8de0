//! What an administrator may see: sessions, open questions, live connections, a page at a time.
//!
//! Reads only. A page costs a bounded look, however much there is.

use super::Engine;
use super::quality::Quality;
use super::types::Now;
use nufw_proto::{Addr, ClaimId, ConnId, SessionId, Timestamp, Tuple};
use nulog::User;
use std::sync::Arc;
use std::time::Duration;

/// Places of the table of connections that one page looks at.
const LOOKED_AT: usize = 20_000;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its number.
    pub id: SessionId,
    /// The user.
    pub user: User,
    /// How sure that is.
    pub quality: Quality,
    /// Its addresses; the login's first.
    pub addresses: Vec<Addr>,
    /// When it began.
    pub since: Timestamp,
    /// How long nothing was granted to it.
    pub idle: Duration,
    /// What the client says of its operating system.
    pub os: Arc<str>,
}

/// A connection that is being decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingView {
    /// The question.
    pub id: ClaimId,
    /// The gateway.
    pub gateway: Arc<str>,
    /// What the packet shows.
    pub tuple: Tuple,
    /// Packets that wait together.
    pub packets: usize,
    /// Sessions that were asked and have not answered.
    pub unanswered: usize,
    /// It is granted, and its row is being written.
    pub writing: bool,
    /// When it is given up.
    pub left: Duration,
}

/// A live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnView {
    /// Its row.
    pub id: ConnId,
    /// The gateway.
    pub gateway: Arc<str>,
    /// The user.
    pub user: Option<u64>,
    /// The user's name, where it is known.
    pub username: Option<Arc<str>>,
    /// The original tuple, as best known.
    pub original: Tuple,
    /// Whether it was answered.
    pub established: bool,
    /// When its first packet came.
    pub received: Timestamp,
    /// The program, as the client says.
    pub program: Option<Arc<str>>,
}

impl Engine {
    /// Sessions with a number above `after`, in the order of their numbers, at most `most`.
    pub fn sessions_after(&self, after: u64, most: usize, now: Now) -> Vec<SessionView> {
        let mut ids: Vec<SessionId> = self
            .sessions
            .all
            .keys()
            .copied()
            .filter(|id| id.0 > after)
            .collect();
        if ids.len() > most {
            ids.select_nth_unstable(most);
            ids.truncate(most);
        }
        ids.sort_unstable();
        ids.into_iter()
            .filter_map(|id| {
                let s = self.sessions.get(id)?;
                Some(SessionView {
                    id,
                    user: s.identity.user.clone(),
                    quality: s.quality,
                    addresses: s.addresses.iter().map(|held| held.address).collect(),
                    since: s.since,
                    idle: now.mono.saturating_sub(s.used),
                    os: Arc::clone(&s.os),
                })
            })
            .collect()
    }

    /// Open questions with a number above `after`, oldest first, at most `most`.
    pub fn pending_after(&self, after: u64, most: usize, now: Now) -> Vec<PendingView> {
        self.pending
            .after(ClaimId(after), most)
            .into_iter()
            .map(|(id, pending)| PendingView {
                id,
                gateway: Arc::clone(&self.gateways.get(pending.flow.gateway).name),
                tuple: pending.flow.tuple,
                packets: pending.packets.len(),
                unanswered: pending.waiting_for.len(),
                writing: pending.logging(),
                left: pending.deadline.saturating_sub(now.mono),
            })
            .collect()
    }

    /// Live connections from a place of the table on that fulfil a condition, at most `most`; and the place to go on from, if
    /// there is more.
    pub fn connections_from(
        &self,
        from: usize,
        most: usize,
        wanted: impl Fn(&ConnView) -> bool,
    ) -> (Vec<ConnView>, Option<usize>) {
        let (slots, mut next) = self.conns.part(from, LOOKED_AT);
        let mut found = Vec::new();
        for slot in slots {
            if found.len() >= most {
                next = Some(slot.place());
                break;
            }
            let conn = self.conns.get(slot);
            let who = conn.who.and_then(|who| self.conns.who.get(who));
            let view = ConnView {
                id: conn.id,
                gateway: Arc::clone(&self.gateways.get(conn.gateway).name),
                user: conn.user,
                username: who.and_then(|who| Some(Arc::clone(&who.user.as_ref()?.name))),
                original: conn.original,
                established: conn.established,
                received: conn.received,
                program: who.and_then(|who| who.app.clone()),
            };
            if wanted(&view) {
                found.push(view);
            }
        }
        (found, next)
    }
}
