//! What may be asked of a running server over its Unix socket: one JSON object a line, each way.
//!
//! The types and the asker's side; who may ask is the server's business, and a step of upkeep means something to the log
//! alone: it travels through here unread.

pub mod admin;
mod client;
#[cfg(test)]
mod tests;

pub use client::{Client, ControlError};

use admin::{Target, Wanted};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where a server listens unless it is configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nufw/nuauth.sock";
/// Bytes of one line, its end included; a longer one ends the connection.
pub const MAX_LINE: usize = 64 * 1024;

/// One question. In JSON the key `request` holds its name, and each field is a key beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the server is; answered with [`Status`].
    Status,
    /// Takes the lock of this name for as long as the connection lasts; answered with [`Done`].
    Lock {
        /// What the asker is about to do, such as `clean`.
        name: String,
    },
    /// One bounded step of upkeep of a log in a file, done between two commits; answered with the log's own word of what it
    /// came to.
    Maintain {
        /// The step, as the log's library spells it.
        step: Value,
    },
    /// Have gateways show their tables, and close what is not in them; answered with [`Verified`] when they have been told,
    /// not when they have answered.
    Verify {
        /// The gateways.
        gateways: Vec<String>,
    },
    /// Whose live connection this is; answered with [`Found`], or `null` when there is none.
    Lookup(Endpoints),
    /// Sessions with a number above `after`; answered with a [`Page`](admin::Page) of [`SessionInfo`](admin::SessionInfo).
    Sessions {
        /// The last that is known.
        #[serde(default)]
        after: u64,
    },
    /// Gateways, connected or not; answered with a list of [`GatewayInfo`](admin::GatewayInfo).
    Gateways,
    /// Connections that wait for a decision; answered with a page of [`PendingInfo`](admin::PendingInfo).
    Pending {
        /// The last that is known.
        #[serde(default)]
        after: u64,
    },
    /// Live connections; answered with a page of [`ConnectionInfo`](admin::ConnectionInfo), which may be empty and yet have a
    /// next one.
    Connections {
        /// Which of them.
        #[serde(default)]
        wanted: Wanted,
        /// Where to go on.
        #[serde(default)]
        from: u64,
    },
    /// End sessions; answered with [`Disconnected`](admin::Disconnected).
    Disconnect {
        /// Which.
        target: Target,
        /// A sentence for their users.
        reason: String,
    },
    /// No ticket counts any more, of this user or of anybody; answered with [`Said`](admin::Said).
    RevokeTickets {
        /// The user's name.
        #[serde(default)]
        user: Option<String>,
    },
    /// Read the files again, as on SIGHUP; answered with [`Said`](admin::Said) when it is done.
    Reload,
    /// Which access lists are in force; answered with [`PolicyInfo`](admin::PolicyInfo).
    Policy,
    /// Forget what is remembered of users from elsewhere; answered with [`Said`](admin::Said).
    RefreshCache,
    /// The filter of the log, set first if one is given; answered with [`Said`](admin::Said).
    LogLevel {
        /// In the form of `NUFW_LOG`.
        #[serde(default)]
        filter: Option<String>,
    },
    /// Take no logins and no packets any more and end when nothing waits; answered with [`Said`](admin::Said) at once.
    Drain {
        /// End after so many seconds in any case.
        within: u64,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// What was asked for.
    Ok(Value),
    /// Why not: a sentence.
    Error(String),
    /// Somebody else is at it: a sentence.
    Busy(String),
    /// The asker may not ask this: a sentence.
    Denied(String),
}

/// Nothing but that it was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Both ends of a connection, as the asker sees them: the peer as source, itself as destination, or the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Number of the IP protocol: 6 for TCP.
    pub protocol: u8,
    /// Source address.
    pub src: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
}

/// The newest live connection with the ends that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its row's id, decimal.
    pub id: String,
    /// The user's number, decimal, if it has a user.
    pub user_id: Option<String>,
    /// The user's name, if the server knows the user.
    pub username: Option<String>,
    /// The gateway it passes.
    pub gateway: String,
    /// Which direction the ends are of.
    pub side: Side,
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// As the client sees it.
    Original,
    /// As the service behind the gateway sees it.
    Reply,
}

/// Which gateways a [`Request::Verify`] reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Connected, and will show their tables.
    pub asked: Vec<String>,
    /// Connected, but tell nothing of their tables.
    pub mute: Vec<String>,
    /// Not connected to this server.
    pub absent: Vec<String>,
}

/// How a server is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The server's permanent number.
    pub server_number: u16,
    /// Seconds since it began.
    pub uptime: u64,
    /// The place of its log, without a password.
    pub database: String,
    /// Names of the gateways that are connected.
    pub gateways: Vec<String>,
    /// Client sessions.
    pub sessions: u64,
    /// Connections that are not closed.
    pub live_connections: u64,
    /// Packets that wait for a decision.
    pub pending_asks: u64,
    /// What the journal did since the start, and what waits in it.
    pub journal: Value,
    /// What the engine counted since the start.
    pub counters: BTreeMap<String, u64>,
}
