//! Cleaning on `MariaDB` and `MySQL`, beside the servers that write.
//!
//! Rows that somebody holds are passed over, so nothing here waits for a server. What is locked is named by its id, one by
//! one: a statement that looked further would hold rows that a server wants.

use super::{COLUMNS, LiveRows, Look, lost};
use crate::keeper::MySqlKeeper;
use crate::upkeep::{Pace, UpkeepDone};
use crate::{CloseReason, StoreError};
use nufw_proto::Timestamp;
use sqlx::AssertSqlSafe;

/// Ids as one parameter.
const IDS: &str = "JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS u";

/// Microseconds since 1970 as a time.
fn time(at: Timestamp) -> String {
    format!(
        "timestampadd(MICROSECOND, {}, timestamp'1970-01-01 00:00:00')",
        at.micros()
    )
}

fn packet_before(at: Timestamp) -> String {
    let (seconds, micros) = crate::columns::oob_time(at);
    format!("(c.oob_time_sec, c.oob_time_usec) < ({seconds}, {micros})")
}

/// A dead row that ended before.
fn dead(before: Timestamp) -> String {
    format!(
        "(c.state IN (0, 3) AND CASE WHEN c.end_timestamp IS NULL THEN {} ELSE c.end_timestamp < {} END)",
        packet_before(before),
        time(before)
    )
}

fn look(before: Timestamp) -> String {
    format!(
        "SELECT count(*) AS seen, max(s.id) AS through, CAST(coalesce(sum(s.dead), 0) AS SIGNED) AS dead \
         FROM (SELECT c.id, {} AS dead FROM conntrack_ulog AS c WHERE c.id > ? ORDER BY c.id LIMIT ?) AS s",
        dead(before)
    )
}

fn pick(before: Timestamp, held: &[i64]) -> String {
    let but = if held.is_empty() {
        String::new()
    } else {
        format!(" AND c.id NOT IN ({})", list(held))
    };
    format!(
        "SELECT c.id FROM conntrack_ulog AS c FORCE INDEX (PRIMARY) WHERE c.id > ? AND c.id <= ? AND {}{but} \
         ORDER BY c.id LIMIT ? FOR UPDATE SKIP LOCKED",
        dead(before)
    )
}

fn put() -> String {
    let columns = COLUMNS
        .split(", ")
        .map(|column| format!("c.{column}"))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "INSERT INTO ulog ({COLUMNS}) SELECT {columns} FROM {IDS} STRAIGHT_JOIN conntrack_ulog AS c ON c.id = u.id"
    )
}

fn take() -> String {
    format!("DELETE c FROM {IDS} STRAIGHT_JOIN conntrack_ulog AS c ON c.id = u.id")
}

fn held() -> String {
    format!(
        "SELECT c.id FROM {IDS} STRAIGHT_JOIN conntrack_ulog AS c ON c.id = u.id \
         STRAIGHT_JOIN ulog AS a ON a.id = c.id AND a.oob_time_sec = c.oob_time_sec ORDER BY c.id"
    )
}

fn live(before: Timestamp) -> String {
    format!(
        "SELECT s.gateway, timestampdiff(MICROSECOND, timestamp'1970-01-01 00:00:00', g.last_heartbeat) AS last_heartbeat, \
         count(*) AS seen, CAST(coalesce(sum(s.aged), 0) AS SIGNED) AS aged, max(s.id) AS through \
         FROM (SELECT c.id, c.gateway, (c.state IN (1, 2) AND {}) AS aged \
         FROM conntrack_ulog AS c WHERE c.id > ? ORDER BY c.id LIMIT ?) AS s \
         LEFT JOIN gateways AS g ON g.name = s.gateway GROUP BY s.gateway, g.last_heartbeat",
        packet_before(before)
    )
}

/// The heartbeat is looked at again: it may have come meanwhile.
fn pick_lost(before: Timestamp) -> String {
    format!(
        "SELECT c.id FROM conntrack_ulog AS c FORCE INDEX (PRIMARY) WHERE c.id > ? AND c.id <= ? \
         AND c.state IN (1, 2) AND {} AND c.gateway = ? ORDER BY c.id FOR UPDATE SKIP LOCKED",
        packet_before(before)
    )
}

