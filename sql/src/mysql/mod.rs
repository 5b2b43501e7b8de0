//! The log on a `MariaDB` or `MySQL` server: one connection, which holds the lock of the server's number.
//!
//! After anything that leaves the connection in doubt it is given up; the next call makes a new one and takes the lock again.

mod json;
mod replay;
mod statements;
mod write;

use crate::ids::{self, IdBlock};
use crate::remote::{LOCK_PATIENCE, LOCK_RETRY, START_TIMEOUT, limited};
use crate::rows::{self, Acknowledged};
use crate::store::Applied;
use crate::{ActiveRow, Change, Location, StoreError, schema};
use nufw_proto::Addr;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An address as the tables have it.
pub(crate) fn bytes(address: Addr) -> Vec<u8> {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(crate) struct MySql {
    options: MySqlConnectOptions,
    log: PathBuf,
    connect_timeout: Duration,
    transaction_timeout: Duration,
    number: u16,
    /// Which life of this server's number we are.
    epoch: i64,
    /// The first sequence number that we have not reserved.
    reserved: i64,
    connection: Option<MySqlConnection>,
    /// The server's thread behind the last connection.
    process: Option<i64>,
    begin: Arc<str>,
    texts: write::Texts,
}

impl std::fmt::Debug for MySql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MySql")
            .field("log", &self.log)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl MySql {
    pub(crate) async fn open(
        options: &MySqlConnectOptions,
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
            // Shared with nobody who only reads; whoever takes the number over has to wait for the end of the transaction.
            begin: format!(
                "START TRANSACTION; SELECT epoch FROM servers WHERE number = {number} LOCK IN SHARE MODE"
            )
            .into(),
            texts: write::Texts::default(),
        };
        let mut connection = store.connect().await?;
        schema::expect_current(&mut connection, &store.log).await?;
        store.lock(&mut connection).await?;
        let error = |source| StoreError::from_server(&store.log, source);
        sqlx::query(statements::LEASE)
            .bind(i32::from(number))
            .execute(&mut connection)
            .await
            .map_err(error)?;
        let epoch = sqlx::query_scalar("SELECT epoch FROM servers WHERE number = ?")
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
    async fn connect(&mut self) -> Result<MySqlConnection, StoreError> {
        let connected = limited(&self.log, self.connect_timeout, async {
            self.options
                .connect()
                .await
                .map_err(|source| StoreError::from_connect(&self.log, source))
        });
        let mut connection = connected.await?;
        let limit = self.transaction_timeout.as_secs().max(1);
        // No locks on gaps between ids, which would make writers of other servers wait; text that does not fit is an error,
        // whatever the server's default.
        let settings = format!(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION innodb_lock_wait_timeout = {limit}; \
             SET SESSION autocommit = 1; SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
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
    async fn lock(&mut self, connection: &mut MySqlConnection) -> Result<(), StoreError> {
        let number = i32::from(self.number);
        let error = |source| StoreError::from_server(&self.log, source);
        let mut waited = Duration::ZERO;
        loop {
            let taken: Option<i64> = sqlx::query_scalar(statements::TRY_LOCK)
                .bind(number)
                .fetch_one(&mut *connection)
                .await
                .map_err(error)?;
            if taken == Some(1) {
                let process = sqlx::query_scalar("SELECT CAST(connection_id() AS SIGNED)")
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(error)?;
                self.process = Some(process);
                self.warn_of_lost_commits(connection).await;
                return Ok(());
            }
            let holder: Option<i64> = sqlx::query_scalar(statements::HOLDER)
                .bind(number)
                .fetch_one(&mut *connection)
                .await
                .map_err(error)?;
            if let Some(process) = holder.filter(|process| Some(*process) == self.process) {
                // Our own earlier connection, of which the server has not seen the end; it may just have gone.
                let _ = sqlx::raw_sql(AssertSqlSafe(format!("KILL CONNECTION {process}")))
                    .execute(&mut *connection)
                    .await;
            }
            if waited >= LOCK_PATIENCE {
                return Err(StoreError::NumberInUse {
                    log: self.log.clone(),
                    number: self.number,
                    holder: holder.map_or_else(String::new, |process| format!("database thread {process}")),
                });
            }
            tokio::time::sleep(LOCK_RETRY).await;
            waited += LOCK_RETRY;
        }
    }

    /// Whether a commit is durable is a setting of the whole server here.
    async fn warn_of_lost_commits(&self, connection: &mut MySqlConnection) {
        let flush: Result<i64, _> =
            sqlx::query_scalar("SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED)")
                .fetch_one(connection)
                .await;
        if let Ok(flush) = flush
            && flush != 1
        {
            tracing::warn!(
                database = %self.log.display(),
                innodb_flush_log_at_trx_commit = flush,
                "commits are not durable on this database server: rows of accepted connections can be lost when it crashes; set innodb_flush_log_at_trx_commit to 1"
            );
        }
    }

    /// The connection, made anew if it was lost. Whoever takes it gives it back when it is in order; a future that is
    /// dropped in between takes it away.
    async fn take(&mut self) -> Result<MySqlConnection, StoreError> {
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
                .bind(self.epoch)
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

    async fn begin(&self, connection: &mut MySqlConnection) -> Result<(), StoreError> {
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

    async fn commit(&self, connection: &mut MySqlConnection) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT")
            .execute(connection)
            .await
            .map(drop)
            .map_err(|source| StoreError::from_server(&self.log, source))
    }

    /// Gives the connection back unless `result` says that it is in doubt; what was begun is taken back.
    async fn give_back<T>(&mut self, mut connection: MySqlConnection, result: &Result<T, StoreError>) {
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
            let error = |source| StoreError::from_server(&self.log, source);
            let next: i64 =
                sqlx::query_scalar("SELECT next_sequence FROM servers WHERE number = ? FOR UPDATE")
                    .bind(i32::from(self.number))
                    .fetch_one(&mut connection)
                    .await
                    .map_err(error)?;
            // Also where a replica that lost the last reservations has taken over.
            let first = next.max(self.reserved);
            sqlx::query("UPDATE servers SET next_sequence = ? WHERE number = ?")
                .bind(first.saturating_add(i64::from(count)))
                .bind(i32::from(self.number))
                .execute(&mut connection)
                .await
                .map_err(error)?;
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
            let error = |source| StoreError::from_server(&self.log, source);
            let rows = sqlx::query_as(statements::ACTIVE)
                .bind(first)
                .bind(end)
                .fetch_all(&mut connection)
                .await
                .map_err(error)?;
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
