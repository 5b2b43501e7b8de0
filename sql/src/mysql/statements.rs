//! The texts of the statements on `MariaDB` and `MySQL`.
//!
//! New rows go by multi-row `VALUES` of a few fixed lengths, so that every text is prepared once; updates by one JSON text,
//! since these systems take a joined table of parameters in no other way that has one text for any number of rows.

use crate::columns::{COUNTERS, INFERRED, ORIGINAL};
use std::fmt::Write as _;

/// Rows that one INSERT takes, in its variants; the largest times a row's width stays below 65,535 parameters.
pub(super) const LENGTHS: [usize; 11] = [1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1];
/// Parameters of one inserted row.
pub(super) const INSERT_WIDTH: usize = 34;

/// What the kernel's entry gives: the column, and its value from the parameters. The last one is what the others are decided
/// by: these systems may see a column's new value to the right of its assignment.
const BOUND: [(&str, &str); 21] = [
    ("ip_protocol", "u.protocol"),
    ("ip_saddr", "unhex(u.saddr)"),
    ("ip_daddr", "unhex(u.daddr)"),
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
    ("reply_saddr", "unhex(u.reply_saddr)"),
    ("reply_daddr", "unhex(u.reply_daddr)"),
    ("reply_sport", "u.reply_sport"),
    ("reply_dport", "u.reply_dport"),
    ("reply_icmp_type", "u.reply_icmp_type"),
    ("reply_icmp_code", "u.reply_icmp_code"),
    ("reply_icmp_id", "u.reply_icmp_id"),
    ("ct_mark", "u.ct_mark"),
    ("ct_id", "u.ct_id"),
];

/// The values of a binding, in the order of `write::push_binding`.
const BINDING: [(&str, &str); 17] = [
    ("protocol", "SMALLINT"),
    ("saddr", "VARCHAR(32)"),
    ("daddr", "VARCHAR(32)"),
    ("sport", "INTEGER"),
    ("dport", "INTEGER"),
    ("icmp_type", "SMALLINT"),
    ("icmp_code", "SMALLINT"),
    ("icmp_id", "INTEGER"),
    ("reply_saddr", "VARCHAR(32)"),
    ("reply_daddr", "VARCHAR(32)"),
    ("reply_sport", "INTEGER"),
    ("reply_dport", "INTEGER"),
    ("reply_icmp_type", "SMALLINT"),
    ("reply_icmp_code", "SMALLINT"),
    ("reply_icmp_id", "INTEGER"),
    ("ct_id", "BIGINT"),
    ("ct_mark", "BIGINT"),
];

/// Microseconds since 1970 as a time.
fn time(micros: &str) -> String {
    format!("timestampadd(MICROSECOND, {micros}, timestamp'1970-01-01 00:00:00')")
}

fn json_table(columns: &[(&str, &str)]) -> String {
    let mut list = String::new();
    for (index, (name, kind)) in columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(list, "{comma}{name} {kind} PATH '$[{index}]'");
    }
    format!("JSON_TABLE(?, '$[*]' COLUMNS ({list})) AS u")
}

/// New rows, OPEN and DROP; one whose id exists is an error.
pub(super) fn insert(rows: usize) -> String {
    let row = format!("({})", vec!["?"; INSERT_WIDTH].join(","));
    format!(
        "INSERT INTO conntrack_ulog (id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, {}, \
         user_id, username, client_os, client_app, reply_saddr, reply_sport, gateway, ct_zone, acl, parent_id, \
         phys_in, phys_out, policy, auth) VALUES {}",
        ORIGINAL.join(", "),
        vec![row.as_str(); rows].join(",")
    )
}

/// Rows of `table` that are not DROP: their state moves only forward, what is NULL is filled, and what is set gives way to
/// what is truer alone. The order of the tables is fixed, so that ids are looked up one by one.
fn update(table: &str, set: &str, values: &[(&str, &str)]) -> String {
    let mut set = set.to_owned();
    for (column, value) in BOUND {
        let _ = write!(
            set,
            ", c.{column} = CASE WHEN c.ct_id IS NULL AND u.ct_id IS NOT NULL THEN {value} ELSE c.{column} END"
        );
    }
    let values: Vec<_> = values.iter().chain(&BINDING).copied().collect();
    format!(
        "UPDATE {} STRAIGHT_JOIN {table} AS c ON c.id = u.id SET {set} WHERE c.state <> 0",
        json_table(&values)
    )
}

pub(super) fn establish(table: &str) -> String {
    let set = format!(
        "c.state = greatest(c.state, 2), c.start_timestamp = coalesce(c.start_timestamp, {})",
        time("u.at")
    );
    update(table, &set, &[("id", "BIGINT"), ("at", "BIGINT")])
}

