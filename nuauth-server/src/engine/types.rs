//! The engine's language: what it is told, what it wants done, and its limits.
//!
//! Plain data; no behaviour beyond small conversions.

use super::kills::{Leaving, OnEnd, Rejects};
use super::marks::UserBits;
use super::modes::{Levels, LogMode, OnOverload};
use super::quality::Quality;
use super::subject::Judge;
use crate::hours::Hours;
use ipnet::IpNet;
use nufw_proto::client::{self, ClaimRequest, EndCause, OsInfo, Refusal};
use nufw_proto::gateway::{self, Answer, ToAgent};
use nufw_proto::{Addr, BootId, ConnId, EventSeq, Mark, SessionId, Timestamp};
use nulog::{ActiveRow, Change};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The moment of an input: a clock that never steps for time-outs, and the calendar for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since the server's start; never goes back.
    pub mono: Duration,
    /// Calendar time; may step in either direction.
    pub wall: Timestamp,
}

/// One TLS connection of a gateway, numbered by the edge; never reused within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// One attempt to prove an address, numbered by the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProofId(pub u64);

/// A user as policy, log and marks need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id and name for the log.
    pub user: nulog::User,
    /// The user's mark, within the mask.
    pub mark: Mark,
    /// Names of the user's groups.
    pub groups: Arc<[Arc<str>]>,
}

/// What the access lists say of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It goes on.
    Accept,
    /// It vanishes.
    Drop,
    /// It vanishes and its sender is told so.
    Reject,
}

/// A decision with the rule that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Ruling {
    /// What becomes of the packet.
    pub decision: Decision,
    /// Name of the rule.
    pub rule: Arc<str>,
    /// The rule's log prefix.
    pub prefix: Arc<str>,
    /// Whether it is logged, and whether the packet waits for the row.
    pub log: LogMode,
    /// How long a connection that it accepts may live.
    pub expires: Option<Duration>,
    /// Until when, since the rule's period ends then.
    pub until: Option<Timestamp>,
    /// Bits of the mark beside the user's number.
    pub mark: Mark,
}

impl Ruling {
    /// How long a connection may still live that it accepts and that has lived for so long.
    pub(super) fn time_left(&self, lived: Duration, wall: Timestamp) -> Option<Duration> {
        let of_life = self.expires.map(|lifetime| lifetime.saturating_sub(lived));
        let of_period = self.until.map(|until| {
            let left = until.micros().saturating_sub(wall.micros());
            Duration::from_micros(u64::try_from(left).unwrap_or(0))
        });
        of_life.into_iter().chain(of_period).min()
    }
}

/// What was decided about a connection and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It may pass, under this row and with this mark.
    Granted {
        /// The row; [`ConnId::UNLOGGED`] where there is none.
        row: ConnId,
        /// The user's mark.
        mark: Mark,
    },
    /// It may not.
    Refused(Refused),
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// A rule, or that no rule matched.
    ByRule {
        /// Whether the sender is told.
        reject: bool,
    },
    /// Nobody is logged in at the source address.
    Nobody,
    /// Every client at the source address says that it is not its user's.
    Disclaimed,
    /// No client claimed it in time.
    Timeout,
    /// It could not be logged.
    Unlogged,
    /// A table of the server is full.
    Full,
}

impl Refused {
    /// The name that stands in the row where no rule decided.
    pub fn label(self) -> &'static str {
        match self {
            Self::ByRule { .. } => "rule",
            Self::Nobody => "(nobody)",
            Self::Disclaimed => "(disclaimed)",
            Self::Timeout => "(timeout)",
            Self::Unlogged => "(unlogged)",
            Self::Full => "(full)",
        }
    }
}

/// What the edge learnt of a client that has logged in.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// The user.
    pub identity: Arc<Identity>,
    /// The address the client logged in from.
    pub address: Addr,
    /// What the client says of its operating system.
    pub os: OsInfo,
    /// How sure it is that it is this user.
    pub quality: Quality,
    /// How long ago credentials were shown: longer than a moment where a ticket was shown in their place.
    pub age: Duration,
    /// Whether the client can show them again on its connection.
    pub renewable: bool,
    /// Whether the client wants to hear of refusals.
    pub hears_refusals: bool,
    /// The session in whose place this one comes: of this run, and the one that got the ticket.
    pub replaces: Option<SessionId>,
    /// The client can tell hashes of programs.
    pub hashes: bool,
    /// Until when the address is held; for as long as the session lasts when `None`.
    pub lease: Option<Duration>,
}

