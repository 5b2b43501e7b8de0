//! What one run does, and what it leaves alone.

use crate::lab::{Lab, report};
use crate::rows::{ago, close, dropped, established, heartbeat, id, open, open_of};
use crate::support::{self, Kind};
use nulog::{Job, Keeper, Store};
use serde_json::json;
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// One of each kind: dropped, open, established and closed, young and old.
async fn variety(store: &mut Store) {
    let (young, old) = (ago(MINUTE), ago(DAY * 3));
    let changes = [
        dropped(1, young),
        dropped(2, old),
        open(3, old),
        open(4, old),
        established(4, old),
        // Ended within the grace, although it began long before.
        open(5, old),
        close(5, Some(young)),
        open(6, old),
        established(6, old),
        close(6, Some(ago(MINUTE * 6))),
        // When it ended is not known.
        open(7, old),
        close(7, None),
        open(8, young),
        close(8, None),
        heartbeat("gw1", ago(MINUTE)),
    ];
    store.apply(&changes).await.unwrap();
}

async fn archived(lab: &Lab, sequence: u64) -> bool {
    let statement = format!("SELECT count(*) FROM ulog WHERE id = {}", id(sequence).get());
    lab.number(&statement).await == 1
}

pub(crate) async fn dead_rows_move_when_the_grace_is_over_and_nothing_else_moves(lab: Lab) {
    let mut store = lab.store().await;
    variety(&mut store).await;
    store.close().await.unwrap();
    let before = lab.rows().await;
    let report = lab.cleaned(&[]);
    assert_eq!(report["moved"], 3, "{report}");
    assert_eq!(report["finished"], true);
    let through = if lab.kind.is_some() { "database" } else { "file" };
    assert_eq!(report["through"], through);
    for (sequence, moved) in [
        (1, false),
        (2, true),
        (3, false),
        (4, false),
        (5, false),
        (6, true),
        (7, true),
        (8, false),
    ] {
        assert_eq!(archived(&lab, sequence).await, moved, "row {sequence}");
    }
    assert_eq!(lab.rows().await, before, "a row that moves stays what it is");
    assert_eq!(lab.cleaned(&[])["moved"], 0);
    assert_eq!(lab.cleaned(&["--grace", "30s"])["moved"], 3);
    assert_eq!(lab.counts().await, (2, 6));
    assert_eq!(lab.rows().await, before);
}

pub(crate) async fn a_dry_run_says_what_would_be_and_changes_nothing(lab: Lab) {
    let mut store = lab.store().await;
    variety(&mut store).await;
    let lost = [
        open_of("gw-lost", 20, ago(DAY * 4)),
        heartbeat("gw-lost", ago(DAY * 2)),
    ];
    store.apply(&lost).await.unwrap();
    store.close().await.unwrap();
    let report = lab.cleaned(&["--dry-run"]);
    assert_eq!((&report["moved"], &report["closed"]), (&json!(3), &json!(1)));
    assert_eq!(report["dry_run"], true);
    assert_eq!(report["old"]["gw-lost"], json!({"rows": 1, "fate": "closed"}));
    assert_eq!(report["old"]["gw1"], json!({"rows": 2, "fate": "unasked"}));
    assert_eq!(lab.counts().await, (9, 0));
    assert_eq!(
        lab.number("SELECT count(*) FROM conntrack_ulog WHERE close_reason = 'gateway-lost'")
            .await,
        0
    );
}

pub(crate) async fn a_second_run_leaves_at_once(lab: Lab) {
    let mut store = lab.store().await;
    variety(&mut store).await;
    store.close().await.unwrap();
    let first = Keeper::open(&lab.cleaner_location(), Job::Clean).await.unwrap();
    let second = lab.clean(&[]);
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains("another clean run is at work"), "{why}");
    // Another kind of upkeep is none of its business.
    let rotating = Keeper::open(&lab.cleaner_location(), Job::Rotate).await.unwrap();
    first.close().await.unwrap();
    let mut moved = None;
    for _ in 0..200 {
        let output = lab.clean(&[]);
        if output.status.code() == Some(0) {
            moved = Some(report(&output)["moved"].clone());
            break;
        }
        // The server may not have seen yet that the first one is gone.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(moved, Some(json!(3)));
    rotating.close().await.unwrap();
}

