//! The connection's mark as a whole: fields beside the user's number, and the tables that fill them.
//!
//! Fields are bits of the mark mask that do not overlap; a value that does not fit its field is refused where it is read.

use super::pattern::Pattern;
use crate::engine::{Subject, UserBits};
use nufw_proto::Mark;
use std::sync::Arc;

/// Bits of the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkField {
    /// How far its values are shifted to the left.
    pub shift: u8,
    /// How many bits it has.
    pub width: u8,
}

impl MarkField {
    /// Its bits.
    pub fn bits(self) -> Mark {
        let ones = if self.width >= 32 {
            u32::MAX
        } else {
            (1 << self.width) - 1
        };
        Mark(ones.checked_shl(self.shift.into()).unwrap_or(0))
    }

    /// The largest value.
    pub fn most(self) -> u32 {
        if self.width >= 32 {
            u32::MAX
        } else {
            (1 << self.width) - 1
        }
    }

    /// A value at its place.
    pub fn place(self, value: u32) -> Mark {
        Mark(value.checked_shl(self.shift.into()).unwrap_or(0) & self.bits().0)
    }
}

/// The layout and its tables.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Where the user's number stands.
    pub user: UserBits,
    /// The field for the `mark` of a rule.
    pub rule: Option<MarkField>,
    /// The tables.
    pub tables: MarkTables,
}

/// A field, and what stands in it for what.
pub type MarkTable<T> = (MarkField, Vec<(T, u32)>);

/// What fills a field: the first entry that fits, or nothing.
#[derive(Debug, Clone, Default)]
pub struct MarkTables {
    /// Group and value.
    pub groups: Option<MarkTable<Arc<str>>>,
    /// Path of the program and value.
    pub programs: Option<MarkTable<Pattern>>,
    /// Operating system and value.
    pub systems: Option<MarkTable<Pattern>>,
}

impl MarkTables {
    /// The bits of a packet that is accepted.
    pub fn of(&self, subject: &Subject<'_>) -> Mark {
        let group = self.groups.as_ref().and_then(|(field, table)| {
            let user = subject.user?;
            let (_, value) = table.iter().find(|(group, _)| user.groups.contains(group))?;
            Some(field.place(*value))
        });
        let claimed = |table: &Option<MarkTable<Pattern>>, claim: Option<&str>| {
            let (field, table) = table.as_ref()?;
            let claim = claim?;
            let (_, value) = table.iter().find(|(pattern, _)| pattern.matches(claim))?;
            Some(field.place(*value))
        };
        let parts = [
            group,
            claimed(&self.programs, subject.program),
            claimed(&self.systems, subject.os),
        ];
        Mark(parts.into_iter().flatten().fold(0, |mark, part| mark | part.0))
    }
}
