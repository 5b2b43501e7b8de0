//! What the engine counts.
//!
//! Plain data, told as it is to whoever asks for metrics.

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
