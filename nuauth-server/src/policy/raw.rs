//! The access lists as they are written.
//!
//! Words and numbers only; whether they make sense together, `read` says.

use nufw_common::config::{HumanDuration, Tried};
use nufw_proto::protocol;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::fmt;

/// Rules that lists may have; with more they are refused.
pub const MAX_RULES: usize = 65_536;
/// Items that all sets together may have; with more they are refused.
pub const MAX_ITEMS: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) order: Option<RawOrder>,
    pub(super) time_zone: Option<String>,
    #[serde(default)]
    pub(super) period: Vec<Tried<RawPeriod>>,
    #[serde(default)]
    pub(super) set: Vec<Tried<RawSet>>,
    #[serde(default)]
    pub(super) rule: Vec<Tried<RawRule>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawOrder {
    FirstMatch,
    AcceptWins,
    DropWins,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawPeriod {
    pub(super) name: String,
    pub(super) time_zone: Option<String>,
    pub(super) days: Option<Vec<String>>,
    pub(super) hours: Option<Vec<String>>,
    pub(super) dates: Option<Vec<String>>,
    pub(super) duration: Option<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawSet {
    pub(super) name: String,
    pub(super) addresses: Option<Vec<String>>,
    pub(super) ports: Option<Vec<TextOrNumber>>,
    pub(super) address_file: Option<String>,
    pub(super) port_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) name: String,
    pub(super) who: Option<RawWho>,
    pub(super) users: Option<Vec<TextOrNumber>>,
    pub(super) groups: Option<Vec<TextOrNumber>>,
    pub(super) min_auth: Option<RawQuality>,
    pub(super) protocol: Option<Protocol>,
    pub(super) source: Option<Vec<String>>,
    pub(super) destination: Option<Vec<String>>,
    pub(super) source_ports: Option<Vec<TextOrNumber>>,
    pub(super) ports: Option<Vec<TextOrNumber>>,
    pub(super) icmp_type: Option<u8>,
    pub(super) icmp_code: Option<u8>,
    pub(super) programs: Option<Vec<String>>,
    pub(super) program_sha256: Option<Vec<String>>,
    pub(super) os: Option<Vec<String>>,
    #[serde(rename = "in")]
    pub(super) in_dev: Option<Vec<String>>,
    #[serde(rename = "out")]
    pub(super) out_dev: Option<Vec<String>>,
    pub(super) bridge_in: Option<Vec<String>>,
    pub(super) bridge_out: Option<Vec<String>>,
    pub(super) gateways: Option<Vec<String>>,
    pub(super) period: Option<String>,
    pub(super) decision: RawDecision,
    pub(super) log_prefix: Option<String>,
    pub(super) log: Option<RawLog>,
    pub(super) mark: Option<u32>,
    pub(super) expire_after: Option<HumanDuration>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawWho {
    Authenticated,
    Nobody,
    Anyone,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawQuality {
    Address,
    Password,
    Certificate,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawDecision {
    Accept,
    Drop,
    Reject,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLog {
    Sync,
    Strict,
    Async,
    None,
}

/// A protocol by name or number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol(pub(super) u8);

/// A name, or a number that is written without quotes.
pub(super) enum TextOrNumber {
    Text(String),
    Number(i64),
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Protocols;

        impl Visitor<'_> for Protocols {
            type Value = Protocol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(protocol::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Protocol, E> {
                protocol::parse(text)
                    .map(Protocol)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Protocol, E> {
                u8::try_from(n)
                    .map(Protocol)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
        }

        deserializer.deserialize_any(Protocols)
    }
}

impl<'de> Deserialize<'de> for TextOrNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = TextOrNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Text(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<TextOrNumber, E> {
                Ok(TextOrNumber::Number(n))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl fmt::Display for TextOrNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}
