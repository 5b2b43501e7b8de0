//! The client protocol: what a user's client and the server say to each other on port 4129.
//!
//! A client says [`Hello`], logs in, and then answers [`ClaimRequest`]s; or it says [`Prove`] as its only message to
//! show that one more address is its own. docs/protocol.md tells the conversation.

use crate::frame::messages;
pub use crate::gateway::{Capabilities, Goodbye, Heartbeat, Hook};
use crate::{Addr, Batch, ClaimId, LoginBytes, SecretBytes, SessionId, Text, Tuple};
use serde::{Deserialize, Serialize};

/// Hashes of programs go before claims, where [`HashPrograms`] wants them.
pub const PROGRAM_HASHES: Capabilities = Capabilities(1 << 0);

/// Why a session ends is told as [`Ended`], the refusals from [`Refusal::UserFull`] on are known, and [`Renew`] is answered.
pub const REASONS: Capabilities = Capabilities(1 << 1);

/// A session can be had again by a [`Ticket`].
pub const TICKETS: Capabilities = Capabilities(1 << 2);

/// Logins of several messages: [`Challenge`] and [`Respond`].
pub const CONVERSATION: Capabilities = Capabilities(1 << 3);

/// The server tells of refused connections as [`Denied`]: offered by a client that wants it, agreed to by a server that may.
pub const REFUSALS: Capabilities = Capabilities(1 << 4);

/// What a client says of its operating system: claimed, never proven.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OsInfo {
    /// Name (`uname -s`).
    pub name: Text<64>,
    /// Release (`uname -r`).
    pub release: Text<64>,
    /// Version (`uname -v`).
    pub version: Text<128>,
}

/// First message of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name and version of the client's software.
    pub software: Text<64>,
    /// Optional parts offered.
    pub capabilities: Capabilities,
    /// The operating system.
    pub os: OsInfo,
    /// The client answers for another user's sockets, as root (`--system`).
    pub system: bool,
}

/// Logs in with a SASL mechanism (RFC 4422).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// One of those in [`Welcome`]: `PLAIN` (RFC 4616), `EXTERNAL` (RFC 4422 appendix A), and where both sides offer
    /// [`CONVERSATION`] `SCRAM-SHA-256` and `SCRAM-SHA-256-PLUS` (RFC 7677).
    pub mechanism: Text<20>,
    /// The initial response.
    pub response: LoginBytes,
}

/// The next message of a login of several, answering a [`Challenge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Respond {
    /// What the mechanism says; empty after its last challenge.
    pub response: LoginBytes,
}

/// The server's message of a login of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// What the mechanism says.
    pub challenge: SecretBytes,
}

/// Shows, from the address that it is about, that this address belongs to the session. Sent as the only message of a
/// connection of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// The session's token, from [`LoggedIn`].
    pub token: SecretBytes,
}

/// The client's host lost an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// The address.
    pub address: Addr,
}

/// The answer to one [`ClaimRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The request.
    pub id: ClaimId,
    /// What the client found.
    pub finding: Finding,
}

/// What a client found when it looked for a connection's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// The socket is the session's user's.
    Mine(Mine),
    /// No such socket, or somebody else's.
    NotMine,
}

/// A socket of the session's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mine {
    /// The connection as the socket sees it: other than asked for when the destination is translated on the way.
    pub seen: Tuple,
    /// Path of the program that owns the socket, if it could be learnt; claimed, never proven.
    pub program: Option<Text<1024>>,
}

/// The SHA-256 of the program of a claim that follows; claimed, never proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramHash {
    /// The request that the claim answers.
    pub id: ClaimId,
    /// The hash of the program's file.
    pub sha256: [u8; 32],
}

/// Whether the access lists look at hashes of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashPrograms {
    /// Send [`ProgramHash`] before claims.
    pub wanted: bool,
}

/// A connection that the client claims unasked: it was being opened while there was no session to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// The connection as the socket sees it, and its program.
    pub mine: Mine,
}

/// The server's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name and version of the server's software, for the log.
    pub software: Text<64>,
    /// Optional parts offered.
    pub capabilities: Capabilities,
    /// SASL mechanisms that this connection may log in with, best first.
    pub mechanisms: Batch<Text<20>>,
}

/// The login succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// The session.
    pub session: SessionId,
    /// The user's name as the server knows it.
    pub user: Text<255>,
    /// The address that the server sees.
    pub address: Addr,
    /// For [`Prove`].
    pub token: SecretBytes,
    /// A proven address is forgotten when it was not proven again for so long, milliseconds.
    pub address_lease_ms: u32,
    /// The peer is dead when nothing came from it for so long, milliseconds.
    pub dead_after_ms: u32,
}

/// The login failed; the server ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, in a form that a program can act on.
    pub cause: Refusal,
    /// The same as a sentence for the user.
    pub reason: Text<255>,
}

