//! Row ids: the permanent server number and a sequence number that is never given out twice.
//!
//! A block is durable before anybody sees it; what a crash leaves of a block is lost on purpose.

use crate::StoreError;
use nufw_proto::ConnId;

/// Bits of an id below the server number.
const SEQUENCE_BITS: u32 = 49;
/// The first sequence number that does not fit; the one before it is never used, so that a block's end is an id too.
const SEQUENCE_END: i64 = 1 << SEQUENCE_BITS;
/// The largest server number: an id has 63 bits.
pub(crate) const MAX_SERVER_NUMBER: u16 = (1 << (63 - SEQUENCE_BITS)) - 1;

/// The ids of a server: the first, and the first that is not one of them.
pub(crate) fn range(server_number: u16) -> (i64, i64) {
    let first = i64::from(server_number) << SEQUENCE_BITS;
    (first, first.saturating_add(SEQUENCE_END))
}

/// The sequence number in an id.
pub(crate) fn sequence(id: i64) -> i64 {
    id & (SEQUENCE_END - 1)
}

/// Ids that belong to whoever holds the block, and to nobody else ever. Not `Clone`, for that reason.
#[derive(Debug, PartialEq, Eq)]
pub struct IdBlock {
    next: i64,
    end: i64,
}

impl IdBlock {
    /// The block of `count` sequence numbers from `first`.
    pub(crate) fn new(server_number: u16, first: i64, count: u32) -> Result<Self, StoreError> {
        let end = first
            .checked_add(i64::from(count))
            .filter(|end| first > 0 && *end < SEQUENCE_END)
            .ok_or(StoreError::IdsExhausted)?;
        let base = i64::from(server_number) << SEQUENCE_BITS;
        Ok(Self {
            next: base + first,
            end: base + end,
        })
    }

    /// What was left of a block when it was put down with [`Self::bounds`].
    pub(crate) fn again(next: i64, end: i64) -> Self {
        Self { next, end }
    }

    /// The first id, and the first that is not part of the block.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        (self.next, self.end)
    }

    /// Ids left in the block.
    pub fn remaining(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or(0)
    }

    /// The id in the middle of what is left; when it is used, it is time to reserve the next block.
    pub fn middle(&self) -> i64 {
        self.next + (self.end - self.next) / 2
    }
}

impl Iterator for IdBlock {
    type Item = ConnId;

    fn next(&mut self) -> Option<ConnId> {
        if self.next >= self.end {
            return None;
        }
        let id = u64::try_from(self.next)
            .ok()
            .and_then(|raw| ConnId::try_from(raw).ok())?;
        self.next += 1;
        Some(id)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.remaining()).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl ExactSizeIterator for IdBlock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_server_number_and_the_sequence_number() {
        let mut block = IdBlock::new(3, 7, 2).unwrap();
        assert_eq!(block.len(), 2);
        assert_eq!(block.next().unwrap().get(), (3 << 49) + 7);
        assert_eq!(block.next().unwrap().get(), (3 << 49) + 8);
        assert_eq!(block.next(), None);
    }

    #[test]
    fn the_largest_id_is_positive_and_the_one_after_it_refused() {
        let mut block = IdBlock::new(MAX_SERVER_NUMBER, SEQUENCE_END - 2, 1).unwrap();
        assert_eq!(block.next().unwrap().get(), i64::MAX - 1);
        assert!(matches!(
            IdBlock::new(1, SEQUENCE_END - 2, 2),
            Err(StoreError::IdsExhausted)
        ));
        assert!(matches!(
            IdBlock::new(1, i64::MAX, 2),
            Err(StoreError::IdsExhausted)
        ));
    }
}
