//! Looks into a `MariaDB` or `MySQL` database, by pooled connections whose transactions cannot write.
//!
//! A connection that failed is not judged here: whoever asks opens the log anew.

use super::{Found, LookupOptions, Question};
use crate::mysql::bytes;
use crate::remote::limited;
use crate::{Location, StoreError, schema};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::path::{Path, PathBuf};

/// One statement, a line of the union for each way of [`Found`]; of each the newest row. Parameters in the order of
/// [`MySql::look`].
///
/// `id + 0` keeps the planner from walking the table by its ids. Parts in parentheses are given as they are found, while
/// tables derived from them would each be a table on the disk, since names are TEXT.
pub(crate) const LOOK: &str = "\
    (SELECT 0 AS way, id, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE ip_saddr = ? AND sport = ? AND ip_daddr = ? AND dport = ? AND ip_protocol = ? \
      ORDER BY id + 0 DESC LIMIT 1) \
    UNION ALL \
    (SELECT 1 AS way, id, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE ip_saddr = ? AND sport = ? AND reply_daddr = ? AND reply_dport = ? \
      AND reply_saddr = ? AND reply_sport = ? AND ip_protocol = ? \
      ORDER BY id + 0 DESC LIMIT 1) \
    UNION ALL \
    (SELECT 2 AS way, id, oob_time_sec, oob_time_usec, user_id, username, gateway FROM sso \
      WHERE nat_saddr = ? AND nat_sport = ? AND reply_saddr = ? AND reply_sport = ? AND ip_protocol = ? \
      ORDER BY id + 0 DESC LIMIT 1) \
    UNION ALL \
    (SELECT 3 AS way, id, oob_time_sec, oob_time_usec, NULL, NULL, gateway FROM sso \
      WHERE ip_saddr = ? AND sport = ? AND state = 1 AND ct_id IS NULL \
      AND reply_saddr = ? AND reply_sport = ? AND ip_protocol = ? AND id + 0 <= ? \
      ORDER BY id + 0 DESC LIMIT 1) \
    UNION ALL \
    (SELECT 4 AS way, id, oob_time_sec, oob_time_usec, NULL, NULL, gateway FROM sso \
      WHERE (oob_time_sec > ? OR oob_time_sec = ? AND oob_time_usec >= ?) AND state = 1 AND ct_id IS NULL \
      AND reply_saddr = ? AND reply_sport = ? AND ip_protocol = ? AND id + 0 <= ? \
      ORDER BY id + 0 DESC LIMIT 1)";

#[derive(Debug, Clone)]
pub(super) struct MySql {
    pool: MySqlPool,
    log: PathBuf,
}

impl MySql {
    pub(super) async fn open(
        connect: &MySqlConnectOptions,
        location: &Location,
        options: LookupOptions,
    ) -> Result<Self, StoreError> {
        let log = location.name();
        // The comment is MariaDB's alone, by its form. What we gave up must not go on for long.
        let settings = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY; \
             SET SESSION autocommit = 1 /*M! , max_statement_time = {} */",
            options.patience.as_secs_f64()
        );
        let pool = MySqlPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(location.connect_timeout)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let settings = AssertSqlSafe(settings.clone());
                Box::pin(async move { connection.execute(sqlx::raw_sql(settings)).await.map(drop) })
            });
        let connect = connect.clone();
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
        let Question {
            sport,
            dport,
            protocol,
            newest,
            since: (seconds, micros),
            ..
        } = *question;
        let (src, dst) = (bytes(question.src), bytes(question.dst));
        let (src, dst) = (src.as_slice(), dst.as_slice());
        let original = sqlx::query(LOOK)
            .bind(src)
            .bind(sport)
            .bind(dst)
            .bind(dport)
            .bind(protocol);
        let reply = original.bind(src).bind(sport).bind(src).bind(sport);
        let reply = reply.bind(dst).bind(dport).bind(protocol);
        let translated = reply.bind(src).bind(sport).bind(dst).bind(dport).bind(protocol);
        let own = translated.bind(src).bind(sport).bind(dst).bind(dport);
        let others = own
            .bind(protocol)
            .bind(newest)
            .bind(seconds)
            .bind(seconds)
            .bind(micros);
        let look = others.bind(dst).bind(dport).bind(protocol).bind(newest);
        let rows = look.fetch_all(&self.pool).await;
        rows.and_then(|rows| rows.iter().map(Found::read).collect())
            .map_err(|source| StoreError::from_server(&self.log, source))
    }
}