impl SessionFacts {
    /// A user who has just shown a password there.
    pub fn new(identity: Arc<Identity>, address: Addr, os: OsInfo) -> Self {
        Self {
            identity,
            address,
            os,
            quality: Quality::default(),
            age: Duration::ZERO,
            renewable: false,
            hears_refusals: false,
            replaces: None,
            hashes: false,
            lease: None,
        }
    }
}

/// A session began or ended: for programs that want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionWord {
    /// The session.
    pub session: SessionId,
    /// The user.
    pub user: nulog::User,
    /// The address of the login.
    pub address: Addr,
    /// How sure it is that it is this user.
    pub quality: Quality,
    /// Why it ended, in a word; `None` when it began.
    pub end: Option<&'static str>,
}

/// What becomes of the login of a user who has as many sessions as a user may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUserLimit {
    /// It is refused.
    #[default]
    Refuse,
    /// The user's oldest session ends.
    EndOldest,
}

/// A change for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The change.
    pub change: Change,
    /// A packet waits for it: report failure at once instead of trying again.
    pub urgent: bool,
}

/// What the engine is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// The log cannot be read yet: [`Input::Loaded`] comes later. Comes first, if at all.
    LoadedLater,
    /// What the log knew at start: live rows, and how far each gateway's events are durable. Comes first, once, or after
    /// [`Input::LoadedLater`] at any time.
    Loaded {
        /// Rows in state OPEN or ESTABLISHED.
        rows: Vec<ActiveRow>,
        /// Gateway, its boot, its last durable event.
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
    },
    /// A gateway's agent said hello; a link that it had before is over.
    GatewayUp {
        /// The new link.
        link: LinkId,
        /// The gateway's name, from its certificate.
        name: Arc<str>,
        /// What it said.
        hello: gateway::Hello,
    },
    /// An agent says something.
    Gateway {
        /// Its link.
        link: LinkId,
        /// What it says.
        message: gateway::ToServer,
    },
    /// A link is over.
    GatewayDown {
        /// The link.
        link: LinkId,
    },
    /// A client has logged in.
    SessionUp {
        /// The session, numbered by the edge.
        session: SessionId,
        /// Who and where.
        facts: SessionFacts,
    },
    /// A client says something.
    Client {
        /// Its session.
        session: SessionId,
        /// What it says.
        message: client::ToServer,
    },
    /// A client shows that an address is its own.
    Prove {
        /// Names the attempt in the answer.
        proof: ProofId,
        /// The session whose token was shown.
        session: SessionId,
        /// The address it was shown from.
        address: Addr,
    },
    /// A session is over.
    SessionDown {
        /// The session.
        session: SessionId,
        /// How it ended.
        leaving: Leaving,
    },
    /// Changes are durable.
    Committed {
        /// Rows in state OPEN among them.
        opened: Vec<ConnId>,
        /// Acknowledgements among them.
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
    },
    /// Rows whose packets wait could not be logged. Should one have reached the disk all the same, the journal closes it.
    LogFailed {
        /// The rows.
        opened: Vec<ConnId>,
    },
    /// Row ids that are durably reserved.
    Ids(Range<u64>),
    /// Another policy; [`Input::Users`] follows.
    Judge(Arc<dyn Judge>),
    /// The users were read, at the start or again, by name. A session whose user is not among them ends; live connections are judged
    /// anew, as [`Limits::on_reload`] and [`Limits::on_removal`] say.
    Users(HashMap<Arc<str>, Arc<Identity>>),
    /// The client of a session has shown its credentials again.
    Renewed {
        /// The session.
        session: SessionId,
    },
    /// When who may be logged in.
    Hours(Hours),
    /// Networks in which an address says enough, with the names of their users.
    Networks(Vec<(IpNet, Arc<str>)>),
    /// Somebody who knows says whose an address is.
    Identified {
        /// The address.
        address: Addr,
        /// The user's name.
        user: Arc<str>,
    },
    /// And that nobody is there any more.
    Unidentified {
        /// The address.
        address: Addr,
    },
    /// The server is to end as soon as nothing waits: no login is admitted, no packet taken any more.
    Drain,
    /// Somebody doubts old rows of these gateways: a dump of their tables would tell.
    Verify {
        /// The gateways' names.
        gateways: Vec<String>,
    },
    /// Time has passed; comes several times a second.
    Tick,
    /// The server ends: what is kept back to be written later is written.
    Stopping,
}

