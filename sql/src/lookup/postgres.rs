//! Looks into a `PostgreSQL` database, by pooled connections whose transactions cannot write.
//!
//! A connection that failed is not judged here: whoever asks opens the log anew.

use super::{Found, LookupOptions, Question};
use crate::columns::small;
use crate::postgres::types::Inet;
use crate::remote::limited;
use crate::{Location, StoreError, schema};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::path::{Path, PathBuf};

/// One statement, a line of the union for each way of [`Found`]; of each the newest row. The source's address and port,
/// the destination's, and the protocol are $1 to $5; $6 is the newest row that may still make us wait, $7 and $8 the time
/// of the oldest.
///
/// `id + 0` keeps the planner from walking the table by its ids.
pub(crate) const LOOK: &str = "\
    SELECT 0::bigint, * FROM (SELECT id, oob_time_sec, oob_time_usec::bigint, user_id, username, gateway FROM sso \
      WHERE ip_saddr = $1 AND sport = $2 AND ip_daddr = $3 AND dport = $4 AND ip_protocol = $5 \
      ORDER BY id + 0 DESC LIMIT 1) AS original \
    UNION ALL \
    SELECT 1, * FROM (SELECT id, oob_time_sec, oob_time_usec::bigint, user_id, username, gateway FROM sso \
      WHERE ip_saddr = $1 AND sport = $2 AND reply_daddr = $1 AND reply_dport = $2 \
      AND reply_saddr = $3 AND reply_sport = $4 AND ip_protocol = $5 \
      ORDER BY id + 0 DESC LIMIT 1) AS reply \
    UNION ALL \
    SELECT 2, * FROM (SELECT id, oob_time_sec, oob_time_usec::bigint, user_id, username, gateway FROM sso \
      WHERE nat_saddr = $1 AND nat_sport = $2 AND reply_saddr = $3 AND reply_sport = $4 AND ip_protocol = $5 \
      ORDER BY id + 0 DESC LIMIT 1) AS translated \
    UNION ALL \
    SELECT 3, * FROM (SELECT id, oob_time_sec, oob_time_usec::bigint, NULL::bigint, NULL::text, gateway FROM sso \
      WHERE ip_saddr = $1 AND sport = $2 AND state = 1 AND ct_id IS NULL \
      AND reply_saddr = $3 AND reply_sport = $4 AND ip_protocol = $5 AND id + 0 <= $6 \
      ORDER BY id + 0 DESC LIMIT 1) AS own \
    UNION ALL \
    SELECT 4, * FROM (SELECT id, oob_time_sec, oob_time_usec::bigint, NULL::bigint, NULL::text, gateway FROM sso \
      WHERE (oob_time_sec, oob_time_usec) >= ($7, $8) AND state = 1 AND ct_id IS NULL \
      AND reply_saddr = $3 AND reply_sport = $4 AND ip_protocol = $5 AND id + 0 <= $6 \
      ORDER BY id + 0 DESC LIMIT 1) AS others";

/// One plan for all questions, by the indexes alone, whatever the size of the table was when it was made: a question finds a
/// few rows, for which starting helpers and compiling takes a hundred times as long as reading them.
pub(crate) const SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
    SET enable_bitmapscan = off; SET max_parallel_workers_per_gather = 0; SET jit = off";

#[derive(Debug, Clone)]
pub(super) struct Postgres {
    pool: PgPool,
    log: PathBuf,
}

impl Postgres {
    pub(super) async fn open(
        connect: &PgConnectOptions,
        location: &Location,
        options: LookupOptions,
    ) -> Result<Self, StoreError> {
        let log = location.name();
        let settings = format!(
            "{SETTINGS}; SET default_transaction_read_only = on; SET timezone = 'UTC'; SET statement_timeout = {}; \
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3",
            // What we gave up must not go on for long.
            options.patience.as_millis().max(1)
        );
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(location.connect_timeout)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let settings = AssertSqlSafe(settings.clone());
                Box::pin(async move { connection.execute(sqlx::raw_sql(settings)).await.map(drop) })
            });
        let connect = connect.clone().application_name("nu-sso");
        // The pool would try a server that refuses again and again, while askers wait for its answer.
        let first = Box::pin(async {
            let mut first = connect
                .connect()
                .await
                .map_err(|source| StoreError::from_connect(&log, source))?;
            schema::expect_current(&mut first, &log).await?;
            first
                .close()
                .await
                .map_err(|source| StoreError::from_server(&log, source))
        });
        limited(&log, location.connect_timeout, first).await?;
        let pool = pool.connect_lazy_with(connect);
        Ok(Self { pool, log })
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn look(&self, question: &Question) -> Result<Vec<Found>, StoreError> {
        let rows = sqlx::query(LOOK)
            .bind(Inet(question.src))
            .bind(question.sport)
            .bind(Inet(question.dst))
            .bind(question.dport)
            .bind(question.protocol)
            .bind(question.newest)
            .bind(question.since.0)
            .bind(small(question.since.1))
            .fetch_all(&self.pool)
            .await;
        rows.and_then(|rows| rows.iter().map(Found::read).collect())
            .map_err(|source| StoreError::from_server(&self.log, source))
    }
}
