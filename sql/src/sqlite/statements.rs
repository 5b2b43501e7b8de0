//! The texts of the statements that change rows in groups.
//!
//! A multi-row `VALUES` of a few fixed lengths, so that every text is prepared once; a few rows that are not needed may stay
//! NULL and are skipped by their missing id. Measured on this schema against `json_each`: inserts are four times as fast.

use crate::columns::{COUNTERS, INFERRED, ORIGINAL, REPLY};
use std::fmt::Write as _;
use std::sync::Arc;

/// Rows that one statement takes, in its variants; the largest times the widest row stays below 32,766 parameters.
const LENGTHS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// One in so many rows of an execution may be a NULL one: it costs nearly as much as a real one.
const PADDING: usize = 8;

/// Parameters of one inserted row.
pub(crate) const INSERT_WIDTH: usize = 34;
/// Parameters of one ESTABLISHED.
pub(crate) const ESTABLISH_WIDTH: usize = 23;
/// Parameters of the counters of one row.
pub(crate) const COUNT_WIDTH: usize = 5;
/// Parameters of one CLOSE.
pub(crate) const CLOSE_WIDTH: usize = 28;

/// One statement in all its lengths.
pub(crate) struct Statement {
    variants: [Arc<str>; LENGTHS.len()],
}

impl Statement {
    fn new(text: impl Fn(&str) -> String, width: usize) -> Self {
        let row = format!("({})", vec!["?"; width].join(","));
        Self {
            variants: LENGTHS.map(|length| text(&vec![row.as_str(); length].join(",")).into()),
        }
    }

    /// How many of `waiting` rows the next execution takes, and the text for it: all of them in the shortest variant
    /// that holds them without much padding, or as many as the longest one that they fill.
    pub(crate) fn next(&self, waiting: usize) -> (usize, &Arc<str>) {
        let holding = LENGTHS.iter().position(|length| *length >= waiting);
        let index = match holding {
            Some(index) if (LENGTHS[index] - waiting) * PADDING <= LENGTHS[index] => index,
            Some(index) => index - 1,
            None => LENGTHS.len() - 1,
        };
        (waiting.min(LENGTHS[index]), &self.variants[index])
    }
}

/// The statements of one table of connections.
pub(crate) struct Updates {
    pub(crate) establish: Statement,
    pub(crate) count: Statement,
    pub(crate) close: Statement,
}

impl Updates {
    /// Rows of `table` that are not DROP: their state moves only forward, what is NULL is filled, and what is set gives way
    /// to what is truer alone.
    pub(crate) fn new(table: &str) -> Self {
        let establish = format!(
            "state = max(c.state, 2), start_timestamp = coalesce(c.start_timestamp, u.column2){}",
            bind_from(3)
        );
        let mut close = String::from("state = 3");
        for (column, from) in ["end_timestamp", "close_reason"].iter().zip(2..) {
            let _ = write!(
                close,
                ", {column} = CASE WHEN c.close_reason IN {INFERRED} AND u.column3 NOT IN {INFERRED} \
                 AND u.column2 IS NOT NULL THEN u.column{from} ELSE coalesce(c.{column}, u.column{from}) END"
            );
        }
        close.push_str(", ");
        close.push_str(&count_from(4));
        close.push_str(&bind_from(4 + COUNTERS.len()));
        let update = |set: &str, rows: &str| {
            format!(
                "UPDATE {table} AS c SET {set} FROM (VALUES {rows}) AS u WHERE c.id = u.column1 AND c.state <> 0"
            )
        };
        Self {
            establish: Statement::new(|rows| update(&establish, rows), ESTABLISH_WIDTH),
            count: Statement::new(|rows| update(&count_from(2), rows), COUNT_WIDTH),
            close: Statement::new(|rows| update(&close, rows), CLOSE_WIDTH),
        }
    }
}

/// The counters: the larger one of each.
fn count_from(first: usize) -> String {
    let set = COUNTERS.iter().zip(first..).map(|(column, from)| {
        format!("{column} = coalesce(max(c.{column}, u.column{from}), c.{column}, u.column{from})")
    });
    set.collect::<Vec<_>>().join(", ")
}

/// Columns that the kernel's entry gives: all of them at once, from the first entry that is seen.
fn bind_from(first: usize) -> String {
    let columns = || ORIGINAL.iter().chain(&REPLY).copied().chain(["ct_id", "ct_mark"]);
    let ct_id = first + ORIGINAL.len() + REPLY.len();
    let mut set = String::new();
    for (column, from) in columns().zip(first..) {
        let _ = write!(
            set,
            ", {column} = CASE WHEN c.ct_id IS NULL AND u.column{ct_id} IS NOT NULL THEN u.column{from} ELSE c.{column} END"
        );
    }
    set
}

/// New rows, OPEN and DROP; one whose id exists is left out, and found by the number of rows.
pub(crate) fn insert() -> Statement {
    let columns = format!(
        "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, {}, \
         user_id, username, client_os, client_app, reply_saddr, reply_sport, gateway, ct_zone, acl, parent_id, \
         phys_in, phys_out, policy, auth",
        ORIGINAL.join(", ")
    );
    Statement::new(
        |rows| {
            format!(
                "INSERT INTO conntrack_ulog ({columns}) \
                 SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL ON CONFLICT (id) DO NOTHING"
            )
        },
        INSERT_WIDTH,
    )
}

/// The row of that id, for [`crate::rows::ExistingColumns`].
pub(crate) const EXISTING: &str = "SELECT id, state, oob_time_sec, oob_time_usec, oob_mark, gateway, ct_zone, user_id, \
     ct_id, ip_protocol, ip_saddr, ip_daddr, coalesce(tcp_sport, udp_sport, sport) AS sport, \
     coalesce(tcp_dport, udp_dport, dport) AS dport FROM conntrack_ulog WHERE id = ?1";

