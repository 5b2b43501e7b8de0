//! What can happen to the log, as data: the language between engine, journal and store.
//!
//! No SQL and no I/O; a value here is valid by its types. A [`Change`] also lies in the spool's file, so that another form of
//! it is another [format](crate::Spool).

use nufw_proto::{Addr, BootId, ConnId, Counters, EventSeq, Mark, Timestamp, Tuple};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The life of a row; the numbers are NuFW's (`conntrack_ulog.state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The packet was dropped or rejected; the row is never touched again.
    Drop = 0,
    /// Accepted; no answer seen.
    Open = 1,
    /// The server answered.
    Established = 2,
    /// The connection is gone.
    Close = 3,
}

/// Why a row was closed (`conntrack_ulog.close_reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CloseReason {
    /// Both sides ended it in order.
    Finished,
    /// An established TCP connection was reset.
    Reset,
    /// The first packet was answered by a TCP reset.
    Refused,
    /// Nothing came for the protocol's timeout.
    IdleTimeout,
    /// Nobody ever answered.
    Unanswered,
    /// The verdict came when the packet was gone.
    NeverForwarded,
    /// Accepted, but the kernel never confirmed the connection.
    NeverConfirmed,
    /// Its end was not seen: a comparison with the kernel's table found its entry gone. The end that is logged is the time
    /// of the comparison, by which it had ended.
    Resync,
    /// Its verdict may never have reached the gateway, and the same packet was decided anew.
    Superseded,
    /// The kernel made a new entry for the same tuple before the end of this one was seen. The end that is logged is the
    /// birth of the other one, by which it had ended.
    Replaced,
    /// The gateway relays no events: what happened afterwards is not known.
    Untracked,
    /// The row could not be logged in time; the packet was dropped.
    LogFailed,
    /// Its gateway was not heard of for very long, and nobody can tell what became of its connections.
    GatewayLost,
    /// A program deleted the kernel's entry, as `conntrack -D` and `conntrack -F` do; its packets may have gone on under
    /// another.
    Deleted,
    /// The kernel removed the entry before its timeout: to make room in a full table, or since an address that it was
    /// translated to went away.
    Evicted,
    /// The server ended it when the user's session was over.
    KilledSession,
    /// The server ended it when the user was thrown out: removed from the users, or a certificate revoked.
    KilledRemoved,
    /// The server ended it when the access lists were read again and did not allow it any more.
    KilledPolicy,
    /// The server ended it when the time was over that its rule allows.
    KilledExpired,
    /// The time was over that its rule allows, and nobody was there to end it: the gateway's kernel did.
    Expired,
}

impl CloseReason {
    /// The word in the row.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::IdleTimeout => "idle-timeout",
            Self::Unanswered => "unanswered",
            Self::NeverForwarded => "never-forwarded",
            Self::NeverConfirmed => "never-confirmed",
            Self::Resync => "resync",
            Self::Superseded => "superseded",
            Self::Replaced => "replaced",
            Self::Untracked => "untracked",
            Self::LogFailed => "log-failed",
            Self::GatewayLost => "gateway-lost",
            Self::Deleted => "deleted",
            Self::Evicted => "evicted",
            Self::KilledSession => "killed-session",
            Self::KilledRemoved => "killed-removed",
            Self::KilledPolicy => "killed-policy",
            Self::KilledExpired => "killed-expired",
            Self::Expired => "expired",
        }
    }

    /// Whether the end was only inferred: the time logged with it is a bound, and both give way to the kernel's own word.
    pub fn is_inferred(self) -> bool {
        matches!(self, Self::Resync | Self::Replaced)
    }
}

/// The user of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Numeric id from the users' back-end.
    pub id: u64,
    /// Name.
    pub name: Arc<str>,
}

/// A decided packet: the row of a connection that was accepted, or of a packet that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRow {
    /// The row's id.
    pub id: ConnId,
    /// Name of the gateway.
    pub gateway: Arc<str>,
    /// When the gateway received the packet (`oob_time_sec`, `oob_time_usec`).
    pub received: Timestamp,
    /// Log prefix of the rule (`oob_prefix`).
    pub prefix: Arc<str>,
    /// Mark given with the verdict (`oob_mark`); 0 for a drop.
    pub mark: Mark,
    /// Interface the packet came in by; empty when unknown.
    pub in_dev: Arc<str>,
    /// Interface the packet would leave by; empty when unknown.
    pub out_dev: Arc<str>,
    /// Bridge port the packet came in by; empty where it passes through no bridge.
    pub phys_in: Arc<str>,
    /// Bridge port the packet would leave by; empty where it passes through no bridge.
    pub phys_out: Arc<str>,
    /// Conntrack zone.
    pub zone: u16,
    /// The original tuple as best known: as the client's socket sees it, else as the packet shows it.
    pub original: Tuple,
    /// What the packet shows: its destination is the reply direction's source (`reply_saddr`, `reply_sport`).
    pub shown: Tuple,
    /// The user, if anybody claimed the connection.
    pub user: Option<User>,
    /// The client's operating system, as it says.
    pub client_os: Option<Arc<str>>,
    /// The program, as the client says.
    pub client_app: Option<Arc<str>>,
    /// Name of the rule that decided.
    pub acl: Arc<str>,
    /// The connection that brought this one with it, such as the control connection of FTP data: this one was never asked
    /// for, and its user is that one's.
    pub parent: Option<ConnId>,
    /// The version of the access lists that decided; empty where none did.
    pub policy: Arc<str>,
    /// How the user had shown who it is, one word.
    pub auth: Option<Arc<str>>,
}

