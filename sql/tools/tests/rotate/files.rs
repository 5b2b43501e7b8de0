//! A log in a file: what is old goes in small steps, and the file becomes smaller.

use crate::lab::{DAY, Lab, now};
use nulog::rotate::{Archive, Kept, Period, Unit};
use nulog::{Store, Upkeep};

fn size(lab: &Lab) -> u64 {
    std::fs::metadata(lab.url.strip_prefix("sqlite:").unwrap())
        .unwrap()
        .len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rows_go_and_the_file_becomes_smaller() {
    let lab = Lab::file().await;
    let now = now();
    lab.add(1, 20_000, now - 103 * DAY, 10).await;
    lab.add(50_000, 100, now - 100, 1).await;
    // Their ids do not tell their age.
    lab.add(60_000, 100, now - 200 * DAY, 1).await;
    lab.rotate(&["--list"]).await;
    let before = size(&lab);
    let dry = lab.rotate(&["--keep", "90d", "-n"]).await;
    assert_eq!((&dry["rows"], lab.rows().await), (&20_100.into(), 20_200));
    let report = lab.rotate(&["--keep", "90d"]).await;
    assert_eq!(report["rows"], 20_100, "{report}");
    assert!(report["pages_freed"].as_u64().unwrap() > 100, "{report}");
    assert_eq!(lab.rows().await, 100);
    let after = size(&lab);
    assert!(after * 4 < before, "{after} of {before}");
    let again = lab.rotate(&["--keep", "90d"]).await;
    assert_eq!((&again["rows"], &again["pages_freed"]), (&0.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_become_smaller_says_so() {
    let lab = Lab::file().await;
    lab.execute("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM")
        .await;
    lab.add(1, 1_000, now() - 100 * DAY, 1).await;
    let report = lab.rotate(&["--keep", "90d"]).await;
    assert_eq!(lab.rows().await, 0);
    assert!(
        report["notes"][0]
            .as_str()
            .unwrap()
            .contains("auto_vacuum = INCREMENTAL"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_day_is_a_file_first() {
    let lab = Lab::file().await;
    let day = Period::of(Unit::Day, now() - 100 * DAY).unwrap();
    lab.add(1, 2_500, day.from, 30).await;
    lab.add(3_000, 1_500, day.to, 30).await;
    lab.add(9_000, 10, now(), 1).await;
    let export = lab.exports().display().to_string();
    let report = lab.rotate(&["--keep", "90d", "--export", &export]).await;
    let files = report["files"].as_array().unwrap();
    assert_eq!((files.len(), &report["rows"]), (2, &4_000.into()), "{report}");
    let exported = lab.exported();
    assert_eq!(exported.len(), 4_000);
    assert!(exported.values().all(|times| *times == 1));
    assert_eq!(lab.rows().await, 10);
    // What comes late is a further file.
    lab.add(20_000, 5, day.from, 1).await;
    let report = lab.rotate(&["--keep", "90d", "--export", &export]).await;
    let file = report["files"][0].as_str().unwrap();
    assert!(file.ends_with(".2.csv.gz"), "{file}");
    assert_eq!(lab.exported().len(), 4_005);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_gaps_of_a_file_go_too() {
    let lab = Lab::file().await;
    let session = |id: i64, end: &str, reason: &str| {
        format!(
            "INSERT INTO users VALUES ({id}, 7, 'bob', '10.0.0.7', '', '', '', 1577934245000000, {end}, {reason});"
        )
    };
    let statements = [
        session(1, "1577934246000000", "'ended'"),
        session(2, "NULL", "'server-restart'"),
        session(4, "4070908800000000", "'ended'"),
        "INSERT INTO log_gap (from_timestamp, to_timestamp, cause) VALUES (1, 2, 'x'), (1, 4070908800000000, 'x')".into(),
    ];
    lab.execute(&statements.concat()).await;
    let report = lab.rotate(&["--keep", "90d"]).await;
    assert_eq!(
        (&report["sessions"], &report["gaps"]),
        (&2.into(), &1.into()),
        "{report}"
    );
    assert_eq!(lab.number("SELECT count(*) FROM users").await, 1);
    assert_eq!(lab.number("SELECT count(*) FROM log_gap").await, 1);
}

/// A server that does not say where it listens keeps its file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_server_has_is_left_to_it() {
    let lab = Lab::file().await;
    lab.add(1, 10, now() - 100 * DAY, 1).await;
    let store = Store::open(&lab.url.parse().unwrap(), 1).await.unwrap();
    let output = lab.run(&["--keep", "90d"]).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{error}");
    assert!(error.contains("log.server-socket"), "{error}");
    assert_eq!(lab.rows().await, 10);
    store.close().await.unwrap();
}

/// What a step is given is a claim of somebody else.
#[tokio::test]
async fn a_step_drops_only_what_is_old_and_over() {
    let lab = Lab::file().await;
    let now = now();
    lab.add(1, 10, now - 100 * DAY, 1).await;
    lab.add(20, 10, now, 1).await;
    lab.execute("INSERT INTO users VALUES (5, 7, 'bob', '10.0.0.7', '', '', '', 1, NULL, NULL)")
        .await;
    let mut store = Store::open(&lab.url.parse().unwrap(), 1).await.unwrap();
    // The session ends with the start of the server; another one is open.
    lab.execute("INSERT INTO users VALUES (6, 7, 'bob', '10.0.0.7', '', '', '', 1, NULL, NULL)")
        .await;
    let mut forget = async |kept, ids: Vec<i64>| {
        let before = now - 90 * DAY;
        let step = Upkeep::Forget { kept, before, ids };
        store.upkeep(&step).await.unwrap()
    };
    let done = forget(Kept::Archive, (1..30).collect()).await;
    assert_eq!((done.seen, done.moved, done.more), (29, 10, false));
    let done = forget(Kept::Sessions, vec![5, 6]).await;
    assert_eq!(done.moved, 1);
    assert_eq!(lab.rows().await, 10);
    // However much is asked for, a step is small.
    let done = forget(Kept::Archive, (0..1_000_000).collect()).await;
    assert!(done.seen < 5_000 && done.more, "{done:?}");
    store.close().await.unwrap();
    let mut archive = Archive::open(&lab.url.parse().unwrap()).await.unwrap();
    assert!(!archive.has_partitions());
    assert_eq!(
        archive
            .parts(Unit::Month)
            .await
            .unwrap()
            .iter()
            .map(|part| part.rows)
            .sum::<u64>(),
        10
    );
}