/// The rows of these ids in the archive.
pub(crate) const ARCHIVED: &str = "SELECT id, state, oob_time_sec, oob_time_usec, oob_mark, gateway, ct_zone, user_id, \
     ct_id, ip_protocol, ip_saddr, ip_daddr, coalesce(tcp_sport, udp_sport, sport) AS sport, \
     coalesce(tcp_dport, udp_dport, dport) AS dport FROM ulog WHERE id IN (SELECT value FROM json_each(?1))";

pub(crate) const NOTE: &str = "UPDATE meta SET spool = ?1, spooled = ?2 WHERE one = 1";

pub(crate) const SPOOLED: &str = "SELECT spool, spooled FROM meta WHERE one = 1 AND spool IS NOT NULL";

pub(crate) const SKIP: &str = "UPDATE meta SET next_sequence = ?1 WHERE one = 1 AND next_sequence < ?1";

pub(crate) const ACKNOWLEDGE: &str = "INSERT INTO gateways (name, boot, acknowledged) VALUES (?1, ?2, ?3) \
     ON CONFLICT (name) DO UPDATE SET acknowledged = CASE WHEN boot IS excluded.boot \
     THEN max(coalesce(acknowledged, 0), excluded.acknowledged) ELSE excluded.acknowledged END, boot = excluded.boot";

pub(crate) const HEARTBEAT: &str = "INSERT INTO gateways (name, last_heartbeat) VALUES (?1, ?2) \
     ON CONFLICT (name) DO UPDATE SET last_heartbeat = max(coalesce(last_heartbeat, 0), excluded.last_heartbeat)";

pub(crate) const SESSION_START: &str = "INSERT INTO users \
     (id, user_id, username, ip_saddr, os_sysname, os_release, os_version, start_time) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING";

pub(crate) const EXISTING_SESSION: &str = "SELECT count(*) FROM users \
     WHERE id = ?1 AND user_id = ?2 AND username = ?3 AND ip_saddr = ?4 AND start_time = ?5";

/// That a restart ended it was only supposed, if its end comes from the spool.
pub(crate) const SESSION_END: &str = "UPDATE users SET end_time = coalesce(end_time, ?2), \
     end_reason = coalesce(nullif(end_reason, 'server-restart'), ?3) WHERE id = ?1";

/// When a session ended that a crash left open is not known; that it ended is, since no connection survives one.
pub(crate) const SESSIONS_LEFT_OPEN: &str =
    "UPDATE users SET end_reason = 'server-restart' WHERE end_reason IS NULL";

pub(crate) const GAP: &str = "INSERT INTO log_gap (gateway, from_timestamp, to_timestamp, cause, count) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";

pub(crate) const RESERVE: &str =
    "UPDATE meta SET next_sequence = next_sequence + ?1 WHERE one = 1 RETURNING next_sequence - ?1";

pub(crate) const ACTIVE: &str = "SELECT id, gateway, state, oob_time_sec, oob_time_usec, ct_zone, oob_mark, user_id, \
     username, client_os, client_app, oob_in, oob_out, phys_in, phys_out, auth, ip_protocol, ip_saddr, ip_daddr, coalesce(tcp_sport, udp_sport, sport) AS sport, \
     coalesce(tcp_dport, udp_dport, dport) AS dport, icmp_type, icmp_code, icmp_id, \
     reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, \
     ct_id, ct_mark FROM conntrack_ulog WHERE state IN (1, 2) ORDER BY id";

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

    async fn plan(connection: &mut SqliteConnection, text: &str) -> String {
        let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")));
        let rows = explained.fetch_all(connection).await.unwrap();
        rows.iter()
            .map(|row| row.get::<String, _>("detail"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// A table of a hundred million rows must never be read through for one change.
    #[tokio::test]
    async fn no_statement_reads_a_table_of_connections_through() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::schema::bring_up_to_date(&mut connection, std::path::Path::new("memory"))
            .await
            .unwrap();
        for (table, updates) in [
            ("conntrack_ulog", Updates::new("conntrack_ulog")),
            ("ulog", Updates::new("ulog")),
        ] {
            for waiting in LENGTHS {
                for statement in [&updates.establish, &updates.count, &updates.close] {
                    let (taken, text) = statement.next(waiting);
                    assert_eq!(taken, waiting);
                    let plan = plan(&mut connection, text).await;
                    assert!(
                        plan.contains("SEARCH c USING INTEGER PRIMARY KEY"),
                        "{table}: {plan}"
                    );
                }
            }
        }
        let plan_of_active = plan(&mut connection, ACTIVE).await;
        assert!(
            plan_of_active.contains("USING INDEX conntrack_live"),
            "{plan_of_active}"
        );
        let plan_of_view = plan(
            &mut connection,
            "SELECT * FROM connections WHERE id > 5 ORDER BY id LIMIT 9",
        )
        .await;
        for table in ["conntrack_ulog", "ulog"] {
            let search = format!("SEARCH {table} USING INTEGER PRIMARY KEY");
            assert!(plan_of_view.contains(&search), "{plan_of_view}");
        }
    }

    #[test]
    fn the_longest_statements_stay_below_the_limit_of_parameters() {
        for width in [INSERT_WIDTH, ESTABLISH_WIDTH, COUNT_WIDTH, CLOSE_WIDTH] {
            assert!(LENGTHS[LENGTHS.len() - 1] * width <= 32_766);
        }
    }
}
