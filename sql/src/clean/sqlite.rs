//! Cleaning in a file of `SQLite`, on the connection that writes it.
//!
//! A range of ids is read once and changed twice in one transaction; nothing else writes meanwhile.

use super::{COLUMNS, LiveRows, count, lost};
use crate::sqlite::Sqlite;
use crate::upkeep::{MOST_HELD, Pace, UpkeepDone};
use crate::{CloseReason, StoreError};
use nufw_proto::Timestamp;
use sqlx::AssertSqlSafe;

/// A dead row that ended before ?3.
const DEAD: &str =
    "c.state IN (0, 3) AND coalesce(c.end_timestamp, c.oob_time_sec * 1000000 + c.oob_time_usec) < ?3";
/// Only rows of the range (?1, ?2].
const RANGE: &str = "c.id > ?1 AND c.id <= ?2";
const NOT_HELD: &str = "NOT EXISTS (SELECT 1 FROM ulog AS a WHERE a.id = c.id)";

/// The next ?4 rows after ?1, and the first ?2 of them that are dead.
fn look() -> String {
    format!(
        "WITH seen AS MATERIALIZED (SELECT c.id, {DEAD} AS dead FROM conntrack_ulog AS c WHERE c.id > ?1 \
         ORDER BY c.id LIMIT ?4), \
         dead AS MATERIALIZED (SELECT id FROM seen WHERE dead LIMIT ?2) \
         SELECT (SELECT count(*) FROM seen) AS seen, (SELECT max(id) FROM seen) AS through, \
         (SELECT count(*) FROM dead) AS dead, (SELECT max(id) FROM dead) AS dead_through"
    )
}

/// The next ?3 live rows after ?1, and of those from before ?2.
const LIVE: &str = "WITH seen AS MATERIALIZED (SELECT id, gateway, oob_time_sec * 1000000 + oob_time_usec < ?2 AS aged \
     FROM conntrack_ulog WHERE state IN (1, 2) AND id > ?1 ORDER BY id LIMIT ?3) \
     SELECT s.gateway, g.last_heartbeat, count(*) AS seen, coalesce(sum(s.aged), 0) AS aged, max(s.id) AS through \
     FROM seen AS s LEFT JOIN gateways AS g ON g.name = s.gateway GROUP BY s.gateway, g.last_heartbeat";

const CLOSE: &str = "UPDATE conntrack_ulog SET state = 3, close_reason = coalesce(close_reason, ?5) \
     WHERE state IN (1, 2) AND id > ?1 AND id <= ?2 AND oob_time_sec * 1000000 + oob_time_usec < ?3 AND gateway = ?4";

/// What a look at the next rows shows.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Look {
    seen: i64,
    /// The last of them.
    through: Option<i64>,
    dead: i64,
    /// The last of those.
    dead_through: Option<i64>,
}

impl Look {
    /// What a step that may change `rows` and look at `looks` will have come to.
    fn done(self, after: i64, rows: u32, looks: u32) -> UpkeepDone {
        let full = self.dead >= i64::from(rows);
        let through = if full { self.dead_through } else { self.through };
        UpkeepDone {
            seen: count(self.seen),
            moved: count(self.dead),
            after: through.unwrap_or(after),
            more: full || self.seen >= i64::from(looks),
            ..UpkeepDone::default()
        }
    }
}

impl Sqlite {
    pub(crate) async fn move_dead(
        &mut self,
        after: i64,
        before: Timestamp,
        dry: bool,
    ) -> Result<UpkeepDone, StoreError> {
        let stride = Pace::begin();
        let (rows, looks) = (self.pace.rows(), self.pace.seen());
        let look = sqlx::query_as(AssertSqlSafe(look()))
            .bind(after)
            .bind(i64::from(rows))
            .bind(before.micros())
            .bind(i64::from(looks));
        let look: Result<Look, _> = look.fetch_one(&mut self.writer).await;
        let look = look.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let mut done = look.done(after, rows, looks);
        if dry || done.moved == 0 {
            self.pace.learn(&stride, done.seen, done.moved);
            return Ok(done);
        }
        self.begin().await?;
        let result = self.move_range(after, done.after, before, &mut done).await;
        self.pace.learn(&stride, done.seen, done.moved);
        self.commit_after(result).await?;
        self.checkpointer.committed(
            usize::try_from(done.moved)
                .unwrap_or(usize::MAX)
                .saturating_mul(2),
        );
        Ok(done)
    }

