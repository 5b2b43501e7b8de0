//! A conntrack entry and its events, as the kernel tells them.
//!
//! Facts only, in the words of `linux/netfilter/nfnetlink_conntrack.h`; what they mean for a row is the engine's part.

use crate::{Mark, Timestamp, Tuple};
use serde::{Deserialize, Serialize};

/// Packets and bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets (`CTA_COUNTERS_PACKETS`).
    pub packets: u64,
    /// Bytes, IP headers included (`CTA_COUNTERS_BYTES`).
    pub bytes: u64,
}

/// Counters of both directions; the kernel has them only with `nf_conntrack_acct=1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Original direction: what the client sent.
    pub original: Count,
    /// Reply direction: what the client received.
    pub reply: Count,
}

/// The status bits of an entry (`enum ip_conntrack_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtStatus(pub u32);

impl CtStatus {
    /// Packets were seen in both directions (`IPS_SEEN_REPLY`).
    pub fn seen_reply(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// The entry is not dropped early when the table is full (`IPS_ASSURED`).
    pub fn assured(self) -> bool {
        self.0 & 1 << 2 != 0
    }

    /// Packets do not prolong its life (`IPS_FIXED_TIMEOUT`).
    pub fn fixed_timeout(self) -> bool {
        self.0 & 1 << 10 != 0
    }
}

/// The TCP state of an entry (`enum tcp_conntrack`, `nf_conntrack_tcp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpState(pub u8);

impl TcpState {
    /// A SYN was seen, no answer.
    pub const SYN_SENT: Self = Self(1);
    /// The SYN was answered.
    pub const SYN_RECV: Self = Self(2);
    /// The handshake is complete.
    pub const ESTABLISHED: Self = Self(3);
    /// A first FIN was seen.
    pub const FIN_WAIT: Self = Self(4);
    /// The other side acknowledged the FIN.
    pub const CLOSE_WAIT: Self = Self(5);
    /// The second FIN was seen.
    pub const LAST_ACK: Self = Self(6);
    /// Both sides finished.
    pub const TIME_WAIT: Self = Self(7);
    /// A RST was seen.
    pub const CLOSE: Self = Self(8);
}

/// One entry of the conntrack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtEntry {
    /// The kernel's id of the entry (`CTA_ID`): a hash, which a re-used tuple can get again.
    pub id: u32,
    /// Conntrack zone of the original direction (`CTA_ZONE`), 0 by default.
    pub zone: u16,
    /// Original direction, before any address translation.
    pub original: Tuple,
    /// Reply direction, after any address translation.
    pub reply: Tuple,
    /// Original direction of the connection that this one belongs to (`CTA_TUPLE_MASTER`), such as the control connection
    /// of FTP data; told with the first event and in dumps alone.
    pub master: Option<Tuple>,
    /// Connection mark.
    pub mark: Mark,
    /// Status bits.
    pub status: CtStatus,
    /// TCP state, for TCP.
    pub tcp_state: Option<TcpState>,
    /// Counters, if the kernel keeps them and the message carries them.
    pub counters: Option<Counters>,
    /// When the entry was confirmed (`CTA_TIMESTAMP_START`), if the kernel says so.
    pub start: Option<Timestamp>,
    /// When the entry ended, its protocol's timeout included (`CTA_TIMESTAMP_STOP`), if the kernel says so.
    pub stop: Option<Timestamp>,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CtEventKind {
    /// The entry was confirmed: its first packet left the gateway.
    New,
    /// Something of the entry changed; with the event mask of `nufw-agent rules`, the first reply was seen.
    Update,
    /// The entry is gone.
    Destroy,
}

/// How an entry was removed, as far as the kernel says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Removal {
    /// Its timeout had run out, or the kernel does not say; also for what is no destroy event.
    #[default]
    Unsaid,
    /// By the kernel, before its timeout: the event says how much of it was left (`CTA_TIMEOUT`, Linux 5.13).
    Early,
    /// By a program: the event carries the netlink port of who asked for it (`nlmsg_pid`).
    ByProgram,
}

/// One conntrack event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtEvent {
    /// What happened.
    pub kind: CtEventKind,
    /// The entry after it.
    pub entry: CtEntry,
    /// When: the kernel's event time, else the time of receipt at the agent.
    pub at: Timestamp,
    /// Whether `at` is the kernel's time (attribute 27, `CTA_TIMESTAMP_EVENT`) rather than that of receipt.
    pub at_kernel: bool,
    /// For a destroy: how the entry was removed.
    pub removal: Removal,
}