/// Why a login or a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Unknown user, wrong password or unknown certificate: which of them is not said.
    Credentials,
    /// Too many failures from this address or for this user; try later.
    TooManyFailures,
    /// The mechanism is not offered.
    Mechanism,
    /// The server has as many sessions as it may have.
    Full,
    /// The token is unknown: the session is over.
    Token,
    /// The address may not be used: it is another session's, or the session has too many.
    Address,
    /// The server cannot check it at the moment.
    Unavailable,
    /// The user has as many sessions as a user may have.
    UserFull,
    /// There are as many sessions at this address as there may be.
    AddressFull,
    /// The user may not be logged in at this time of the day.
    Hours,
    /// The ticket is not good, or not any more: log in with password or certificate.
    Ticket,
}

/// The address is the session's from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The address that the server sees.
    pub address: Addr,
}

/// Is this connection yours?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// The server's name for it.
    pub id: ClaimId,
    /// Where on the gateway the packet waits: tells how its destination may differ from the socket's.
    pub hook: Hook,
    /// What the packet shows.
    pub tuple: Tuple,
}

/// Something the user should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// A sentence.
    pub text: Text<255>,
}

/// Logs in again with what an earlier session was given; sent in the place of [`Login`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The ticket.
    pub ticket: SecretBytes,
}

/// What a session may be had again with, for a while, when its connection or the server was lost. It takes the place of every
/// earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What [`Resume`] shows. Only the server can read it.
    pub ticket: SecretBytes,
    /// How long it is good, milliseconds.
    pub lifetime_ms: u32,
}

/// The session is as old as it may become: show the credentials again, or it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// How long the server waits for it, milliseconds.
    pub within_ms: u32,
}

/// The credentials were good; the session goes on as if it had just begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed;

/// The session is over, by the server's will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why, in a form that a program can act on.
    pub cause: EndCause,
    /// The same as a sentence for the user.
    pub reason: Text<255>,
}

/// Why the server ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndCause {
    /// An administrator wants it.
    Ordered,
    /// The user is not known any more, or the certificate was revoked.
    Removed,
    /// The user has logged in elsewhere, and may have no more sessions.
    Replaced,
    /// Nothing passed for so long as a session may be idle.
    Idle,
    /// The credentials were not shown again in time.
    Expired,
    /// The time of the day is over at which the user may be logged in.
    Hours,
    /// The client does what no client should.
    Misbehaved,
}

/// A connection that this client claimed was refused by the access lists. Told at a bounded rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The connection and its program, as the client claimed them.
    pub mine: Mine,
    /// The program was told at once; otherwise its packets are dropped silently.
    pub rejected: bool,
    /// Refusals before this one that were not told, since there were too many.
    pub untold: u32,
}

messages! {
    /// What a client says to the server.
    ToServer, "client-to-server" {
        /// First message.
        1 => Hello(Hello),
        /// Login.
        2 => Login(Login),
        /// First and only message of a connection that proves an address.
        3 => Prove(Prove),
        /// An address is lost.
        4 => Withdraw(Withdraw),
        /// Answers.
        5 => Claims(Batch<Claim>),
        /// Claims that nobody asked for.
        6 => Announce(Batch<Announce>),
        /// The client lives.
        7 => Heartbeat(Heartbeat),
        /// The client goes.
        8 => Goodbye(Goodbye),
        /// Hashes for the claims that come next; with [`PROGRAM_HASHES`].
        20 => ProgramHashes(Batch<ProgramHash>),
        /// Login by ticket.
        24 => Resume(Resume),
        /// The credentials again.
        25 => Again(Login),
        /// More of the login.
        30 => Respond(Respond),
    }
}

messages! {
    /// What the server says to a client.
    ToClient, "server-to-client" {
        /// First message.
        129 => Welcome(Welcome),
        /// The login succeeded.
        130 => LoggedIn(LoggedIn),
        /// Login or proof failed.
        131 => Refused(Refused),
        /// The proof succeeded.
        132 => Proven(Proven),
        /// Questions.
        133 => ClaimRequests(Batch<ClaimRequest>),
        /// For the user's eyes.
        134 => Notice(Notice),
        /// The server lives.
        135 => Heartbeat(Heartbeat),
        /// The server goes, or throws the session out.
        136 => Goodbye(Goodbye),
        /// Whether hashes are wanted; with [`PROGRAM_HASHES`].
        148 => HashPrograms(HashPrograms),
        /// For a later login.
        152 => Ticket(Ticket),
        /// Show the credentials again.
        153 => Renew(Renew),
        /// They were good.
        154 => Renewed(Renewed),
        /// The session is over.
        155 => Ended(Ended),
        /// More of the login.
        158 => Challenge(Challenge),
        /// A connection of the user's was refused.
        160 => Denied(Denied),
    }
}
