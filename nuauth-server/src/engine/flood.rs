//! How many DROP rows are written: a rate for each source address and one for each gateway; what is beyond is a number.
//!
//! Both bounds hold whatever is sent: one source cannot crowd out the others, and sources that are made up share their
//! gateway's rate. Decides nothing about packets.

use super::Engine;
use super::gateways::GatewayIdx;
use super::limits::Limits;
use super::types::{Effect, Now};
use nufw_proto::{Addr, Timestamp};
use nulog::{Change, GapRow};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The word in `log_gap`.
const AGGREGATED: &str = "drops-aggregated";
/// A count is written when nothing was added to it for so long,
const QUIET: Duration = Duration::from_secs(1);
/// and at the latest when it is so old, even if the flood goes on. A crash of the server loses what is not written.
const LONGEST: Duration = Duration::from_secs(10);
/// How often sources that have their whole burst again are forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// A rate that allows a burst: the moment at which everything taken so far is paid for may lie ahead by the burst.
#[derive(Debug, Clone, Copy)]
struct Rate {
    interval: Duration,
    burst: Duration,
}

impl Rate {
    fn new(per_second: usize, burst: Duration) -> Self {
        let per_second = u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        Self {
            interval: Duration::from_secs(1) / per_second,
            burst,
        }
    }

    /// The moment after taking one more; `None` when there is none to be had.
    fn take(self, paid: Duration, now: Duration) -> Option<Duration> {
        let paid = paid.max(now) + self.interval;
        (paid <= now + self.burst).then_some(paid)
    }
}

/// DROP rows of a gateway that were not written.
#[derive(Debug)]
struct Count {
    from: Timestamp,
    to: Timestamp,
    rows: u64,
    since: Duration,
    last: Duration,
}

/// The rates, and the counts of what was beyond them.
pub(super) struct Flood {
    of_source: Rate,
    of_gateway: Rate,
    max_sources: usize,
    sources: HashMap<Addr, Duration>,
    gateways: HashMap<GatewayIdx, Duration>,
    /// In the order of the gateways, so that a replay does the same.
    counts: BTreeMap<GatewayIdx, Count>,
    swept: Duration,
}

impl Flood {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            of_source: Rate::new(limits.drops_per_source, limits.drop_burst),
            of_gateway: Rate::new(limits.drops_per_gateway, limits.drop_burst),
            max_sources: limits.drop_sources,
            sources: HashMap::new(),
            gateways: HashMap::new(),
            counts: BTreeMap::new(),
            swept: Duration::ZERO,
        }
    }

    /// Whether another DROP row may be written. The gateway's rate is asked first: the table of sources grows no faster.
    pub(super) fn has_room(&mut self, gateway: GatewayIdx, source: Addr, now: Now) -> bool {
        let paid = |paid: Option<&Duration>| paid.copied().unwrap_or_default();
        let Some(by_gateway) = self.of_gateway.take(paid(self.gateways.get(&gateway)), now.mono) else {
            return false;
        };
        let known = self.sources.get(&source);
        if known.is_none() && self.sources.len() >= self.max_sources {
            return false;
        }
        let Some(by_source) = self.of_source.take(paid(known), now.mono) else {
            return false;
        };
        self.sources.insert(source, by_source);
        self.gateways.insert(gateway, by_gateway);
        true
    }

    fn count(&mut self, gateway: GatewayIdx, received: Timestamp, now: Now) {
        let count = self.counts.entry(gateway).or_insert(Count {
            from: received,
            to: received,
            rows: 0,
            since: now.mono,
            last: now.mono,
        });
        count.from = count.from.min(received);
        count.to = count.to.max(received);
        count.rows += 1;
        count.last = now.mono;
    }

    /// Takes the counts that are due.
    fn due(&mut self, now: Now, all: bool) -> Vec<(GatewayIdx, Count)> {
        let is_due =
            |count: &mut Count| all || now.mono >= count.last + QUIET || now.mono >= count.since + LONGEST;
        self.counts.extract_if(.., |_, count| is_due(count)).collect()
    }

    /// Forgets sources of which nothing has to be remembered.
    fn sweep(&mut self, now: Now) {
        if now.mono >= self.swept + SWEEP {
            self.swept = now.mono;
            self.sources.retain(|_, paid| *paid > now.mono);
        }
    }
}

impl Engine {
    /// A DROP row is not written for want of room, and counted instead.
    pub(super) fn aggregate(&mut self, gateway: GatewayIdx, received: Timestamp, now: Now) {
        self.stats.drops_aggregated += 1;
        self.flood.count(gateway, received, now);
    }

    /// Writes the counts that are due; every one that there is when the server ends.
    pub(super) fn log_aggregated(&mut self, now: Now, all: bool, out: &mut Vec<Effect>) {
        self.flood.sweep(now);
        for (gateway, count) in self.flood.due(now, all) {
            let gap = GapRow {
                gateway: Some(Arc::clone(&self.gateways.get(gateway).name)),
                from: count.from,
                to: count.to,
                cause: Arc::from(AGGREGATED),
                count: Some(count.rows),
            };
            Self::log(Change::Gap(Box::new(gap)), out);
        }
    }
}
