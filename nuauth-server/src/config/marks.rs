//! `[marks]`: fields of the mark beside the user's number, and the tables that fill them.
//!
//! Whatever would make two things look alike in a mark is refused here: overlapping fields, values that do not fit.

use crate::engine::UserBits;
use crate::policy::{MarkField, MarkTables, Marks, Pattern};
use nufw_common::config::HexOrInt;
use nufw_proto::Mark;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawMarks {
    user: Option<RawField>,
    rule: Option<RawField>,
    groups: Option<RawTable>,
    programs: Option<RawTable>,
    os: Option<RawTable>,
}

#[derive(Debug, Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawField {
    shift: u8,
    width: u8,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawTable {
    shift: u8,
    width: u8,
    values: Vec<RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawValue {
    r#match: String,
    value: u32,
}

impl RawMarks {
    /// The layout under the mask. Without fields the user's number has all of it.
    pub(super) fn check(&self, mask: Mark, mut reject: impl FnMut(&str, String, String)) -> Marks {
        let fields = [
            ("marks.user", self.user),
            ("marks.rule", self.rule),
            ("marks.groups", self.groups.as_ref().map(RawTable::field)),
            ("marks.programs", self.programs.as_ref().map(RawTable::field)),
            ("marks.os", self.os.as_ref().map(RawTable::field)),
        ];
        let mut taken: Vec<(&str, Mark)> = Vec::new();
        let mut good = |key: &'static str, raw: Option<RawField>| -> Option<MarkField> {
            let RawField { shift, width } = raw?;
            let field = MarkField { shift, width };
            let bits = field.bits();
            let shown = HexOrInt(bits.0);
            if width == 0 || u32::from(shift) + u32::from(width) > 32 {
                let found = format!("{width} bits at {shift}");
                reject(
                    &format!("{key}.width"),
                    found,
                    "1 to 32 bits that fit a mark of 32".to_owned(),
                );
            } else if bits.0 & !mask.0 != 0 {
                let expected = format!("bits of mark-mask {}", HexOrInt(mask.0));
                reject(&format!("{key}.shift"), format!("bits {shown}"), expected);
            } else if let Some((other, _)) = taken.iter().find(|(_, others)| others.0 & bits.0 != 0) {
                let expected = "bits of its own".to_owned();
                reject(
                    &format!("{key}.shift"),
                    format!("bits {shown}, some of them {other}'s"),
                    expected,
                );
            } else {
                taken.push((key, bits));
                return Some(field);
            }
            None
        };
        let [user, rule, groups, programs, systems] = fields.map(|(key, raw)| good(key, raw));
        let beside = fields[1..].iter().find(|(_, raw)| raw.is_some());
        if let Some((key, _)) = beside.filter(|_| self.user.is_none()) {
            let expected = "marks.user with it, which says where the users' numbers are left".to_owned();
            reject(key, "a field".to_owned(), expected);
        }
        let groups = groups.zip(self.groups.as_ref());
        let programs = programs.zip(self.programs.as_ref());
        let systems = systems.zip(self.os.as_ref());
        for (key, table) in [
            ("marks.groups", groups),
            ("marks.programs", programs),
            ("marks.os", systems),
        ] {
            if let Some((field, raw)) = table {
                raw.check(key, field, &mut reject);
            }
        }
        let mut patterns = |key: &str, raw: Option<(MarkField, &RawTable)>, parse: Parse| {
            let (field, raw) = raw?;
            let mut values = Vec::new();
            for (index, value) in raw.values.iter().enumerate() {
                match parse(&value.r#match) {
                    Ok(pattern) => values.push((pattern, value.value)),
                    Err(error) => {
                        let found = format!("string {:?}", value.r#match);
                        let key = format!("{key}.values[{index}].match");
                        reject(&key, found, format!("a pattern: {error}"));
                    }
                }
            }
            Some((field, values))
        };
        Marks {
            user: user.map_or_else(UserBits::default, |field| UserBits {
                shift: field.shift,
                bits: field.bits(),
            }),
            rule,
            tables: MarkTables {
                programs: patterns("marks.programs", programs, Pattern::path),
                systems: patterns("marks.os", systems, Pattern::os),
                groups: groups.map(|(field, raw)| (field, raw.names())),
            },
        }
    }
}

type Parse = fn(&str) -> Result<Pattern, crate::policy::BadPattern>;

impl RawTable {
    fn field(&self) -> RawField {
        RawField {
            shift: self.shift,
            width: self.width,
        }
    }

    fn names(&self) -> Vec<(Arc<str>, u32)> {
        let entry = |value: &RawValue| (Arc::from(value.r#match.as_str()), value.value);
        self.values.iter().map(entry).collect()
    }

    fn check(&self, key: &str, field: MarkField, reject: &mut impl FnMut(&str, String, String)) {
        if self.values.is_empty() {
            let expected = "at least one entry, or no such table".to_owned();
            reject(&format!("{key}.values"), "an empty list".to_owned(), expected);
        }
        for (index, value) in self.values.iter().enumerate() {
            if value.value == 0 || value.value > field.most() {
                let expected = format!(
                    "a value from 1 to {}, what {} bits hold",
                    field.most(),
                    field.width
                );
                reject(
                    &format!("{key}.values[{index}].value"),
                    value.value.to_string(),
                    expected,
                );
            }
            if self.values[..index]
                .iter()
                .any(|other| other.r#match == value.r#match)
            {
                let found = format!("string {:?} again", value.r#match);
                reject(
                    &format!("{key}.values[{index}].match"),
                    found,
                    "each once".to_owned(),
                );
            }
        }
    }
}