/// What the engine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell an agent what becomes of a packet.
    Answer {
        /// The agent's link.
        link: LinkId,
        /// The packet and its verdict.
        answer: Answer,
    },
    /// Ask a client whether a connection is its user's.
    Question {
        /// The client's session.
        session: SessionId,
        /// The question.
        request: ClaimRequest,
    },
    /// Say something else to an agent.
    Agent {
        /// The agent's link.
        link: LinkId,
        /// What to say.
        message: ToAgent,
    },
    /// End an agent's connection.
    EndLink {
        /// The link.
        link: LinkId,
        /// A sentence for both logs.
        reason: &'static str,
    },
    /// The session exists from now on: tell its client.
    Admitted {
        /// The session.
        session: SessionId,
    },
    /// Tell a client whether hashes of programs are wanted.
    HashPrograms {
        /// The client's session.
        session: SessionId,
        /// Whether they are.
        wanted: bool,
    },
    /// The session cannot be: tell its client and end the connection.
    NotAdmitted {
        /// The session.
        session: SessionId,
        /// Why.
        cause: Refusal,
    },
    /// Tell a session's client of a refusal of what it claimed.
    Denied {
        /// The session.
        session: SessionId,
        /// What was refused.
        denied: Box<client::Denied>,
    },
    /// End a client's connection.
    EndSession {
        /// The session.
        session: SessionId,
        /// Why, where the client is to stay away or to log in anew.
        cause: Option<EndCause>,
        /// A sentence for the user.
        reason: Arc<str>,
    },
    /// Ask a client for its credentials.
    Renew {
        /// The session.
        session: SessionId,
        /// How long there is for it.
        within: Duration,
    },
    /// A session began or ended; only with [`Limits::tells_sessions`].
    Session(SessionWord),
    /// Answer a proof.
    Proof {
        /// The attempt.
        proof: ProofId,
        /// The address, or why not.
        result: Result<Addr, Refusal>,
    },
    /// Write to the log.
    Log(LogEntry),
}

/// What may be told of a live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveConn {
    /// Its row.
    pub id: ConnId,
    /// The user's id.
    pub user: Option<u64>,
    /// Its gateway.
    pub gateway: Arc<str>,
    /// Whether it was found by its original tuple.
    pub original: bool,
}

