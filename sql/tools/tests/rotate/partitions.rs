//! Partitions: made ahead, made late, dropped whole; and who is in the way.

use crate::lab::{DAY, Lab, add, now, on_every_server};
use crate::support::Kind;
use nulog::StoreError;
use nulog::rotate::{Archive, PartKind, Period, Prepared, Unit};
use sqlx::{Connection as _, Executor as _};

on_every_server!(
    partitions_are_made_ahead_and_old_ones_go_whole,
    many_rows_without_a_partition_are_never_out_of_sight,
    few_rows_without_a_partition_are_never_out_of_sight,
    rows_come_in_while_todays_partition_is_missing,
    a_run_across_midnight_loses_nothing,
    a_change_of_the_unit_leaves_no_hole,
    two_runs_at_once_are_one_run,
    a_lock_of_others_is_waited_for_and_left_alone,
    nothing_changes_where_it_only_looks,
    ended_sessions_and_gaps_go_too,
    what_ended_late_goes_with_the_next_run,
);

async fn partitions_are_made_ahead_and_old_ones_go_whole(lab: Lab) {
    let now = now();
    lab.add(1, 10, now - 100 * DAY, 1).await;
    lab.add(100, 20, now - 50 * DAY, 1).await;
    lab.add(200, 30, now - 60, 1).await;
    let told = lab.rotate(&["--keep", "90d", "--dry-run"]).await;
    assert_eq!((&told["rows"], lab.rows().await), (&10.into(), 60), "{told}");
    let report = lab.rotate(&["--keep", "90d"]).await;
    assert_eq!(report["rows"], 10, "{report}");
    assert_eq!((lab.rows().await, lab.rest().await), (50, 0));
    let made = report["made"].as_array().unwrap().len();
    assert!(made >= 1, "{report}");
    let parts = lab.rotate(&["--list"]).await;
    let days = |parts: &serde_json::Value| {
        let ranges = parts.as_array().unwrap().iter();
        ranges.filter(|part| part["kind"] == "range").count()
    };
    assert!(days(&parts) >= 9, "50 days ago, today, and a week ahead: {parts}");
    let last = parts
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|part| part["to"].as_i64())
        .max();
    assert!(last.unwrap() > now + 7 * DAY, "{parts}");
    // Again: nothing to do.
    let report = lab.rotate(&["--keep", "90d"]).await;
    assert_eq!(
        (&report["rows"], report["made"].as_array().unwrap().len()),
        (&0.into(), 0)
    );
    // Later, the whole partition.
    let report = lab.rotate(&["--keep", "40d"]).await;
    assert_eq!(report["rows"], 20, "{report}");
    assert_eq!((lab.rows().await, lab.rest().await), (30, 0));
    let after = lab.rotate(&["--list"]).await;
    assert!(days(&after) < days(&parts), "{after}");
    let left = lab.rotate(&["--list"]).await.to_string();
    assert!(!left.contains("detached"), "{left}");
}

/// The partition is made of them as they are.
async fn many_rows_without_a_partition_are_never_out_of_sight(lab: Lab) {
    never_out_of_sight(lab, 30_000).await;
}

/// They are moved.
async fn few_rows_without_a_partition_are_never_out_of_sight(lab: Lab) {
    never_out_of_sight(lab, 500).await;
}

