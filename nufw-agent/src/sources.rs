//! Which source addresses may be asked for: those with a session always, the others at a bounded rate.
//!
//! So that a scan or a flood from hosts where nobody is logged in ends at the gateway, without a round trip. Pure: time
//! is a parameter. It never lets a packet pass; it only decides whether asking is worth it.

use hashbrown::{HashMap, HashSet};
use nufw_proto::Addr;
use nufw_proto::gateway::KnownAddresses;
use std::time::{Duration, Instant};

/// Asks per second for one address without a session; as many at once.
pub const UNKNOWN_PER_SOURCE: u32 = 20;
/// Asks per second for all addresses without a session together; as many at once.
pub const UNKNOWN_TOGETHER: u32 = 500;
/// Addresses without a session that are counted apart. When so many have asked within a second, a further one
/// is not asked for.
pub const MAX_COUNTED: usize = 8192;
/// Addresses with a session that are remembered; a further one is treated as one without.
pub const MAX_KNOWN: usize = 1 << 20;

/// A rate limit: `rate` tokens a second, at most `rate` saved.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: u32,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Self {
        Self {
            rate,
            tokens: f64::from(rate),
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let rate = f64::from(self.rate);
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.filled = now;
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// The addresses that the server told of.
#[derive(Debug)]
pub struct Sources {
    known: HashSet<Addr>,
    /// Before the server has said anything, nothing is known to be hopeless.
    others_can_pass: bool,
    counted: HashMap<Addr, Bucket>,
    together: Bucket,
    swept: Instant,
}

impl Sources {
    /// Nothing known; everything may be asked for until the server says otherwise.
    pub fn new(now: Instant) -> Self {
        Self {
            known: HashSet::new(),
            others_can_pass: true,
            counted: HashMap::new(),
            together: Bucket::full(UNKNOWN_TOGETHER, now),
            swept: now,
        }
    }

    /// Addresses with a session.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// The server told of addresses. `false` when there were more than can be remembered.
    pub fn learn(&mut self, news: &KnownAddresses) -> bool {
        if news.reset {
            self.known.clear();
        }
        self.others_can_pass = news.others_can_pass;
        for address in news.removed.iter() {
            self.known.remove(address);
        }
        for address in news.added.iter() {
            if self.known.len() >= MAX_KNOWN && !self.known.contains(address) {
                return false;
            }
            self.known.insert(*address);
            self.counted.remove(address);
        }
        true
    }

    /// Tells whether the server may be asked for a packet of `source`; each time counts.
    pub fn may_ask(&mut self, source: Addr, now: Instant) -> bool {
        if self.others_can_pass || self.known.contains(&source) {
            return true;
        }
        if !self.counted.contains_key(&source) && self.counted.len() >= MAX_COUNTED && !self.sweep(now) {
            return false;
        }
        let own = self
            .counted
            .entry(source)
            .or_insert_with(|| Bucket::full(UNKNOWN_PER_SOURCE, now));
        own.take(now) && self.together.take(now)
    }

    /// Forgets those that have been silent for a second: a full bucket is like none. At most one look a second, since
    /// it costs the whole table.
    fn sweep(&mut self, now: Instant) -> bool {
        const SECOND: Duration = Duration::from_secs(1);
        if now.saturating_duration_since(self.swept) < SECOND {
            return false;
        }
        self.swept = now;
        self.counted
            .retain(|_, bucket| now.saturating_duration_since(bucket.filled) < SECOND);
        self.counted.len() < MAX_COUNTED
    }
}

#[cfg(test)]
mod tests;
