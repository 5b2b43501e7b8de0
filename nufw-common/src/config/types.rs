//! Values that people write with units.
//!
//! Each accepts what its doc shows and nothing else.

use super::ConfigError;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Unexpected, Visitor};
use std::fmt;
use std::time::Duration;

/// A duration: `"500ms"`, `"15s"`, `"2m"`, `"1h"`, `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// A number of bytes: `"8KiB"`, `"64MiB"`, `"1GiB"`, `"512B"`, or an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A 32-bit number: an integer, or a string such as `"0x00ffffff"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexOrInt(pub u32);

/// The parts of a number with a unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

impl HumanDuration {
    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        let duration = match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            "d" => seconds(86_400),
            _ => None,
        };
        duration.map(Self)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            _ if !millis.is_multiple_of(1000) => write!(f, "{millis}ms"),
            _ => {
                let seconds = millis / 1000;
                let units = [(86_400, "d"), (3600, "h"), (60, "m")];
                match units.into_iter().find(|(each, _)| seconds.is_multiple_of(*each)) {
                    Some((each, unit)) => write!(f, "{}{unit}", seconds / each),
                    None => write!(f, "{seconds}s"),
                }
            }
        }
    }
}

impl ByteSize {
    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let each: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(each).map(Self)
    }
}

impl HexOrInt {
    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) if !hex.starts_with('+') => u32::from_str_radix(hex, 16).ok().map(Self),
            Some(_) => None,
            None => split_unit(text)
                .filter(|(_, unit)| unit.is_empty())
                .and_then(|(number, _)| u32::try_from(number).ok())
                .map(Self),
        }
    }
}

impl fmt::Display for HexOrInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

macro_rules! read_with {
    ($name:ident, $visitor:ident, $expecting:literal, |$n:ident| $from_integer:expr) => {
        struct $visitor;

        impl Visitor<'_> for $visitor {
            type Value = $name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                $name::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_i64<E: de::Error>(self, $n: i64) -> Result<$name, E> {
                let read: Option<$name> = $from_integer;
                read.ok_or_else(|| E::invalid_value(Unexpected::Signed($n), &self))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    };
}

read_with!(
    HumanDuration,
    DurationVisitor,
    "a duration such as \"15s\", \"500ms\", \"2m\", \"1h\" or \"30d\"",
    |_n| None
);
read_with!(
    ByteSize,
    SizeVisitor,
    "a size such as \"64MiB\", \"8KiB\", \"1GiB\" or a number of bytes",
    |n| u64::try_from(n).ok().map(ByteSize)
);
read_with!(
    HexOrInt,
    HexVisitor,
    "an integer from 0 to 4294967295, or a string such as \"0x00ffffff\"",
    |n| u32::try_from(n).ok().map(HexOrInt)
);

/// A part of a configuration whose errors do not hide those of other parts.
///
/// As a field it needs a default or an `Option` around it: an absent one has no place that its error could name.
#[derive(Debug, Clone)]
pub struct Tried<T>(pub Result<T, ConfigError>);

impl<T: Default> Default for Tried<T> {
    fn default() -> Self {
        Self(Ok(T::default()))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Tried<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The reader of this module has put the place into the text by now.
        Ok(Self(
            T::deserialize(deserializer).map_err(|e| ConfigError::new(e.to_string())),
        ))
    }
}
