//! Finds the rules that a packet can match: by destination, source, port and protocol.
//!
//! Only leaves out what cannot match; whether a candidate does, the rule says. Rules come in the order of the file.

use super::bits::{Bits, clear, set};
use super::rule::Rule;
use super::sets::{Number, Ranges};
use nufw_proto::{Transport, Tuple};
use std::collections::HashMap;
use std::net::IpAddr;

/// The index of a list of rules.
#[derive(Debug, Default)]
pub(super) struct Index {
    destination: BothFamilies,
    source: BothFamilies,
    ports: Lookup<u16>,
    protocols: Protocols,
    /// Summaries that a set has: one for 4096 rules.
    summaries: usize,
}

#[derive(Debug, Default)]
struct BothFamilies {
    v4: Lookup<u32>,
    v6: Lookup<u128>,
}

impl BothFamilies {
    fn at(&self, address: IpAddr) -> Hit<'_> {
        match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits()),
            IpAddr::V6(address) => self.v6.at(address.to_bits()),
        }
    }
}

/// The rules of one condition at one value: those that ask for it and those that ask for nothing.
#[derive(Clone, Copy)]
struct Hit<'a> {
    asking: &'a Bits,
    any: &'a Bits,
}

impl Hit<'_> {
    #[inline]
    fn summary(self, at: usize) -> u64 {
        self.asking.summary(at) | self.any.summary(at)
    }

    #[inline]
    fn word(self, at: usize) -> u64 {
        self.asking.word(at) | self.any.word(at)
    }
}

/// Which rules ask for a number: the same ones from one start to the next.
#[derive(Debug)]
struct Lookup<K> {
    /// The first number of each interval; the first is the least of all.
    starts: Vec<K>,
    /// The set of each interval.
    asking: Vec<u32>,
    /// Every set once; the first is empty.
    sets: Vec<Bits>,
    any: Bits,
}

impl<K> Default for Lookup<K> {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            asking: Vec::new(),
            sets: vec![Bits::default()],
            any: Bits::default(),
        }
    }
}

impl<K: Number> Lookup<K> {
    /// `None` asks for nothing, an empty set for what there is not.
    fn new<'a>(rules: usize, conditions: impl Iterator<Item = Option<&'a Ranges<K>>>) -> Self
    where
        K: 'a,
    {
        let mut any = vec![0_u64; rules.div_ceil(64)];
        // Where a rule begins and where it ends.
        let mut edges: Vec<(K, bool, usize)> = Vec::new();
        for (rule, condition) in conditions.enumerate() {
            let Some(ranges) = condition else {
                set(&mut any, rule);
                continue;
            };
            for (from, to) in ranges.iter() {
                edges.push((from, true, rule));
                edges.extend(to.next().map(|after| (after, false, rule)));
            }
        }
        edges.sort_unstable();
        let mut lookup = Self {
            starts: vec![K::LEAST],
            asking: vec![0],
            sets: vec![Bits::default()],
            any: Bits::of(&any),
        };
        let mut known: HashMap<Bits, u32> = HashMap::from([(Bits::default(), 0)]);
        let mut present = vec![0_u64; rules.div_ceil(64)];
        let mut edges = edges.into_iter().peekable();
        while let Some((at, begins, rule)) = edges.next() {
            if begins {
                set(&mut present, rule);
            } else {
                clear(&mut present, rule);
            }
            if edges.peek().is_some_and(|next| next.0 == at) {
                continue;
            }
            let bits = Bits::of(&present);
            let number = *known.entry(bits).or_insert_with_key(|bits| {
                lookup.sets.push(bits.clone());
                u32::try_from(lookup.sets.len() - 1).unwrap_or(0)
            });
            if at == K::LEAST {
                lookup.asking[0] = number;
            } else {
                lookup.starts.push(at);
                lookup.asking.push(number);
            }
        }
        lookup
    }

    fn at(&self, number: K) -> Hit<'_> {
        let after = self.starts.partition_point(|start| *start <= number);
        let set = after.checked_sub(1).map_or(0, |interval| self.asking[interval]);
        Hit {
            asking: &self.sets[set as usize],
            any: &self.any,
        }
    }

    /// For a packet that has no such number.
    fn without(&self) -> Hit<'_> {
        Hit {
            asking: &self.sets[0],
            any: &self.any,
        }
    }
}

