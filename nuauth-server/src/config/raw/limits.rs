//! `[limits]`, and the bounds among `[clients]`.
//!
//! Each has its default where the limit itself is declared.

use super::super::PortLimits;
use super::{Check, GREETING_TIMEOUT, RawClients};
use crate::engine;
use nufw_common::config::HumanDuration;
use serde::Deserialize;

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawLimits {
    pending_asks: Option<u32>,
    packets_per_ask: Option<u32>,
    connections: Option<u32>,
    waiting_commits: Option<u32>,
    waiting_async: Option<u32>,
    recent_drops: Option<u32>,
    drop_memory: Option<HumanDuration>,
    drops_per_source: Option<u32>,
    drops_per_gateway: Option<u32>,
    drop_burst: Option<HumanDuration>,
    drop_sources: Option<u32>,
    early_claims: Option<u32>,
    early_claim_age: Option<HumanDuration>,
    ended_unseen: Option<u32>,
    confirm_within: Option<HumanDuration>,
    dump_interval: Option<HumanDuration>,
    counters_every: Option<HumanDuration>,
    flags_timeout: Option<HumanDuration>,
    greetings: Option<u32>,
    greeting_timeout: Option<HumanDuration>,
    password_checks: Option<u32>,
}

/// Refusals that a client is told of in a minute, where it is told any.
const REFUSALS_TOLD: usize = 30;

impl Check<'_> {
    fn refusals_told(&mut self, clients: &RawClients) -> usize {
        let most = self.count(
            "clients.refusals-per-minute",
            clients.refusals_per_minute,
            REFUSALS_TOLD,
        );
        if clients.tell_refusals { most } else { 0 }
    }

    pub(super) fn port_limits(&mut self, raw: &RawLimits) -> PortLimits {
        PortLimits {
            greetings: self.count("limits.greetings", raw.greetings, 1024),
            greeting_timeout: self.duration(
                "limits.greeting-timeout",
                raw.greeting_timeout,
                GREETING_TIMEOUT,
                1..=300,
            ),
            password_checks: self.count("limits.password-checks", raw.password_checks, 1),
        }
    }

    pub(super) fn engine(
        &mut self,
        clients: &RawClients,
        limits: &RawLimits,
        base: &engine::Limits,
    ) -> engine::Limits {
        engine::Limits {
            pending_asks: self.count("limits.pending-asks", limits.pending_asks, base.pending_asks),
            packets_per_ask: self.count(
                "limits.packets-per-ask",
                limits.packets_per_ask,
                base.packets_per_ask,
            ),
            connections: self.count("limits.connections", limits.connections, base.connections),
            waiting_commits: self.count(
                "limits.waiting-commits",
                limits.waiting_commits,
                base.waiting_commits,
            ),
            waiting_async: self.count("limits.waiting-async", limits.waiting_async, base.waiting_async),
            sessions: self.count("clients.max-sessions", clients.max_sessions, base.sessions),
            sessions_per_address: self.count(
                "clients.max-sessions-per-address",
                clients.max_sessions_per_address,
                base.sessions_per_address,
            ),
            addresses_per_session: self.count(
                "clients.max-addresses",
                clients.max_addresses,
                base.addresses_per_session,
            ),
            recent_drops: self.count("limits.recent-drops", limits.recent_drops, base.recent_drops),
            drop_memory: self.duration(
                "limits.drop-memory",
                limits.drop_memory,
                base.drop_memory,
                1..=3600,
            ),
            drops_per_source: self.count(
                "limits.drops-per-source",
                limits.drops_per_source,
                base.drops_per_source,
            ),
            drops_per_gateway: self.count(
                "limits.drops-per-gateway",
                limits.drops_per_gateway,
                base.drops_per_gateway,
            ),
            drop_burst: self.duration("limits.drop-burst", limits.drop_burst, base.drop_burst, 1..=600),
            drop_sources: self.count("limits.drop-sources", limits.drop_sources, base.drop_sources),
            early_claims: self.count("limits.early-claims", limits.early_claims, base.early_claims),
            early_claim_age: self.duration(
                "limits.early-claim-age",
                limits.early_claim_age,
                base.early_claim_age,
                1..=60,
            ),
            ended_unseen: self.count("limits.ended-unseen", limits.ended_unseen, base.ended_unseen),
            refusals_told: self.refusals_told(clients),
            ask_margin: self.duration("clients.ask-margin", clients.ask_margin, base.ask_margin, 1..=60),
            confirm_within: self.duration(
                "limits.confirm-within",
                limits.confirm_within,
                base.confirm_within,
                1..=3600,
            ),
            dump_interval: self.duration(
                "limits.dump-interval",
                limits.dump_interval,
                base.dump_interval,
                1..=86_400,
            ),
            counters_every: self.duration(
                "limits.counters-every",
                limits.counters_every,
                base.counters_every,
                0..=86_400,
            ),
            flags_timeout: self.duration(
                "limits.flags-timeout",
                limits.flags_timeout,
                base.flags_timeout,
                1..=2_592_000,
            ),
            address_lease: self.duration(
                "clients.address-lease",
                clients.address_lease,
                base.address_lease,
                10..=86_400,
            ),
            ..*base
        }
    }
}
