//! The archive's partitions on a `MariaDB` or `MySQL` server.
//!
//! Every change here locks the whole archive; a lock that is not to be had at once is given up, since writers would wait
//! behind it, and nothing that reads or copies many rows happens under one where it can be avoided. What is dropped was
//! exchanged against nothing before.

use super::columns::{self, Dialect, Kept, Record};
use super::{Detached, Part, PartKind, Period, Prepared, SMALL, Span, Taken, free_name};
use crate::keeper::{Job, at_it};
use crate::remote::limited;
use crate::{Location, StoreError, schema};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::path::PathBuf;
use std::time::Duration;

/// Taken out of the archive, to be dropped.
const GONE: &str = "ulog_gone";
/// Holds the rows of `rest` while it is cut.
const ASIDE: &str = "ulog_aside";
/// Rows that are put back at a time.
const BATCH: u32 = 5_000;
/// Seconds that anything is waited for that nobody waits behind.
const PATIENCE: u32 = 30;
/// How long a statement may take: reading or copying a large partition.
const STATEMENT_TIMEOUT: Duration = Duration::from_hours(1);

pub(super) struct MySql {
    connection: MySqlConnection,
    log: PathBuf,
    /// Seconds that a lock which stops writers is waited for.
    wait: i32,
}

impl MySql {
    pub(super) async fn open(options: &MySqlConnectOptions, location: &Location) -> Result<Self, StoreError> {
        let log = location.name();
        let open = async {
            let connected = options.connect().await;
            let mut connection = connected.map_err(|source| StoreError::from_connect(&log, source))?;
            schema::expect_current(&mut connection, &log).await?;
            Ok(connection)
        };
        let connection = limited(&log, location.connect_timeout, open).await?;
        let mut this = Self {
            connection,
            log,
            wait: 0,
        };
        let version: String = this.scalar("SELECT version()").await?;
        // Not waiting at all is MariaDB's alone.
        this.wait = i32::from(!version.contains("MariaDB"));
        this.execute(&format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION autocommit = 1; \
             SET SESSION lock_wait_timeout = {PATIENCE}; SET SESSION innodb_lock_wait_timeout = 1; \
             SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
        ))
        .await?;
        Ok(this)
    }

    pub(super) async fn lock(&mut self) -> Result<(), StoreError> {
        let taken: Option<i64> = self
            .scalar(
                "SELECT CAST(GET_LOCK(concat('nulog.', left(sha1(database()), 20), '.rotate'), 0) AS SIGNED)",
            )
            .await?;
        if taken != Some(1) {
            return Err(at_it(self.log.clone(), Job::Rotate));
        }
        Ok(())
    }

    fn error(&self, source: sqlx::Error) -> StoreError {
        StoreError::from_server(&self.log, source)
    }

    async fn execute(&mut self, statements: &str) -> Result<(), StoreError> {
        // Safe: names are of our own making, numbers are numbers.
        let text = AssertSqlSafe(statements.to_owned());
        let run = sqlx::raw_sql(text).execute(&mut self.connection);
        match tokio::time::timeout(STATEMENT_TIMEOUT, run).await {
            Ok(done) => done.map(drop).map_err(|source| self.error(source)),
            Err(_) => Err(StoreError::TimedOut {
                log: self.log.clone(),
                limit: STATEMENT_TIMEOUT,
            }),
        }
    }

    /// Runs a statement that takes a lock which writers wait behind: it is given up if the lock is not to be had at once.
    async fn at_once(&mut self, statement: &str) -> Result<(), StoreError> {
        let wait = self.wait;
        self.execute(&format!("SET SESSION lock_wait_timeout = {wait}"))
            .await?;
        let done = self.execute(statement).await;
        self.execute(&format!("SET SESSION lock_wait_timeout = {PATIENCE}"))
            .await?;
        done
    }

    async fn scalar<T>(&mut self, text: &str) -> Result<T, StoreError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::MySql> + sqlx::Type<sqlx::MySql> + Send + Unpin,
    {
        sqlx::query_scalar(AssertSqlSafe(text.to_owned()))
            .fetch_one(&mut self.connection)
            .await
            .map_err(|source| self.error(source))
    }

    pub(super) async fn parts(&mut self) -> Result<Vec<Part>, StoreError> {
        let rows: Vec<(String, Option<String>, i64, i64)> = sqlx::query_as(
            "SELECT CAST(partition_name AS CHAR), CAST(partition_description AS CHAR), \
             CAST(coalesce(table_rows, 0) AS SIGNED), \
             CAST(coalesce(data_length, 0) + coalesce(index_length, 0) AS SIGNED) \
             FROM information_schema.partitions \
             WHERE table_schema = database() AND table_name = 'ulog' ORDER BY partition_ordinal_position",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        let mut parts = Vec::with_capacity(rows.len() + 1);
        let mut from = None;
        for (name, bound, rows, bytes) in rows {
            let to = bound.and_then(|bound| bound.parse().ok());
            let span = Span { from, to };
            from = to;
            parts.push(Part {
                name,
                kind: if to.is_some() {
                    PartKind::Range
                } else {
                    PartKind::Rest
                },
                span,
                rows: rows.unsigned_abs(),
                exact: false,
                bytes: Some(bytes.unsigned_abs()),
            });
        }
        if let Some((comment, rows, bytes)) = self.table(GONE).await? {
            // Without its comment it was just being made, and nothing can be in it.
            let detached = Detached::from_comment(GONE, &comment).unwrap_or_else(|| Detached {
                name: GONE.to_owned(),
                span: Span { from: None, to: None },
                export: true,
            });
            parts.push(Part {
                name: GONE.to_owned(),
                kind: PartKind::Detached {
                    export: detached.export,
                },
                span: detached.span,
                rows,
                exact: false,
                bytes: Some(bytes),
            });
        }
        Ok(parts)
    }

    /// The comment, the estimated number of rows and the size of a table.
    async fn table(&mut self, name: &str) -> Result<Option<(String, u64, u64)>, StoreError> {
        let row: Option<(String, i64, i64)> = sqlx::query_as(
            "SELECT CAST(table_comment AS CHAR), CAST(coalesce(table_rows, 0) AS SIGNED), \
             CAST(coalesce(data_length, 0) + coalesce(index_length, 0) AS SIGNED) \
             FROM information_schema.tables WHERE table_schema = database() AND table_name = ?",
        )
        .bind(name)
        .fetch_optional(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        Ok(row.map(|(comment, rows, bytes)| (comment, rows.unsigned_abs(), bytes.unsigned_abs())))
    }

    pub(super) async fn count(&mut self, table: &str) -> Result<u64, StoreError> {
        let count: i64 = self.scalar(&format!("SELECT count(*) FROM {table}")).await?;
        Ok(count.unsigned_abs())
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
        if self.table(ASIDE).await?.is_some() {
            self.put_back().await?;
        }
        let parts = self.parts().await?;
        let end = parts.iter().filter_map(|part| part.span.to).max();
        let reached = |to: i64| end.is_some_and(|end| to <= end);
        let limit = i64::from(SMALL) + 1;
        let homeless: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT oob_time_sec FROM (SELECT oob_time_sec FROM ulog PARTITION (rest) LIMIT ?) AS few",
        )
        .bind(limit)
        .fetch_all(&mut self.connection)
        .await
        .map_err(|source| self.error(source))?;
        let count: i64 = self
            .scalar(&format!(
                "SELECT count(*) FROM (SELECT 1 FROM ulog PARTITION (rest) LIMIT {limit}) AS few"
            ))
            .await?;
        if count == limit
            && let Some(current) = Period::of(first.unit, now)
            && !reached(current.to)
        {
            return self.adopt_rest(current, &parts).await;
        }
        let mut periods: Vec<_> = homeless
            .into_iter()
            .filter(|second| *second < last.to)
            // One partition for all that is too old to be kept: it is the next to go.
            .filter_map(|second| Period::of(first.unit, second.max(before.saturating_sub(1))))
            .chain(wanted.iter().copied())
            .filter(|period| !reached(period.to))
            .collect();
        periods.sort_by_key(|period| period.to);
        periods.dedup();
        let Some(newest) = periods.last().copied() else {
            return Ok(Prepared::Done);
        };
        let made: Vec<_> = periods
            .into_iter()
            .map(|period| {
                let name = free_name(&period.name(), &parts);
                format!("PARTITION {name} VALUES LESS THAN ({})", period.to)
            })
            .collect();
        self.at_once(&format!(
            "ALTER TABLE ulog REORGANIZE PARTITION rest INTO ({}, PARTITION rest VALUES LESS THAN MAXVALUE)",
            made.join(", ")
        ))
        .await?;
        Ok(Prepared::Made(newest.name()))
    }

    /// Makes a partition of `rest` itself, up to the end of this period, since too many rows are in it to be copied while
    /// others wait: they are exchanged away, nothing is cut, and they are exchanged back. Nobody sees the archive without
    /// them; after an end in the middle they are put back by [`Self::put_back`].
    async fn adopt_rest(&mut self, current: Period, parts: &[Part]) -> Result<Prepared, StoreError> {
        let name = free_name(&current.name(), parts);
        let to = current.to;
        let cut = format!(
            "ALTER TABLE ulog REORGANIZE PARTITION rest INTO \
             (PARTITION {name} VALUES LESS THAN ({to}), PARTITION rest VALUES LESS THAN MAXVALUE)"
        );
        let strangers = format!(
            "SELECT count(*) FROM (SELECT 1 FROM ulog PARTITION (rest) WHERE oob_time_sec >= {to} LIMIT 1) AS few"
        );
        if self.scalar::<i64>(&strangers).await? > 0 {
            // They do not fit, and the exchange would refuse: the server copies, and writers wait for it.
            self.at_once(&cut).await?;
            return Ok(Prepared::Made(name));
        }
        self.execute(&format!("CREATE TABLE {ASIDE} LIKE ulog")).await?;
        self.execute(&format!("ALTER TABLE {ASIDE} REMOVE PARTITIONING"))
            .await?;
        let locked = async {
            self.at_once(&format!("LOCK TABLES ulog WRITE, {ASIDE} WRITE"))
                .await?;
            self.execute(&format!(
                "ALTER TABLE ulog EXCHANGE PARTITION rest WITH TABLE {ASIDE}"
            ))
            .await?;
            self.execute(&cut).await?;
            self.execute(&format!(
                "ALTER TABLE ulog EXCHANGE PARTITION {name} WITH TABLE {ASIDE}"
            ))
            .await
        }
        .await;
        self.execute("UNLOCK TABLES").await?;
        self.put_back().await?;
        locked.map(|()| Prepared::Made(name))
    }

    /// Puts rows that were aside back into the archive, where they belong now, and drops what held them.
    async fn put_back(&mut self) -> Result<(), StoreError> {
        while self
            .count(&format!("(SELECT 1 FROM {ASIDE} LIMIT 1) AS few"))
            .await?
            > 0
        {
            let last: i64 = self
                .scalar(&format!(
                    "SELECT max(id) FROM (SELECT id FROM {ASIDE} ORDER BY id LIMIT {BATCH}) AS few"
                ))
                .await?;
            let moved = self
                .execute(&format!(
                    "START TRANSACTION; INSERT INTO ulog SELECT * FROM {ASIDE} WHERE id <= {last}; \
                     DELETE FROM {ASIDE} WHERE id <= {last}; COMMIT"
                ))
                .await;
            if moved.is_err() {
                let _ = self.execute("ROLLBACK").await;
            }
            moved?;
        }
        self.execute(&format!("DROP TABLE {ASIDE}")).await
    }

    /// Takes the rows of a partition out of the archive; an empty partition is dropped.
    pub(super) async fn detach(&mut self, part: &Part, export: bool) -> Result<Taken, StoreError> {
        let name = &part.name;
        let any = format!("SELECT count(*) FROM (SELECT 1 FROM ulog PARTITION ({name}) LIMIT 1) AS few");
        if self.scalar::<i64>(&any).await? > 0 {
            let detached = Detached {
                name: GONE.to_owned(),
                span: part.span,
                export,
            };
            let comment = detached.comment();
            // An attempt before this one, which did not get its lock, has left an empty one.
            if self.table(GONE).await?.is_some() {
                let left = self.count(GONE).await?;
                if left > 0 {
                    return Err(StoreError::Corrupt {
                        path: self.log.clone(),
                        message: format!("{left} rows are in {GONE} already: run ulog-rotate again"),
                    });
                }
                self.discard(GONE).await?;
            }
            self.execute(&format!("CREATE TABLE {GONE} LIKE ulog")).await?;
            self.execute(&format!("ALTER TABLE {GONE} REMOVE PARTITIONING"))
                .await?;
            self.execute(&format!("ALTER TABLE {GONE} COMMENT = '{comment}'"))
                .await?;
            self.at_once(&format!(
                "ALTER TABLE ulog EXCHANGE PARTITION {name} WITH TABLE {GONE}"
            ))
            .await?;
            return Ok(Taken::Again(detached));
        }
        self.at_once("LOCK TABLES ulog WRITE").await?;
        let dropped = async {
            // A connection that began long ago and has just ended may have come meanwhile.
            if self.scalar::<i64>(&any).await? > 0 {
                return Err(StoreError::Busy(self.log.clone()));
            }
            self.execute(&format!("ALTER TABLE ulog DROP PARTITION {name}"))
                .await
        }
        .await;
        self.execute("UNLOCK TABLES").await?;
        dropped.map(|()| Taken::Nothing)
    }

    /// Rows before `before` that have no partition.
    pub(super) async fn homeless(&mut self, before: i64) -> Result<u64, StoreError> {
        let rows = format!("ulog PARTITION (rest) WHERE oob_time_sec < {before}");
        self.count(&rows).await
    }

    /// Rows of a detached table with larger ids, in their order.
    pub(super) async fn read(
        &mut self,
        table: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let columns = columns::as_text(Kept::Archive, Dialect::MySql);
        let text = format!("SELECT {columns} FROM {table} AS t WHERE t.id > ? ORDER BY t.id LIMIT ?");
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(after)
            .bind(limit)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        columns::records(&rows, |source| StoreError::from_server(&self.log, source))
    }

    pub(super) async fn discard(&mut self, table: &str) -> Result<(), StoreError> {
        self.execute(&format!("DROP TABLE {table}")).await
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
            Kept::Sessions => "t.end_reason IS NOT NULL AND coalesce(t.end_time, t.start_time)",
            Kept::Gaps => "t.to_timestamp",
        };
        let columns = columns::as_text(kept, Dialect::MySql);
        let table = kept.table();
        let text = format!(
            "SELECT {columns} FROM {table} AS t WHERE {over} < timestampadd(SECOND, ?, timestamp'1970-01-01 00:00:00') \
             AND t.id > ? ORDER BY t.id LIMIT ?"
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(before)
            .bind(after)
            .bind(limit)
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
        if ids.is_empty() {
            return Ok(0);
        }
        let ids: Vec<_> = ids.iter().map(i64::to_string).collect();
        let text = format!("DELETE FROM {table} WHERE id IN ({})", ids.join(", "));
        let done = sqlx::raw_sql(AssertSqlSafe(text))
            .execute(&mut self.connection)
            .await
            .map_err(|source| self.error(source))?;
        Ok(done.rows_affected())
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        let mut this = self;
        // The connection may last a moment longer than this.
        let released = format!(
            "DO RELEASE_LOCK(concat('nulog.', left(sha1(database()), 20), '.{}'))",
            Job::Rotate.name()
        );
        let _ = this.execute(&released).await;
        let log = this.log;
        this.connection
            .close()
            .await
            .map_err(|source| StoreError::from_server(&log, source))
    }
}
