//! Connections that another one brings with it: FTP data, the media of a call.
//!
//! The rules let RELATED packets pass, so nobody was asked about them. They get a row of their own with the user of the
//! connection that they belong to, whose row is their parent. Only the kernel's word makes one: an entry that names its
//! master, which has a row.

use super::Engine;
use super::conns::{Conn, Flow, Side, Slot, shown_by, too_old};
use super::events::Sight;
use super::gateways::GatewayIdx;
use super::types::{Effect, LogEntry};
use nufw_proto::{CtEntry, Timestamp};
use nulog::{Change, OpenRow};
use std::sync::Arc;
use std::time::Duration;

/// What stands in the row where a rule would.
const LABEL: &str = "(related)";

impl Engine {
    /// Gives an entry that belongs to no row one of its own, if a connection that has one brought it. `at` is when it came to
    /// be. Where there is no room for another row it has none, and is counted: the kernel has let it pass.
    pub(super) fn related(
        &mut self,
        gateway: GatewayIdx,
        sight: Sight<'_>,
        at: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Option<Slot> {
        let entry = sight.entry;
        let parent = self.parent_of(gateway, sight)?;
        let flow = Flow {
            gateway,
            zone: entry.zone,
            tuple: entry.original,
        };
        if self.conns.bound(&flow).is_some() {
            // What is there is younger than this news.
            return None;
        }
        let full =
            self.conns.len() >= self.limits.connections || self.unwritten.len() >= self.limits.waiting_async;
        let Some(id) = (!full).then(|| self.next_id()).flatten() else {
            self.stats.related_without_row += 1;
            return None;
        };
        let parent = *self.conns.get(parent);
        let who = parent.who.and_then(|who| self.conns.who.get(who)).cloned();
        let shown = shown_by(entry).unwrap_or(entry.original);
        let row = OpenRow {
            id,
            gateway: Arc::clone(&self.gateways.get(gateway).name),
            received: at,
            prefix: Arc::from(""),
            mark: parent.user_mark,
            in_dev: Arc::from(""),
            out_dev: Arc::from(""),
            zone: entry.zone,
            original: entry.original,
            shown,
            user: who.as_ref().and_then(|who| who.user.clone()),
            client_os: who.as_ref().and_then(|who| who.os.clone()),
            client_app: who.as_ref().and_then(|who| who.app.clone()),
            acl: Arc::from(LABEL),
            parent: Some(parent.id),
            policy: Arc::from(""),
            auth: None,
        };
        let who = who.and_then(|who| self.conns.who.keep(who));
        let slot = self.conns.insert(Conn {
            id,
            gateway,
            zone: entry.zone,
            original: entry.original,
            side: Side::Unbound { shown },
            user: parent.user,
            user_mark: parent.user_mark,
            mark: entry.mark,
            established: false,
            // No verdict let it pass, so that none can turn out to be unused.
            grants: u8::MAX,
            granted_again: false,
            counted: 0,
            seen_in: 0,
            granted: Some(Duration::ZERO),
            // Every later word about the entry is younger than that, whosever clock it is by.
            received: parent.received,
            last_asked: at,
            born: None,
            before_nat: false,
            who,
        });
        let dump = self.gateways.get(gateway).dump_count;
        self.conns.bind(slot, entry, sight.born(), dump);
        self.unwritten.insert(id);
        self.stats.related += 1;
        out.push(Effect::Log(LogEntry {
            change: Change::Open(Box::new(row)),
            urgent: false,
        }));
        Some(slot)
    }

    /// The live connection that brought this entry.
    fn parent_of(&self, gateway: GatewayIdx, sight: Sight<'_>) -> Option<Slot> {
        let CtEntry { zone, master, .. } = *sight.entry;
        let flow = Flow {
            gateway,
            zone,
            tuple: master?,
        };
        // It may not be bound, if its own first event was lost.
        let waiting = self.conns.unbound(flow);
        let waiting = waiting.filter(|&slot| self.conns.get(slot).granted.is_some());
        let youngest = waiting.max_by_key(|&slot| self.conns.get(slot).received);
        self.conns
            .bound(&flow)
            .or(youngest)
            .filter(|&slot| !too_old(sight.entry, sight.told, self.conns.get(slot).received))
    }
}
