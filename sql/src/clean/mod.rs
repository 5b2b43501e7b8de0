//! Moving dead rows from the live table to the archive, and closing those whose gateway is gone: the statements.
//!
//! A row is in one of the two tables at any moment, since it is taken from the one and put into the other in one transaction.
//! What is dead is in the row; nothing here looks at a clock.

mod mysql;
mod postgres;
mod sqlite;

use crate::upkeep::{Aged, MOST_HELD, UpkeepDone};
use nufw_proto::Timestamp;

/// The columns that both tables have, in the order of both.
pub(crate) const COLUMNS: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, \
     ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, \
     username, client_os, client_app, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, \
     reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, \
     ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth";

/// What a look at the next rows of the live table shows.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Look {
    seen: i64,
    /// The last id.
    through: Option<i64>,
    dead: i64,
}

impl Look {
    /// What a step that moves all of them will have come to.
    pub(crate) fn done(self, after: i64, looks: u32) -> UpkeepDone {
        UpkeepDone {
            seen: count(self.seen),
            moved: count(self.dead),
            after: self.through.unwrap_or(after),
            more: self.seen >= i64::from(looks),
            ..UpkeepDone::default()
        }
    }
}

impl UpkeepDone {
    /// These rows were moved, of `rows` that might have been; and those are in the archive already.
    fn moved_these(&mut self, picked: &[i64], rows: u32, held: Vec<i64>) {
        let moved = picked.len() as u64;
        self.moved = moved;
        if moved >= u64::from(rows)
            && let Some(last) = picked.last()
        {
            self.after = *last;
            self.more = true;
        }
        self.held = held.len() as u64;
        self.held_ids = held;
        self.held_ids.truncate(MOST_HELD);
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
