//! The log on a `PostgreSQL` server: one connection, which holds the lock of the server's number.
//!
//! After anything that leaves the connection in doubt it is given up; the next call makes a new one and takes the lock again.

mod replay;
mod statements;
pub(crate) mod types;
mod write;

use crate::ids::{self, IdBlock};
use crate::remote::{LOCK_PATIENCE, LOCK_RETRY, START_TIMEOUT, limited};
use crate::rows::{self, Acknowledged};
use crate::store::Applied;
use crate::{ActiveRow, Change, Location, StoreError, schema};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The first half of the advisory locks' keys ("nulo"); the second is the server's number, or 0 for a migration.
pub(crate) const LOCK_CLASS: i32 = 0x6e75_6c6f;

pub(crate) struct Postgres {
    options: PgConnectOptions,
    log: PathBuf,
    connect_timeout: Duration,
    transaction_timeout: Duration,
    number: u16,
    /// Which life of this server's number we are.
    epoch: i64,
    /// The first sequence number that we have not reserved.
    reserved: i64,
    connection: Option<PgConnection>,
    /// The server's process behind the last connection.
    process: Option<i32>,
    begin: Arc<str>,
    texts: write::Texts,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("log", &self.log)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    pub(crate) async fn open(
        options: &PgConnectOptions,
        location: &Location,
        number: u16,
    ) -> Result<Self, StoreError> {
        let mut store = Self {
            options: options.clone(),
            log: location.name(),
            connect_timeout: location.connect_timeout,
            transaction_timeout: location.transaction_timeout,
            number,
            epoch: 0,
            reserved: 1,
            connection: None,
            process: None,
            // A statement sees what was committed before it, so that a row that is found in neither table is in neither.
            // Shared with nobody who only reads; whoever takes the number over has to wait for the end of the transaction.
            begin: format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT epoch FROM servers WHERE number = {number} FOR SHARE").into(),
            texts: write::Texts::default(),
        };
        let mut connection = store.connect().await?;
        schema::expect_current(&mut connection, &store.log).await?;
        store.lock(&mut connection).await?;
        let error = |source| StoreError::from_server(&store.log, source);
        let epoch = sqlx::query_scalar(statements::LEASE)
            .bind(i32::from(number))
            .fetch_one(&mut connection)
            .await
            .map_err(error)?;
        let (first, end) = ids::range(number);
        sqlx::query(statements::SESSIONS_LEFT_OPEN)
            .bind(first)
            .bind(end)
            .execute(&mut connection)
            .await
            .map_err(error)?;
        store.epoch = epoch;
        store.connection = Some(connection);
        Ok(store)
    }

    /// A new connection with the settings that the promises need.
    async fn connect(&mut self) -> Result<PgConnection, StoreError> {
        let connected = limited(&self.log, self.connect_timeout, async {
            self.options
                .connect()
                .await
                .map_err(|source| StoreError::from_connect(&self.log, source))
        });
        let mut connection = connected.await?;
        let limit = self.transaction_timeout.as_millis();
        // One plan for any number of rows: ids are looked up one by one, whatever the size of the table was. A statement
        // that we gave up must not go on for long; a commit is never less than durable, whatever the server's default. Each
        // statement sees what was committed before it: a row that is moved to the archive is then found in one of the two.
        let settings = format!(
            "SET default_transaction_isolation = 'read committed'; \
             SET timezone = 'UTC'; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
             SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {limit}; \
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        );
        limited(&self.log, self.connect_timeout, async {
            sqlx::raw_sql(AssertSqlSafe(settings))
                .execute(&mut connection)
                .await
                .map_err(|source| StoreError::from_connect(&self.log, source))
        })
        .await?;
        Ok(connection)
    }

    /// Takes the lock of the number, which goes with the connection.
    async fn lock(&mut self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let number = i32::from(self.number);
        let error = |source| StoreError::from_server(&self.log, source);
        let mut waited = Duration::ZERO;
        loop {
            let taken: bool = sqlx::query_scalar(statements::TRY_LOCK)
                .bind(LOCK_CLASS)
                .bind(number)
                .fetch_one(&mut *connection)
                .await
                .map_err(error)?;
            if taken {
                let process = sqlx::query_scalar("SELECT pg_backend_pid()")
                    .fetch_one(connection)
                    .await
                    .map_err(error)?;
                self.process = Some(process);
                return Ok(());
            }
            let holder: Option<(i32, String)> = sqlx::query_as(statements::HOLDER)
                .bind(LOCK_CLASS)
                .bind(number)
                .fetch_optional(&mut *connection)
                .await
                .map_err(error)?;
            match &holder {
                // Our own earlier connection, of which the server has not seen the end.
                Some((process, _)) if Some(*process) == self.process => {
                    sqlx::query("SELECT pg_terminate_backend($1)")
                        .bind(process)
                        .execute(&mut *connection)
                        .await
                        .map_err(error)?;
                }
                _ => {}
            }
            if waited >= LOCK_PATIENCE {
                return Err(StoreError::NumberInUse {
                    log: self.log.clone(),
                    number: self.number,
                    holder: holder.map_or_else(String::new, |(process, holder)| {
                        format!("{holder} (database process {process})")
                    }),
                });
            }
            tokio::time::sleep(LOCK_RETRY).await;
            waited += LOCK_RETRY;
        }
    }

