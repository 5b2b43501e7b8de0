//! The archive's partitions on a `PostgreSQL` server.
//!
//! Whoever commits is never made to wait for longer than [`LOCK_TIMEOUT`] and a change of the catalogue: what reads or moves
//! many rows holds no lock that a writer needs. Nothing is dropped here that was not detached before.

use super::columns::{self, Dialect, Kept, Record};
use super::{Detached, Part, PartKind, Period, Prepared, SMALL, Span, Taken, free_name};
use crate::keeper::{Job, at_it};
use crate::postgres::LOCK_CLASS;
use crate::remote::limited;
use crate::{Location, StoreError, schema};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::path::PathBuf;
use std::time::Duration;

/// How long a lock that stops writers is waited for, since they wait behind it.
const LOCK_TIMEOUT: Duration = Duration::from_millis(30);
/// How long a change that moves rows under such a lock may take before it is given up.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long anything else may take: counting or validating a large partition, which is in nobody's way.
const STATEMENT_TIMEOUT: Duration = Duration::from_hours(1);
/// The constraint by which the server knows, without reading them, that rows fit a partition.
const FITS: &str = "ulog_rest_fits";

pub(super) struct Postgres {
    connection: PgConnection,
    log: PathBuf,
}

impl Postgres {
    pub(super) async fn open(options: &PgConnectOptions, location: &Location) -> Result<Self, StoreError> {
        let log = location.name();
        let options = options.clone().application_name("ulog-rotate");
        let open = async {
            let connected = options.connect().await;
            let mut connection = connected.map_err(|source| StoreError::from_connect(&log, source))?;
            schema::expect_current(&mut connection, &log).await?;
            Ok(connection)
        };
        let connection = limited(&log, location.connect_timeout, open).await?;
        let mut this = Self { connection, log };
        let limit = STATEMENT_TIMEOUT.as_millis();
        this.execute(format!(
            "SET timezone = 'UTC'; SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = '10s'; \
             SET default_transaction_isolation = 'read committed'; SET tcp_keepalives_idle = 10; \
             SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
        ))
        .await?;
        // Partitions belong to whom the archive belongs to, whichever member of that role made them.
        let owner: Option<String> = sqlx::query_scalar(
            "SELECT quote_ident(rolname) FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner \
             WHERE c.oid = 'ulog'::regclass AND pg_has_role(r.oid, 'MEMBER') AND rolname <> current_user",
        )
        .fetch_optional(&mut this.connection)
        .await
        .map_err(|source| this.error(source))?;
        if let Some(owner) = owner {
            this.execute(format!("SET ROLE {owner}")).await?;
        }
        Ok(this)
    }

    pub(super) async fn lock(&mut self) -> Result<(), StoreError> {
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(Job::Rotate.key())
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        if !taken {
            return Err(at_it(self.log.clone(), Job::Rotate));
        }
        Ok(())
    }

    fn error(&self, source: sqlx::Error) -> StoreError {
        let code = source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        // Our own limit, not the end of the connection.
        if code.as_deref() == Some("57014") {
            return StoreError::Busy(self.log.clone());
        }
        StoreError::from_server(&self.log, source)
    }

