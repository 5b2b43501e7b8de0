//! Every bound and setting of the engine, with its default.
//!
//! Plain data. What happens at each is said with it.

use super::kills::{OnEnd, Rejects};
use super::marks::UserBits;
use super::modes::{Levels, OnOverload};
use super::types::OnUserLimit;
use nufw_proto::Mark;
use std::time::Duration;

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