    /// The connection, made anew if it was lost. Whoever takes it gives it back when it is in order; a future that is
    /// dropped in between takes it away.
    async fn take(&mut self) -> Result<PgConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let mut connection = self.connect().await?;
        let limit = LOCK_PATIENCE + self.transaction_timeout;
        let log = self.log.clone();
        limited(&log, limit, async {
            schema::expect_current(&mut connection, &self.log).await?;
            self.lock(&mut connection).await?;
            let renewed = sqlx::query(statements::RENEW)
                .bind(i32::from(self.number))
                .bind(self.epoch)
                .execute(&mut connection)
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))?;
            if renewed.rows_affected() == 0 {
                return Err(self.taken_over());
            }
            Ok(())
        })
        .await?;
        tracing::info!(database = %log.display(), "connected to the log database again");
        Ok(connection)
    }

    fn taken_over(&self) -> StoreError {
        StoreError::TakenOver {
            log: self.log.clone(),
            number: self.number,
        }
    }

    async fn begin(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let rows = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.begin)))
            .fetch_all(connection)
            .await
            .map_err(|source| StoreError::from_server(&self.log, source))?;
        let epoch = rows.first().map(|row| sqlx::Row::try_get::<i64, _>(row, 0));
        match epoch {
            Some(Ok(epoch)) if epoch == self.epoch => Ok(()),
            Some(Err(source)) => Err(StoreError::from_server(&self.log, source)),
            _ => Err(self.taken_over()),
        }
    }

    async fn commit(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT")
            .execute(connection)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_server(&self.log, source))
    }

    /// Gives the connection back unless `result` says that it is in doubt; what was begun is taken back.
    async fn give_back<T>(&mut self, mut connection: PgConnection, result: &Result<T, StoreError>) {
        let usable = match result {
            Ok(_) => true,
            Err(error) if error.spoiled_row().is_some() => {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut connection);
                let done = tokio::time::timeout(self.transaction_timeout, rollback).await;
                matches!(done, Ok(Ok(_)))
            }
            Err(_) => false,
        };
        if usable {
            self.connection = Some(connection);
        }
    }

    pub(crate) async fn apply(&mut self, changes: &[Change]) -> Result<Applied, StoreError> {
        if changes.is_empty() {
            return Ok(Applied::default());
        }
        let mut connection = self.take().await?;
        let result = limited(&self.log, self.transaction_timeout, async {
            self.begin(&mut connection).await?;
            let applied = self.write(&mut connection, changes).await?;
            self.commit(&mut connection).await?;
            Ok(applied)
        })
        .await;
        self.give_back(connection, &result).await;
        result
    }

    pub(crate) async fn reserve_ids(&mut self, count: u32) -> Result<IdBlock, StoreError> {
        let mut connection = self.take().await?;
        let result = limited(&self.log, self.transaction_timeout, async {
            self.begin(&mut connection).await?;
            let first: i64 = sqlx::query_scalar(statements::RESERVE)
                .bind(i32::from(self.number))
                .bind(self.reserved)
                .bind(i64::from(count))
                .fetch_one(&mut connection)
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))?;
            self.commit(&mut connection).await?;
            Ok(first)
        })
        .await;
        self.give_back(connection, &result).await;
        let first = result?;
        self.reserved = first.saturating_add(i64::from(count));
        IdBlock::new(self.number, first, count)
    }

    pub(crate) async fn active_rows(&mut self) -> Result<Vec<ActiveRow>, StoreError> {
        let mut connection = self.take().await?;
        let (first, end) = ids::range(self.number);
        let result = limited(&self.log, START_TIMEOUT, async {
            let limit = START_TIMEOUT.as_millis();
            let settings =
                format!("BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL enable_seqscan = on");
            let error = |source| StoreError::from_server(&self.log, source);
            sqlx::raw_sql(AssertSqlSafe(settings))
                .execute(&mut connection)
                .await
                .map_err(error)?;
            let rows = sqlx::query_as(statements::ACTIVE)
                .bind(first)
                .bind(end)
                .fetch_all(&mut connection)
                .await
                .map_err(error)?;
            self.commit(&mut connection).await?;
            Ok(rows)
        })
        .await;
        self.give_back(connection, &result).await;
        rows::active(result?, &self.log)
    }

    pub(crate) async fn acknowledged(&mut self) -> Result<Acknowledged, StoreError> {
        let mut connection = self.take().await?;
        let result = limited(&self.log, self.transaction_timeout, async {
            sqlx::query_as(rows::ACKNOWLEDGED)
                .fetch_all(&mut connection)
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))
        })
        .await;
        self.give_back(connection, &result).await;
        rows::acknowledged(result?, &self.log)
    }

    pub(crate) async fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        let Some(connection) = self.connection.take() else {
            return Ok(());
        };
        limited(&self.log, self.connect_timeout, async {
            connection
                .close()
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))
        })
        .await
    }
}
