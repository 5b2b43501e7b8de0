//! Real faults of the file system: a full disk, a read-only mount, a file that is taken away, a lock that is held.
//!
//! Those that need a mount run in a mount namespace of their own, in a child process.

use crate::make::*;
use nulog::{Store, StoreError};
use sqlx::{Connection as _, Executor as _};
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

const MOUNTED: &str = "NULOG_TEST_MOUNTED";

/// Runs the test `name` again in a mount namespace where `directory` is a file system of 4 MiB. `None` there; otherwise what
/// came of it, or a note that the machine does not allow it.
fn in_small_file_system(name: &str) -> Option<()> {
    if std::env::var_os(MOUNTED).is_some() {
        return None;
    }
    let directory = tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" --exact "$3" --nocapture"#;
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(MOUNTED, directory.path())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if said.contains("unshare: ") || said.contains("mount: ") {
        eprintln!("SKIPPED {name}: no mount namespace here ({said})");
    } else {
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
    Some(())
}

fn mounted() -> String {
    std::env::var(MOUNTED).unwrap()
}

fn fill(directory: &Path) {
    let filler = directory.join("filler");
    let mut size = 1 << 20;
    let mut file = std::fs::File::create(&filler).unwrap();
    while size > 0 {
        if std::io::Write::write_all(&mut file, &vec![1; size]).is_err() {
            size /= 2;
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_said_loses_nothing_and_is_over_when_space_returns() {
    if in_small_file_system("faults::a_full_disk_is_said_loses_nothing_and_is_over_when_space_returns")
        .is_some()
    {
        return;
    }
    let directory = mounted();
    let directory = Path::new(&directory);
    let mut store = store(directory).await;
    fill(directory);
    let mut applied = 0;
    let error = loop {
        let changes: Vec<_> = (applied + 1..applied + 101).map(open).collect();
        match store.apply(&changes).await {
            Ok(_) => applied += 100,
            Err(error) => break error,
        }
        assert!(applied < 100_000);
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    // What a rolled back transaction left in the write-ahead log is used by smaller ones first.
    let mut last = None;
    let error = loop {
        match store.reserve_ids(10).await {
            Ok(block) => last = block.last(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    let error = store.apply(&[open(applied + 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert_eq!(store.active_rows().await.unwrap().len() as u64, applied);

    std::fs::remove_file(directory.join("filler")).unwrap();
    let changes: Vec<_> = (applied + 1..applied + 101).map(open).collect();
    store.apply(&changes).await.unwrap();
    let next = store.reserve_ids(1).await.unwrap().next();
    assert!(
        next > last,
        "a failed reservation takes nothing, a successful one stays: {last:?} {next:?}"
    );
    assert_eq!(store.active_rows().await.unwrap().len() as u64, applied + 100);
    store.close().await.unwrap();
    assert_eq!(rows(directory).await.len() as u64, applied + 100);
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_said() {
    if in_small_file_system("faults::a_disk_that_is_full_at_the_start_is_said").is_some() {
        return;
    }
    let directory = mounted();
    fill(Path::new(&directory));
    let error = Store::open(&location(Path::new(&directory)), 1)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
}

#[tokio::test]
async fn a_read_only_file_system_is_said_at_the_start() {
    if in_small_file_system("faults::a_read_only_file_system_is_said_at_the_start").is_some() {
        return;
    }
    let directory = mounted();
    let path = Path::new(&directory);
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        Command::new("mount")
            .args(["-o", &options, &directory])
            .status()
            .unwrap()
            .success()
    };
    let mut running = store(path).await;
    running.apply(&[open(1)]).await.unwrap();
    running.close().await.unwrap();
    assert!(remount("ro"));
    let error = Store::open(&location(path), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");
    assert!(remount("rw"));
    store(path).await.close().await.unwrap();
}

#[tokio::test]
async fn a_lock_held_by_another_program_is_waited_for_and_then_said() {
    let dir = tempdir().unwrap();
    let mut store = store(dir.path()).await;
    let mut other = sqlx::SqliteConnection::connect(store.path().unwrap().to_str().unwrap())
        .await
        .unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let error = store.apply(&[open(1), established(1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)), "{error:?}");
    other.execute("ROLLBACK").await.unwrap();
    store.apply(&[open(1), established(1)]).await.unwrap();
}

#[tokio::test]
async fn a_database_that_was_taken_away_or_replaced_is_not_written_to() {
    let dir = tempdir().unwrap();
    let mut store = store(dir.path()).await;
    store.apply(&[open(1)]).await.unwrap();
    let path = store.path().unwrap().to_path_buf();
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    for _ in 0..2 {
        let error = store.apply(&[open(2)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Gone(_)), "{error:?}");
        std::fs::write(&path, "").unwrap();
    }
    std::fs::rename(&aside, &path).unwrap();
    store.apply(&[open(2)]).await.unwrap();
    assert_eq!(store.active_rows().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_damaged_row_is_named_instead_of_being_guessed() {
    let dir = tempdir().unwrap();
    let mut store = store(dir.path()).await;
    store.apply(&[open(1)]).await.unwrap();
    let mut other = sqlx::SqliteConnection::connect(store.path().unwrap().to_str().unwrap())
        .await
        .unwrap();
    other
        .execute("UPDATE conntrack_ulog SET ip_saddr = '10.0.0'")
        .await
        .unwrap();
    let error = store.active_rows().await.unwrap_err().to_string();
    assert!(
        error.contains(&id(1).to_string()) && error.contains("source address"),
        "{error}"
    );
}

#[tokio::test]
async fn commits_go_on_and_the_write_ahead_log_stays_small_while_somebody_reads() {
    let dir = tempdir().unwrap();
    let mut store = store(dir.path()).await;
    let mut next = 1;
    for _ in 0..120 {
        let changes: Vec<_> = (next..next + 300).map(open).collect();
        store.apply(&changes).await.unwrap();
        store.tend().await.unwrap();
        next += 300;
        if next % 3000 == 1 {
            let filter = nulog::RowFilter {
                after: Some(id(next - 10)),
                ..nulog::RowFilter::default()
            };
            assert_eq!(rows_where(dir.path(), &filter).await.len(), 9);
        }
        tokio::task::yield_now().await;
    }
    let wal = std::fs::metadata(dir.path().join("nulog.db-wal")).unwrap().len();
    assert!(wal < 40 * 1024 * 1024, "{wal} bytes");
    let database = std::fs::metadata(store.path().unwrap()).unwrap().len();
    assert!(
        database > 2 * 1024 * 1024,
        "nothing was moved out of the write-ahead log: {database} bytes"
    );
}
