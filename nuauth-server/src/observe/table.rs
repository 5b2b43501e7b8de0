//! The server's metrics: a line for each.
//!
//! A number that is counted anywhere in [`View`] becomes a metric by one line here; the dashboard and the alerts of `conf/` are
//! compared with this table by a test.

use super::view::View;
use nufw_common::observe::Metric;
use std::time::Duration;

type Row = Metric<View>;

const GATEWAYS_TLS: &[(&str, &str)] = &[("port", "gateways"), ("cause", "tls")];
const GATEWAYS_LATE: &[(&str, &str)] = &[("port", "gateways"), ("cause", "timeout")];
const GATEWAYS_BAD: &[(&str, &str)] = &[("port", "gateways"), ("cause", "protocol")];
const CLIENTS_TLS: &[(&str, &str)] = &[("port", "clients"), ("cause", "tls")];
const CLIENTS_LATE: &[(&str, &str)] = &[("port", "clients"), ("cause", "timeout")];
const CLIENTS_BAD: &[(&str, &str)] = &[("port", "clients"), ("cause", "protocol")];
const CLIENTS_BUSY: &[(&str, &str)] = &[("port", "clients"), ("cause", "busy")];
const RADIUS_BAD: &[(&str, &str)] = &[("port", "radius"), ("cause", "protocol")];
const CLIENTS_LOGIN: &[(&str, &str)] = &[("port", "clients"), ("cause", "login")];

#[expect(
    clippy::unnecessary_wraps,
    reason = "a line of the table may not know its number"
)]
fn count(number: usize) -> Option<u64> {
    Some(u64::try_from(number).unwrap_or(u64::MAX))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a line of the table may not know its number"
)]
fn flag(set: bool) -> Option<u64> {
    Some(u64::from(set))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a line of the table may not know its number"
)]
fn whole_seconds(seconds: u64) -> Option<f64> {
    Some(Duration::from_secs(seconds).as_secs_f64())
}

