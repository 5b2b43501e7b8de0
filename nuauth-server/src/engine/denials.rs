//! Refusals that a client is told of: only those of connections that it claimed itself, and so many a minute.
//!
//! Decides nothing about packets, and says nothing of rules: who is refused learns what was refused, not why.

use super::Engine;
use super::types::{Effect, Now};
use nufw_proto::SessionId;
use nufw_proto::client::{Denied, Mine};
use std::time::Duration;

/// The time that [`Limits::refusals_told`](super::Limits::refusals_told) counts for.
const PERIOD: Duration = Duration::from_mins(1);

/// What a session was told lately.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When counting begins anew.
    until: Duration,
    count: usize,
    untold: u32,
}

impl Told {
    /// Whether one more may be told, and how many were not before it.
    fn take(&mut self, most: usize, now: Duration) -> Option<u32> {
        if now >= self.until {
            self.until = now + PERIOD;
            self.count = 0;
        }
        if self.count >= most {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

impl Engine {
    /// The access lists refused a connection that the session claimed.
    pub(super) fn tell_denied(
        &mut self,
        session: SessionId,
        mine: &Mine,
        rejected: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let most = self.limits.refusals_told;
        let told = self.sessions.all.get_mut(&session).and_then(|s| s.told.as_mut());
        if let Some(untold) = told.and_then(|told| told.take(most, now.mono)) {
            let mine = mine.clone();
            let denied = Box::new(Denied {
                mine,
                rejected,
                untold,
            });
            out.push(Effect::Denied { session, denied });
        }
    }
}
