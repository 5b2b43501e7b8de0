//! What may have been missed of a gateway, and how the log says so.
//!
//! An interval and a word for each; what became of the connections is the dumps' business. Closes no row.

use super::Engine;
use super::gateways::GatewayIdx;
use super::types::{Effect, Now};
use nufw_proto::gateway::{Gap, GapCause, Hello};
use nufw_proto::{ConnId, Timestamp};
use nulog::{Change, GapRow};
use std::sync::Arc;
use std::time::Duration;

/// Deletions by programs are told together: those that came within this time of the first.
const DELETED_TOGETHER: Duration = Duration::from_secs(1);
/// Where the server's number begins in a row id.
const NUMBER: u32 = 49;

/// Entries that programs deleted lately.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deleted {
    since: Duration,
    from: Timestamp,
    to: Timestamp,
    count: u64,
}

impl Engine {
    /// The agent tells of events that were lost.
    pub(super) fn gap(&mut self, gateway: GatewayIdx, gap: Gap, now: Now, out: &mut Vec<Effect>) {
        let cause = match gap.cause {
            GapCause::NetlinkOverrun => "netlink-overrun",
            GapCause::StoreFull => "store-full",
            GapCause::RulesMissing => "rules-missing",
        };
        self.missed(gateway, now);
        self.log_gap(gateway, (gap.from, gap.to), cause, None, out);
    }

    /// Another run of the agent: what the kernel told, and what the agent had not passed on, between the two is lost.
    pub(super) fn note_restart(
        &mut self,
        gateway: GatewayIdx,
        hello: &Hello,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let known = self.gateways.get(gateway);
        let same = known.stream.is_some_and(|stream| stream.boot == hello.boot);
        if same || !hello.relays_events {
            return;
        }
        let heard = known.heard;
        // The table is looked at anyway.
        self.gateways.get_mut(gateway).missed_before = Some(now.mono);
        // Of a gateway that was never heard of nothing can have been missed.
        if let Some(heard) = heard {
            let to = now.wall.max(heard);
            self.log_gap(gateway, (heard, to), "agent-restart", None, out);
        }
    }

    fn missed(&mut self, gateway: GatewayIdx, now: Now) {
        let gateway = self.gateways.get_mut(gateway);
        gateway.doubted = true;
        gateway.missed_before = Some(now.mono);
    }

    /// A program deleted the entry of a row.
    pub(super) fn note_deleted(&mut self, gateway: GatewayIdx, at: Timestamp, now: Now) {
        self.stats.deleted_entries += 1;
        let deleted = self.gateways.get_mut(gateway).deleted.get_or_insert(Deleted {
            since: now.mono,
            from: at,
            to: at,
            count: 0,
        });
        deleted.from = deleted.from.min(at);
        deleted.to = deleted.to.max(at);
        deleted.count += 1;
    }

    /// Tells the log of deletions, a moment after they began, so that a whole table's are one row.
    pub(super) fn log_deleted(&mut self, now: Now, at_once: bool, out: &mut Vec<Effect>) {
        let gateways: Vec<GatewayIdx> = self.gateways.indices().collect();
        for gateway in gateways {
            let due = |deleted: &mut Deleted| at_once || now.mono >= deleted.since + DELETED_TOGETHER;
            let Some(deleted) = self.gateways.get_mut(gateway).deleted.take_if(due) else {
                continue;
            };
            let interval = (deleted.from, deleted.to);
            self.log_gap(gateway, interval, "entries-deleted", Some(deleted.count), out);
        }
    }

    /// Row ids up to `row` were given before. Those of this server that are reserved anew come from an older copy of the log,
    /// and are not given twice.
    pub(super) fn skip_used_ids(
        &mut self,
        gateway: GatewayIdx,
        row: ConnId,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let used = u64::from(row);
        let Some(next) = self.ids.iter().find(|block| !block.is_empty()).map(|b| b.start) else {
            return;
        };
        if used >> NUMBER != next >> NUMBER || used < next {
            return;
        }
        if self.ids_used < used {
            let heard = self.gateways.get(gateway).heard_before.unwrap_or(now.wall);
            self.log_gap(gateway, (heard, now.wall.max(heard)), "older-log", None, out);
        }
        self.ids_used = self.ids_used.max(used);
        self.missed(gateway, now);
    }

    fn log_gap(
        &self,
        gateway: GatewayIdx,
        (from, to): (Timestamp, Timestamp),
        cause: &str,
        count: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let gap = GapRow {
            gateway: Some(Arc::clone(&self.gateways.get(gateway).name)),
            from,
            to,
            cause: Arc::from(cause),
            count,
        };
        Self::log(Change::Gap(Box::new(gap)), out);
    }
}
