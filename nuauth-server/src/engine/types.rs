//! The engine's language: what it is told, and what it wants done.
//!
//! Plain data; no behaviour beyond small conversions.

use super::kills::Leaving;
use super::modes::LogMode;
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
