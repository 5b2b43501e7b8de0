//! The gateway protocol: what agent and server say to each other on port 4128.
//!
//! The agent says [`Hello`] first; the server answers [`Welcome`] or [`Goodbye`]. Everything later may come in any
//! order, save that events keep theirs. docs/protocol.md tells the conversation.

use crate::frame::messages;
use crate::{
    Addr, AskId, Batch, BootId, ConnId, CtEntry, CtEvent, DumpId, EventSeq, Mark, Text, Timestamp, Tuple,
};
use serde::{Deserialize, Serialize};

/// Optional parts of the protocol that a peer offers; only what both offer is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Live connections can be ended: [`ToAgent::Kill`] and [`ToServer::Killed`].
    pub const KILL: Self = Self(1);

    /// [`Blind`] and [`Elsewhere`](ToServer::Elsewhere): what happened without this server's verdict.
    pub const WITHOUT_VERDICT: Self = Self(1 << 2);

    /// On the client protocol: logins of several messages, [`Challenge`](crate::client::Challenge) and
    /// [`Respond`](crate::client::Respond).
    pub const CONVERSATION: Self = Self(1 << 3);

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything that `other` offers is offered here.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What both sides offer.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// First message of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the agent's software, for the log.
    pub software: Text<64>,
    /// This run of the agent.
    pub boot: BootId,
    /// Optional parts offered.
    pub capabilities: Capabilities,
    /// How long the agent holds a packet before it drops it, milliseconds.
    pub packet_timeout_ms: u32,
    /// Whether conntrack events are relayed (`-C`).
    pub relays_events: bool,
    /// Whether only events of marked connections are relayed (`-M`).
    pub marked_only: bool,
    /// Whether the mark of a verdict is set on the packet (`-m`).
    pub sets_marks: bool,
    /// The sequence number of the oldest event that the agent still holds, or of the next one.
    pub first_held: EventSeq,
}

/// The netfilter hook whose queue a packet waits in (`enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// `NF_INET_PRE_ROUTING`: before destination translation.
    Prerouting,
    /// `NF_INET_LOCAL_IN`: for the gateway itself.
    Input,
    /// `NF_INET_FORWARD`.
    Forward,
    /// `NF_INET_LOCAL_OUT`: from the gateway itself.
    Output,
    /// `NF_INET_POST_ROUTING`.
    Postrouting,
}

/// A packet waits: may it go on?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The agent's name for the packet.
    pub id: AskId,
    /// Where it waits.
    pub hook: Hook,
    /// Conntrack zone that the queue's rules use, 0 by default.
    pub zone: u16,
    /// What the packet shows. In FORWARD and INPUT: original source, and the reply direction's source as destination.
    pub tuple: Tuple,
    /// Name of the interface the packet came in by; empty when it has none.
    pub in_dev: Text<15>,
    /// Name of the interface the packet would leave by; empty when it has none.
    pub out_dev: Text<15>,
    /// Mark of the packet when it was queued.
    pub mark: Mark,
    /// When the agent received it.
    pub received: Timestamp,
    /// Whether the agent will tell what becomes of the connection; not, where its filter of events leaves it out.
    pub tracked: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub enum Verdict {
    /// It goes on.
    Accept {
        /// The connection's row.
        row: ConnId,
        /// The user's mark.
        mark: Mark,
    },
    /// It vanishes.
    Drop,
    /// It vanishes and its sender is told so.
    Reject,
}

/// The answer to one [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The ask.
    pub id: AskId,
    /// What becomes of the packet.
    pub verdict: Verdict,
}

/// An accepting verdict came when the packet was gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// The ask.
    pub id: AskId,
    /// The row of the verdict.
    pub row: ConnId,
}

/// Which connections of the gateway passed without a verdict, as its administrator chose for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// The bit of their marks; 0 if there are none.
    pub bit: Mark,
}

/// A run of events: `first`, `first + 1`, …
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Sequence number of the first event.
    pub first: EventSeq,
    /// The events.
    pub events: Batch<CtEvent>,
}

/// Events were lost between kernel and agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When the agent last knew that nothing was lost.
    pub from: Timestamp,
    /// When it learnt of the loss.
    pub to: Timestamp,
    /// Why.
    pub cause: GapCause,
}

/// Why events were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapCause {
    /// The event socket's receive buffer overflowed (ENOBUFS).
    NetlinkOverrun,
    /// The agent's own store of unacknowledged events overflowed.
    StoreFull,
    /// No rule sent packets to the agent's queue: what passed meanwhile was not asked about.
    RulesMissing,
}