/// Every bound of the engine. What happens at each is said with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings that have nothing to do with each other"
)]
pub struct Limits {
    /// Packets that wait for a decision, all gateways together; a further one is dropped.
    pub pending_asks: usize,
    /// Packets of one connection that are answered together; a further one is dropped.
    pub packets_per_ask: usize,
    /// Live connections; a further one is dropped.
    pub connections: usize,
    /// Rows whose commit is awaited by their packets, or was until [`Self::commit_timeout`]; a further connection is
    /// dropped.
    pub waiting_commits: usize,
    /// Rows of asynchronous rules that are not durable; what becomes of a further one [`Self::on_overload`] says.
    pub waiting_async: usize,
    /// How long a packet waits for its row; then it is dropped, and the row closes as `log-failed`.
    pub commit_timeout: Duration,
    /// What becomes of packets of asynchronous rules above [`Self::waiting_async`].
    pub on_overload: OnOverload,
    /// Sessions; a further login is refused.
    pub sessions: usize,
    /// Sessions at one address; a further login or proof there is refused.
    pub sessions_per_address: usize,
    /// Sessions of one user; what becomes of a further login [`Self::on_user_limit`] says.
    pub sessions_per_user: Option<usize>,
    /// What becomes of the login of a user above [`Self::sessions_per_user`].
    pub on_user_limit: OnUserLimit,
    /// Credentials are shown again when they were shown so long ago, or the session ends.
    pub session_age: Option<Duration>,
    /// A session ends when nothing passed for so long.
    pub session_idle: Option<Duration>,
    /// Whether begin and end of sessions are told as [`Effect::Session`].
    pub tells_sessions: bool,
    /// Addresses of one session; a further proof is refused.
    pub addresses_per_session: usize,
    /// Refusals that one session is told of in a minute; further ones are a number in the next that is told. None is told at 0.
    pub refusals_told: usize,
    /// Drops that are remembered for retransmissions; the oldest is forgotten (its retransmission makes another row).
    pub recent_drops: usize,
    /// How long after its last packet a drop is remembered.
    pub drop_memory: Duration,
    /// DROP rows of one source address a second; further ones are a number in `log_gap`.
    pub drops_per_source: usize,
    /// DROP rows of one gateway a second, whatever their sources; further ones are a number in `log_gap`.
    pub drops_per_gateway: usize,
    /// Both rates may be overdrawn by what they allow in this time.
    pub drop_burst: Duration,
    /// Sources whose rate is known; a DROP row of a further one is a number in `log_gap`.
    pub drop_sources: usize,
    /// Claims that came before their packet; the oldest is forgotten (its client is asked instead).
    pub early_claims: usize,
    /// How long an early claim is kept.
    pub early_claim_age: Duration,
    /// Rows closed without having seen the end, remembered for a late one; the oldest is forgotten.
    pub ended_unseen: usize,
    /// How much earlier than the agent the server gives up on an ask.
    pub ask_margin: Duration,
    /// A granted connection that the kernel has not confirmed for so long is looked for in a dump.
    pub confirm_within: Duration,
    /// Shortest time between two dumps that the server asks of one gateway.
    pub dump_interval: Duration,
    /// How often each gateway's table is looked at for what its connections have carried; zero for never.
    pub counters_every: Duration,
    /// A connection that is followed by TCP flags is closed when nothing was seen of it for so long.
    pub flags_timeout: Duration,
    /// How often the log is told which gateways are linked.
    pub heartbeat_interval: Duration,
    /// A proven address is forgotten when it was not proven again for so long.
    pub address_lease: Duration,
    /// The peer is dead when nothing came from it for so long; told to agents.
    pub dead_after: Duration,
    /// The bits of a mark that are ours; told to agents.
    pub mark_mask: Mark,
    /// Which of them are the user's number.
    pub user_marks: UserBits,
    /// Whether a packet is accepted only after its row is durable, where its rule does not say otherwise.
    pub log_sync: bool,
    /// Which rows are written.
    pub levels: Levels,
    /// Whether a live connection with a user's mark that the log does not know gets a row.
    pub adopt: bool,
    /// What becomes of a user's connections from an address when its session has ended.
    pub on_session_end: OnEnd,
    /// How long a client whose connection was lost may take to come back before its session counts as ended.
    pub session_grace: Duration,
    /// What becomes of connections of a user who was thrown out.
    pub on_removal: OnEnd,
    /// What becomes of connections that the access lists do not allow any more when they are read again.
    pub on_reload: OnEnd,
    /// How much later than a rule's end of a connection the gateway's kernel ends it by itself; `None` for never.
    pub kernel_ends_after: Option<Duration>,
    /// Which refusals are told to the sender, where no rule says it.
    pub rejects: Rejects,
    /// Whether [`Input::Users`] names every user that there is. Else nothing follows from not being named there for a user
    /// without a session.
    pub all_known: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_asks: 65_536,
            packets_per_ask: 16,
            connections: 1_000_000,
            waiting_commits: 16_384,
            waiting_async: 16_384,
            commit_timeout: Duration::from_secs(8),
            on_overload: OnOverload::Wait,
            sessions: 4096,
            sessions_per_address: 64,
            sessions_per_user: None,
            on_user_limit: OnUserLimit::Refuse,
            session_age: None,
            session_idle: None,
            tells_sessions: false,
            addresses_per_session: 32,
            refusals_told: 0,
            recent_drops: 65_536,
            drop_memory: Duration::from_mins(1),
            drops_per_source: 10,
            drops_per_gateway: 500,
            drop_burst: Duration::from_secs(10),
            drop_sources: 16_384,
            early_claims: 4096,
            early_claim_age: Duration::from_secs(5),
            ended_unseen: 4096,
            ask_margin: Duration::from_secs(2),
            confirm_within: Duration::from_secs(30),
            dump_interval: Duration::from_secs(30),
            counters_every: Duration::from_mins(1),
            flags_timeout: Duration::from_hours(24),
            heartbeat_interval: Duration::from_secs(30),
            address_lease: Duration::from_mins(5),
            dead_after: Duration::from_secs(10),
            mark_mask: Mark(0x00ff_ffff),
            user_marks: UserBits::default(),
            log_sync: true,
            levels: Levels::ALL,
            adopt: true,
            on_session_end: OnEnd::Keep,
            session_grace: Duration::from_secs(10),
            on_removal: OnEnd::Keep,
            on_reload: OnEnd::Keep,
            kernel_ends_after: Some(Duration::from_mins(1)),
            rejects: Rejects::default(),
            all_known: true,
        }
    }
}

