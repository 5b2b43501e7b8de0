//! Killed at any moment and run again: every row that is kept is there once, every other one is in a file.

use crate::lab::{DAY, Lab, add, now, on_every_server};
use std::collections::BTreeSet;
use std::time::Duration;

on_every_server!(
    nothing_is_lost_whenever_it_is_killed,
    a_signal_ends_it_after_a_step
);

/// How often; the variable for a long test.
fn repetitions() -> u64 {
    std::env::var("NULOG_ROTATE_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_from_a_file_whenever_it_is_killed() {
    nothing_is_lost_whenever_it_is_killed(Lab::file().await).await;
}

async fn nothing_is_lost_whenever_it_is_killed(lab: Lab) {
    let now = now();
    let export = lab.exports().display().to_string();
    let (mut kept, mut old) = (BTreeSet::new(), BTreeSet::new());
    let mut next = 1;
    for round in 0..repetitions() {
        // Few and many rows in turn, and some of each age.
        let many = if round % 2 == 0 { 11_000 } else { 300 };
        let mut statements = Vec::new();
        for (count, age) in [(many, 3), (200, 60), (150, 61), (100, 400)] {
            statements.push(add(lab.kind, next, count, now - age * DAY, 1));
            let ids = next..next + count;
            if age < 30 {
                kept.extend(ids);
            } else {
                old.extend(ids);
            }
            next += count;
        }
        lab.execute(&statements.join(";")).await;
        let mut child = lab.spawn(&["--keep", "30d", "--export", &export]);
        // Rows come in all the while.
        let during = add(lab.kind, next, 50, now - 3 * DAY, 1);
        kept.extend(next..next + 50);
        next += 50;
        let delay = Duration::from_millis(5 + (round * 37) % 300);
        tokio::time::sleep(delay / 2).await;
        lab.execute(&during).await;
        tokio::time::sleep(delay / 2).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The server has to notice that the last one is gone.
    let mut patience = 100;
    loop {
        let output = lab.run(&["--keep", "30d", "--export", &export]).await;
        if output.status.success() {
            break;
        }
        patience -= 1;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(75) && patience > 0, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let exported: BTreeSet<_> = lab.exported().into_keys().collect();
    let total = lab.rows().await;
    assert_eq!(
        lab.number("SELECT count(DISTINCT id) FROM ulog").await,
        total,
        "none twice"
    );
    let expired = lab
        .number(&format!(
            "SELECT count(*) FROM ulog WHERE oob_time_sec < {}",
            now - 31 * DAY
        ))
        .await;
    assert_eq!(
        total - expired,
        i64::try_from(kept.len()).unwrap(),
        "every row that is kept is there"
    );
    assert!(exported.is_disjoint(&kept));
    assert_eq!(
        exported.len() + usize::try_from(expired).unwrap(),
        old.len(),
        "every other one is in a file"
    );
    assert_eq!(lab.rest().await, 0);
}

async fn a_signal_ends_it_after_a_step(lab: Lab) {
    let now = now();
    lab.rotate(&["--keep", "90d"]).await;
    lab.add(1, 100, now - 100 * DAY, DAY / 3).await;
    let mut child = lab.spawn(&["--keep", "30d"]);
    tokio::time::sleep(Duration::from_millis(30)).await;
    let id = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap())
        .await
        .unwrap();
    assert!(
        matches!(status.code(), Some(0 | 75))
            || std::os::unix::process::ExitStatusExt::signal(&status) == Some(15),
        "{status:?}"
    );
    lab.rotate(&["--keep", "30d"]).await;
    assert_eq!(lab.rest().await, 0);
}