/// The table.
// A row a line, however long its help is.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    // Decisions.
    Row::counter("nuauth_asks", "Packets that gateways asked about.", |v| Some(v.stats.asks)),
    Row::counter("nuauth_repeated_asks", "Packets that were answered from a decision made before: retransmissions.", |v| Some(v.stats.repeated)),
    Row::gauge("nuauth_pending_asks", "Packets that wait for a decision at this moment.", |v| Some(v.stats.pending_asks)),
    Row::counter("nuauth_decisions", "Connections decided, by decision and reason. refuse/rule: an access list said no, or none said yes; nobody: nobody is logged in at the source; disclaimed: every client there said that it is not theirs; timeout: no client answered in time; unlogged: the row could not be made durable; full: a limit of [limits] was reached.", |v| Some(v.stats.granted)).with(&[("decision", "grant"), ("reason", "rule")]),
    Row::counter("nuauth_decisions", "", |v| Some(v.stats.refused_by_rule)).with(&[("decision", "refuse"), ("reason", "rule")]),
    Row::counter("nuauth_decisions", "", |v| Some(v.stats.refused_nobody)).with(&[("decision", "refuse"), ("reason", "nobody")]),
    Row::counter("nuauth_decisions", "", |v| Some(v.stats.refused_disclaimed)).with(&[("decision", "refuse"), ("reason", "disclaimed")]),
    Row::counter("nuauth_decisions", "", |v| Some(v.stats.refused_timeout)).with(&[("decision", "refuse"), ("reason", "timeout")]),
    Row::counter("nuauth_decisions", "", |v| Some(v.stats.refused_unlogged)).with(&[("decision", "refuse"), ("reason", "unlogged")]),
    Row::counter("nuauth_decisions", "", |v| Some(v.stats.refused_full)).with(&[("decision", "refuse"), ("reason", "full")]),
    Row::counter("nuauth_late_commits", "Connections refused because their row was not durable in time; a part of refuse/unlogged.", |v| Some(v.stats.late_commits)),
    Row::counter("nuauth_granted_unlogged", "Connections granted that leave no row, since their rule or log.levels says so.", |v| Some(v.stats.granted_unlogged)),
    Row::counter("nuauth_unused_verdicts", "Verdicts that came when the packet was gone; their rows close as never-forwarded.", |v| Some(v.stats.unused_verdicts)),
    // Clients and connections.
    Row::gauge("nuauth_sessions", "Sessions of users' clients at this moment.", |v| Some(v.stats.sessions)),
    Row::counter("nuauth_logins", "Logins and identities of addresses that were decided upon, by result. full: clients.max-sessions; address-full: clients.max-sessions-per-address; user-full: sessions.per-user; hours: sessions.hours; other: a ticket whose credentials are too old, or a server that drains. Wrong credentials are among nuauth_port_failures.", |v| Some(v.stats.logins)).with(&[("result", "admitted")]),
    Row::counter("nuauth_logins", "", |v| Some(v.stats.logins_full)).with(&[("result", "full")]),
    Row::counter("nuauth_logins", "", |v| Some(v.stats.logins_address_full)).with(&[("result", "address-full")]),
    Row::counter("nuauth_logins", "", |v| Some(v.stats.logins_user_full)).with(&[("result", "user-full")]),
    Row::counter("nuauth_logins", "", |v| Some(v.stats.logins_hours)).with(&[("result", "hours")]),
    Row::counter("nuauth_logins", "", |v| Some(v.stats.logins_other)).with(&[("result", "other")]),
    Row::counter("nuauth_renewals", "Credentials shown again in a session (sessions.max-age).", |v| Some(v.stats.renewals)),
    Row::counter("nuauth_sessions_ended", "Sessions that the server ended, by cause.", |v| Some(v.stats.ended_ordered)).with(&[("cause", "ordered")]),
    Row::counter("nuauth_sessions_ended", "", |v| Some(v.stats.ended_removed)).with(&[("cause", "removed")]),
    Row::counter("nuauth_sessions_ended", "", |v| Some(v.stats.ended_replaced)).with(&[("cause", "replaced")]),
    Row::counter("nuauth_sessions_ended", "", |v| Some(v.stats.ended_idle)).with(&[("cause", "idle")]),
    Row::counter("nuauth_sessions_ended", "", |v| Some(v.stats.ended_expired)).with(&[("cause", "expired")]),
    Row::counter("nuauth_sessions_ended", "", |v| Some(v.stats.ended_hours)).with(&[("cause", "hours")]),
    Row::counter("nuauth_sessions_ended", "", |v| Some(v.stats.ended_misbehaved)).with(&[("cause", "misbehaved")]),
    Row::counter("nuauth_unknown_identities", "Addresses that [identify] gives to a user who is not known.", |v| Some(v.stats.unknown_identities)),
    Row::counter("nuauth_hooks", "Runs of hooks, by result.", |v| Some(v.hooks.done)).with(&[("result", "ok")]),
    Row::counter("nuauth_hooks", "", |v| Some(v.hooks.failed)).with(&[("result", "failed")]),
    Row::counter("nuauth_hooks", "", |v| Some(v.hooks.timed_out)).with(&[("result", "timed-out")]),
    Row::counter("nuauth_hooks", "", |v| Some(v.hooks.left_out)).with(&[("result", "left-out")]),
    Row::gauge("nuauth_live_connections", "Connections that are not closed.", |v| Some(v.stats.live_connections)),
    Row::counter("nuauth_odd_claims", "Claims of clients that changed nothing: foreign for an address or port that is not the session's, double for a connection that another session claimed, late for one that was decided.", |v| Some(v.stats.foreign_claims)).with(&[("kind", "foreign")]),
    Row::counter("nuauth_odd_claims", "", |v| Some(v.stats.double_claims)).with(&[("kind", "double")]),
    Row::counter("nuauth_odd_claims", "", |v| Some(v.stats.late_claims)).with(&[("kind", "late")]),
    // Gateways.
    Row::each("nuauth_gateway_connected", "1 for each gateway of gateways.names that is connected, 0 for each that is not.", "gateway", View::gateways),
    Row::counter("nuauth_events_ignored", "Events that moved no row: unrelated ones belong to no row, repeated ones were received again after a reconnect.", |v| Some(v.stats.unrelated_events)).with(&[("cause", "unrelated")]),
    Row::counter("nuauth_events_ignored", "", |v| Some(v.stats.repeated_events)).with(&[("cause", "repeated")]),
    Row::counter("nuauth_rows_without_question", "Rows of connections that nobody was asked about: adopted ones were found live and had lost their row, blind ones passed while nobody could be asked, related ones came with another connection.", |v| Some(v.stats.adopted)).with(&[("kind", "adopted")]),
    Row::counter("nuauth_rows_without_question", "", |v| Some(v.stats.blind)).with(&[("kind", "blind")]),
    Row::counter("nuauth_rows_without_question", "", |v| Some(v.stats.related)).with(&[("kind", "related")]),
    Row::counter("nuauth_resyncs", "Comparisons of a gateway's table with the rows because something may have been missed.", |v| Some(v.stats.resyncs)),
    Row::counter("nuauth_resynced_rows", "Rows that such comparisons closed.", |v| Some(v.stats.resynced_rows)),
    Row::counter("nuauth_removed_entries", "Entries of live connections that were removed before their time: by a program, or by the kernel to make room.", |v| Some(v.stats.deleted_entries)).with(&[("by", "program")]),
    Row::counter("nuauth_removed_entries", "", |v| Some(v.stats.evicted_entries)).with(&[("by", "kernel")]),
    Row::counter("nuauth_kills", "Orders to end live connections, by result so far.", |v| Some(v.stats.kills_ordered)).with(&[("result", "ordered")]),
    Row::counter("nuauth_kills", "", |v| Some(v.stats.kills_failed)).with(&[("result", "failed")]),
    Row::counter("nuauth_stale_messages", "Messages of links that were over.", |v| Some(v.stats.stale_messages)),
    // The log.
    Row::counter("nuauth_rows", "Changes of the log that became durable, by kind.", |v| Some(v.log.durable.open)).with(&[("kind", "open")]),
    Row::counter("nuauth_rows", "", |v| Some(v.log.durable.established)).with(&[("kind", "established")]),
    Row::counter("nuauth_rows", "", |v| Some(v.log.durable.close)).with(&[("kind", "close")]),
    Row::counter("nuauth_rows", "", |v| Some(v.log.durable.drop)).with(&[("kind", "drop")]),
    Row::counter("nuauth_rows", "", |v| Some(v.log.durable.sessions)).with(&[("kind", "session")]),
    Row::counter("nuauth_rows", "", |v| Some(v.log.durable.gaps)).with(&[("kind", "gap")]),
    Row::waits("nuauth_commit_wait_seconds", "How long rows of accepted connections took from the decision to the disk. A packet waits for it unless its rule says otherwise.", |v| Some(v.log.commit_wait)),
    Row::counter("nuauth_commits", "Transactions on the log, by result.", |v| Some(v.log.commits)).with(&[("result", "ok")]),
    Row::counter("nuauth_commits", "", |v| Some(v.log.failed_commits)).with(&[("result", "failed")]),
    Row::counter("nuauth_failed_opens", "Rows of accepted connections that were given up, so that their packets were dropped.", |v| Some(v.log.failed_opens)),
    Row::gauge("nuauth_log_waiting", "Changes that wait to become durable, by lane.", |v| count(v.log.waiting.opens)).with(&[("lane", "open")]),
    Row::gauge("nuauth_log_waiting", "", |v| count(v.log.waiting.updates)).with(&[("lane", "update")]),
    Row::gauge("nuauth_log_waiting", "", |v| count(v.log.waiting.drops)).with(&[("lane", "drop")]),
    Row::gauge("nuauth_log_backpressure", "1 while gateways are told to hold their events back, since too many updates wait.", |v| flag(v.backpressure)),
    Row::counter("nuauth_drops_without_row", "Refusals that are in the log as a number or not at all: aggregated beyond the rate of their source or gateway, left-out because their lane was full, unlogged because their rule or log.levels says so.", |v| Some(v.stats.drops_aggregated)).with(&[("cause", "aggregated")]),
    Row::counter("nuauth_drops_without_row", "", |v| Some(v.log.drops_left_out)).with(&[("cause", "left-out")]),
    Row::counter("nuauth_drops_without_row", "", |v| Some(v.stats.drops_unlogged)).with(&[("cause", "unlogged")]),
    Row::gauge("nuauth_waiting_commits", "Rows that are not durable, by whether a packet waits for them or has waited.", |v| Some(v.stats.waiting_commits)).with(&[("waited_for", "yes")]),
    Row::gauge("nuauth_waiting_commits", "", |v| Some(v.stats.waiting_async)).with(&[("waited_for", "no")]),
    Row::gauge("nuauth_row_ids_left", "Row ids that are reserved and not used yet. Without one nothing is granted.", |v| Some(v.stats.ids_left)),
    Row::gauge("nuauth_database_up", "1 while the log's database takes rows. While it is 0 they wait in the spool or, without one, packets that need a row are dropped.", |v| flag(v.database_up())),
    Row::gauge("nuauth_spool_active", "1 while rows go to the spool instead of the database.", |v| flag(v.spool.active)),
    Row::gauge("nuauth_spool_rows", "Changes that wait in the spool.", |v| Some(v.spool.rows)),
    Row::gauge("nuauth_spool_bytes", "Bytes of the spool; at log.spool-limit packets are dropped.", |v| Some(v.spool.bytes)),
    Row::gauge("nuauth_spool_limit_bytes", "Bytes that the spool may hold (log.spool-limit); absent without one.", |v| v.spool_limit),
    Row::seconds("nuauth_spool_age_seconds", "Age of the oldest change in the spool; absent while it is empty.", |v| v.spool_age().map(|age| age.as_secs_f64())),
    // Ports.
    Row::counter("nuauth_port_connections", "Connections accepted, by port.", |v| Some(v.gateway_port.connections)).with(&[("port", "gateways")]),
    Row::counter("nuauth_port_connections", "", |v| Some(v.client_port.connections)).with(&[("port", "clients")]),
    Row::counter("nuauth_port_failures", "Connections that came to nothing or to a bad end, by port and cause: tls for a handshake or certificate that failed, login for wrong credentials, busy for one that was sent away because too many others waited to be checked (limits.password-checks), timeout for one that did not log in or say hello in time, protocol for one that broke the protocol. Of port radius: accounting messages that were not taken, since their sender is not known, or they are not signed with the secret or malformed.", |v| Some(v.gateway_port.tls)).with(GATEWAYS_TLS),
    Row::counter("nuauth_port_failures", "", |v| Some(v.gateway_port.late)).with(GATEWAYS_LATE),
    Row::counter("nuauth_port_failures", "", |v| Some(v.gateway_port.protocol)).with(GATEWAYS_BAD),
    Row::counter("nuauth_port_failures", "", |v| Some(v.client_port.tls)).with(CLIENTS_TLS),
    Row::counter("nuauth_port_failures", "", |v| Some(v.client_port.late)).with(CLIENTS_LATE),
    Row::counter("nuauth_port_failures", "", |v| Some(v.client_port.protocol)).with(CLIENTS_BAD),
    Row::counter("nuauth_port_failures", "", |v| Some(v.client_port.login)).with(CLIENTS_LOGIN),
    Row::counter("nuauth_port_failures", "", |v| Some(v.client_port.busy)).with(CLIENTS_BUSY),
    Row::counter("nuauth_port_failures", "", |v| Some(v.accounting.protocol)).with(RADIUS_BAD),
    // Configuration and process.
    Row::counter("nuauth_reloads", "Reloads of users, access lists and certificates, by result. A failed one leaves everything as it was.", |v| Some(v.reloads.good)).with(&[("result", "ok")]),
    Row::counter("nuauth_reloads", "", |v| Some(v.reloads.bad)).with(&[("result", "failed")]),
    Row::gauge("nuauth_last_reload_failed", "1 when the last reload failed: the files on disk are not what is in force.", |v| flag(v.reloads.last_failed)),
    Row::seconds("nuauth_policy_time_seconds", "When the policy in force was read, seconds since 1970.", |v| whole_seconds(v.reloads.last_good)),
    Row::info("nuauth_build", "What runs, in words.", |_| vec![("version", env!("CARGO_PKG_VERSION").to_owned())]),
    Row::seconds("process_start_time_seconds", "When the process began, seconds since 1970.", |v| whole_seconds(v.process.started)),
    Row::gauge("process_resident_memory_bytes", "Resident memory of the process, in bytes.", |v| v.process.resident),
    Row::gauge("process_open_fds", "Descriptors that the process has open.", |v| v.process.descriptors),
];

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_common::observe::{Scrape, mistakes, names, render};
    use std::collections::HashSet;

    #[test]
    fn the_table_has_no_mistakes_and_reads_back() {
        assert_eq!(mistakes(TABLE), Vec::<String>::new());
        let view = View {
            configured: vec!["gw1".into(), "gw2".into()],
            linked: vec!["gw2".into()],
            ..View::default()
        };
        let text = render(TABLE, view).unwrap();
        let scrape = Scrape::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let connected = |name| scrape.get("nuauth_gateway_connected", &[("gateway", name)]);
        assert_eq!((connected("gw1"), connected("gw2")), (Some(0.0), Some(1.0)));
        assert_eq!(scrape.get("nuauth_spool_age_seconds", &[]), None);
        let told: HashSet<_> = scrape
            .samples()
            .iter()
            .map(|sample| sample.name.clone())
            .collect();
        let named: HashSet<_> = names(TABLE).into_iter().collect();
        assert!(told.is_subset(&named), "{told:?}");
    }

    /// Each counter of engine and journal with a number of its own: every one is told, or said here why not.
    #[test]
    fn every_counter_is_a_metric() {
        let mut next = 1_000_000;
        let mut number = || {
            next += 7;
            next
        };
        let mut view = View::default();
        let stats = &mut view.stats;
        let fields: [&mut u64; 50] = [
            &mut stats.logins,
            &mut stats.logins_full,
            &mut stats.logins_address_full,
            &mut stats.logins_user_full,
            &mut stats.logins_hours,
            &mut stats.logins_other,
            &mut stats.renewals,
            &mut stats.ended_ordered,
            &mut stats.ended_removed,
            &mut stats.ended_replaced,
            &mut stats.ended_idle,
            &mut stats.ended_expired,
            &mut stats.ended_hours,
            &mut stats.ended_misbehaved,
            &mut stats.unknown_identities,
            &mut stats.adopted,
            &mut stats.blind,
            &mut stats.related,
            &mut stats.resyncs,
            &mut stats.resynced_rows,
            &mut stats.deleted_entries,
            &mut stats.evicted_entries,
            &mut stats.kills_ordered,
            &mut stats.kills_failed,
            &mut stats.asks,
            &mut stats.repeated,
            &mut stats.granted,
            &mut stats.granted_unlogged,
            &mut stats.refused_by_rule,
            &mut stats.refused_nobody,
            &mut stats.refused_disclaimed,
            &mut stats.refused_timeout,
            &mut stats.refused_unlogged,
            &mut stats.late_commits,
            &mut stats.drops_unlogged,
            &mut stats.drops_aggregated,
            &mut stats.refused_full,
            &mut stats.foreign_claims,
            &mut stats.double_claims,
            &mut stats.late_claims,
            &mut stats.unrelated_events,
            &mut stats.repeated_events,
            &mut stats.stale_messages,
            &mut stats.unused_verdicts,
            &mut stats.live_connections,
            &mut stats.pending_asks,
            &mut stats.sessions,
            &mut stats.waiting_commits,
            &mut stats.waiting_async,
            &mut stats.ids_left,
        ];
        let mut expected = Vec::new();
        for field in fields {
            *field = number();
            expected.push(*field);
        }
        let durable = &mut view.log.durable;
        for field in [
            &mut durable.open,
            &mut durable.drop,
            &mut durable.established,
            &mut durable.close,
            &mut durable.sessions,
            &mut durable.gaps,
            &mut view.log.commits,
            &mut view.log.failed_commits,
            &mut view.log.failed_opens,
            &mut view.log.drops_left_out,
        ] {
            *field = number();
            expected.push(*field);
        }
        let text = render(TABLE, view).unwrap();
        for number in expected {
            let ending = format!(" {number}");
            assert!(text.lines().any(|line| line.ends_with(&ending)), "{number}");
        }
    }
}
