//! Finds the rules that a packet can match: by destination, source, port, protocol and user.
//!
//! Only leaves out what cannot match; what a candidate asks for besides, `rest` and the rule say. Rules come in the order of the
//! file.

use super::bits::{Block, Maker, Plain, RULES, Set, Sets};
use super::members::Whose;
use super::rule::{Rule, ports};
use super::sets::{Number, Ranges};
use nufw_proto::Tuple;
use std::collections::HashMap;
use std::net::IpAddr;

/// The index of a list of rules.
#[derive(Debug, Default)]
pub(super) struct Index {
    destination: BothFamilies,
    source: BothFamilies,
    ports: Lookup<u16>,
    protocols: Protocols,
    /// Blocks that a set of rules has.
    blocks: usize,
}

#[derive(Debug, Default)]
struct BothFamilies {
    v4: Lookup<u32>,
    v6: Lookup<u128>,
}

impl BothFamilies {
    fn at(&self, address: IpAddr) -> Set<'_> {
        match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits()),
            IpAddr::V6(address) => self.v6.at(address.to_bits()),
        }
    }
}

/// Which rules a number is good for: the same ones from one start to the next.
#[derive(Debug, Default)]
struct Lookup<K> {
    /// The first number of each interval; what is below the first of them has the set of those who ask for nothing.
    starts: Vec<K>,
    /// The sets: that of those who ask for nothing, and then one for each interval.
    sets: Sets,
}

impl<K: Number> Lookup<K> {
    /// `None` asks for nothing, an empty set for what there is not.
    fn new<'a>(rules: usize, conditions: impl Iterator<Item = Option<&'a Ranges<K>>>) -> Self
    where
        K: 'a,
    {
        let mut any = Plain::none(rules);
        // Where a rule begins and where it ends.
        let mut edges: Vec<(K, bool, usize)> = Vec::new();
        for (rule, condition) in conditions.enumerate() {
            let Some(ranges) = condition else {
                any.insert(rule);
                continue;
            };
            for (from, to) in ranges.iter() {
                edges.push((from, true, rule));
                edges.extend(to.next().map(|after| (after, false, rule)));
            }
        }
        edges.sort_unstable();
        let mut maker = Maker::new(any);
        maker.keep();
        let mut starts = Vec::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((at, begins, rule)) = edges.next() {
            if begins {
                maker.insert(rule);
            } else {
                maker.remove(rule);
            }
            if edges.peek().is_none_or(|next| next.0 != at) {
                starts.push(at);
                maker.keep();
            }
        }
        Self {
            starts,
            sets: maker.finish(),
        }
    }

    fn at(&self, number: K) -> Set<'_> {
        let interval = self.starts.partition_point(|start| *start <= number);
        self.sets.get(u32::try_from(interval).unwrap_or(0))
    }

    /// For a packet that has no such number.
    fn without(&self) -> Set<'_> {
        self.sets.get(0)
    }
}

#[derive(Debug)]
struct Protocols {
    sets: Sets,
    /// Which set each protocol has; the first is that of the rules that ask for none.
    of: Box<[u32; 256]>,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            sets: Sets::default(),
            of: Box::new([0; 256]),
        }
    }
}

impl Protocols {
    fn new(rules: &[Rule]) -> Self {
        let mut asking: HashMap<u8, Vec<usize>> = HashMap::new();
        let mut any = Plain::none(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            match rule.protocol {
                None => any.insert(number),
                Some(protocol) => asking.entry(protocol).or_default().push(number),
            }
        }
        let mut maker = Maker::new(any);
        maker.keep();
        let mut of = Box::new([0; 256]);
        for (protocol, rules) in asking {
            for &rule in &rules {
                maker.insert(rule);
            }
            of[usize::from(protocol)] = maker.keep();
            for &rule in &rules {
                maker.remove(rule);
            }
        }
        Self {
            sets: maker.finish(),
            of,
        }
    }

    fn at(&self, protocol: u8) -> Set<'_> {
        self.sets.get(self.of[usize::from(protocol)])
    }
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        fn lookup<'a, K: Number + 'a>(
            rules: &'a [Rule],
            condition: impl Fn(&'a Rule) -> Option<&'a Ranges<K>>,
        ) -> Lookup<K> {
            Lookup::new(rules.len(), rules.iter().map(condition))
        }
        Self {
            destination: BothFamilies {
                v4: lookup(rules, |rule| rule.destination.set().map(|set| &set.v4)),
                v6: lookup(rules, |rule| rule.destination.set().map(|set| &set.v6)),
            },
            source: BothFamilies {
                v4: lookup(rules, |rule| rule.source.set().map(|set| &set.v4)),
                v6: lookup(rules, |rule| rule.source.set().map(|set| &set.v6)),
            },
            ports: lookup(rules, |rule| rule.ports.set()),
            protocols: Protocols::new(rules),
            blocks: rules.len().div_ceil(RULES),
        }
    }

    /// The rules that may match, in order.
    pub(super) fn candidates<'a>(&'a self, tuple: &Tuple, whose: Whose<'a>) -> Candidates<'a> {
        Candidates {
            sets: (self.blocks > 0).then(|| {
                [
                    self.destination.at(tuple.dst().ip()),
                    match ports(tuple.transport()) {
                        Some(ports) => self.ports.at(ports.dst),
                        None => self.ports.without(),
                    },
                    self.protocols.at(tuple.protocol()),
                    self.source.at(tuple.src().ip()),
                ]
            }),
            whose,
            blocks: self.blocks,
            next: 0,
            left: Block::default(),
            word: 0,
        }
    }
}

/// What [`Index::candidates`] gives.
pub(super) struct Candidates<'a> {
    sets: Option<[Set<'a>; 4]>,
    whose: Whose<'a>,
    blocks: usize,
    /// The next block.
    next: usize,
    /// What is left of the present one, and from which word on.
    left: Block,
    word: usize,
}

impl Candidates<'_> {
    /// The next block in which there is something.
    fn advance(&mut self) -> Option<()> {
        let sets = self.sets?;
        while self.next < self.blocks {
            let at = self.next;
            self.next += 1;
            let [a, b, c, d] = sets.map(|set| set.block(at));
            let whose = self.whose.block(at);
            let mut all = Block::default();
            for (word, all) in all.iter_mut().enumerate() {
                *all = a[word] & b[word] & c[word] & d[word] & whose[word];
            }
            if all != Block::default() {
                self.left = all;
                self.word = 0;
                return Some(());
            }
        }
        None
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        loop {
            while let Some(word) = self.left.get_mut(self.word) {
                if *word != 0 {
                    let bit = word.trailing_zeros() as usize;
                    *word &= *word - 1;
                    return Some((self.next - 1) * RULES + self.word * 64 + bit);
                }
                self.word += 1;
            }
            self.advance()?;
        }
    }
}