async fn never_out_of_sight(lab: Lab, count: i64) {
    lab.add(1, count, now() - 5 * DAY, (5 * DAY) / count).await;
    let (url, kind) = (lab.url.clone(), lab.kind);
    let watch = tokio::spawn(async move {
        for next in 100_000.. {
            let look = "SELECT count(*) FROM ulog";
            let statement = sqlx::AssertSqlSafe(add(kind, next, 1, now(), 1));
            let seen: i64 = if kind == Some(Kind::Postgres) {
                let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
                other.execute(sqlx::raw_sql(statement)).await.unwrap();
                sqlx::query_scalar(look).fetch_one(&mut other).await.unwrap()
            } else {
                let mut other = sqlx::MySqlConnection::connect(&url).await.unwrap();
                other.execute(sqlx::raw_sql(statement)).await.unwrap();
                sqlx::query_scalar(look).fetch_one(&mut other).await.unwrap()
            };
            assert_eq!(seen, count + next - 99_999);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let report = lab.rotate(&["--keep", "90d"]).await;
    assert!(!report["made"].as_array().unwrap().is_empty(), "{report}");
    assert!(!watch.is_finished(), "{:?}", watch.await);
    watch.abort();
    let _ = watch.await;
    assert_eq!(lab.rest().await, 0);
    assert_eq!(
        lab.number("SELECT count(DISTINCT id) FROM ulog").await,
        lab.rows().await
    );
}

/// Makes what is wanted; how many. A lock may be held by nobody of ours for a moment.
async fn prepare(archive: &mut Archive, wanted: &[Period], now: i64) -> u32 {
    let mut made = 0;
    loop {
        match archive.prepare(wanted, now - 90 * DAY, now).await {
            Ok(Prepared::Made(_)) => made += 1,
            Ok(Prepared::Done) => return made,
            Err(StoreError::Busy(_)) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn rows_come_in_while_todays_partition_is_missing(lab: Lab) {
    let now = now();
    // Partitions of long ago alone.
    let mut archive = Archive::open(&lab.rotator.parse().unwrap()).await.unwrap();
    archive.lock().await.unwrap();
    let old = Period::of(Unit::Day, now - 30 * DAY).unwrap().and_ahead(3);
    prepare(&mut archive, &old, now - 30 * DAY).await;
    archive.close().await.unwrap();
    lab.add(1, 100, now - 50, 1).await;
    assert_eq!((lab.rest().await, lab.rows().await), (100, 100));
    lab.rotate(&["--keep", "90d"]).await;
    assert_eq!((lab.rest().await, lab.rows().await), (0, 100));
}

async fn a_run_across_midnight_loses_nothing(lab: Lab) {
    let midnight = Period::of(Unit::Day, now()).unwrap().from;
    let location = lab.rotator.parse().unwrap();
    let mut archive = Archive::open(&location).await.unwrap();
    archive.lock().await.unwrap();
    let before = midnight - 90 * DAY;
    // It began a second before midnight, and nothing was made ahead.
    let wanted = [Period::of(Unit::Day, midnight - 1).unwrap()];
    lab.add(1, 10, midnight - 5, 1).await;
    assert!(prepare(&mut archive, &wanted, midnight - 1).await > 0);
    lab.add(20, 10, midnight - 5, 1).await;
    lab.add(40, 10, midnight, 1).await;
    prepare(&mut archive, &wanted, midnight - 1).await;
    assert_eq!(lab.rows().await, 30);
    assert_eq!(archive.sweep(before, false, 100).await.unwrap(), 0);
    let wanted = [Period::of(Unit::Day, midnight).unwrap()];
    prepare(&mut archive, &wanted, midnight).await;
    assert_eq!((lab.rows().await, lab.rest().await), (30, 0));
}

async fn a_change_of_the_unit_leaves_no_hole(lab: Lab) {
    let now = now();
    for unit in ["day", "month", "day"] {
        lab.rotate(&["--keep", "90d", "--unit", unit]).await;
    }
    lab.add(1, 100, now - DAY, 1_000).await;
    lab.rotate(&["--keep", "90d", "--unit", "month"]).await;
    assert_eq!((lab.rows().await, lab.rest().await), (100, 0));
    let mut archive = Archive::open(&lab.rotator.parse().unwrap()).await.unwrap();
    let parts = archive.parts(Unit::Day).await.unwrap();
    let mut end = None;
    for part in parts.iter().filter(|part| part.kind == PartKind::Range) {
        if let (Some(end), Some(from)) = (end, part.span.from) {
            assert!(from >= end, "{parts:?}");
        }
        end = part.span.to;
    }
    assert!(end.unwrap() >= now + 28 * DAY);
}

async fn two_runs_at_once_are_one_run(lab: Lab) {
    let mut archive = Archive::open(&lab.rotator.parse().unwrap()).await.unwrap();
    archive.lock().await.unwrap();
    let output = lab.run(&["--keep", "90d"]).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(75), "{error}");
    assert!(error.contains("another rotate run is at work"), "{error}");
    // A look needs no lock.
    lab.rotate(&["--list"]).await;
    archive.close().await.unwrap();
    lab.rotate(&["--keep", "90d"]).await;
}

async fn a_lock_of_others_is_waited_for_and_left_alone(lab: Lab) {
    let now = now();
    lab.add(1, 10, now - 100 * DAY, 1).await;
    // Where partitions are to be made, and where one is to go.
    for (round, keep) in [(0, "90d"), (1, "40d")] {
        lab.add(100 * round + 20, 10, now - 50 * DAY, 1).await;
        let rows = lab.rows().await;
        let holder = hold(&lab).await;
        let output = lab.run(&["--keep", keep, "--patience", "1s"]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{error}");
        assert!(error.contains("others keep the archive"), "{error}");
        // Nobody waits behind it meanwhile, and nothing is gone.
        lab.add(100 * round + 50, 10, now, 1).await;
        assert_eq!(lab.rows().await, rows + 10);
        drop(holder);
        lab.rotate(&["--keep", keep]).await;
        assert_eq!(lab.rest().await, 0);
    }
    assert_eq!(lab.rows().await, 20);
}

/// A transaction that has read the archive, and lasts.
async fn hold(lab: &Lab) -> Box<dyn std::any::Any + Send> {
    let look = "SELECT count(*) FROM ulog";
    if lab.kind == Some(Kind::Postgres) {
        let mut other = sqlx::PgConnection::connect(&lab.url).await.unwrap();
        other.execute(sqlx::raw_sql("BEGIN")).await.unwrap();
        other.execute(look).await.unwrap();
        Box::new(other)
    } else {
        let mut other = sqlx::MySqlConnection::connect(&lab.url).await.unwrap();
        other.execute(sqlx::raw_sql("BEGIN")).await.unwrap();
        other.execute(look).await.unwrap();
        Box::new(other)
    }
}

async fn nothing_changes_where_it_only_looks(lab: Lab) {
    let now = now();
    lab.rotate(&["--keep", "90d"]).await;
    lab.add(1, 10, now - 2, 1).await;
    let before = lab.rotate(&["--list"]).await;
    let report = lab.rotate(&["--keep", "90d", "--ahead", "9", "--dry-run"]).await;
    assert_eq!(report["made"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["dry_run"], true);
    assert_eq!(lab.rotate(&["--list"]).await, before);
    // How long rows are kept is never guessed.
    let output = lab.run(&[]).await;
    assert_eq!(output.status.code(), Some(78));
    for wrong in [
        ["--keep", "90"],
        ["--keep", "1h"],
        ["--unit", "week"],
        ["--ahead", "0"],
    ] {
        let output = lab.run(&wrong).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(error.contains(wrong[0]), "{error}");
    }
}

async fn ended_sessions_and_gaps_go_too(lab: Lab) {
    let address = match lab.kind {
        Some(Kind::Postgres) => "inet '10.0.0.7'",
        _ => "inet6_aton('10.0.0.7')",
    };
    let session = |id: i64, start: &str, end: &str, reason: &str| {
        format!(
            "INSERT INTO users (id, user_id, username, ip_saddr, os_sysname, os_release, os_version, start_time, end_time, \
             end_reason) VALUES ({id}, 7, 'bob', {address}, '', '', '', '{start}', {end}, {reason});"
        )
    };
    let old = "2020-01-02 00:00:00";
    let recent = "2099-01-01 00:00:00";
    let gap = |to: &str| {
        format!(
            "INSERT INTO log_gap (gateway, from_timestamp, to_timestamp, cause) VALUES ('gw', '{old}', '{to}', 'x');"
        )
    };
    let statements = [
        session(1, old, "'2020-01-03 00:00:00'", "'ended'"),
        session(2, old, "NULL", "'server-restart'"),
        session(3, old, "NULL", "NULL"),
        session(4, old, &format!("'{recent}'"), "'ended'"),
        gap(old),
        gap(recent),
    ];
    lab.execute(&statements.concat()).await;
    let export = lab.exports().display().to_string();
    let report = lab
        .rotate(&["--keep", "90d", "--export", &export, "--format", "csv"])
        .await;
    assert_eq!(
        (&report["sessions"], &report["gaps"]),
        (&2.into(), &1.into()),
        "{report}"
    );
    assert_eq!(
        lab.number("SELECT count(*) FROM users WHERE id IN (3, 4)").await,
        2
    );
    assert_eq!(lab.number("SELECT count(*) FROM users").await, 2);
    assert_eq!(lab.number("SELECT count(*) FROM log_gap").await, 1);
    let files = report["files"].as_array().unwrap();
    assert_eq!(files.len(), 2, "{report}");
    let text = std::fs::read_to_string(files[0].as_str().unwrap()).unwrap();
    assert!(
        text.contains(
            "\r\n1,7,bob,10.0.0.7,,,,2020-01-02T00:00:00.000000Z,2020-01-03T00:00:00.000000Z,ended\r\n"
        ),
        "{text}"
    );
}

/// A connection of long ago that is archived when its day is gone already.
async fn what_ended_late_goes_with_the_next_run(lab: Lab) {
    let now = now();
    lab.rotate(&["--keep", "30d"]).await;
    lab.add(1, 10, now - 60 * DAY, DAY).await;
    assert_eq!(lab.rows().await, 10);
    let export = lab.exports().display().to_string();
    lab.rotate(&["--keep", "30d", "--export", &export]).await;
    lab.add(20, 10, now - 60 * DAY, DAY).await;
    lab.rotate(&["--keep", "30d", "--export", &export]).await;
    if lab.kind == Some(Kind::MariaDb) {
        // The oldest partition takes what is older than it, and goes when it is old itself.
        assert_eq!(lab.rows().await, 20);
        return;
    }
    assert_eq!((lab.rows().await, lab.rest().await), (0, 0));
    assert_eq!(lab.exported().len(), 20);
}
