//! The schema's version: brought up to date by the server, looked at by readers.
//!
//! The migrations themselves are the files under `migrations/`, embedded here; none is ever edited.

use crate::StoreError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::SqliteConnection;
use std::path::Path;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// The newest version that is known here.
fn known() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// The version of the database; `None` when it has no schema of ours.
async fn found(connection: &mut SqliteConnection, path: &Path) -> Result<Option<i64>, StoreError> {
    let error = |source| StoreError::from_sqlx(path, source);
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .fetch_all(&mut *connection)
        .await
        .map_err(error)?;
    if tables.iter().any(|name| name == "_sqlx_migrations") {
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(connection)
            .await
            .map_err(error)
    } else if tables.is_empty() {
        Ok(None)
    } else {
        Err(StoreError::Foreign(path.to_path_buf()))
    }
}

/// Applies the migrations that are missing.
pub(crate) async fn bring_up_to_date(writer: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let known = known();
    if let Some(found) = found(writer, path).await?.filter(|found| *found > known) {
        return Err(StoreError::NewerSchema {
            path: path.to_path_buf(),
            found,
            known,
        });
    }
    MIGRATIONS
        .run_direct(None, writer, false)
        .await
        .map_err(|error| match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                StoreError::from_sqlx(path, source)
            }
            MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version) => {
                StoreError::AlteredSchema {
                    path: path.to_path_buf(),
                    version,
                }
            }
            other => StoreError::Database {
                path: path.to_path_buf(),
                source: sqlx::Error::Migrate(Box::new(other)),
            },
        })
}

/// Refuses a database that a reader of this version would misread.
pub(crate) async fn expect_current(reader: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let known = known();
    match found(reader, path).await? {
        Some(found) if found == known => Ok(()),
        Some(found) if found > known => Err(StoreError::NewerSchema {
            path: path.to_path_buf(),
            found,
            known,
        }),
        _ => Err(StoreError::OlderSchema(path.to_path_buf())),
    }
}
