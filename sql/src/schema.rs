//! The schema's version: brought up to date by an administrator's command, and by the server itself where the log is a file
//! of `SQLite`; looked at by everybody else.
//!
//! The migrations themselves are the files under `migrations/`, embedded here; none is ever edited. Those of MySQL can be run
//! again after an interruption, since it cannot take back a half of one.

use crate::Work;
use crate::location::Kind;
use crate::{Location, StoreError};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions as _, Connection as _};
use std::path::Path;

static SQLITE: Migrator = sqlx::migrate!("./migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("./migrations/postgres");
static MYSQL: Migrator = sqlx::migrate!("./migrations/mysql");

/// What [`migrate`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The schema's version before; `None` when there was none.
    pub from: Option<i64>,
    /// Its version now.
    pub to: i64,
}

/// Brings the schema of the log up to date. Runs that come together wait for each other; a newer schema is refused.
pub fn migrate(location: &Location) -> Work<'_, Result<Migrated, StoreError>> {
    Box::pin(async move {
        let log = location.name();
        let unreachable = |source| StoreError::from_connect(&log, source);
        let late = |_| StoreError::TimedOut {
            log: log.clone(),
            limit: location.connect_timeout,
        };
        match &location.kind {
            Kind::Sqlite(path) => crate::sqlite::migrate(path).await,
            Kind::Postgres(options) => {
                let connect = tokio::time::timeout(location.connect_timeout, options.connect());
                let mut connection = connect.await.map_err(late)?.map_err(unreachable)?;
                lock_postgres(&mut connection, &log).await?;
                let migrated = run(&POSTGRES, &mut connection, &log, StoreError::from_server).await;
                let _ = connection.close().await;
                migrated
            }
            Kind::MySql(options) => {
                let connect = tokio::time::timeout(location.connect_timeout, options.connect());
                let mut connection = connect.await.map_err(late)?.map_err(unreachable)?;
                lock_mysql(&mut connection, &log).await?;
                let migrated = run(&MYSQL, &mut connection, &log, StoreError::from_server).await;
                let _ = connection.close().await;
                migrated
            }
        }
    })
}

/// Waits for another run to end; the lock goes with the connection. The driver's own lock comes later, when it would be
/// too late to look at the version.
async fn lock_postgres(connection: &mut PgConnection, log: &Path) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_lock($1, 0)")
        .bind(crate::postgres::LOCK_CLASS)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|source| StoreError::from_server(log, source))
}

async fn lock_mysql(connection: &mut MySqlConnection, log: &Path) -> Result<(), StoreError> {
    let error = |source| StoreError::from_server(log, source);
    sqlx::query("SELECT GET_LOCK(concat('nulog-migrate.', left(sha1(database()), 20)), 3600)")
        .execute(&mut *connection)
        .await
        .map_err(error)?;
    // What an interrupted run has left is done again.
    if found_mysql(connection, log).await?.is_some() {
        sqlx::query("DELETE FROM _sqlx_migrations WHERE success = false")
            .execute(connection)
            .await
            .map_err(error)?;
    }
    Ok(())
}

/// A connection whose schema has a version.
pub(crate) trait Versioned: Migrate + Send {
    /// The newest version that is known here.
    fn known() -> i64;

    /// The version of the database; `None` when it has no schema of ours.
    async fn found(&mut self, log: &Path) -> Result<Option<i64>, StoreError>;
}

impl Versioned for SqliteConnection {
    fn known() -> i64 {
        newest(&SQLITE)
    }

    async fn found(&mut self, log: &Path) -> Result<Option<i64>, StoreError> {
        let error = |source| StoreError::from_sqlx(log, source);
        let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
            .fetch_all(&mut *self)
            .await
            .map_err(error)?;
        if tables.iter().any(|name| name == "_sqlx_migrations") {
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
                .fetch_one(self)
                .await
                .map_err(error)
        } else if tables.is_empty() {
            Ok(None)
        } else {
            Err(StoreError::Foreign(log.to_path_buf()))
        }
    }
}

impl Versioned for PgConnection {
    fn known() -> i64 {
        newest(&POSTGRES)
    }

    async fn found(&mut self, log: &Path) -> Result<Option<i64>, StoreError> {
        let error = |source| StoreError::from_server(log, source);
        let (ours, theirs): (bool, bool) = sqlx::query_as(
            "SELECT to_regclass('_sqlx_migrations') IS NOT NULL, to_regclass('conntrack_ulog') IS NOT NULL",
        )
        .fetch_one(&mut *self)
        .await
        .map_err(error)?;
        if ours {
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(self)
                .await
                .map_err(error)
        } else if theirs {
            Err(StoreError::Foreign(log.to_path_buf()))
        } else {
            Ok(None)
        }
    }
}

impl Versioned for MySqlConnection {
    fn known() -> i64 {
        newest(&MYSQL)
    }

    async fn found(&mut self, log: &Path) -> Result<Option<i64>, StoreError> {
        found_mysql(self, log).await
    }
}

async fn found_mysql(connection: &mut MySqlConnection, log: &Path) -> Result<Option<i64>, StoreError> {
    let error = |source| StoreError::from_server(log, source);
    let (ours, theirs): (i64, i64) = sqlx::query_as(
        "SELECT CAST(coalesce(sum(table_name = '_sqlx_migrations'), 0) AS SIGNED), \
         CAST(coalesce(sum(table_name = 'conntrack_ulog'), 0) AS SIGNED) \
         FROM information_schema.tables WHERE table_schema = database()",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(error)?;
    if ours > 0 {
        // 0: a first run that was interrupted.
        let found: Option<i64> =
            sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(connection)
                .await
                .map_err(error)?;
        Ok(Some(found.unwrap_or(0)))
    } else if theirs > 0 {
        Err(StoreError::Foreign(log.to_path_buf()))
    } else {
        Ok(None)
    }
}

fn newest(migrations: &Migrator) -> i64 {
    migrations
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Applies the migrations that are missing in a file of `SQLite`.
pub(crate) async fn bring_up_to_date(
    writer: &mut SqliteConnection,
    path: &Path,
) -> Result<Migrated, StoreError> {
    run(&SQLITE, writer, path, StoreError::from_sqlx).await
}

async fn run<C: Versioned>(
    migrations: &Migrator,
    connection: &mut C,
    log: &Path,
    error: fn(&Path, sqlx::Error) -> StoreError,
) -> Result<Migrated, StoreError> {
    let known = C::known();
    let from = connection.found(log).await?;
    if let Some(found) = from.filter(|found| *found > known) {
        return Err(StoreError::NewerSchema {
            path: log.to_path_buf(),
            found,
            known,
        });
    }
    migrations
        .run_direct(None, connection, false)
        .await
        .map_err(|source| match source {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => error(log, source),
            MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version) => {
                StoreError::AlteredSchema {
                    path: log.to_path_buf(),
                    version,
                }
            }
            other => StoreError::Database {
                path: log.to_path_buf(),
                source: sqlx::Error::Migrate(Box::new(other)),
            },
        })?;
    Ok(Migrated { from, to: known })
}

/// Refuses a database that this version would misread.
pub(crate) async fn expect_current<C: Versioned>(connection: &mut C, log: &Path) -> Result<(), StoreError> {
    let known = C::known();
    match connection.found(log).await? {
        Some(found) if found == known => Ok(()),
        Some(found) if found > known => Err(StoreError::NewerSchema {
            path: log.to_path_buf(),
            found,
            known,
        }),
        _ => Err(StoreError::OlderSchema(log.to_path_buf())),
    }
}