/// The answer to [`DumpRequest`] begins; sent before the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpBegin {
    /// The request, or 0.
    pub dump: DumpId,
}

/// A part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpPart {
    /// The request, or 0.
    pub dump: DumpId,
    /// Entries, in the kernel's order.
    pub entries: Batch<CtEntry>,
}

/// The table was read to its end, and every event of before that end has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpEnd {
    /// The request, or 0.
    pub dump: DumpId,
    /// Whether the kernel gave the whole table; if not, nothing may be concluded from what is absent.
    pub complete: bool,
}

/// The highest row id that an accept of this boot carried, from whichever server; sent after each [`Welcome`], if there is
/// one. A server that has not reserved so many ids yet works on an older copy of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRow {
    /// The row.
    pub row: ConnId,
}

/// A live connection of the gateway, named so that no other can be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Live {
    /// Its row.
    pub row: ConnId,
    /// The kernel's id of its entry (`CTA_ID`).
    pub id: u32,
    /// Its conntrack zone.
    pub zone: u16,
    /// Its original tuple.
    pub original: Tuple,
}

/// How far the end of a connection is that the server ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Its row.
    pub row: ConnId,
    /// What became of it.
    pub step: KillStep,
}

/// What became of an order to end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillStep {
    /// Its packets are refused from here on.
    Refused,
    /// The kernel has no such entry, or no longer.
    Gone,
    /// It could not be ended: order it again later.
    Failed,
}

/// Sent when nothing else was for a third of the dead-peer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat;

/// The sender ends the connection, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// A sentence for the other side's log.
    pub reason: Text<255>,
}

/// The server's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name and version of the server's software, for the log.
    pub software: Text<64>,
    /// Optional parts offered.
    pub capabilities: Capabilities,
    /// The name under which the server knows this gateway (from its certificate).
    pub gateway: Text<64>,
    /// The last event of this boot that is durable: the agent forgets up to it and sends the rest again. 0 when none is.
    pub acknowledged: EventSeq,
    /// The peer is dead when nothing came from it for so long, milliseconds.
    pub dead_after_ms: u32,
    /// The bits of a mark that are the user's number.
    pub mark_mask: Mark,
}

/// Everything up to `through` is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    /// The last durable event.
    pub through: EventSeq,
}

/// Asks for a dump of the conntrack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpRequest {
    /// The server's name for it.
    pub dump: DumpId,
}

/// Which source addresses have a session. A source that has none may only be asked for at a bounded rate, unless
/// `others_can_pass`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAddresses {
    /// Forget every address known before.
    pub reset: bool,
    /// Addresses that have a session from now on.
    pub added: Batch<Addr>,
    /// Addresses that have none any more.
    pub removed: Batch<Addr>,
    /// Whether a packet from an address without session could be accepted.
    pub others_can_pass: bool,
}

messages! {
    /// What an agent says to the server.
    ToServer, "gateway-to-server" {
        /// First message.
        1 => Hello(Hello),
        /// Packets wait.
        2 => Asks(Batch<Ask>),
        /// Accepting verdicts came too late.
        3 => Unused(Batch<Unused>),
        /// Conntrack events.
        4 => Events(Events),
        /// Events were lost.
        5 => Gap(Gap),
        /// A dump begins.
        6 => DumpBegin(DumpBegin),
        /// A dump goes on.
        7 => DumpPart(DumpPart),
        /// A dump is over.
        8 => DumpEnd(DumpEnd),
        /// The agent lives.
        9 => Heartbeat(Heartbeat),
        /// The agent goes.
        10 => Goodbye(Goodbye),
        /// How far the ends are that the server ordered; with [`Capabilities::KILL`].
        11 => Killed(Batch<Killed>),
        /// Which row ids are in use.
        12 => LastRow(LastRow),
        /// What marks connections that passed without a verdict.
        13 => Blind(Blind),
        /// Asks of an earlier link whose packets another server was asked about.
        15 => Elsewhere(Batch<Ask>),
    }
}

messages! {
    /// What the server says to an agent.
    ToAgent, "server-to-gateway" {
        /// First message.
        129 => Welcome(Welcome),
        /// Verdicts.
        130 => Answers(Batch<Answer>),
        /// Events are durable.
        131 => EventAck(EventAck),
        /// The server wants to see the table.
        132 => DumpRequest(DumpRequest),
        /// Addresses came and went.
        133 => KnownAddresses(KnownAddresses),
        /// The server lives.
        134 => Heartbeat(Heartbeat),
        /// The server goes, or refuses.
        135 => Goodbye(Goodbye),
        /// Connections are to end; with [`Capabilities::KILL`].
        136 => Kill(Batch<Live>),
    }
}
