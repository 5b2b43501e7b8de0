//! Upkeep of the log by a program of its own: on a database server beside the servers that write, in a file in the place of a
//! server that does not run.
//!
//! One program at a time for each kind of upkeep. It writes no row that a server has not written.

use crate::Work;
use crate::location::Kind;
use crate::postgres::LOCK_CLASS;
use crate::remote::limited;
use crate::sqlite::{self, Sqlite};
use crate::upkeep::{Pace, STEP_ON_SERVER, Upkeep, UpkeepDone};
use crate::{Location, StoreError, schema};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kinds of upkeep that may run at the same time as each other, but not twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Moving dead rows to the archive.
    Clean,
    /// Keeping the archive bounded.
    Rotate,
}

impl Job {
    /// The name of its lock.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Rotate => "rotate",
        }
    }

    /// The second half of its lock's key on `PostgreSQL`; servers have positive ones.
    pub(crate) fn key(self) -> i32 {
        match self {
            Self::Clean => -1,
            Self::Rotate => -2,
        }
    }
}

/// The log as a program sees it that does upkeep.
#[derive(Debug)]
pub struct Keeper(Inner);

#[derive(Debug)]
enum Inner {
    File(FileKeeper),
    Postgres(Box<PostgresKeeper>),
    MySql(Box<MySqlKeeper>),
}

#[derive(Debug)]
struct FileKeeper {
    path: PathBuf,
    store: Option<Box<Sqlite>>,
    /// Held for as long as this lives.
    _job: File,
}

#[derive(Debug)]
pub(crate) struct PostgresKeeper {
    pub(crate) connection: PgConnection,
    pub(crate) log: PathBuf,
    pub(crate) pace: Pace,
    limit: Duration,
}

#[derive(Debug)]
pub(crate) struct MySqlKeeper {
    pub(crate) connection: MySqlConnection,
    pub(crate) log: PathBuf,
    pub(crate) pace: Pace,
    limit: Duration,
}

impl Keeper {
    /// Opens the log, which must have the schema of this version, and takes the lock of the job. A file is not touched before
    /// the first step.
    pub fn open(location: &Location, job: Job) -> Work<'_, Result<Self, StoreError>> {
        Box::pin(async move {
            let log = location.name();
            let inner = match &location.kind {
                Kind::Sqlite(path) => Inner::File(FileKeeper::open(path, job)?),
                Kind::Postgres(options) => {
                    let options = (**options).clone().application_name(match job {
                        Job::Clean => "clean-conntrack",
                        Job::Rotate => "ulog-rotate",
                    });
                    let open = PostgresKeeper::open(&options, location, job);
                    Inner::Postgres(Box::new(limited(&log, location.connect_timeout, open).await?))
                }
                Kind::MySql(options) => {
                    let open = MySqlKeeper::open(options, location, job);
                    Inner::MySql(Box::new(limited(&log, location.connect_timeout, open).await?))
                }
            };
            Ok(Self(inner))
        })
    }

    /// Does one step. After an error none of it is done, unless the error came from the commit itself or from a lost
    /// connection: then it may be, and doing it again is harmless.
    pub fn upkeep<'a>(&'a mut self, step: &'a Upkeep) -> Work<'a, Result<UpkeepDone, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::File(keeper) => keeper.store().await?.upkeep(step).await,
                Inner::Postgres(keeper) => {
                    let (log, limit) = (keeper.log.clone(), keeper.limit);
                    limited(&log, limit, keeper.upkeep(step)).await
                }
                Inner::MySql(keeper) => {
                    let (log, limit) = (keeper.log.clone(), keeper.limit);
                    limited(&log, limit, keeper.upkeep(step)).await
                }
            }
        })
    }

    /// Lets a server that wants to start have the file; the next step takes it again. Nothing on a database server.
    pub fn give_way(&mut self) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::File(keeper) => match keeper.store.take() {
                    Some(store) => store.close().await,
                    None => Ok(()),
                },
                Inner::Postgres(_) | Inner::MySql(_) => Ok(()),
            }
        })
    }

    /// Leaves the log in order.
    pub fn close(mut self) -> Work<'static, Result<(), StoreError>> {
        Box::pin(async move {
            self.give_way().await?;
            let (log, closed) = match self.0 {
                Inner::File(_) => return Ok(()),
                Inner::Postgres(keeper) => (keeper.log, keeper.connection.close().await),
                Inner::MySql(keeper) => (keeper.log, keeper.connection.close().await),
            };
            closed.map_err(|source| StoreError::from_server(&log, source))
        })
    }
}