pub(super) fn close(table: &str) -> String {
    let truer =
        format!("c.close_reason IN {INFERRED} AND u.close_reason NOT IN {INFERRED} AND u.at IS NOT NULL");
    let mut set = String::from("c.state = 3");
    // The reason comes last: it decides of both.
    for (column, value) in [
        ("end_timestamp", time("u.at").as_str()),
        ("close_reason", "u.close_reason"),
    ] {
        let _ = write!(
            set,
            ", c.{column} = CASE WHEN {truer} THEN {value} ELSE coalesce(c.{column}, {value}) END"
        );
    }
    let mut values = vec![
        ("id", "BIGINT"),
        ("at", "BIGINT"),
        ("close_reason", "VARCHAR(32)"),
    ];
    for column in COUNTERS {
        let _ = write!(set, ", {}", larger(column));
        values.push((column, "BIGINT"));
    }
    update(table, &set, &values)
}

fn larger(column: &str) -> String {
    format!("c.{column} = coalesce(greatest(c.{column}, u.{column}), c.{column}, u.{column})")
}

/// The counters of live rows: the larger one of each. A row that was closed and archived meanwhile has its last ones.
pub(super) fn count() -> String {
    let mut values = vec![("id", "BIGINT")];
    values.extend(COUNTERS.map(|column| (column, "BIGINT")));
    format!(
        "UPDATE {} STRAIGHT_JOIN conntrack_ulog AS c ON c.id = u.id SET {} WHERE c.state <> 0",
        json_table(&values),
        COUNTERS.map(larger).join(", ")
    )
}

/// The rows of these ids, for [`crate::rows::ExistingColumns`].
pub(super) fn existing() -> String {
    existing_in("conntrack_ulog")
}

/// The rows of these ids in the archive, received between two seconds.
pub(super) fn archived() -> String {
    format!("{} AND c.oob_time_sec BETWEEN ? AND ?", existing_in("ulog"))
}

/// Those of these ids that the log has, and keeps for as long as the transaction lasts.
pub(super) fn hold() -> String {
    format!(
        "SELECT c.id FROM {} STRAIGHT_JOIN conntrack_ulog AS c ON c.id = u.id LOCK IN SHARE MODE",
        json_table(&[("id", "BIGINT")])
    )
}

fn existing_in(table: &str) -> String {
    format!(
        "SELECT c.id, CAST(c.state AS SIGNED) AS state, c.oob_time_sec, CAST(c.oob_time_usec AS SIGNED) AS oob_time_usec, \
         c.oob_mark, c.gateway, CAST(c.ct_zone AS SIGNED) AS ct_zone, c.user_id, c.ct_id, \
         CAST(c.ip_protocol AS SIGNED) AS ip_protocol, inet6_ntoa(c.ip_saddr) AS ip_saddr, \
         inet6_ntoa(c.ip_daddr) AS ip_daddr, \
         CAST(coalesce(c.tcp_sport, c.udp_sport, c.sport) AS SIGNED) AS sport, \
         CAST(coalesce(c.tcp_dport, c.udp_dport, c.dport) AS SIGNED) AS dport \
         FROM {} STRAIGHT_JOIN {table} AS c ON c.id = u.id",
        json_table(&[("id", "BIGINT")])
    )
}

pub(super) const NOTE: &str = "UPDATE servers SET spool = ?, spooled = ? WHERE number = ?";

pub(super) const SPOOLED: &str = "SELECT spool, spooled FROM servers WHERE number = ? AND spool IS NOT NULL";

/// The live rows of a range of ids, for [`crate::rows::ActiveColumns`].
pub(super) const ACTIVE: &str = "SELECT id, gateway, CAST(state AS SIGNED) AS state, oob_time_sec, \
     CAST(oob_time_usec AS SIGNED) AS oob_time_usec, CAST(ct_zone AS SIGNED) AS ct_zone, \
     oob_mark, user_id, username, client_os, client_app, oob_in, oob_out, phys_in, phys_out, auth, CAST(ip_protocol AS SIGNED) AS ip_protocol, inet6_ntoa(ip_saddr) AS ip_saddr, \
     inet6_ntoa(ip_daddr) AS ip_daddr, CAST(coalesce(tcp_sport, udp_sport, sport) AS SIGNED) AS sport, \
     CAST(coalesce(tcp_dport, udp_dport, dport) AS SIGNED) AS dport, \
     CAST(icmp_type AS SIGNED) AS icmp_type, CAST(icmp_code AS SIGNED) AS icmp_code, CAST(icmp_id AS SIGNED) AS icmp_id, \
     inet6_ntoa(reply_saddr) AS reply_saddr, inet6_ntoa(reply_daddr) AS reply_daddr, \
     CAST(reply_sport AS SIGNED) AS reply_sport, CAST(reply_dport AS SIGNED) AS reply_dport, \
     CAST(reply_icmp_type AS SIGNED) AS reply_icmp_type, CAST(reply_icmp_code AS SIGNED) AS reply_icmp_code, \
     CAST(reply_icmp_id AS SIGNED) AS reply_icmp_id, \
     ct_id, ct_mark FROM conntrack_ulog WHERE state IN (1, 2) AND id >= ? AND id < ? ORDER BY id";

