//! Connections about which nobody was asked and that have a row all the same: what passed blind, what another connection
//! brought with it, what was found in a dump.
//!
//! Makes the row and the place among the live connections. Which ones get one is decided in `blind`, `related` and `adopt`.

use super::Engine;
use super::conns::{Conn, Side, Slot, shown_by};
use super::gateways::GatewayIdx;
use super::types::Effect;
use super::who::Who;
use nufw_proto::{ConnId, CtEntry, Mark, Timestamp};
use nulog::{Change, OpenRow};
use std::sync::Arc;
use std::time::Duration;

/// Such a connection. Its row says what the kernel's entry does, and nothing else.
pub(super) struct Unasked<'a> {
    pub(super) id: ConnId,
    pub(super) gateway: GatewayIdx,
    pub(super) entry: &'a CtEntry,
    /// What stands in its row in the place of the rule.
    pub(super) label: &'static str,
    /// The mark that its row has.
    pub(super) mark: Mark,
    pub(super) who: Option<Who>,
    pub(super) parent: Option<ConnId>,
    /// When it came to be, as its row has it.
    pub(super) received: Timestamp,
    /// Nothing that the kernel says of it is older than this.
    pub(super) since: Timestamp,
    /// When its packets were granted, by whomever.
    pub(super) granted: Duration,
    /// See [`Conn::grants`].
    pub(super) grants: u8,
}

impl Engine {
    /// Gives it a row, and lets it wait for its entry, which the caller binds it to.
    pub(super) fn open_unasked(&mut self, unasked: Unasked<'_>, out: &mut Vec<Effect>) -> Slot {
        let Unasked {
            id,
            gateway,
            entry,
            mark,
            who,
            ..
        } = unasked;
        let shown = shown_by(entry).unwrap_or(entry.original);
        let unknown = || Arc::from("");
        let row = OpenRow {
            id,
            gateway: Arc::clone(&self.gateways.get(gateway).name),
            received: unasked.received,
            prefix: unknown(),
            mark,
            in_dev: unknown(),
            out_dev: unknown(),
            phys_in: unknown(),
            phys_out: unknown(),
            zone: entry.zone,
            original: entry.original,
            shown,
            user: who.as_ref().and_then(|who| who.user.clone()),
            client_os: who.as_ref().and_then(|who| who.os.clone()),
            client_app: who.as_ref().and_then(|who| who.app.clone()),
            acl: Arc::from(unasked.label),
            parent: unasked.parent,
            policy: unknown(),
            auth: None,
        };
        Self::log(Change::Open(Box::new(row)), out);
        let user = who.as_ref().and_then(|who| Some(who.user.as_ref()?.id));
        let who = who.and_then(|who| self.conns.who.keep(who));
        self.conns.insert(Conn {
            id,
            gateway,
            zone: entry.zone,
            original: entry.original,
            side: Side::Unbound { shown },
            user,
            user_mark: mark,
            mark: entry.mark,
            established: false,
            grants: unasked.grants,
            granted_again: false,
            counted: 0,
            seen_in: 0,
            granted: Some(unasked.granted),
            received: unasked.since,
            last_asked: unasked.received,
            born: entry.start,
            before_nat: false,
            who,
        })
    }
}
