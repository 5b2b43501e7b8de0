//! Cleaning on `PostgreSQL`, beside the servers that write.
//!
//! Rows that somebody holds are passed over, so nothing here waits for a server; what a server wants of a row that is being
//! moved waits for the end of one small transaction, and is then done in the archive.

use super::{COLUMNS, LiveRows, Look, lost};
use crate::keeper::PostgresKeeper;
use crate::upkeep::{Pace, UpkeepDone};
use crate::{CloseReason, StoreError};
use nufw_proto::Timestamp;
use sqlx::AssertSqlSafe;

/// A dead row that ended before $2, in microseconds since 1970.
const DEAD: &str = "c.state IN (0, 3) AND CASE WHEN c.end_timestamp IS NULL \
     THEN (c.oob_time_sec, c.oob_time_usec) < ($2 / 1000000, $2 % 1000000) \
     ELSE c.end_timestamp < timestamptz 'epoch' + $2 * interval '1 microsecond' END";
/// A live row from before $2.
const AGED: &str = "c.state IN (1, 2) AND (c.oob_time_sec, c.oob_time_usec) < ($2 / 1000000, $2 % 1000000)";

fn look() -> String {
    format!(
        "SELECT count(*) AS seen, max(s.id) AS through, count(*) FILTER (WHERE s.dead) AS dead \
         FROM (SELECT c.id, {DEAD} AS dead FROM conntrack_ulog AS c WHERE c.id > $1 ORDER BY c.id LIMIT $3) AS s"
    )
}

/// Again by their newest versions: what was live when we looked may be dead, never the other way round.
fn pick() -> String {
    format!(
        "SELECT c.id FROM conntrack_ulog AS c WHERE c.id > $1 AND c.id <= $3 AND {DEAD} AND c.id <> ALL ($5) \
         ORDER BY c.id LIMIT $4 FOR UPDATE SKIP LOCKED"
    )
}

fn move_rows() -> String {
    format!(
        "WITH taken AS (DELETE FROM conntrack_ulog WHERE id = ANY ($1) RETURNING {COLUMNS}) \
         INSERT INTO ulog ({COLUMNS}) SELECT {COLUMNS} FROM taken"
    )
}

const HELD: &str = "SELECT c.id FROM conntrack_ulog AS c JOIN ulog AS a ON a.id = c.id AND a.oob_time_sec = c.oob_time_sec \
     WHERE c.id = ANY ($1) ORDER BY c.id";

fn live() -> String {
    format!(
        "SELECT s.gateway, (round(extract(epoch FROM g.last_heartbeat)::numeric * 1000000))::int8 AS last_heartbeat, \
         count(*) AS seen, count(*) FILTER (WHERE s.aged) AS aged, max(s.id) AS through \
         FROM (SELECT c.id, c.gateway, {AGED} AS aged FROM conntrack_ulog AS c WHERE c.id > $1 ORDER BY c.id LIMIT $3) AS s \
         LEFT JOIN gateways AS g ON g.name = s.gateway GROUP BY s.gateway, g.last_heartbeat"
    )
}

/// The heartbeat is looked at again: it may have come meanwhile.
fn close() -> String {
    format!(
        "UPDATE conntrack_ulog SET state = 3, close_reason = coalesce(close_reason, $5) WHERE id IN (\
         SELECT c.id FROM conntrack_ulog AS c WHERE c.id > $1 AND c.id <= $3 AND {AGED} AND c.gateway = ANY ($4) \
         AND EXISTS (SELECT 1 FROM gateways AS g WHERE g.name = c.gateway \
         AND g.last_heartbeat < timestamptz 'epoch' + $2 * interval '1 microsecond') \
         ORDER BY c.id FOR UPDATE SKIP LOCKED)"
    )
}

impl PostgresKeeper {
    pub(crate) async fn move_dead(
        &mut self,
        after: i64,
        before: Timestamp,
        dry: bool,
    ) -> Result<UpkeepDone, StoreError> {
        let (rows, looks) = (self.pace.rows(), self.pace.seen());
        let stride = Pace::begin();
        let look: Result<Look, _> = sqlx::query_as(AssertSqlSafe(look()))
            .bind(after)
            .bind(before.micros())
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
        let mut held: Vec<i64> = Vec::new();
        loop {
            let stride = Pace::begin();
            let mut picked = Vec::new();
            let moved = self
                .move_range(after, through, before, rows, &held, &mut picked)
                .await;
            match moved {
                Ok(()) => {
                    self.pace.learn(&stride, done.seen, picked.len() as u64);
                    done.moved_these(&picked, rows, held);
                    return Ok(done);
                }
                Err(source) if is_held(&source) && held.is_empty() => {
                    self.roll_back().await?;
                    let found = sqlx::query_scalar(HELD)
                        .bind(&picked)
                        .fetch_all(&mut self.connection)
                        .await;
                    held = found.map_err(|source| StoreError::from_server(&self.log, source))?;
                    if held.is_empty() {
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
        after: i64,
        through: i64,
        before: Timestamp,
        rows: u32,
        held: &[i64],
        picked: &mut Vec<i64>,
    ) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("BEGIN").execute(&mut self.connection).await?;
        *picked = sqlx::query_scalar(AssertSqlSafe(pick()))
            .bind(after)
            .bind(before.micros())
            .bind(through)
            .bind(i64::from(rows))
            .bind(held)
            .fetch_all(&mut self.connection)
            .await?;
        if !picked.is_empty() {
            let moved = sqlx::query(AssertSqlSafe(move_rows()))
                .bind(&*picked)
                .execute(&mut self.connection)
                .await?
                .rows_affected();
            if moved != picked.len() as u64 {
                let message = format!("{} rows were locked and {moved} of them moved", picked.len());
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
        let rows: Result<Vec<LiveRows>, _> = sqlx::query_as(AssertSqlSafe(live()))
            .bind(after)
            .bind(before.micros())
            .bind(i64::from(looks))
            .fetch_all(&mut self.connection)
            .await;
        let rows = rows.map_err(|source| StoreError::from_server(&self.log, source))?;
        let (gateways, mut done) = lost(&rows, after, before, spare, looks);
        if !dry && !gateways.is_empty() {
            let closed = sqlx::query(AssertSqlSafe(close()))
                .bind(after)
                .bind(before.micros())
                .bind(done.after)
                .bind(&gateways)
                .bind(CloseReason::GatewayLost.as_str())
                .execute(&mut self.connection)
                .await;
            done.closed = closed
                .map_err(|source| StoreError::from_server(&self.log, source))?
                .rows_affected();
        }
        self.pace.learn(&stride, done.seen, 0);
        Ok(done)
    }
}

/// Whether a row is in the archive already.
fn is_held(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