/// Counters since the start, and sizes at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Stats {
    /// Packets asked for.
    pub asks: u64,
    /// Packets that were answered from a decision made before.
    pub repeated: u64,
    /// Connections granted.
    pub granted: u64,
    /// Those among them that leave no row, since their rule or the level of the log says so.
    pub granted_unlogged: u64,
    /// Connections refused by a rule.
    pub refused_by_rule: u64,
    /// Connections refused because nobody is logged in at their source.
    pub refused_nobody: u64,
    /// Connections that every client asked disclaimed.
    pub refused_disclaimed: u64,
    /// Connections that no client claimed in time.
    pub refused_timeout: u64,
    /// Connections that could not be logged.
    pub refused_unlogged: u64,
    /// Those among them whose row did not become durable in time.
    pub late_commits: u64,
    /// Refusals that leave no row, since their rule or the level of the log says so.
    pub drops_unlogged: u64,
    /// Refusals beyond the rate of their source or gateway, which are a number in the log.
    pub drops_aggregated: u64,
    /// Packets refused because a table was full.
    pub refused_full: u64,
    /// Claims for an address or port that was not asked for, or is not the session's.
    pub foreign_claims: u64,
    /// Second claims of one connection by another session.
    pub double_claims: u64,
    /// Claims that came too late.
    pub late_claims: u64,
    /// Connections that passed without a verdict, as the gateway's administrator chose, and got a row.
    pub blind: u64,
    /// Those that got none, since there was no room; a later dump may show them again.
    pub blind_unlogged: u64,
    /// Connections that another one brought with it, and that have a row of their own.
    pub related: u64,
    /// Those that have none, because a table of the server was full.
    pub related_without_row: u64,
    /// Events that belong to no row.
    pub unrelated_events: u64,
    /// Events received again.
    pub repeated_events: u64,
    /// Looks at a gateway's whole table that were asked for.
    pub dumps: u64,
    /// Those among them that were asked for since something may have been missed.
    pub resyncs: u64,
    /// Rows that were closed since a look at the table did not find them.
    pub resynced_rows: u64,
    /// Live connections that the log did not know and that got a row.
    pub adopted: u64,
    /// Entries of rows that programs deleted.
    pub deleted_entries: u64,
    /// Entries of rows that the kernel removed before their time.
    pub evicted_entries: u64,
    /// Messages of links that were over.
    pub stale_messages: u64,
    /// Verdicts that came when the packet was gone.
    pub unused_verdicts: u64,
    /// Live connections at the moment.
    pub live_connections: u64,
    /// Asks that wait at the moment.
    pub pending_asks: u64,
    /// Sessions at the moment.
    pub sessions: u64,
    /// Logins admitted, and identities of addresses.
    pub logins: u64,
    /// Logins refused since there were as many sessions as may be.
    pub logins_full: u64,
    /// Those refused since there were as many at their address.
    pub logins_address_full: u64,
    /// Those refused since their user had as many.
    pub logins_user_full: u64,
    /// Those refused for the time of the day.
    pub logins_hours: u64,
    /// Those refused for another reason: a ticket of old credentials, a server that is about to end.
    pub logins_other: u64,
    /// Credentials shown again in a session.
    pub renewals: u64,
    /// Sessions that an administrator ended.
    pub ended_ordered: u64,
    /// Sessions ended since their user was not known any more.
    pub ended_removed: u64,
    /// Sessions ended for a newer one of their user.
    pub ended_replaced: u64,
    /// Sessions ended since nothing passed.
    pub ended_idle: u64,
    /// Sessions ended since their credentials were not shown again.
    pub ended_expired: u64,
    /// Sessions ended for the time of the day.
    pub ended_hours: u64,
    /// Sessions ended since their client flooded.
    pub ended_misbehaved: u64,
    /// Identities of addresses whose user is not known.
    pub unknown_identities: u64,
    /// Rows that packets wait for, or have waited for.
    pub waiting_commits: u64,
    /// Rows of packets that did not wait, and that are not durable.
    pub waiting_async: u64,
    /// Orders to end a connection, repeated ones included.
    pub kills_ordered: u64,
    /// Orders that an agent could not carry out.
    pub kills_failed: u64,
    /// What agents said of the end of connections that are other gateways'.
    pub foreign_kills: u64,
    /// Connections that are to end at the moment.
    pub waiting_kills: u64,
    /// Row ids that are reserved and not used yet.
    pub ids_left: u64,
}
