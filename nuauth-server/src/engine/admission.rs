//! Whether a login is admitted: the limits of sessions, the time of the day, the age of what was shown.
//!
//! Says why not in a form that the client can be told.

use super::Engine;
use super::quality::Quality;
use super::types::{Effect, Now, OnUserLimit, SessionFacts};
use nufw_proto::SessionId;
use nufw_proto::client::{EndCause, Refusal};

impl Engine {
    /// Why a login is not admitted, if it is not. Where the oldest session of the user gives way, it is ended here.
    pub(super) fn refuses(
        &mut self,
        facts: &SessionFacts,
        replaces: Option<SessionId>,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Option<Refusal> {
        if self.draining {
            return Some(Refusal::Unavailable);
        }
        if !self.hours.allow(&facts.identity, now.wall) {
            return Some(Refusal::Hours);
        }
        if self.limits.session_age.is_some_and(|most| facts.age >= most) {
            return Some(Refusal::Ticket);
        }
        if self.sessions.len() - usize::from(replaces.is_some()) >= self.sessions.max {
            return Some(Refusal::Full);
        }
        if facts.quality == Quality::Address {
            return None;
        }
        let gives_room =
            replaces.is_some_and(|old| self.sessions.get(old).is_some_and(|old| old.holds(facts.address)));
        if !gives_room && !self.sessions.has_room(facts.address) {
            return Some(Refusal::AddressFull);
        }
        let most = self.limits.sessions_per_user?;
        let others = self.sessions.of_user(facts.identity.user.id, replaces);
        if others.len() < most {
            return None;
        }
        if self.limits.on_user_limit == OnUserLimit::Refuse {
            return Some(Refusal::UserFull);
        }
        for &oldest in &others[..others.len() + 1 - most] {
            let reason = "the user has logged in elsewhere, and may have no more sessions";
            self.end_session(oldest, EndCause::Replaced, reason, now, out);
        }
        None
    }

    pub(super) fn count_refused_login(&mut self, cause: Refusal) {
        match cause {
            Refusal::Full => self.stats.logins_full += 1,
            Refusal::AddressFull => self.stats.logins_address_full += 1,
            Refusal::UserFull => self.stats.logins_user_full += 1,
            Refusal::Hours => self.stats.logins_hours += 1,
            _ => self.stats.logins_other += 1,
        }
    }
}