impl FileKeeper {
    fn open(path: &Path, job: Job) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_path_buf()));
        }
        let lock = sqlite::lock(path, &format!(".{}.lock", job.name())).map_err(|error| match error {
            StoreError::InUse { pid, .. } => StoreError::AtIt {
                log: path.to_path_buf(),
                job: job.name(),
                holder: pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
            },
            other => other,
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            store: None,
            _job: lock,
        })
    }

    async fn store(&mut self) -> Result<&mut Sqlite, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Box::new(Sqlite::open_for_upkeep(&self.path).await?),
        };
        Ok(self.store.insert(store))
    }
}

impl PostgresKeeper {
    async fn open(
        options: &sqlx::postgres::PgConnectOptions,
        location: &Location,
        job: Job,
    ) -> Result<Self, StoreError> {
        let log = location.name();
        let error = |source| StoreError::from_server(&log, source);
        let connected = options.connect().await;
        let mut connection = connected.map_err(|source| StoreError::from_connect(&log, source))?;
        let limit = location.transaction_timeout;
        let millis = limit.as_millis();
        // While it waits for a rotation of the archive it holds rows that a server may want, so it gives up soon and is tried
        // again. One plan for any number of rows, by ids alone. Losing the last steps in a crash undoes them whole, and what a server
        // commits later takes them with it: so they need not wait for the disk, nor keep it from the servers.
        let settings = format!(
            "SET default_transaction_isolation = 'read committed'; \
             SET timezone = 'UTC'; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
             SET synchronous_commit = off; SET lock_timeout = '50ms'; SET statement_timeout = {millis}; \
             SET idle_in_transaction_session_timeout = {millis}"
        );
        sqlx::raw_sql(AssertSqlSafe(settings))
            .execute(&mut connection)
            .await
            .map_err(error)?;
        schema::expect_current(&mut connection, &log).await?;
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(job.key())
            .fetch_one(&mut connection)
            .await
            .map_err(error)?;
        if !taken {
            return Err(at_it(log, job));
        }
        Ok(Self {
            connection,
            log,
            pace: Pace::new(STEP_ON_SERVER),
            limit,
        })
    }

    async fn upkeep(&mut self, step: &Upkeep) -> Result<UpkeepDone, StoreError> {
        match step {
            Upkeep::MoveDead { after, before, dry } => self.move_dead(*after, *before, *dry).await,
            Upkeep::CloseLost {
                after,
                before,
                spare,
                dry,
            } => self.close_lost(*after, *before, spare, *dry).await,
            Upkeep::Forget { .. } | Upkeep::Shrink => Err(StoreError::NotAFile),
        }
    }
}

impl MySqlKeeper {
    async fn open(
        options: &sqlx::mysql::MySqlConnectOptions,
        location: &Location,
        job: Job,
    ) -> Result<Self, StoreError> {
        let log = location.name();
        let error = |source| StoreError::from_server(&log, source);
        let connected = options.connect().await;
        let mut connection = connected.map_err(|source| StoreError::from_connect(&log, source))?;
        // No locks on gaps between ids; text that does not fit is an error.
        sqlx::raw_sql(
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION innodb_lock_wait_timeout = 1; SET SESSION lock_wait_timeout = 1; \
             SET SESSION autocommit = 1; SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
        )
        .execute(&mut connection)
        .await
        .map_err(error)?;
        schema::expect_current(&mut connection, &log).await?;
        // Locks are of the whole server, so the database is part of the name.
        let taken: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(GET_LOCK(concat('nulog.', left(sha1(database()), 20), '.', ?), 0) AS SIGNED)",
        )
        .bind(job.name())
        .fetch_one(&mut connection)
        .await
        .map_err(error)?;
        if taken != Some(1) {
            return Err(at_it(log, job));
        }
        Ok(Self {
            connection,
            log,
            pace: Pace::new(STEP_ON_SERVER),
            limit: location.transaction_timeout,
        })
    }

    async fn upkeep(&mut self, step: &Upkeep) -> Result<UpkeepDone, StoreError> {
        match step {
            Upkeep::MoveDead { after, before, dry } => self.move_dead(*after, *before, *dry).await,
            Upkeep::CloseLost {
                after,
                before,
                spare,
                dry,
            } => self.close_lost(*after, *before, spare, *dry).await,
            Upkeep::Forget { .. } | Upkeep::Shrink => Err(StoreError::NotAFile),
        }
    }
}

pub(crate) fn at_it(log: PathBuf, job: Job) -> StoreError {
    StoreError::AtIt {
        log,
        job: job.name(),
        holder: String::new(),
    }
}