#[derive(Debug)]
struct Protocols {
    sets: Vec<Bits>,
    /// Which set each protocol has; the first is empty.
    of: Box<[u16; 256]>,
    any: Bits,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            sets: vec![Bits::default()],
            of: Box::new([0; 256]),
            any: Bits::default(),
        }
    }
}

impl Protocols {
    fn new(rules: &[Rule]) -> Self {
        let words = rules.len().div_ceil(64);
        let mut any = vec![0_u64; words];
        let mut plain: HashMap<u8, Vec<u64>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let of = match rule.protocol {
                None => &mut any,
                Some(protocol) => plain.entry(protocol).or_insert_with(|| vec![0; words]),
            };
            set(of, number);
        }
        let mut protocols = Self {
            any: Bits::of(&any),
            ..Self::default()
        };
        for (protocol, plain) in plain {
            protocols.of[usize::from(protocol)] = u16::try_from(protocols.sets.len()).unwrap_or(0);
            protocols.sets.push(Bits::of(&plain));
        }
        protocols
    }

    fn at(&self, protocol: u8) -> Hit<'_> {
        Hit {
            asking: &self.sets[usize::from(self.of[usize::from(protocol)])],
            any: &self.any,
        }
    }
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let count = rules.len();
        Self {
            destination: BothFamilies {
                v4: Lookup::new(
                    count,
                    rules.iter().map(|rule| rule.destination.set().map(|set| &set.v4)),
                ),
                v6: Lookup::new(
                    count,
                    rules.iter().map(|rule| rule.destination.set().map(|set| &set.v6)),
                ),
            },
            source: BothFamilies {
                v4: Lookup::new(
                    count,
                    rules.iter().map(|rule| rule.source.set().map(|set| &set.v4)),
                ),
                v6: Lookup::new(
                    count,
                    rules.iter().map(|rule| rule.source.set().map(|set| &set.v6)),
                ),
            },
            ports: Lookup::new(count, rules.iter().map(|rule| rule.ports.set())),
            protocols: Protocols::new(rules),
            summaries: count.div_ceil(64).div_ceil(64),
        }
    }

    /// The rules that may match, in order.
    pub(super) fn candidates(&self, tuple: &Tuple) -> Candidates<'_> {
        Candidates {
            hits: [
                self.destination.at(tuple.dst().ip()),
                match port(tuple.transport()) {
                    Some(port) => self.ports.at(port),
                    None => self.ports.without(),
                },
                self.protocols.at(tuple.protocol()),
                self.source.at(tuple.src().ip()),
            ],
            summaries: self.summaries,
            above: 0,
            summary: 0,
            at: 0,
            word: 0,
        }
    }
}

/// The port that rules mean. A call's identifier (GRE) is none: whoever makes the call chooses it.
fn port(transport: Transport) -> Option<u16> {
    match transport {
        Transport::Gre(_) => None,
        transport => transport.ports().map(|ports| ports.dst),
    }
}

/// What [`Index::candidates`] gives.
pub(super) struct Candidates<'a> {
    hits: [Hit<'a>; 4],
    summaries: usize,
    /// The next summary.
    above: usize,
    /// What is left of the present one.
    summary: u64,
    /// The present word, and what is left of it.
    at: usize,
    word: u64,
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.word == 0 {
            while self.summary == 0 {
                if self.above == self.summaries {
                    return None;
                }
                let above = self.above;
                self.summary = self
                    .hits
                    .iter()
                    .fold(u64::MAX, |all, hit| all & hit.summary(above));
                self.above += 1;
            }
            self.at = (self.above - 1) * 64 + self.summary.trailing_zeros() as usize;
            self.summary &= self.summary - 1;
            let at = self.at;
            let mut word = u64::MAX;
            for hit in &self.hits {
                word &= hit.word(at);
                if word == 0 {
                    break;
                }
            }
            self.word = word;
        }
        let rule = self.at * 64 + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(rule)
    }
}
