//! Numbers that are easily confused, each with a type of its own.
//!
//! Nothing here hands out ids: each is made where its doc says.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($int:ty);)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// One queued packet as the agent names it; unique within one agent boot, never reused.
    AskId(u64);
    /// One run of an agent: a random number chosen at its start.
    BootId(u64);
    /// One question to a client, chosen by the server; unique within one server run.
    ClaimId(u64);
    /// One dump of the conntrack table, chosen by the server; 0 is the one an agent sends unasked.
    DumpId(u64);
    /// Position of an event in the stream of one agent boot; the first is 1, and there are no holes.
    EventSeq(u64);
    /// One login of a client, chosen by the server; unique within one server run.
    SessionId(u64);
    /// A packet or connection mark (`skb->mark`, `nf_conn->mark`), host byte order.
    Mark(u32);
}

/// The id of a connection's row: positive and below 2^63, so that every SQL backend can hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ConnId(i64);

/// A row id was zero or does not fit 63 bits.
#[derive(Debug, thiserror::Error)]
#[error("row id {0} is not between 1 and 2^63-1")]
pub struct BadConnId(u64);

impl ConnId {
    /// Stands for the row in an accepting verdict whose connection is not logged. It is the last id of the last server,
    /// far beyond any that is ever reserved.
    pub const UNLOGGED: Self = Self(i64::MAX);

    /// The id as SQL keeps it.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<u64> for ConnId {
    type Error = BadConnId;

    fn try_from(raw: u64) -> Result<Self, BadConnId> {
        match i64::try_from(raw) {
            Ok(id) if id > 0 => Ok(Self(id)),
            _ => Err(BadConnId(raw)),
        }
    }
}

impl From<ConnId> for u64 {
    fn from(id: ConnId) -> Self {
        id.0.unsigned_abs()
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch, UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From nanoseconds since the Unix epoch, as conntrack counts (`CTA_TIMESTAMP_*`); sub-microseconds are cut.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(i64::try_from(nanos / 1000).unwrap_or(i64::MAX))
    }

    /// Microseconds since the Unix epoch, UTC.
    pub fn micros(self) -> i64 {
        self.0
    }
}