fn close(before: Timestamp) -> String {
    format!(
        "UPDATE {IDS} STRAIGHT_JOIN conntrack_ulog AS c ON c.id = u.id \
         SET c.state = 3, c.close_reason = coalesce(c.close_reason, ?) WHERE c.state IN (1, 2) \
         AND EXISTS (SELECT 1 FROM gateways AS g WHERE g.name = c.gateway AND g.last_heartbeat < {})",
        time(before)
    )
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn json(ids: &[i64]) -> String {
    format!("[{}]", list(ids))
}

impl MySqlKeeper {
    pub(crate) async fn move_dead(
        &mut self,
        after: i64,
        before: Timestamp,
        dry: bool,
    ) -> Result<UpkeepDone, StoreError> {
        let (rows, looks) = (self.pace.rows(), self.pace.seen());
        let stride = Pace::begin();
        let look: Result<Look, _> = sqlx::query_as(AssertSqlSafe(look(before)))
            .bind(after)
            .bind(i64::from(looks))
            .fetch_one(&mut self.connection)
            .await;
        let look = look.map_err(|source| StoreError::from_server(&self.log, source))?;
        let mut done = look.done(after, looks);
        if dry || done.moved == 0 {
            self.pace.learn(&stride, done.seen, 0);
            return Ok(done);
        }
        let through = done.after;
        let mut known: Vec<i64> = Vec::new();
        loop {
            let stride = Pace::begin();
            let mut picked = Vec::new();
            let moved = self
                .move_range((after, through), before, rows, &known, &mut picked)
                .await;
            match moved {
                Ok(()) => {
                    self.pace.learn(&stride, done.seen, picked.len() as u64);
                    done.moved_these(&picked, rows, known);
                    return Ok(done);
                }
                Err(source) if is_held(&source) && known.is_empty() => {
                    self.roll_back().await?;
                    let found = sqlx::query_scalar(AssertSqlSafe(held()))
                        .bind(json(&picked))
                        .fetch_all(&mut self.connection)
                        .await;
                    known = found.map_err(|source| StoreError::from_server(&self.log, source))?;
                    if known.is_empty() {
                        return Err(StoreError::from_server(&self.log, source));
                    }
                }
                Err(source) => {
                    // What is broken is said by the first error.
                    let _ = self.roll_back().await;
                    return Err(StoreError::from_server(&self.log, source));
                }
            }
        }
    }

    async fn move_range(
        &mut self,
        (after, through): (i64, i64),
        before: Timestamp,
        rows: u32,
        known: &[i64],
        picked: &mut Vec<i64>,
    ) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("START TRANSACTION")
            .execute(&mut self.connection)
            .await?;
        *picked = sqlx::query_scalar(AssertSqlSafe(pick(before, known)))
            .bind(after)
            .bind(through)
            .bind(i64::from(rows))
            .fetch_all(&mut self.connection)
            .await?;
        if !picked.is_empty() {
            let ids = json(picked);
            let mut changed = [0, 0];
            for (changed, text) in changed.iter_mut().zip([put(), take()]) {
                *changed = sqlx::query(AssertSqlSafe(text))
                    .bind(&ids)
                    .execute(&mut self.connection)
                    .await?
                    .rows_affected();
            }
            if changed != [picked.len() as u64; 2] {
                let [put, taken] = changed;
                let message = format!(
                    "of {} rows {put} were put into the archive and {taken} taken from the live table",
                    picked.len()
                );
                return Err(sqlx::Error::Protocol(message));
            }
        }
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await?;
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_server(&self.log, source))
    }

    pub(crate) async fn close_lost(
        &mut self,
        after: i64,
        before: Timestamp,
        spare: &[String],
        dry: bool,
    ) -> Result<UpkeepDone, StoreError> {
        let looks = if dry { self.pace.seen() } else { self.pace.rows() };
        let stride = Pace::begin();
        let rows: Result<Vec<LiveRows>, _> = sqlx::query_as(AssertSqlSafe(live(before)))
            .bind(after)
            .bind(i64::from(looks))
            .fetch_all(&mut self.connection)
            .await;
        let rows = rows.map_err(|source| StoreError::from_server(&self.log, source))?;
        let (gateways, mut done) = lost(&rows, after, before, spare, looks);
        if !dry && !gateways.is_empty() {
            match self.close_range((after, done.after), before, &gateways).await {
                Ok(closed) => done.closed = closed,
                Err(source) => {
                    // What is broken is said by the first error.
                    let _ = self.roll_back().await;
                    return Err(StoreError::from_server(&self.log, source));
                }
            }
        }
        self.pace.learn(&stride, done.seen, 0);
        Ok(done)
    }

    async fn close_range(
        &mut self,
        (after, through): (i64, i64),
        before: Timestamp,
        gateways: &[String],
    ) -> Result<u64, sqlx::Error> {
        sqlx::raw_sql("START TRANSACTION")
            .execute(&mut self.connection)
            .await?;
        let mut closed = 0;
        for gateway in gateways {
            let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(pick_lost(before)))
                .bind(after)
                .bind(through)
                .bind(gateway)
                .fetch_all(&mut self.connection)
                .await?;
            closed += sqlx::query(AssertSqlSafe(close(before)))
                .bind(json(&ids))
                .bind(CloseReason::GatewayLost.as_str())
                .execute(&mut self.connection)
                .await?
                .rows_affected();
        }
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await?;
        Ok(closed)
    }
}

/// Whether a row is in the archive already.
fn is_held(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
