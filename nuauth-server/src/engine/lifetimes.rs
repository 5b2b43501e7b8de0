//! How sessions grow old: the age at which credentials are shown again, idleness, the time of the day, an administrator's word.
//!
//! Looked at once a second, for all sessions in one pass.

use super::Engine;
use super::quality::Quality;
use super::types::{Effect, Identity, Now};
use nufw_proto::client::EndCause;
use nufw_proto::{Addr, SessionId};
use std::collections::HashMap;
use std::time::Duration;

/// How often ages are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A client is asked for its credentials at most so long before its session would end.
const RENEWAL: Duration = Duration::from_mins(1);
/// Claims of one session that changed nothing, counted in [`ODD_TIME`]; a client with more of them is thrown out.
const MAX_ODD_CLAIMS: u32 = 50_000;
/// The time in which they are counted.
const ODD_TIME: Duration = Duration::from_secs(10);

/// The claims of sessions that changed nothing, in the present stretch of time.
#[derive(Default)]
pub(super) struct OddClaims {
    of: HashMap<SessionId, u32>,
    until: Duration,
}

impl Engine {
    /// A claim changed nothing: foreign, late or for nothing. Ends the session of a client that floods.
    pub(super) fn odd_claim(&mut self, session: SessionId, now: Now, out: &mut Vec<Effect>) {
        if now.mono >= self.odd_claims.until {
            self.odd_claims.of.clear();
            self.odd_claims.until = now.mono + ODD_TIME;
        }
        if self.sessions.get(session).is_none() {
            return;
        }
        let count = self.odd_claims.of.entry(session).or_default();
        *count += 1;
        if *count > MAX_ODD_CLAIMS {
            let reason = "the client claims what it was not asked about, again and again";
            self.end_session(session, EndCause::Misbehaved, reason, now, out);
        }
    }

    /// How long before the end of a session its credentials are asked for.
    fn renewal_time(&self) -> Duration {
        self.limits
            .session_age
            .map_or(RENEWAL, |age| RENEWAL.min(age / 4))
    }

    /// A connection of a session was granted.
    pub(super) fn session_used(&mut self, session: SessionId, now: Now) {
        if let Some(s) = self.sessions.all.get_mut(&session) {
            s.used = now.mono;
        }
    }

    /// The credentials were shown again, and are good.
    pub(super) fn renewed(&mut self, session: SessionId, now: Now) {
        let most = self.limits.session_age;
        if let Some(s) = self.sessions.all.get_mut(&session) {
            self.stats.renewals += 1;
            s.renewal_asked = false;
            s.ages_out = most.map(|most| now.mono + most);
        }
    }

    pub(super) fn sessions_age(&mut self, now: Now, out: &mut Vec<Effect>) {
        if now.mono < self.sessions.next_look {
            return;
        }
        self.sessions.next_look = now.mono + LOOK;
        let within = self.renewal_time();
        let mut over: Vec<(SessionId, EndCause)> = Vec::new();
        let mut asked: Vec<SessionId> = Vec::new();
        for (&id, session) in &mut self.sessions.all {
            if !self.hours.allow(&session.identity, now.wall) {
                over.push((id, EndCause::Hours));
                continue;
            }
            let Some(ages_out) = session.ages_out else {
                continue;
            };
            if ages_out <= now.mono {
                over.push((id, EndCause::Expired));
            } else if session.renewable && !session.renewal_asked && ages_out <= now.mono + within {
                session.renewal_asked = true;
                asked.push(id);
            }
        }
        asked.sort_unstable();
        out.extend(asked.into_iter().map(|session| Effect::Renew { session, within }));
        over.sort_unstable_by_key(|&(id, _)| id);
        for (session, cause) in over {
            let reason = if cause == EndCause::Hours {
                "the time of the day is over at which this user may be logged in"
            } else {
                "the session is as old as it may become: log in again"
            };
            self.end_session(session, cause, reason, now, out);
        }
        self.end_idle(now, out);
    }

    /// Ends sessions through which nothing passed for long. A live connection of the user from one of its addresses counts as
    /// something that passes.
    fn end_idle(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(most) = self.limits.session_idle else {
            return;
        };
        if now.mono < self.sessions.next_idle_look {
            return;
        }
        // One pass over the connections serves all sessions that look idle, and not too often.
        self.sessions.next_idle_look = now.mono + (most / 16).clamp(LOOK, Duration::from_secs(30));
        let idle: Vec<SessionId> = self
            .sessions
            .all
            .iter()
            .filter(|(_, s)| s.quality > Quality::Address && s.used + most <= now.mono)
            .map(|(&id, _)| id)
            .collect();
        if idle.is_empty() {
            return;
        }
        let mut ends: HashMap<(u64, Addr), Vec<SessionId>> = HashMap::new();
        for &id in &idle {
            let Some(s) = self.sessions.get(id) else { continue };
            for held in &s.addresses {
                ends.entry((s.identity.user.id, held.address))
                    .or_default()
                    .push(id);
            }
        }
        for (_, conn) in self.conns.iter() {
            let Some(user) = conn.user else { continue };
            // Once is enough for all of them.
            for id in ends.remove(&(user, conn.original.src())).into_iter().flatten() {
                if let Some(s) = self.sessions.all.get_mut(&id) {
                    s.used = now.mono;
                }
            }
        }
        let mut over: Vec<SessionId> = idle
            .into_iter()
            .filter(|&id| self.sessions.get(id).is_some_and(|s| s.used + most <= now.mono))
            .collect();
        over.sort_unstable();
        for session in over {
            let reason = "nothing passed for so long as a session may be idle";
            self.end_session(session, EndCause::Idle, reason, now, out);
        }
    }

    /// Ends the sessions that an administrator means; tells which they were.
    pub fn disconnect(
        &mut self,
        means: impl Fn(SessionId, &Identity, &[Addr]) -> bool,
        reason: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Vec<SessionId> {
        let mut over: Vec<SessionId> = self
            .sessions
            .all
            .iter()
            .filter(|&(&id, s)| {
                let addresses: Vec<Addr> = s.addresses.iter().map(|held| held.address).collect();
                means(id, &s.identity, &addresses)
            })
            .map(|(&id, _)| id)
            .collect();
        over.sort_unstable();
        for &session in &over {
            self.end_session(session, EndCause::Ordered, reason, now, out);
        }
        over
    }
}