/// What the kernel's entry adds to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The entry's id (`ct_id`).
    pub ct_id: u32,
    /// The connection's mark (`ct_mark`).
    pub ct_mark: Mark,
    /// Original tuple: overrides what the row has, since the kernel knows best.
    pub original: Tuple,
    /// Reply tuple: the NAT side (`reply_*`).
    pub reply: Tuple,
}

/// The server answered: OPEN → ESTABLISHED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Established {
    /// The row.
    pub id: ConnId,
    /// When (`start_timestamp`); `None` when it was only learnt later that it happened.
    pub at: Option<Timestamp>,
    /// The kernel's entry, if it was seen.
    pub binding: Option<Binding>,
}

/// The connection is gone: any live state → CLOSE. Fills what is NULL, and overwrites what is set by what is truer alone: an
/// end that was [inferred](CloseReason::is_inferred) by one that was seen, counters by larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The row.
    pub id: ConnId,
    /// When (`end_timestamp`); `None` when it cannot be known.
    pub at: Option<Timestamp>,
    /// Why.
    pub reason: CloseReason,
    /// Counters, if the kernel gave them.
    pub counters: Option<Counters>,
    /// The kernel's entry, if one was ever seen.
    pub binding: Option<Binding>,
}

/// A client's session (`users`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Key of the row, from the same blocks as connection ids.
    pub id: ConnId,
    /// The user.
    pub user: User,
    /// The address the client logged in from.
    pub address: Addr,
    /// Operating system: name, release, version, as the client says.
    pub os: [Arc<str>; 3],
    /// When it began.
    pub start: Timestamp,
}

/// A time in which something may have been missed (`log_gap`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRow {
    /// The gateway, if it is about one.
    pub gateway: Option<Arc<str>>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Why, one word.
    pub cause: Arc<str>,
    /// How many things were missed, if known.
    pub count: Option<u64>,
}

/// Why a session of a user ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The user logged out, or is not known at the address any more.
    Logout,
    /// The client's connection was lost.
    Lost,
    /// An administrator ended it.
    Ordered,
    /// The user is not known any more, or the certificate was revoked.
    Removed,
    /// The user logged in elsewhere, and may have no more sessions.
    Replaced,
    /// Nothing passed for too long.
    Idle,
    /// The credentials were not shown again in time.
    Expired,
    /// The time of the day was over.
    Hours,
    /// The client did what no client should.
    Misbehaved,
    /// The server was stopped.
    Stopped,
}

impl EndReason {
    /// The word for it in `users.end_reason`. That of a session which a crash of the server ended is `server-restart`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Lost => "lost",
            Self::Ordered => "ordered",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Hours => "hours",
            Self::Misbehaved => "misbehaved",
            Self::Stopped => "stopped",
        }
    }
}

/// One change of the log. Applying the same change twice leaves the log as applying it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A new row in state OPEN.
    Open(Box<OpenRow>),
    /// A new row in state DROP.
    Drop(Box<OpenRow>),
    /// OPEN → ESTABLISHED.
    Established(Box<Established>),
    /// Live → CLOSE.
    Close(Box<Close>),
    /// Events of a gateway's boot up to this one need not be sent again.
    Acknowledge {
        /// The gateway.
        gateway: Arc<str>,
        /// The agent's boot.
        boot: BootId,
        /// The last event.
        through: EventSeq,
    },
    /// A client logged in.
    SessionStart(Box<SessionRow>),
    /// A client's session ended.
    SessionEnd {
        /// Key of its row.
        id: ConnId,
        /// When.
        at: Timestamp,
        /// Why.
        reason: EndReason,
    },
    /// Something may have been missed.
    Gap(Box<GapRow>),
    /// A gateway was heard of; what decides, when no server runs, whether its rows may be closed.
    Heartbeat {
        /// The gateway.
        gateway: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// What a live connection has carried so far. Counters only grow: a smaller one changes nothing.
    Counted {
        /// The row.
        id: ConnId,
        /// Its counters.
        counters: Counters,
    },
}

/// The NAT side of a live row, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translated {
    /// Only the packet was seen: this is what it showed in the queue.
    Shown(Tuple),
    /// The kernel's entry was seen.
    Bound(Binding),
}

/// A row in state OPEN or ESTABLISHED, as the server needs it after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveRow {
    /// The row's id.
    pub id: ConnId,
    /// The gateway.
    pub gateway: Arc<str>,
    /// OPEN or ESTABLISHED.
    pub state: State,
    /// When the gateway received the first packet.
    pub received: Timestamp,
    /// Conntrack zone.
    pub zone: u16,
    /// Original tuple.
    pub original: Tuple,
    /// The NAT side.
    pub translated: Translated,
    /// Mark given with the verdict.
    pub mark: Mark,
    /// The user's id.
    pub user_id: Option<u64>,
    /// The user's name.
    pub username: Option<Arc<str>>,
    /// The client's operating system, as it says.
    pub client_os: Option<Arc<str>>,
    /// The program, as the client says.
    pub client_app: Option<Arc<str>>,
    /// Interface the packet came in by; empty when unknown.
    pub in_dev: Arc<str>,
    /// Interface the packet would leave by; empty when unknown.
    pub out_dev: Arc<str>,
    /// Bridge port the packet came in by; empty when there is none.
    pub phys_in: Arc<str>,
    /// Bridge port the packet would leave by; empty when there is none.
    pub phys_out: Arc<str>,
    /// How the user had shown who it is, one word.
    pub auth: Option<Arc<str>>,
}
