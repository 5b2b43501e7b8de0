//! The texts of the statements on `PostgreSQL`.
//!
//! Each takes any number of rows, a parameter for a column: arrays of one length, which `unnest` puts side by side.

use crate::columns::{COUNTERS, INFERRED};
use std::fmt::Write as _;

/// What the kernel's entry gives: the column, and its value from the parameters.
const BOUND: [(&str, &str); 21] = [
    ("ip_protocol", "u.protocol"),
    ("ip_saddr", "u.saddr"),
    ("ip_daddr", "u.daddr"),
    ("tcp_sport", "CASE WHEN u.protocol = 6 THEN u.sport END"),
    ("tcp_dport", "CASE WHEN u.protocol = 6 THEN u.dport END"),
    ("udp_sport", "CASE WHEN u.protocol IN (17, 136) THEN u.sport END"),
    ("udp_dport", "CASE WHEN u.protocol IN (17, 136) THEN u.dport END"),
    (
        "sport",
        "CASE WHEN u.protocol NOT IN (6, 17, 136) THEN u.sport END",
    ),
    (
        "dport",
        "CASE WHEN u.protocol NOT IN (6, 17, 136) THEN u.dport END",
    ),
    ("icmp_type", "u.icmp_type"),
    ("icmp_code", "u.icmp_code"),
    ("icmp_id", "u.icmp_id"),
    ("reply_saddr", "u.reply_saddr"),
    ("reply_daddr", "u.reply_daddr"),
    ("reply_sport", "u.reply_sport"),
    ("reply_dport", "u.reply_dport"),
    ("reply_icmp_type", "u.reply_icmp_type"),
    ("reply_icmp_code", "u.reply_icmp_code"),
    ("reply_icmp_id", "u.reply_icmp_id"),
    ("ct_id", "u.ct_id"),
    ("ct_mark", "u.ct_mark"),
];

/// The parameters of one direction's tuple.
const TUPLE: [(&str, &str); 8] = [
    ("protocol", "int2"),
    ("saddr", "inet"),
    ("daddr", "inet"),
    ("sport", "int4"),
    ("dport", "int4"),
    ("icmp_type", "int2"),
    ("icmp_code", "int2"),
    ("icmp_id", "int4"),
];

/// The parameters of a binding, in the order of [`super::write::bind_binding`].
const BINDING: [(&str, &str); 9] = [
    ("reply_saddr", "inet"),
    ("reply_daddr", "inet"),
    ("reply_sport", "int4"),
    ("reply_dport", "int4"),
    ("reply_icmp_type", "int2"),
    ("reply_icmp_code", "int2"),
    ("reply_icmp_id", "int4"),
    ("ct_id", "int8"),
    ("ct_mark", "int8"),
];

/// `unnest($1::int8[], …) AS u (id, …)`.
fn unnest(columns: &[(&str, &str)]) -> String {
    let mut arrays = String::new();
    let mut names = String::new();
    for (number, (name, kind)) in (1..).zip(columns) {
        let comma = if number == 1 { "" } else { ", " };
        let _ = write!(arrays, "{comma}${number}::{kind}[]");
        let _ = write!(names, "{comma}{name}");
    }
    format!("unnest({arrays}) AS u ({names})")
}

/// New rows, OPEN and DROP; one whose id exists is left out, and found by the number of rows.
pub(super) fn insert() -> String {
    let before = [
        ("id", "int8"),
        ("state", "int2"),
        ("oob_time_sec", "int8"),
        ("oob_time_usec", "int4"),
        ("oob_prefix", "text"),
        ("oob_mark", "int8"),
        ("oob_in", "text"),
        ("oob_out", "text"),
    ];
    let after = [
        ("user_id", "int8"),
        ("username", "text"),
        ("client_os", "text"),
        ("client_app", "text"),
        ("reply_saddr", "inet"),
        ("reply_sport", "int4"),
        ("gateway", "text"),
        ("ct_zone", "int4"),
        ("acl", "text"),
        ("parent_id", "int8"),
        ("phys_in", "text"),
        ("phys_out", "text"),
        ("policy", "text"),
        ("auth", "text"),
    ];
    let parameters: Vec<_> = before.iter().chain(&TUPLE).chain(&after).copied().collect();
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for (name, _) in &before {
        columns.push((*name).to_owned());
        values.push(format!("u.{name}"));
    }
    for (name, value) in BOUND.iter().take_while(|(name, _)| !name.starts_with("reply")) {
        columns.push((*name).to_owned());
        values.push((*value).to_owned());
    }
    for (name, _) in &after {
        columns.push((*name).to_owned());
        values.push(format!("u.{name}"));
    }
    format!(
        "INSERT INTO conntrack_ulog ({}) SELECT {} FROM {} ON CONFLICT (id) DO NOTHING",
        columns.join(", "),
        values.join(", "),
        unnest(&parameters)
    )
}

