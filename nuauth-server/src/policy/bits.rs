//! Sets of rules, by number, in which whatever is empty costs nothing.
//!
//! One bit a rule in words of 64, of which only those that are not empty are kept, and above them one bit a word.

/// A set of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Bits {
    /// One bit for each word that is kept.
    summary: Box<[u64]>,
    /// How many words are kept before the first one of each summary.
    ranks: Box<[u16]>,
    words: Box<[u64]>,
}

impl Bits {
    /// Those of a plain bit set.
    pub(super) fn of(plain: &[u64]) -> Self {
        let mut summary = vec![0_u64; plain.len().div_ceil(64)];
        let mut ranks = Vec::with_capacity(summary.len());
        let mut words = Vec::new();
        for (index, &word) in plain.iter().enumerate() {
            if index % 64 == 0 {
                ranks.push(u16::try_from(words.len()).unwrap_or(u16::MAX));
            }
            if word != 0 {
                summary[index / 64] |= 1 << (index % 64);
                words.push(word);
            }
        }
        Self {
            summary: summary.into(),
            ranks: ranks.into(),
            words: words.into(),
        }
    }

    /// Which words of 64 words are not empty.
    #[inline]
    pub(super) fn summary(&self, at: usize) -> u64 {
        self.summary.get(at).copied().unwrap_or(0)
    }

    /// A word.
    #[inline]
    pub(super) fn word(&self, at: usize) -> u64 {
        let (above, bit) = (at / 64, at % 64);
        let summary = self.summary(above);
        if summary & (1 << bit) == 0 {
            return 0;
        }
        let before = (summary & ((1 << bit) - 1)).count_ones() as usize;
        self.words[usize::from(self.ranks[above]) + before]
    }
}

/// Adds a rule to a plain bit set.
pub(super) fn set(plain: &mut [u64], rule: usize) {
    plain[rule / 64] |= 1 << (rule % 64);
}

/// Takes it out.
pub(super) fn clear(plain: &mut [u64], rule: usize) {
    plain[rule / 64] &= !(1 << (rule % 64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_again_and_no_other() {
        let rules = [0_usize, 63, 64, 4095, 4096, 4160, 9_999];
        let mut plain = vec![0_u64; 10_000_usize.div_ceil(64)];
        rules.iter().for_each(|&rule| set(&mut plain, rule));
        let bits = Bits::of(&plain);
        for (at, &word) in plain.iter().enumerate() {
            assert_eq!(bits.word(at), word, "{at}");
            assert_eq!(bits.summary(at / 64) & (1 << (at % 64)) != 0, word != 0);
        }
        assert_eq!(bits.words.len(), 6);
        clear(&mut plain, 64);
        assert_eq!(Bits::of(&plain).word(1), 0);
        assert_eq!(Bits::default().word(7), 0);
    }
}