pub(crate) async fn a_row_that_is_in_both_tables_stays_and_is_named(lab: Lab) {
    let mut store = lab.store().await;
    variety(&mut store).await;
    store.close().await.unwrap();
    let columns =
        "id, state, oob_time_sec, oob_time_usec, oob_mark, ip_protocol, ip_saddr, ip_daddr, gateway, ct_zone";
    lab.execute(&format!(
        "INSERT INTO ulog ({columns}) SELECT {columns} FROM conntrack_ulog WHERE id = {}",
        id(6).get()
    ))
    .await;
    let output = lab.clean(&[]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let report = report(&output);
    assert_eq!((&report["moved"], &report["held"]), (&json!(2), &json!(1)));
    assert_eq!(report["held_ids"], json!([id(6).get().to_string()]));
    assert_eq!(lab.counts().await, (6, 3));
    let known = format!(
        "SELECT count(*) FROM ulog WHERE packets_in IS NULL AND id = {}",
        id(6).get()
    );
    assert_eq!(lab.number(&known).await, 1, "what the archive has stays as it is");
}

pub(crate) async fn a_run_that_is_told_to_end_ends_after_its_batch(lab: Lab) {
    let mut store = lab.store().await;
    let many: Vec<_> = (1..=20_000).map(|sequence| dropped(sequence, ago(DAY))).collect();
    for some in many.chunks(2000) {
        store.apply(some).await.unwrap();
    }
    store.close().await.unwrap();
    let late = lab.clean(&["--at-most", "0s"]);
    assert_eq!(late.status.code(), Some(75), "{late:?}");
    assert_eq!(report(&late)["finished"], false);
    assert!(report(&late)["moved"].as_u64().unwrap() > 0, "{late:?}");

    let run = lab.command(&[]).spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(run.id()).unwrap()).unwrap();
    let moved = report(&late)["moved"].as_i64().unwrap();
    while lab.counts().await.1 == moved {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    let (live, archive) = lab.counts().await;
    assert_eq!(live + archive, 20_000);
    let report = report(&output);
    assert_eq!(report["moved"], archive - moved);
    // It may have been done before it was told.
    let code = if live == 0 { 0 } else { 75 };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

pub(crate) async fn old_rows_are_closed_only_where_the_gateway_is_lost(lab: Lab) {
    let mut store = lab.store().await;
    let (old, young) = (ago(DAY * 3), ago(DAY / 2));
    let changes = [
        open_of("alive", 1, old),
        open_of("lost", 2, old),
        established(2, old),
        open_of("lost", 3, young),
        open_of("never-heard-of", 4, old),
        open_of("quiet-today", 5, old),
        heartbeat("alive", ago(MINUTE)),
        heartbeat("lost", ago(DAY * 2)),
        heartbeat("quiet-today", ago(DAY / 2)),
    ];
    store.apply(&changes).await.unwrap();
    store.close().await.unwrap();
    let report = lab.cleaned(&[]);
    assert_eq!((&report["moved"], &report["closed"]), (&json!(0), &json!(1)));
    let fates = json!({
        "alive": {"rows": 1, "fate": "unasked"},
        "lost": {"rows": 1, "fate": "closed"},
        "never-heard-of": {"rows": 1, "fate": "unasked"},
        "quiet-today": {"rows": 1, "fate": "unasked"},
    });
    assert_eq!(report["old"], fates);
    let row = lab.rows().await.remove(1);
    assert_eq!(row["state"], 3);
    assert_eq!(row["close_reason"], "gateway-lost");
    assert!(row["end_timestamp"].is_null(), "nobody knows it");
    // Its gateway comes back after all, and tells.
    let mut store = lab.store().await;
    let end = ago(MINUTE * 10);
    let applied = store.apply(&[close(2, Some(end))]).await.unwrap();
    assert_eq!(applied.missing, 0);
    store.close().await.unwrap();
    assert_eq!(lab.cleaned(&["--timeout", "300d"])["moved"], 1);
    let row = lab.rows().await.remove(1);
    assert_eq!(
        (&row["close_reason"], &row["packets_in"]),
        (&json!("gateway-lost"), &json!(3))
    );
    assert!(!row["end_timestamp"].is_null());
}

pub(crate) async fn what_comes_late_fills_the_archive(lab: Lab) {
    let mut store = lab.store().await;
    let old = ago(DAY * 3);
    store.apply(&[open(1, old), close(1, None)]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(lab.cleaned(&[])["moved"], 1);
    let mut store = lab.store().await;
    let late = [established(1, old), close(1, Some(ago(DAY)))];
    assert_eq!(store.apply(&late).await.unwrap().missing, 0);
    store.close().await.unwrap();
    let row = lab.rows().await.remove(0);
    assert_eq!(
        (&row["state"], &row["close_reason"]),
        (&json!(3), &json!("finished"))
    );
    assert_eq!((&row["packets_in"], &row["ct_id"]), (&json!(2), &json!("77")));
}

/// The cleaner's clock is two days ahead of the server's, so that every heartbeat looks old.
pub(crate) async fn a_gateway_whose_heart_beats_is_never_lost(kind: Kind) {
    let Some(lab) = Lab::on(kind, "a_gateway_whose_heart_beats_is_never_lost").await else {
        return;
    };
    let mut store = lab.store().await;
    let old = ago(DAY * 5);
    let then = ago(DAY * 2);
    store
        .apply(&[
            open_of("beating", 1, old),
            open_of("gone", 2, old),
            heartbeat("beating", then),
            heartbeat("gone", then),
        ])
        .await
        .unwrap();
    let run = lab.command(&["--watch", "3s"]).spawn().unwrap();
    // The server goes on, with its own idea of the time.
    let beats = tokio::spawn(async move {
        for second in 1..=3000 {
            let at = nufw_proto::Timestamp::from_micros(then.micros() + second * 1_000_000);
            store.apply(&[heartbeat("beating", at)]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let output = tokio::task::spawn_blocking(|| run.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    beats.abort();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = report(&output);
    assert_eq!(report["closed"], 1, "{report}");
    assert_eq!(report["old"]["beating"]["fate"], "waiting");
    assert_eq!(lab.rows().await[0]["state"], 1);
}

/// A server that is slow to commit keeps the cleaner from its rows, and is not kept from anything itself.
pub(crate) async fn rows_that_somebody_holds_are_passed_over(kind: Kind) {
    let Some(lab) = Lab::on(kind, "rows_that_somebody_holds_are_passed_over").await else {
        return;
    };
    let mut store = lab.store().await;
    let old = ago(DAY * 3);
    let rows: Vec<_> = (1..=100).map(|sequence| dropped(sequence, old)).collect();
    store.apply(&rows).await.unwrap();
    store.close().await.unwrap();
    let hold = format!(
        "SELECT id FROM conntrack_ulog WHERE id IN ({}, {}) FOR UPDATE",
        id(7).get(),
        id(50).get()
    );
    let (url, begin) = (lab.url().to_owned(), "START TRANSACTION");
    let hold: Box<dyn std::any::Any> = match kind {
        Kind::Postgres => {
            use sqlx::Connection as _;
            let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(begin).execute(&mut connection).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(hold))
                .execute(&mut connection)
                .await
                .unwrap();
            Box::new(connection)
        }
        Kind::MariaDb => {
            use sqlx::Connection as _;
            let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(begin).execute(&mut connection).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(hold))
                .execute(&mut connection)
                .await
                .unwrap();
            Box::new(connection)
        }
    };
    assert_eq!(lab.cleaned(&[])["moved"], 98);
    drop(hold);
    // The database needs a moment to see that the holder is gone.
    let mut moved = 98;
    while moved < 100 {
        moved += lab.cleaned(&[])["moved"].as_i64().unwrap();
    }
    assert_eq!(lab.counts().await, (0, 100));
    let refused = support::execute(kind, lab.cleaner_url(), "DELETE FROM ulog").await;
    assert!(
        refused.is_err(),
        "the cleaner cannot take anything out of the archive"
    );
}
