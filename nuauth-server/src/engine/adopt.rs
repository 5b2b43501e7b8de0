//! Live connections that the log does not know, although their mark is a user's: their rows were lost with a crash, or with
//! the restoration of an older copy of the log, or another server granted them.
//!
//! Found in a dump and adopted: a row like any other, which says so. What the mark does not say is not known and stays
//! NULL. Nothing is decided here; the connection passes already.

use super::Engine;
use super::conns::{Flow, shown_by};
use super::events::Sight;
use super::gateways::GatewayIdx;
use super::modes::LogMode;
use super::quality::Quality;
use super::subject::Subject;
use super::types::{Effect, Identity, Now};
use super::unasked::Unasked;
use super::who::Who;
use nufw_proto::{CtEntry, Mark};
use std::collections::HashMap;
use std::sync::Arc;

/// What stands in such a row in the place of the rule.
const ADOPTED: &str = "(adopted)";

impl Engine {
    /// The same engine, which knows whose mark is whose.
    #[must_use]
    pub fn with_users(mut self, users: &HashMap<Arc<str>, Arc<Identity>>) -> Self {
        self.know_marks(users);
        self
    }

    pub(super) fn know_marks(&mut self, users: &HashMap<Arc<str>, Arc<Identity>>) {
        let bits = self.limits.user_marks;
        self.marks = users
            .values()
            .map(|user| (bits.place(user.mark), Arc::clone(user)))
            .collect();
    }

    /// Gives an entry a row that has none, if it is a user's and would have one. One that finds no room waits for a later
    /// look.
    pub(super) fn adopt(&mut self, gateway: GatewayIdx, entry: &CtEntry, now: Now, out: &mut Vec<Effect>) {
        let Some(user) = self.unknown(gateway, entry, now) else {
            return;
        };
        let full =
            self.conns.len() >= self.limits.connections || self.unwritten.len() >= self.limits.waiting_async;
        let Some(id) = (!full).then(|| self.next_id()).flatten() else {
            self.gateways.get_mut(gateway).doubted = true;
            return;
        };
        self.stats.adopted += 1;
        let received = entry.start.unwrap_or(now.wall);
        let unasked = Unasked {
            id,
            gateway,
            entry,
            label: ADOPTED,
            mark: user.mark,
            who: Some(Who {
                user: Some(user.user.clone()),
                os: None,
                app: None,
                hash: None,
                hash_is_forgotten: false,
                in_dev: Arc::from(""),
                out_dev: Arc::from(""),
                phys_in: Arc::from(""),
                phys_out: Arc::from(""),
                quality: Quality::default(),
            }),
            parent: None,
            received,
            since: received,
            granted: now.mono,
            // Its packets were granted by somebody else: no report of an unused verdict is about it.
            grants: u8::MAX,
        };
        let slot = self.open_unasked(unasked, out);
        self.unwritten.insert(id);
        let sight = Sight {
            entry,
            kind: None,
            told: None,
        };
        self.bind(slot, gateway, sight, out);
        self.seen(slot, entry, out);
    }

    /// Whose entry it is, if it should have a row and has none.
    fn unknown(&self, gateway: GatewayIdx, entry: &CtEntry, now: Now) -> Option<Arc<Identity>> {
        let ours = Mark(entry.mark.0 & self.limits.mark_mask.0);
        let user = self.marks.get(&self.limits.user_marks.of(ours))?;
        let link = self.gateways.get(gateway).link.as_ref()?;
        let wanted = self.limits.adopt && self.limits.levels.connections;
        // Without events nobody would tell how it ends.
        if !wanted || !link.sets_marks || !link.relays_events || user.mark == Mark(0) {
            return None;
        }
        let shown = shown_by(entry)?;
        let flow = |tuple| Flow {
            gateway,
            zone: entry.zone,
            tuple,
        };
        // Its row was closed without having seen its end, which may still come.
        let closed = [entry.original, shown]
            .into_iter()
            .any(|tuple| self.ended.youngest(&flow(tuple), |_| true).is_some());
        // Where a rule wants no row it has none for that reason.
        let unlogged = {
            let subject = Subject {
                gateway: &self.gateways.get(gateway).name,
                ..Subject::new(Some(user), &shown, now.wall)
            };
            self.judge.judge(&subject).log == LogMode::None
        };
        let known = self.conns.bound_to(&flow(entry.original), entry.id).is_some();
        (!closed && !unlogged && !known).then(|| Arc::clone(user))
    }
}