    async fn execute(&mut self, statements: String) -> Result<(), StoreError> {
        // Safe: names are of our own making, numbers are numbers.
        let done = sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut self.connection)
            .await;
        done.map(drop).map_err(|source| self.error(source))
    }

    /// Runs statements in one transaction that gives up soon where a lock is taken.
    async fn change(&mut self, statements: &str) -> Result<(), StoreError> {
        let (lock, limit) = (LOCK_TIMEOUT.as_millis(), CHANGE_TIMEOUT.as_millis());
        let done = self
            .execute(format!(
                "BEGIN; SET LOCAL lock_timeout = {lock}; SET LOCAL statement_timeout = {limit}; {statements}; COMMIT"
            ))
            .await;
        if done.is_err() {
            let _ = self.execute("ROLLBACK".to_owned()).await;
        }
        done
    }

    pub(super) async fn parts(&mut self) -> Result<Vec<Part>, StoreError> {
        let rows: Vec<(String, Option<String>, i64, i64)> = sqlx::query_as(
            "SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid), c.reltuples::int8, \
             pg_total_relation_size(c.oid) \
             FROM pg_class AS c WHERE c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'ulog'::regclass) \
             OR c.relkind = 'r' AND NOT c.relispartition AND c.relname ~ '^ulog_(gone|export)_[a-z0-9]+_n?[0-9]+$' \
             AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'ulog'::regclass)",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        let mut parts = Vec::with_capacity(rows.len());
        for (name, bound, estimate, bytes) in rows {
            let (kind, span) = match bound.as_deref() {
                None => match Detached::parse(&name) {
                    Some(detached) => (
                        PartKind::Detached {
                            export: detached.export,
                        },
                        detached.span,
                    ),
                    None => continue,
                },
                Some("DEFAULT") => (PartKind::Rest, Span { from: None, to: None }),
                Some(bound) => (PartKind::Range, read_bound(bound)),
            };
            // Below 0: nobody has counted yet, so there are not many.
            let rows = match u64::try_from(estimate) {
                Ok(estimate) => estimate,
                Err(_) => self.count(&name).await?,
            };
            parts.push(Part {
                name,
                kind,
                span,
                rows,
                exact: estimate < 0,
                bytes: u64::try_from(bytes).ok(),
            });
        }
        Ok(parts)
    }

    pub(super) async fn count(&mut self, table: &str) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        Ok(count.unsigned_abs())
    }

    /// Whether so many rows have no partition that moving them at once would hold up others.
    async fn rest_is_large(&mut self) -> Result<bool, StoreError> {
        let limit = i64::from(SMALL) + 1;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM (SELECT 1 FROM ulog_rest LIMIT $1) AS few")
            .bind(limit)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        Ok(count == limit)
    }

    /// Takes one step towards partitions for `wanted` and for what has none.
    pub(super) async fn prepare(
        &mut self,
        wanted: &[Period],
        before: i64,
        now: i64,
    ) -> Result<Prepared, StoreError> {
        let Some((first, last)) = wanted.first().copied().zip(wanted.last()) else {
            return Ok(Prepared::Done);
        };
        self.forget_fit().await?;
        let parts = self.parts().await?;
        let spans = || {
            parts
                .iter()
                .filter(|part| part.kind == PartKind::Range)
                .map(|part| part.span)
        };
        if self.rest_is_large().await? {
            return self.adopt_rest(first, now, &parts).await;
        }
        let homeless: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT oob_time_sec FROM ulog_rest WHERE oob_time_sec >= $1 AND oob_time_sec < $2",
        )
        .bind(before)
        .bind(last.to)
        .fetch_all(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        let mut periods: Vec<_> = homeless
            .into_iter()
            .filter_map(|second| Period::of(first.unit, second))
            .chain(wanted.iter().copied())
            .collect();
        periods.sort_by_key(|period| period.from);
        periods.dedup();
        for period in periods {
            if let Some((from, to)) = Span::uncovered(period, spans()).first().copied() {
                let name = free_name(&format!("ulog_{}", period.name()), &parts);
                self.create(&name, from, to).await?;
                return Ok(Prepared::Made(name));
            }
        }
        Ok(Prepared::Done)
    }

    /// Makes a partition, with the rows of its time that had none.
    async fn create(&mut self, name: &str, from: i64, to: i64) -> Result<(), StoreError> {
        // The archive too, although attaching needs less: whoever found out already that a row has no partition, and then
        // waited, would be refused. Archive before rest, as every writer locks them.
        self.change(&format!(
            "CREATE TABLE {name} (LIKE ulog INCLUDING ALL); \
             LOCK TABLE ONLY ulog, ONLY ulog_rest IN ACCESS EXCLUSIVE MODE; \
             WITH moved AS (DELETE FROM ulog_rest WHERE oob_time_sec >= {from} AND oob_time_sec < {to} RETURNING *) \
             INSERT INTO {name} SELECT * FROM moved; \
             ALTER TABLE ulog ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"
        ))
        .await
    }

    /// Makes a partition of `ulog_rest` itself, since too many rows are in it to be moved while others wait: of the time
    /// around its oldest row in which there is no partition, at most up to the end of the next period.
    async fn adopt_rest(
        &mut self,
        unit_of: Period,
        now: i64,
        parts: &[Part],
    ) -> Result<Prepared, StoreError> {
        let oldest: i64 = sqlx::query_scalar("SELECT min(oob_time_sec) FROM ulog_rest")
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        let ranges = || parts.iter().filter(|part| part.kind == PartKind::Range);
        let from = ranges()
            .filter_map(|part| part.span.to)
            .filter(|to| *to <= oldest)
            .max();
        let later = ranges()
            .filter_map(|part| part.span.from)
            .filter(|from| *from > oldest)
            .min();
        let current = Period::of(unit_of.unit, now.max(oldest)).unwrap_or(unit_of);
        let next = current.next().unwrap_or(current);
        let to = later.map_or(next.to, |later| later.min(next.to));
        let last = Period::of(unit_of.unit, to - 1).unwrap_or(current);
        let name = free_name(&format!("ulog_{}", last.name()), parts);
        let lower = from.map_or("MINVALUE".to_owned(), |from| from.to_string());
        let fits = match from {
            Some(from) => format!("oob_time_sec >= {from} AND oob_time_sec < {to}"),
            None => format!("oob_time_sec < {to}"),
        };
        let strangers: bool = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT EXISTS (SELECT 1 FROM ulog_rest WHERE NOT ({fits}))"
        )))
        .fetch_one(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        // Validating reads every row, but stops nobody; attaching then reads none. Rows of other times are in the way of
        // that, and are few where clocks are right: then attaching reads.
        let mut forget = String::new();
        if !strangers {
            self.change(&format!(
                "ALTER TABLE ulog_rest ADD CONSTRAINT {FITS} CHECK ({fits}) NOT VALID"
            ))
            .await?;
            self.execute(format!("ALTER TABLE ulog_rest VALIDATE CONSTRAINT {FITS}"))
                .await?;
            forget = format!("; ALTER TABLE {name} DROP CONSTRAINT {FITS}");
        }
        self.change(&format!(
            "LOCK TABLE ONLY ulog, ONLY ulog_rest IN ACCESS EXCLUSIVE MODE; \
             ALTER TABLE ulog DETACH PARTITION ulog_rest; ALTER TABLE ulog_rest RENAME TO {name}; \
             CREATE TABLE ulog_rest (LIKE ulog INCLUDING ALL); {} \
             ALTER TABLE ulog ATTACH PARTITION {name} FOR VALUES FROM ({lower}) TO ({to}); \
             ALTER TABLE ulog ATTACH PARTITION ulog_rest DEFAULT{forget}",
            if strangers {
                format!(
                    "WITH moved AS (DELETE FROM {name} WHERE NOT ({fits}) RETURNING *) \
                     INSERT INTO ulog_rest SELECT * FROM moved;"
                )
            } else {
                String::new()
            }
        ))
        .await?;
        Ok(Prepared::Made(name))
    }

    /// Takes away what a run left behind that was ended in the middle of the above: it refuses rows of other times.
    async fn forget_fit(&mut self) -> Result<(), StoreError> {
        let left: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = 'ulog_rest'::regclass AND conname = $1)",
        )
        .bind(FITS)
        .fetch_one(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        if left {
            self.change(&format!("ALTER TABLE ulog_rest DROP CONSTRAINT {FITS}"))
                .await?;
        }
        Ok(())
    }

    /// Takes a partition out of the archive; it is a table of its own afterwards. Not CONCURRENTLY: that is not to be had
    /// where there is a default partition.
    pub(super) async fn detach(&mut self, part: &Part, export: bool) -> Result<Taken, StoreError> {
        let detached = Detached::new(part.span, export);
        let (name, new) = (&part.name, &detached.name);
        self.change(&format!(
            "LOCK TABLE ONLY ulog, ONLY {name}, ONLY ulog_rest IN ACCESS EXCLUSIVE MODE; \
             ALTER TABLE ulog DETACH PARTITION {name}; ALTER TABLE {name} RENAME TO {new}"
        ))
        .await?;
        Ok(Taken::Whole(detached))
    }

    /// Takes up to `limit` rows before `before` that have no partition out of the archive, into the table of that name.
    pub(super) async fn sweep(&mut self, before: i64, export: bool, limit: u32) -> Result<u64, StoreError> {
        let old: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM ulog_rest WHERE oob_time_sec < $1)")
            .bind(before)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        if !old {
            return Ok(0);
        }
        let name = Detached::of_rest(before, export).name;
        self.execute(format!(
            "SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS {name} (LIKE ulog INCLUDING ALL)"
        ))
        .await?;
        let moved = sqlx::query(AssertSqlSafe(format!(
            "WITH moved AS (DELETE FROM ulog_rest WHERE oob_time_sec < $1 AND ctid = ANY (ARRAY( \
             SELECT ctid FROM ulog_rest WHERE oob_time_sec < $1 LIMIT $2)) RETURNING *) \
             INSERT INTO {name} SELECT * FROM moved"
        )))
        .bind(before)
        .bind(i64::from(limit))
        .execute(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        Ok(moved.rows_affected())
    }

    /// Rows before `before` that have no partition.
    pub(super) async fn homeless(&mut self, before: i64) -> Result<u64, StoreError> {
        self.count(&format!("ulog_rest WHERE oob_time_sec < {before}"))
            .await
    }

    /// Rows of a detached table with larger ids, in their order.
    pub(super) async fn read(
        &mut self,
        table: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let columns = columns::as_text(Kept::Archive, Dialect::Postgres);
        let text = format!("SELECT {columns} FROM {table} AS t WHERE t.id > $1 ORDER BY t.id LIMIT $2");
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        columns::records(&rows, |source| StoreError::from_server(&self.log, source))
    }

    pub(super) async fn discard(&mut self, table: &str) -> Result<(), StoreError> {
        self.execute(format!("DROP TABLE IF EXISTS {table}")).await
    }

    /// Rows of a table of its own that are over and older than `before`.
    pub(super) async fn expired(
        &mut self,
        kept: Kept,
        before: i64,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let over = match kept {
            Kept::Archive => return Ok(Vec::new()),
            Kept::Sessions => "end_reason IS NOT NULL AND coalesce(end_time, start_time) < to_timestamp($1)",
            Kept::Gaps => "to_timestamp < to_timestamp($1)",
        };
        let columns = columns::as_text(kept, Dialect::Postgres);
        let table = kept.table();
        let text =
            format!("SELECT {columns} FROM {table} AS t WHERE {over} AND t.id > $2 ORDER BY t.id LIMIT $3");
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds of a calendar are far below 2^52"
        )]
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(before as f64)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        columns::records(&rows, |source| StoreError::from_server(&self.log, source))
    }

    pub(super) async fn forget(&mut self, kept: Kept, ids: &[i64]) -> Result<u64, StoreError> {
        let table = match kept {
            Kept::Archive => return Ok(0),
            other => other.table(),
        };
        let done = sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE id = ANY ($1)")))
            .bind(ids)
            .execute(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        Ok(done.rows_affected())
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        let mut this = self;
        // The connection may last a moment longer than this.
        let _ = this.execute("SELECT pg_advisory_unlock_all()".to_owned()).await;
        let log = this.log;
        this.connection
            .close()
            .await
            .map_err(|source| StoreError::from_server(&log, source))
    }
}

/// `FOR VALUES FROM ('1') TO (MAXVALUE)`.
fn read_bound(bound: &str) -> Span {
    let mut ends = bound
        .split(['(', ')'])
        .skip(1)
        .step_by(2)
        .map(|end| end.trim_matches('\'').parse().ok());
    Span {
        from: ends.next().flatten(),
        to: ends.next().flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_the_server_writes_them() {
        let read = |text| {
            let span = read_bound(text);
            (span.from, span.to)
        };
        assert_eq!(
            read("FOR VALUES FROM ('-5') TO ('86400')"),
            (Some(-5), Some(86_400))
        );
        assert_eq!(read("FOR VALUES FROM (MINVALUE) TO ('7')"), (None, Some(7)));
    }
}
