//! The cleaner killed with -9 at every moment, two of it at once, while a server writes and fills what was unknown.
//!
//! A kill is aimed: the program is stopped, the database is asked how far it has come, and only then it is killed or let go
//! on. `NULOG_KILLS` says how many kills (12), `NULOG_SEED` which; the seed and what was hit are printed.

use crate::lab::Lab;
use crate::rows::{ago, close, dropped, established, open};
use crate::support::Kind;
use nulog::{Change, Location, Reader, RowFilter, Store};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
/// Rows before the first kill.
const FIRST: u64 = 3000;
/// Rows of one turn of the writer.
const BLOCK: u64 = 20;
/// Dead rows that a pair of cleaners finds at least: with less to do both are gone before anybody can aim at them.
const BACKLOG: i64 = 200;
/// How long these are waited for: the writer makes no more of them at its end.
const BACKLOG_TRIES: u32 = 200;
/// The writer makes no new ones above.
const MOST_ROWS: u64 = 60_000;
/// How often a program is stopped and let go on until it is where the kill is aimed at.
const AIMS: u32 = 60;

/// How far a cleaner had come.
type Phase = &'static str;
const FINISHED: Phase = "not there any more";
const OUTSIDE: Phase = "before or between transactions";
const LOCKED: Phase = "rows locked, none moved";
const MOVED: Phase = "rows moved, not committed";
const IN_TRANSACTION: Phase = "in a transaction";
const COMMITTED: Phase = "just committed";

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

pub(crate) async fn killed_at_any_moment_it_loses_doubles_and_changes_nothing(lab: Lab) {
    let kills = setting("NULOG_KILLS").unwrap_or(12);
    let seed = setting("NULOG_SEED").unwrap_or_else(|| rand::rng().random());
    let mut random = StdRng::seed_from_u64(seed);
    let mut written: Vec<Change> = (1..=FIRST).map(|sequence| dropped(sequence, ago(DAY))).collect();
    let mut store = lab.store().await;
    for some in written.chunks(1000) {
        store.apply(some).await.unwrap();
    }
    store.close().await.unwrap();

    let lab = Arc::new(lab);
    let ended = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(Arc::clone(&lab), Arc::clone(&ended)));
    let mut phases: BTreeMap<Phase, u64> = BTreeMap::new();
    let mut done = 0;
    while done < kills {
        let aims: &[Phase] = match lab.kind {
            Some(_) => &[OUTSIDE, LOCKED, MOVED, COMMITTED],
            None => &[OUTSIDE, IN_TRANSACTION, COMMITTED],
        };
        let aim = aims[random.random_range(0..aims.len())];
        backlog(&lab).await;
        let mut run = start(&lab);
        let mut second = start(&lab);
        let mut phase = FINISHED;
        for _ in 0..AIMS {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..12_000))).await;
            signal(&run, Signal::STOP);
            signal(&second, Signal::STOP);
            // One of the two has left at once, or the other one has.
            phase = match phase_of(&lab, &mut run).await {
                FINISHED => phase_of(&lab, &mut second).await,
                phase => phase,
            };
            if phase == aim || phase == FINISHED {
                break;
            }
            signal(&run, Signal::CONT);
            signal(&second, Signal::CONT);
        }
        for mut child in [run, second] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        *phases.entry(phase).or_default() += 1;
        assert!(
            phases.get(FINISHED).is_none_or(|missed| *missed < 20 + 2 * kills),
            "there is nothing to kill: {phases:?}"
        );
        if phase != FINISHED {
            done += 1;
        }
    }
    ended.store(true, Ordering::Relaxed);
    let (changes, rows) = writer.await.unwrap();
    written.extend(changes);
    eprintln!(
        "{:?}: seed {seed}, {rows} rows while {kills} were killed: {phases:?}",
        lab.kind
    );
    let hit = |phase| phases.get(phase).copied().unwrap_or(0) > 0;
    if kills >= 100 {
        let within = match lab.kind {
            Some(_) => hit(LOCKED) && hit(MOVED),
            None => hit(IN_TRANSACTION),
        };
        assert!(within && hit(OUTSIDE) && hit(COMMITTED), "{phases:?}");
    }
    check(&lab, &written, FIRST + rows).await;
}