    async fn move_range(
        &mut self,
        after: i64,
        through: i64,
        before: Timestamp,
        done: &mut UpkeepDone,
    ) -> Result<(), StoreError> {
        let held: Result<Vec<i64>, _> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT c.id FROM conntrack_ulog AS c WHERE {RANGE} AND {DEAD} AND NOT ({NOT_HELD}) ORDER BY c.id"
        )))
        .bind(after)
        .bind(through)
        .bind(before.micros())
        .fetch_all(&mut self.writer)
        .await;
        let held = held.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let guard = if held.is_empty() {
            ""
        } else {
            " AND NOT EXISTS \
             (SELECT 1 FROM json_each(?4) AS h WHERE h.value = c.id)"
        };
        let list = format!(
            "[{}]",
            held.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
        );
        let mut changed = [0, 0];
        let texts = [
            format!(
                "INSERT INTO ulog ({COLUMNS}) SELECT {COLUMNS} FROM conntrack_ulog AS c WHERE {RANGE} AND {DEAD}{guard}"
            ),
            format!("DELETE FROM conntrack_ulog AS c WHERE {RANGE} AND {DEAD}{guard}"),
        ];
        for (changed, text) in changed.iter_mut().zip(texts) {
            let mut query = sqlx::query(AssertSqlSafe(text))
                .bind(after)
                .bind(through)
                .bind(before.micros());
            if !held.is_empty() {
                query = query.bind(&list);
            }
            let ran = query.execute(&mut self.writer).await;
            *changed = ran
                .map_err(|source| StoreError::from_sqlx(&self.path, source))?
                .rows_affected();
        }
        let [put, taken] = changed;
        if put != taken {
            return Err(StoreError::Corrupt {
                path: self.path.clone(),
                message: format!(
                    "{put} rows were put into the archive and {taken} taken from the live table"
                ),
            });
        }
        done.moved = taken;
        done.held = held.len() as u64;
        done.held_ids = held;
        done.held_ids.truncate(MOST_HELD);
        Ok(())
    }

    pub(crate) async fn close_lost(
        &mut self,
        after: i64,
        before: Timestamp,
        spare: &[String],
        dry: bool,
    ) -> Result<UpkeepDone, StoreError> {
        let stride = Pace::begin();
        let looks = if dry { self.pace.seen() } else { self.pace.rows() };
        let rows: Result<Vec<LiveRows>, _> = sqlx::query_as(LIVE)
            .bind(after)
            .bind(before.micros())
            .bind(i64::from(looks))
            .fetch_all(&mut self.writer)
            .await;
        let rows = rows.map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        let (gateways, mut done) = lost(&rows, after, before, spare, looks);
        if dry || gateways.is_empty() {
            self.pace.learn(&stride, done.seen, 0);
            return Ok(done);
        }
        self.begin().await?;
        let result = self.close_range(after, done.after, before, &gateways).await;
        self.pace.learn(&stride, done.seen, done.closed);
        done.closed = self.commit_after(result).await?;
        self.checkpointer
            .committed(usize::try_from(done.closed).unwrap_or(usize::MAX));
        Ok(done)
    }

    async fn close_range(
        &mut self,
        after: i64,
        through: i64,
        before: Timestamp,
        gateways: &[String],
    ) -> Result<u64, StoreError> {
        let mut closed = 0;
        for gateway in gateways {
            let ran = sqlx::query(CLOSE)
                .bind(after)
                .bind(through)
                .bind(before.micros())
                .bind(gateway)
                .bind(CloseReason::GatewayLost.as_str())
                .execute(&mut self.writer)
                .await;
            closed += ran
                .map_err(|source| StoreError::from_sqlx(&self.path, source))?
                .rows_affected();
        }
        Ok(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{Connection as _, Row as _, SqliteConnection};

    async fn schema() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        crate::schema::bring_up_to_date(&mut connection, std::path::Path::new("memory"))
            .await
            .unwrap();
        connection
    }

    #[tokio::test]
    async fn every_column_of_both_tables_is_moved() {
        let mut connection = schema().await;
        for table in ["conntrack_ulog", "ulog"] {
            let text = format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid");
            let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(text))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            assert_eq!(names.join(", "), COLUMNS, "{table}");
        }
    }

    /// However large the tables are, a step costs what it changes.
    #[tokio::test]
    async fn no_step_reads_a_table_through() {
        let mut connection = schema().await;
        for (text, search) in [
            (look(), "SEARCH c USING INTEGER PRIMARY KEY (rowid>?)"),
            (
                LIVE.to_owned(),
                "SEARCH conntrack_ulog USING INDEX conntrack_live (id>?)",
            ),
            (
                format!("DELETE FROM conntrack_ulog AS c WHERE {RANGE} AND {DEAD}"),
                "SEARCH c USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
            ),
            (CLOSE.to_owned(), "SEARCH conntrack_ulog USING"),
        ] {
            let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            assert!(plan.join("\n").contains(search), "{text}\n{}", plan.join("\n"));
        }
    }
}
