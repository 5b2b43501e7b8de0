//! How often somebody may fail to log in.
//!
//! Pure: the time is a parameter. Bounded: at the limit the entry that failed least recently is forgotten, which an
//! attacker can reach only with as many networks or names as there are entries.

use nufw_proto::Addr;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses and users remembered; the least recent failure is forgotten for a new one.
const MAX_ENTRIES: usize = 65_536;
/// Failures that are free for one user.
const FREE_FOR_USER: u32 = 5;
/// Failures of one source that count against one user from everywhere: fewer than lock the user, so that nobody is kept out by
/// a single address that guesses. That address is locked for the user by itself.
const FROM_ONE_SOURCE: u32 = FREE_FOR_USER - 1;
/// Failures that are free for one source: many users may sit behind one address.
const FREE_FOR_SOURCE: u32 = 20;
/// The first lock; each further failure doubles it.
const FIRST_LOCK: Duration = Duration::from_secs(1);
/// The longest lock.
const LONGEST_LOCK: Duration = Duration::from_mins(5);
/// Failures are forgotten when no further one came for so long.
const MEMORY: Duration = Duration::from_mins(15);

/// Too many failures: wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins; try again in {} s", wait.as_secs().max(1))]
pub struct Locked {
    /// How long.
    pub wait: Duration,
    /// Whether it is the user that is locked rather than the source.
    pub user: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// An IPv4 address, or the /64 of an IPv6 address: a host can choose any address in it.
    Source(IpAddr),
    /// A user, wherever somebody tries.
    User(Box<str>),
    /// A user, from one source.
    Pair(IpAddr, Box<str>),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    last: Instant,
    locked_until: Instant,
    /// Position in the order of the last failures.
    turn: u64,
}

/// Counts failed logins by source, by user, and by both.
///
/// Success forgets the user's failures; a source's are forgotten only by time, so that an attacker with one good
/// account gains nothing by it.
#[derive(Debug)]
pub struct FailureLimiter {
    entries: HashMap<Key, Entry>,
    order: BTreeMap<u64, Key>,
    turn: u64,
    max_entries: usize,
}

impl Default for FailureLimiter {
    fn default() -> Self {
        Self::with_capacity(MAX_ENTRIES)
    }
}

impl FailureLimiter {
    /// Remembers at most `max_entries` sources and users together.
    pub fn with_capacity(max_entries: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            turn: 0,
            max_entries: max_entries.max(1),
        }
    }

    /// Whether `user` may try from `source` at this moment.
    pub fn check(&self, now: Instant, source: Addr, user: &str) -> Result<(), Locked> {
        let by_source = self.check_nameless(now, source).err();
        let source = network(source);
        let by_user = [Key::User(user.into()), Key::Pair(source, user.into())];
        let by_user = by_user.iter().filter_map(|key| self.locked(now, key));
        let by_user = by_user.map(|wait| Locked { wait, user: true });
        match by_source.into_iter().chain(by_user).max_by_key(|lock| lock.wait) {
            Some(lock) => Err(lock),
            None => Ok(()),
        }
    }

    /// The login failed.
    pub fn failed(&mut self, now: Instant, source: Addr, user: &str) {
        self.failed_nameless(now, source);
        let source = network(source);
        let so_often = self.count(now, Key::Pair(source, user.into()), FREE_FOR_USER);
        if so_often <= FROM_ONE_SOURCE {
            self.count(now, Key::User(user.into()), FREE_FOR_USER);
        }
    }

    /// A login failed that named nobody.
    pub fn failed_nameless(&mut self, now: Instant, source: Addr) {
        self.count(now, Key::Source(network(source)), FREE_FOR_SOURCE);
    }

    /// Whether somebody may try from `source` at this moment who has named nobody so far.
    pub fn check_nameless(&self, now: Instant, source: Addr) -> Result<(), Locked> {
        match self.locked(now, &Key::Source(network(source))) {
            Some(wait) => Err(Locked { wait, user: false }),
            None => Ok(()),
        }
    }

    /// The login succeeded.
    pub fn succeeded(&mut self, source: Addr, user: &str) {
        self.forget(&Key::User(user.into()));
        self.forget(&Key::Pair(network(source), user.into()));
    }

    /// Entries kept at the moment.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody has failed of late.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How much longer it is locked.
    fn locked(&self, now: Instant, key: &Key) -> Option<Duration> {
        let wait = self.entries.get(key)?.locked_until.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a failure; gives how many there are.
    fn count(&mut self, now: Instant, key: Key, free: u32) -> u32 {
        self.forget_old(now);
        let before = self.forget(&key);
        if self.entries.len() >= self.max_entries {
            self.forget_oldest();
        }
        let failures = before.map_or(0, |entry| entry.failures).saturating_add(1);
        let lock = match failures.checked_sub(free) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_LOCK
                .saturating_mul(2_u32.saturating_pow(doublings))
                .min(LONGEST_LOCK),
        };
        self.turn += 1;
        self.order.insert(self.turn, key.clone());
        let entry = Entry {
            failures,
            last: now,
            locked_until: now + lock,
            turn: self.turn,
        };
        self.entries.insert(key, entry);
        failures
    }

    fn forget(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.turn);
        Some(entry)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.first_key_value() {
            match self.entries.get(key) {
                Some(entry) if entry.last + MEMORY > now => break,
                _ => self.forget_oldest(),
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.entries.remove(&key);
        }
    }
}

/// What counts as one source.
fn network(address: Addr) -> IpAddr {
    match address.ip() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}
