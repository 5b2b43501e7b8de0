//! How the levels of the log are written: as words, or as the number that NuFW had for them.
//!
//! Says nothing of what a level does: that is the engine's part.

use crate::engine::{Levels, OnOverload};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use std::fmt;

/// What was written.
#[derive(Debug)]
pub(super) enum RawLevels {
    /// `["sessions", "connections"]`, or with commas where only text can be given.
    Words(Vec<String>),
    /// `9`
    Nufw(Levels),
    /// A number that NuFW did not know.
    Unknown(i64),
}

impl RawLevels {
    fn number(number: i64) -> Self {
        let levels = u8::try_from(number).ok().and_then(Levels::from_nufw);
        levels.map_or(Self::Unknown(number), Self::Nufw)
    }

    /// The levels; what is wrong is handed to `reject` with key, what was found, and what was expected.
    pub(super) fn check(&self, mut reject: impl FnMut(&str, String, &str)) -> Levels {
        let mut levels = Levels::NONE;
        match self {
            Self::Nufw(known) => levels = *known,
            Self::Unknown(number) => reject(
                "log.levels",
                format!("integer {number}"),
                "a sum of 1 (sessions), 2 (drops), 4 (connections) and 8 (drops and connections)",
            ),
            Self::Words(words) => {
                for (index, word) in words.iter().enumerate() {
                    if !levels.add(word) {
                        let key = format!("log.levels[{index}]");
                        let expected = "\"sessions\", \"drops\" or \"connections\"";
                        reject(&key, format!("string \"{word}\""), expected);
                    }
                }
            }
        }
        levels
    }
}

impl<'de> Deserialize<'de> for RawLevels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LevelsVisitor;

        impl<'de> Visitor<'de> for LevelsVisitor {
            type Value = RawLevels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a list of \"sessions\", \"drops\" and \"connections\", or a number as NuFW had it",
                )
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RawLevels, E> {
                Ok(RawLevels::number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawLevels, E> {
                if let Ok(number) = text.parse() {
                    return Ok(RawLevels::number(number));
                }
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                Ok(RawLevels::Words(words.map(str::to_owned).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawLevels, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(RawLevels::Words(words))
            }
        }

        deserializer.deserialize_any(LevelsVisitor)
    }
}

/// `log.on-overload`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOverload {
    Wait,
    Drop,
}

impl From<RawOverload> for OnOverload {
    fn from(raw: RawOverload) -> Self {
        match raw {
            RawOverload::Wait => Self::Wait,
            RawOverload::Drop => Self::Drop,
        }
    }
}
