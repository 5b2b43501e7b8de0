//! Where in a connection's mark the user's number stands.
//!
//! Numbers come from the users, the other bits from the access lists; that they do not overlap is seen to where both are
//! read.

use nufw_proto::Mark;

/// The place of the user's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserBits {
    /// How far the number is shifted to the left.
    pub shift: u8,
    /// The bits that it has there.
    pub bits: Mark,
}

impl Default for UserBits {
    /// The number alone is the mark.
    fn default() -> Self {
        Self {
            shift: 0,
            bits: Mark(u32::MAX),
        }
    }
}

impl UserBits {
    /// The number at its place.
    pub(super) fn place(self, number: Mark) -> Mark {
        Mark(number.0.checked_shl(self.shift.into()).unwrap_or(0) & self.bits.0)
    }

    /// Those bits of a mark.
    pub(super) fn of(self, mark: Mark) -> Mark {
        Mark(mark.0 & self.bits.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_where_it_was_put_and_nowhere_else() {
        let bits = UserBits {
            shift: 8,
            bits: Mark(0x00ff_ff00),
        };
        assert_eq!(bits.place(Mark(0x1234)), Mark(0x12_3400));
        assert_eq!(bits.of(Mark(0xff12_34ff)), Mark(0x12_3400));
        assert_eq!(UserBits::default().place(Mark(7)), Mark(7));
    }
}
