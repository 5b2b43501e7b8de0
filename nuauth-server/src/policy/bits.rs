//! Sets of rules, by number: plain ones, and many that differ little.
//!
//! One bit a rule, in blocks as long as a line of a processor's cache, so that some sets are intersected in few instructions.

use std::collections::HashMap;

/// Words of a block.
const WORDS: usize = 8;
/// Rules of a block.
pub(super) const RULES: usize = 64 * WORDS;

/// 512 rules.
pub(super) type Block = [u64; WORDS];

/// A set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plain(Box<[Block]>);

impl Plain {
    /// The empty set of a list of so many rules.
    pub(super) fn none(rules: usize) -> Self {
        Self(vec![[0; WORDS]; rules.div_ceil(RULES)].into())
    }

    pub(super) fn insert(&mut self, rule: usize) {
        insert(&mut self.0[rule / RULES], rule);
    }

    fn remove(&mut self, rule: usize) {
        self.0[rule / RULES][rule % RULES / 64] &= !(1 << (rule % 64));
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.0
    }
}

/// Adds a rule to the block that it belongs to.
#[inline]
pub(super) fn insert(block: &mut Block, rule: usize) {
    block[rule % RULES / 64] |= 1 << (rule % 64);
}

/// Many sets, of which each was made of the one before: blocks that are alike are kept once.
#[derive(Debug, Default)]
pub(super) struct Sets {
    blocks: Vec<Block>,
    /// The numbers of the blocks of each set, one set after the other.
    rows: Vec<u32>,
    /// Blocks of a set.
    length: usize,
}

impl Sets {
    pub(super) fn get(&self, set: u32) -> Set<'_> {
        let from = set as usize * self.length;
        Set {
            blocks: &self.blocks,
            row: &self.rows[from..from + self.length],
        }
    }
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Set<'a> {
    blocks: &'a [Block],
    row: &'a [u32],
}

impl<'a> Set<'a> {
    #[inline]
    pub(super) fn block(self, at: usize) -> &'a Block {
        &self.blocks[self.row[at] as usize]
    }
}

/// Makes them.
pub(super) struct Maker {
    sets: Sets,
    known: HashMap<Block, u32>,
    present: Plain,
    /// The numbers of the present blocks, and which of them have changed.
    row: Vec<u32>,
    changed: Vec<usize>,
    made: u32,
}

impl Maker {
    /// Begins with a set.
    pub(super) fn new(first: Plain) -> Self {
        let length = first.blocks().len();
        Self {
            sets: Sets {
                length,
                ..Sets::default()
            },
            known: HashMap::new(),
            row: vec![0; length],
            changed: (0..length).collect(),
            present: first,
            made: 0,
        }
    }

    pub(super) fn insert(&mut self, rule: usize) {
        self.present.insert(rule);
        self.changed.push(rule / RULES);
    }

    pub(super) fn remove(&mut self, rule: usize) {
        self.present.remove(rule);
        self.changed.push(rule / RULES);
    }

    /// Keeps the present set, and gives its number.
    pub(super) fn keep(&mut self) -> u32 {
        for at in std::mem::take(&mut self.changed) {
            let block = self.present.blocks()[at];
            let blocks = &mut self.sets.blocks;
            self.row[at] = *self.known.entry(block).or_insert_with(|| {
                blocks.push(block);
                u32::try_from(blocks.len() - 1).unwrap_or(u32::MAX)
            });
        }
        self.sets.rows.extend(&self.row);
        self.made += 1;
        self.made - 1
    }

    pub(super) fn finish(self) -> Sets {
        self.sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 10_000;

    fn rules_of(set: Set<'_>) -> Vec<usize> {
        (0..COUNT)
            .filter(|rule| set.block(rule / RULES)[rule % RULES / 64] & (1 << (rule % 64)) != 0)
            .collect()
    }

    #[test]
    fn every_set_is_found_again_as_it_was_kept() {
        let first = [0_usize, 63, 64, 511, 512, 4096, 9_999];
        let mut plain = Plain::none(COUNT);
        for rule in first {
            plain.insert(rule);
        }
        let mut maker = Maker::new(plain);
        let mut kept = vec![(maker.keep(), first.to_vec())];
        let mut present = first.to_vec();
        for change in 0..100 {
            let rule = change * 97;
            if let Ok(at) = present.binary_search(&rule) {
                present.remove(at);
                maker.remove(rule);
            } else {
                present.push(rule);
                present.sort_unstable();
                maker.insert(rule);
            }
            kept.push((maker.keep(), present.clone()));
        }
        maker.remove(97);
        kept.push((
            maker.keep(),
            present.iter().copied().filter(|rule| *rule != 97).collect(),
        ));
        let sets = maker.finish();
        for (number, rules) in kept {
            assert_eq!(rules_of(sets.get(number)), rules);
        }
        assert!(
            sets.blocks.len() < 150,
            "a change of one rule makes one block: {}",
            sets.blocks.len()
        );
    }

    #[test]
    fn a_list_without_rules_has_sets_without_blocks() {
        let mut maker = Maker::new(Plain::none(0));
        let set = maker.keep();
        assert_eq!(maker.finish().get(set).row.len(), 0);
    }
}