/// Rows of `table` that are not DROP: their state moves only forward, what is NULL is filled, and what is set gives way to
/// what is truer alone.
fn update(table: &str, set: &str, parameters: &[(&str, &str)]) -> String {
    let mut set = set.to_owned();
    for (column, value) in BOUND {
        let _ = write!(
            set,
            ", {column} = CASE WHEN c.ct_id IS NULL AND u.ct_id IS NOT NULL THEN {value} ELSE c.{column} END"
        );
    }
    let parameters: Vec<_> = parameters.iter().chain(&TUPLE).chain(&BINDING).copied().collect();
    format!(
        "UPDATE {table} AS c SET {set} FROM {} WHERE c.id = u.id AND c.state <> 0",
        unnest(&parameters)
    )
}

pub(super) fn establish(table: &str) -> String {
    update(
        table,
        "state = greatest(c.state, 2::int2), start_timestamp = coalesce(c.start_timestamp, u.at)",
        &[("id", "int8"), ("at", "timestamptz")],
    )
}

pub(super) fn close(table: &str) -> String {
    let filled = [("end_timestamp", "timestamptz"), ("close_reason", "text")];
    let mut set = String::from("state = 3");
    let mut parameters = vec![("id", "int8")];
    for (column, kind) in filled {
        let _ = write!(
            set,
            ", {column} = CASE WHEN c.close_reason IN {INFERRED} AND u.close_reason NOT IN {INFERRED} \
             AND u.end_timestamp IS NOT NULL THEN u.{column} ELSE coalesce(c.{column}, u.{column}) END"
        );
        parameters.push((column, kind));
    }
    for column in COUNTERS {
        let _ = write!(set, ", {column} = greatest(c.{column}, u.{column})");
        parameters.push((column, "int8"));
    }
    update(table, &set, &parameters)
}

/// The counters of live rows: the larger one of each. A row that was closed and archived meanwhile has its last ones.
pub(super) fn count() -> String {
    let set = COUNTERS.map(|column| format!("{column} = greatest(c.{column}, u.{column})"));
    let mut parameters = vec![("id", "int8")];
    parameters.extend(COUNTERS.map(|column| (column, "int8")));
    format!(
        "UPDATE conntrack_ulog AS c SET {} FROM {} WHERE c.id = u.id AND c.state <> 0",
        set.join(", "),
        unnest(&parameters)
    )
}

/// The rows of these ids, for [`crate::rows::ExistingColumns`].
pub(super) const EXISTING: &str = "SELECT id, state::int8, oob_time_sec, oob_time_usec::int8, oob_mark, gateway, \
     ct_zone::int8, user_id, ct_id, ip_protocol::int8, host(ip_saddr) AS ip_saddr, host(ip_daddr) AS ip_daddr, \
     coalesce(tcp_sport, udp_sport, sport)::int8 AS sport, coalesce(tcp_dport, udp_dport, dport)::int8 AS dport \
     FROM conntrack_ulog WHERE id = ANY($1)";

/// Those of these ids that the log has, and keeps for as long as the transaction lasts.
pub(super) const HOLD: &str = "SELECT id FROM conntrack_ulog WHERE id = ANY($1) FOR KEY SHARE";

/// The rows of these ids in the archive, received between two seconds.
pub(super) const ARCHIVED: &str = "SELECT id, state::int8, oob_time_sec, oob_time_usec::int8, oob_mark, gateway, \
     ct_zone::int8, user_id, ct_id, ip_protocol::int8, host(ip_saddr) AS ip_saddr, host(ip_daddr) AS ip_daddr, \
     coalesce(tcp_sport, udp_sport, sport)::int8 AS sport, coalesce(tcp_dport, udp_dport, dport)::int8 AS dport \
     FROM ulog WHERE id = ANY($1) AND oob_time_sec BETWEEN $2 AND $3";

pub(super) const NOTE: &str = "UPDATE servers SET spool = $2, spooled = $3 WHERE number = $1";