async fn backlog(lab: &Lab) {
    let dead = "SELECT count(*) FROM conntrack_ulog WHERE state IN (0, 3)";
    for _ in 0..BACKLOG_TRIES {
        if lab.number(dead).await >= BACKLOG {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn start(lab: &Lab) -> Child {
    lab.command(&["--grace", "0s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // It may have gone; until it is waited for, its number is nobody else's.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Where a stopped cleaner is, as the database sees it.
async fn phase_of(lab: &Lab, child: &mut Child) -> Phase {
    if child.try_wait().unwrap().is_some() {
        return FINISHED;
    }
    match lab.kind {
        None => in_file(lab, child.id()),
        Some(Kind::Postgres) => on_postgres(lab).await,
        Some(Kind::MariaDb) => on_mariadb(lab).await,
    }
}

async fn on_postgres(lab: &Lab) -> Phase {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(lab.url()).await.unwrap();
    let seen: Vec<(String, String)> = sqlx::query_as(
        "SELECT state, query FROM pg_stat_activity WHERE application_name = 'clean-conntrack' AND state IS NOT NULL \
         AND datname = current_database() ORDER BY xact_start NULLS LAST, query_start DESC",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let Some((state, query)) = seen.first() else {
        return OUTSIDE;
    };
    let inside = state != "idle";
    if inside && query.contains("INSERT INTO ulog") {
        MOVED
    } else if inside && query.contains("FOR UPDATE") {
        LOCKED
    } else if query == "COMMIT" {
        COMMITTED
    } else {
        OUTSIDE
    }
}

async fn on_mariadb(lab: &Lab) -> Phase {
    use sqlx::Connection as _;
    let mut connection = sqlx::MySqlConnection::connect(lab.url()).await.unwrap();
    let seen: Option<(i64, i64)> = sqlx::query_as(
        "SELECT CAST(t.trx_rows_locked AS SIGNED), CAST(t.trx_rows_modified AS SIGNED) \
         FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id \
         WHERE p.db = database() AND p.user LIKE 'cleaner%' ORDER BY t.trx_rows_modified DESC LIMIT 1",
    )
    .fetch_optional(&mut connection)
    .await
    .unwrap();
    let moved: i64 = sqlx::query_scalar("SELECT count(*) FROM ulog")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    match seen {
        Some((_, modified)) if modified > 0 => MOVED,
        Some((locked, _)) if locked > 0 => LOCKED,
        _ if moved > 0 => COMMITTED,
        _ => OUTSIDE,
    }
}

/// By the locks that the kernel shows: `SQLite` holds byte 120 of the shared memory's file while it writes.
fn in_file(lab: &Lab, pid: u32) -> Phase {
    let file = lab.location().file().unwrap().to_path_buf();
    let inode_of = |suffix: &str| {
        let path = format!("{}{suffix}", file.display());
        std::fs::metadata(path).map_or(0, |file| file.ino())
    };
    let (shared, lock) = (inode_of("-shm"), inode_of(".lock"));
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let held = |inode: u64, range: &str| {
        locks.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(4) == Some(&pid.to_string().as_str())
                && words
                    .get(5)
                    .is_some_and(|place| place.ends_with(&format!(":{inode}")))
                && line.ends_with(range)
        })
    };
    if held(shared, "120 120") {
        IN_TRANSACTION
    } else if held(lock, "EOF") {
        COMMITTED
    } else {
        OUTSIDE
    }
}

/// Lives without end, four stages of them at once: opened, established, closed with nothing known, and filled late, when the
/// row may be on its way to the archive. Everything it wrote, and how many rows.
async fn write(lab: Arc<Lab>, ended: Arc<AtomicBool>) -> (Vec<Change>, u64) {
    let mut written = Vec::new();
    let mut store = None;
    let mut blocks = 0;
    let mut last = None;
    for turn in 0_u64.. {
        if ended.load(Ordering::Relaxed) && last.is_none() {
            last = Some(turn);
        }
        let old = ago(DAY);
        let block = |number: u64| {
            let first = FIRST + 1 + number * BLOCK;
            first..first + BLOCK
        };
        let growing = last.is_none() && blocks * BLOCK < MOST_ROWS;
        let stage = |back: u64| blocks.checked_sub(back).into_iter().flat_map(block);
        let mut turns: Vec<Vec<Change>> = Vec::new();
        if growing {
            turns.push(block(blocks).map(|sequence| open(sequence, old)).collect());
        }
        // One in ten stays open.
        let lives = |sequence: &u64| !sequence.is_multiple_of(10);
        turns.push(
            stage(1)
                .filter(lives)
                .map(|sequence| established(sequence, old))
                .collect(),
        );
        turns.push(
            stage(2)
                .filter(lives)
                .map(|sequence| close(sequence, None))
                .collect(),
        );
        for back in [3, 30] {
            turns.push(
                stage(back)
                    .filter(lives)
                    .filter(|sequence| sequence % 2 == u64::from(back == 3))
                    .map(|sequence| close(sequence, Some(old)))
                    .collect(),
            );
        }
        for changes in turns.into_iter().filter(|changes| !changes.is_empty()) {
            apply(&lab, &mut store, &changes).await;
            written.extend(changes);
        }
        if growing {
            blocks += 1;
        }
        if last.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(if lab.kind.is_some() { 8 } else { 25 })).await;
    }
    if let Some(store) = store {
        store.close().await.unwrap();
    }
    (written, blocks * BLOCK)
}

/// As a server would; on a file, one that starts and ends each time, since two cannot have it.
async fn apply(lab: &Lab, store: &mut Option<Store>, changes: &[Change]) {
    if store.is_none() {
        *store = Some(lab.store().await);
    }
    let open = store.as_mut().unwrap();
    let applied = open.apply(changes).await.unwrap();
    assert_eq!(applied.missing, 0, "an update found its row in neither table");
    if lab.kind.is_none()
        && let Some(store) = store.take()
    {
        store.close().await.unwrap();
    }
}

/// Compares with a log that nobody has cleaned.
async fn check(lab: &Lab, written: &[Change], rows: u64) {
    let directory = tempfile::tempdir().unwrap();
    let place = format!("sqlite:{}/reference.db", directory.path().display());
    let place = Location::parse(&place).unwrap();
    let mut reference = Store::open(&place, 1).await.unwrap();
    for some in written.chunks(500) {
        reference.apply(some).await.unwrap();
    }
    reference.close().await.unwrap();
    let expected = all(&place).await;
    assert_eq!(expected.len() as u64, rows);
    let compare = |found: Vec<Map<String, Value>>| {
        assert_eq!(found.len(), expected.len(), "rows are lost or doubled");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected);
        }
    };
    compare(all(&lab.location()).await);
    lab.cleaned(&["--grace", "0s"]);
    compare(all(&lab.location()).await);
    let (live, archive) = lab.counts().await;
    assert_eq!(u64::try_from(live + archive).unwrap(), rows);
    let left = "SELECT count(*) FROM conntrack_ulog WHERE state IN (0, 3)";
    assert_eq!(
        lab.number(left).await,
        0,
        "everything that is dead is in the archive"
    );
}

async fn all(place: &Location) -> Vec<Map<String, Value>> {
    let mut reader = Reader::open(place).await.unwrap();
    let rows = reader
        .rows_json(&RowFilter {
            limit: Some(Reader::MAX_ROWS),
            ..RowFilter::default()
        })
        .await
        .unwrap();
    reader.close().await.unwrap();
    rows
}
