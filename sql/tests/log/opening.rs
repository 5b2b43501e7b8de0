//! Opening: what is wrong is said plainly, each thing by its own words, and nothing is damaged by trying.

use crate::make::*;
use nulog::{Location, Reader, Store, StoreError};
use sqlx::{Connection as _, Executor as _};
use std::os::unix::fs::PermissionsExt as _;
use tempfile::tempdir;

#[tokio::test]
async fn a_second_server_is_refused_by_the_lock_and_told_who_holds_it() {
    let dir = tempdir().unwrap();
    let first = store(dir.path()).await;
    let error = Store::open(&location(dir.path()), 1)
        .await
        .unwrap_err()
        .to_string();
    let expected = format!("(process {})", std::process::id());
    assert!(
        error.contains(&expected) && error.contains("nulog.db.lock"),
        "{error}"
    );
    first.close().await.unwrap();
    store(dir.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn the_file_is_not_readable_by_everybody_and_closing_leaves_no_write_ahead_log() {
    let dir = tempdir().unwrap();
    let mut store = store(dir.path()).await;
    store.apply(&[open(1)]).await.unwrap();
    let mode = std::fs::metadata(store.path().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
    store.close().await.unwrap();
    assert!(!dir.path().join("nulog.db-wal").exists());
    assert_eq!(rows(dir.path()).await.len(), 1);
}

#[tokio::test]
async fn wrong_numbers_and_missing_directories_are_named() {
    let dir = tempdir().unwrap();
    for number in [0, 16384] {
        let error = Store::open(&location(dir.path()), number).await.unwrap_err();
        assert!(matches!(error, StoreError::ServerNumber(found) if found == number));
    }
    let missing = Location::parse("sqlite:/nonexistent/dir/nulog.db").unwrap();
    let error = Store::open(&missing, 1).await.unwrap_err().to_string();
    assert!(error.contains("directory /nonexistent/dir "), "{error}");
    let error = Reader::open(&location(dir.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing(_)), "{error}");
}

#[tokio::test]
async fn the_log_of_another_server_is_refused() {
    let dir = tempdir().unwrap();
    store(dir.path()).await.close().await.unwrap();
    let error = Store::open(&location(dir.path()), 2).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::OtherServer {
                found: 1,
                configured: 2,
                ..
            }
        ),
        "{error}"
    );
    store(dir.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn something_else_than_a_database_is_left_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("nulog.db");
    let text = "this is a letter, not a database\n".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = Store::open(&location(dir.path()), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let dir = tempdir().unwrap();
    let url = format!("sqlite:{}/nulog.db?mode=rwc", dir.path().display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    other.execute("CREATE TABLE bookmarks (url TEXT)").await.unwrap();
    other.close().await.unwrap();
    let error = Store::open(&location(dir.path()), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_server_and_reader() {
    let dir = tempdir().unwrap();
    store(dir.path()).await.close().await.unwrap();
    let url = format!("sqlite:{}/nulog.db", dir.path().display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    other
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (29990101000000, 'later', true, x'00', 0)",
        )
        .await
        .unwrap();
    other.close().await.unwrap();
    let error = Store::open(&location(dir.path()), 1).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::NewerSchema {
                found: 29_990_101_000_000,
                ..
            }
        ),
        "{error}"
    );
    let error = Reader::open(&location(dir.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { .. }), "{error}");
}

#[tokio::test]
async fn a_reader_writes_nothing_and_refuses_a_file_without_schema() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("nulog.db"), "").unwrap();
    let error = Reader::open(&location(dir.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::OlderSchema(_)), "{error}");
    assert_eq!(std::fs::metadata(dir.path().join("nulog.db")).unwrap().len(), 0);
}