pub(super) const SPOOLED: &str = "SELECT spool, spooled FROM servers WHERE number = $1 AND spool IS NOT NULL";

/// The live rows of a range of ids, for [`crate::rows::ActiveColumns`]. Reads the table through: an index on the state would
/// halve the rate of updates, and this is asked for once in a server's life.
pub(super) const ACTIVE: &str = "SELECT id, gateway, state::int8, oob_time_sec, oob_time_usec::int8, ct_zone::int8, \
     oob_mark, user_id, username, client_os, client_app, oob_in, oob_out, phys_in, phys_out, auth, ip_protocol::int8, host(ip_saddr) AS ip_saddr, host(ip_daddr) AS ip_daddr, \
     coalesce(tcp_sport, udp_sport, sport)::int8 AS sport, coalesce(tcp_dport, udp_dport, dport)::int8 AS dport, \
     icmp_type::int8, icmp_code::int8, icmp_id::int8, \
     host(reply_saddr) AS reply_saddr, host(reply_daddr) AS reply_daddr, \
     reply_sport::int8, reply_dport::int8, reply_icmp_type::int8, reply_icmp_code::int8, reply_icmp_id::int8, \
     ct_id, ct_mark FROM conntrack_ulog WHERE state IN (1, 2) AND id >= $1 AND id < $2 ORDER BY id";

pub(super) const SESSIONS_START: &str = "INSERT INTO users \
     (id, user_id, username, ip_saddr, os_sysname, os_release, os_version, start_time) \
     SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::inet[], $5::text[], $6::text[], $7::text[], \
     $8::timestamptz[]) ON CONFLICT (id) DO NOTHING";

pub(super) const EXISTING_SESSION: &str = "SELECT count(*) FROM users \
     WHERE id = $1 AND user_id = $2 AND username = $3 AND ip_saddr = $4 AND start_time = $5";

/// That a restart ended it was only supposed, if its end comes from the spool.
pub(super) const SESSIONS_END: &str = "UPDATE users SET end_time = coalesce(end_time, u.at), \
     end_reason = coalesce(nullif(end_reason, 'server-restart'), u.reason) \
     FROM unnest($1::int8[], $2::timestamptz[], $3::text[]) AS u (row, at, reason) WHERE id = u.row";

/// When a session ended that a crash left open is not known; that it ended is, since no connection survives one.
pub(super) const SESSIONS_LEFT_OPEN: &str =
    "UPDATE users SET end_reason = 'server-restart' WHERE end_reason IS NULL AND id >= $1 AND id < $2";

pub(super) const GAPS: &str = "INSERT INTO log_gap (gateway, from_timestamp, to_timestamp, cause, count) \
     SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::int8[]) \
     ON CONFLICT DO NOTHING";

pub(super) const ACKNOWLEDGE: &str = "INSERT INTO gateways AS g (name, boot, acknowledged) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::int8[]) ON CONFLICT (name) DO UPDATE \
     SET acknowledged = CASE WHEN g.boot = excluded.boot \
     THEN greatest(coalesce(g.acknowledged, 0), excluded.acknowledged) ELSE excluded.acknowledged END, \
     boot = excluded.boot";

pub(super) const HEARTBEAT: &str = "INSERT INTO gateways AS g (name, last_heartbeat) \
     SELECT * FROM unnest($1::text[], $2::timestamptz[]) ON CONFLICT (name) DO UPDATE \
     SET last_heartbeat = greatest(g.last_heartbeat, excluded.last_heartbeat)";

/// Also where a standby that lost the last reservations has taken over.
pub(super) const RESERVE: &str = "UPDATE servers SET next_sequence = greatest(next_sequence, $2) + $3 \
     WHERE number = $1 RETURNING next_sequence - $3";

pub(super) const LEASE: &str = "INSERT INTO servers AS s (number) VALUES ($1) ON CONFLICT (number) DO UPDATE \
     SET epoch = s.epoch + 1, since = now() RETURNING epoch";

/// After the connection was lost: nobody may have taken the number over meanwhile.
pub(super) const RENEW: &str = "UPDATE servers SET epoch = $2 WHERE number = $1 AND epoch <= $2";

pub(super) const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";

pub(super) const HOLDER: &str = "SELECT l.pid, coalesce('connected from ' || host(a.client_addr), 'on the same host') \
     || coalesce(' since ' || to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '') \
     FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid) \
     WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::oid AND l.objid = $2::oid \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