pub(super) fn sessions_start() -> String {
    format!(
        "INSERT INTO users (id, user_id, username, ip_saddr, os_sysname, os_release, os_version, start_time) \
         SELECT u.id, u.user_id, u.username, unhex(u.saddr), u.sysname, u.os_release, u.os_version, {} FROM {}",
        time("u.at"),
        json_table(&[
            ("id", "BIGINT"),
            ("user_id", "BIGINT"),
            ("username", "TEXT"),
            ("saddr", "VARCHAR(32)"),
            ("sysname", "TEXT"),
            ("os_release", "TEXT"),
            ("os_version", "TEXT"),
            ("at", "BIGINT"),
        ])
    )
}

/// How many sessions of that id and content there are, and how many of that id.
pub(super) fn existing_session() -> String {
    format!(
        "SELECT CAST(coalesce(sum(user_id = ? AND username = ? AND ip_saddr = ? AND start_time = {}), 0) AS SIGNED), \
         count(*) FROM users WHERE id = ?",
        time("?")
    )
}

/// That a restart ended it was only supposed, if its end comes from the spool.
pub(super) fn sessions_end() -> String {
    format!(
        "UPDATE {} STRAIGHT_JOIN users AS c ON c.id = u.id SET c.end_time = coalesce(c.end_time, {}), \
         c.end_reason = coalesce(nullif(c.end_reason, 'server-restart'), u.reason)",
        json_table(&[("id", "BIGINT"), ("at", "BIGINT"), ("reason", "VARCHAR(32)")]),
        time("u.at")
    )
}

/// When a session ended that a crash left open is not known; that it ended is, since no connection survives one.
pub(super) const SESSIONS_LEFT_OPEN: &str =
    "UPDATE users SET end_reason = 'server-restart' WHERE end_reason IS NULL AND id >= ? AND id < ?";

pub(super) fn gaps() -> String {
    format!(
        "INSERT INTO log_gap (gateway, from_timestamp, to_timestamp, cause, count) \
         SELECT u.gateway, {}, {}, u.cause, u.missed FROM {} ON DUPLICATE KEY UPDATE log_gap.count = log_gap.count",
        time("u.begun"),
        time("u.ended"),
        json_table(&[
            ("gateway", "VARCHAR(255)"),
            ("begun", "BIGINT"),
            ("ended", "BIGINT"),
            ("cause", "VARCHAR(255)"),
            ("missed", "BIGINT"),
        ])
    )
}

pub(super) fn acknowledge() -> String {
    format!(
        "INSERT INTO gateways (name, boot, acknowledged) SELECT u.name, u.boot, u.through FROM {} \
         ON DUPLICATE KEY UPDATE gateways.acknowledged = CASE WHEN gateways.boot = u.boot \
         THEN greatest(coalesce(gateways.acknowledged, 0), u.through) ELSE u.through END, gateways.boot = u.boot",
        json_table(&[
            ("name", "VARCHAR(255)"),
            ("boot", "VARCHAR(20)"),
            ("through", "BIGINT")
        ])
    )
}

pub(super) fn heartbeat() -> String {
    let at = time("u.at");
    format!(
        "INSERT INTO gateways (name, last_heartbeat) SELECT u.name, {at} FROM {} \
         ON DUPLICATE KEY UPDATE gateways.last_heartbeat = greatest(coalesce(gateways.last_heartbeat, {at}), {at})",
        json_table(&[("name", "VARCHAR(255)"), ("at", "BIGINT")])
    )
}

pub(super) const LEASE: &str = "INSERT INTO servers (number, since) VALUES (?, utc_timestamp(6)) \
     ON DUPLICATE KEY UPDATE epoch = epoch + 1, since = utc_timestamp(6)";

/// After the connection was lost: nobody may have taken the number over meanwhile.
pub(super) const RENEW: &str = "UPDATE servers SET epoch = ? WHERE number = ? AND epoch <= ?";

/// Locks are of the whole server, so the database is part of the name.
pub(super) const TRY_LOCK: &str =
    "SELECT CAST(GET_LOCK(concat('nulog.', left(sha1(database()), 20), '.', ?), 0) AS SIGNED)";

pub(super) const HOLDER: &str =
    "SELECT CAST(IS_USED_LOCK(concat('nulog.', left(sha1(database()), 20), '.', ?)) AS SIGNED)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_statement_stays_below_the_limit_of_parameters() {
        assert!(LENGTHS[0] * INSERT_WIDTH <= 65_535);
    }

    #[test]
    fn what_decides_about_the_other_columns_is_assigned_last() {
        assert_eq!(BOUND[BOUND.len() - 1].0, "ct_id");
        for text in [establish("ulog"), close("ulog")] {
            let assigned = text.rsplit(" SET ").next().unwrap();
            assert!(assigned.rfind(", c.ct_id = ").unwrap() > assigned.rfind(", c.ct_mark = ").unwrap());
        }
    }
}
