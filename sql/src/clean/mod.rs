//! Moving dead rows from the live table to the archive, and closing those whose gateway is gone: the statements.
//!
//! A row is in one of the two tables at any moment, since it is taken from the one and put into the other in one transaction.
//! What is dead is in the row; nothing here looks at a clock.

pub(crate) mod sqlite;

use crate::upkeep::{Aged, UpkeepDone};
use nufw_proto::Timestamp;

/// The columns that both tables have, in the order of both.
pub(crate) const COLUMNS: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, \
     ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, \
     username, client_os, client_app, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, \
     reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, \
     ct_mark, ct_zone, acl, close_reason";

/// What a look at the next rows of the live table shows.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Look {
    seen: i64,
    seen_through: Option<i64>,
    dead: i64,
    dead_through: Option<i64>,
}

/// What a step is about to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    /// Rows above this id…
    pub(crate) after: i64,
    /// …up to this one.
    pub(crate) through: i64,
    /// Dead rows among them.
    pub(crate) dead: u64,
}

impl Look {
    /// The range of a step that may change `rows` and look at `looks`, and what it will have come to.
    pub(crate) fn range(self, after: i64, rows: u32, looks: u32) -> (Range, UpkeepDone) {
        let full = self.dead >= i64::from(rows);
        let through = if full {
            self.dead_through
        } else {
            self.seen_through
        };
        let range = Range {
            after,
            through: through.unwrap_or(after),
            dead: count(self.dead),
        };
        let done = UpkeepDone {
            seen: count(self.seen),
            moved: range.dead,
            after: range.through,
            more: full || self.seen >= i64::from(looks),
            ..UpkeepDone::default()
        };
        (range, done)
    }
}

/// The next live rows of one gateway.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct LiveRows {
    pub(crate) gateway: String,
    /// Microseconds since 1970.
    pub(crate) last_heartbeat: Option<i64>,
    pub(crate) seen: i64,
    pub(crate) aged: i64,
    pub(crate) through: i64,
}

/// What a step over these rows will have come to, and the gateways of which it closes rows.
pub(crate) fn lost(
    rows: &[LiveRows],
    after: i64,
    before: Timestamp,
    spare: &[String],
    looks: u32,
) -> (Vec<String>, UpkeepDone) {
    let mut done = UpkeepDone {
        after: rows.iter().map(|row| row.through).fold(after, i64::max),
        ..UpkeepDone::default()
    };
    let mut close = Vec::new();
    for row in rows {
        done.seen += count(row.seen);
        if row.aged <= 0 {
            continue;
        }
        let last_heartbeat = row.last_heartbeat.map(Timestamp::from_micros);
        let lost = last_heartbeat.is_some_and(|at| at < before);
        done.aged.insert(
            row.gateway.clone(),
            Aged {
                rows: count(row.aged),
                lost,
                last_heartbeat,
            },
        );
        if lost && !spare.contains(&row.gateway) {
            done.closed += count(row.aged);
            close.push(row.gateway.clone());
        }
    }
    done.more = done.seen >= u64::from(looks);
    (close, done)
}

pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
