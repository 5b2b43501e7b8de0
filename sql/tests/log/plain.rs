//! Everything beside the connections: ids, acknowledgements, heartbeats, sessions, gaps, and the schema itself.

use crate::lab::Lab;
use crate::make::*;
use nufw_proto::{BootId, ConnId, EventSeq};
use nulog::{Change, EndReason, GapRow, SessionRow, StoreError, User};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn acknowledge(gateway: &str, boot: u64, through: u64) -> Change {
    Change::Acknowledge {
        gateway: Arc::from(gateway),
        boot: BootId(boot),
        through: EventSeq(through),
    }
}

pub(crate) async fn acknowledgements_move_forward_within_a_boot_and_a_new_boot_replaces_them(lab: Lab) {
    let mut store = lab.store().await;
    store
        .apply(&[acknowledge("gw1", u64::MAX, 5), acknowledge("gw2", 1, 9)])
        .await
        .unwrap();
    store.apply(&[acknowledge("gw1", u64::MAX, 3)]).await.unwrap();
    let found = store.acknowledged().await.unwrap();
    assert_eq!(found["gw1"], (BootId(u64::MAX), EventSeq(5)));
    assert_eq!(found["gw2"], (BootId(1), EventSeq(9)));
    let heartbeat = Change::Heartbeat {
        gateway: Arc::from("gw3"),
        at: at(0),
    };
    let changes = [
        acknowledge("gw1", u64::MAX, 8),
        acknowledge("gw1", 4, 1),
        acknowledge("gw1", 4, 2),
        heartbeat,
    ];
    for _ in 0..2 {
        store.apply(&changes).await.unwrap();
        let found = store.acknowledged().await.unwrap();
        assert_eq!(found["gw1"], (BootId(4), EventSeq(2)));
        assert_eq!(
            found.len(),
            2,
            "a gateway that only was heard of has acknowledged nothing"
        );
    }
}

pub(crate) async fn a_session_left_open_by_a_crash_is_ended_without_inventing_when(lab: Lab) {
    let session = |n| {
        Change::SessionStart(Box::new(SessionRow {
            id: id(n),
            user: User {
                id: 1001,
                name: Arc::from("alice"),
            },
            address: addr("10.0.0.7"),
            os: [Arc::from("Linux"), Arc::from("6.1"), Arc::from("#1 SMP")],
            start: at(0),
        }))
    };
    let end = Change::SessionEnd {
        id: id(1),
        at: at(4_000_000),
        reason: EndReason::Idle,
    };
    let mut first = lab.store().await;
    for _ in 0..2 {
        first.apply(&[session(1), session(2), end.clone()]).await.unwrap();
    }
    let mut other = SessionRow {
        id: id(1),
        user: User {
            id: 7,
            name: Arc::from("mallory"),
        },
        address: addr("10.0.0.7"),
        os: [Arc::from(""), Arc::from(""), Arc::from("")],
        start: at(0),
    };
    let conflict = first
        .apply(&[Change::SessionStart(Box::new(other.clone()))])
        .await
        .unwrap_err();
    assert_eq!(conflict.spoiled_row(), Some(id(1)));
    other.user.id = u64::MAX;
    let unstorable = first
        .apply(&[Change::SessionStart(Box::new(other))])
        .await
        .unwrap_err();
    assert!(matches!(unstorable, StoreError::Unstorable { .. }));
    drop(first);
    let _second = store_again(&lab).await;
    let mut reader = lab.reader().await;
    let found = reader.sessions_json().await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (&found[0]["duration"], &found[0]["end_reason"]),
        (&json!(4.0), &json!("idle"))
    );
    assert_eq!(found[0]["start_time"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(
        (&found[1]["end_time"], &found[1]["end_reason"]),
        (&json!(null), &json!("server-restart"))
    );
}

/// Opens again after a store was dropped, whose threads release the lock a moment later.
async fn store_again(lab: &Lab) -> nulog::Store {
    for _ in 0..100 {
        match nulog::Store::open(&lab.location(), 1).await {
            Err(StoreError::InUse { .. }) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the lock of a dropped store stays")
}

pub(crate) async fn a_gap_told_twice_is_one_gap(lab: Lab) {
    let mut store = lab.store().await;
    let gap = |gateway: Option<&str>, to| {
        Change::Gap(Box::new(GapRow {
            gateway: gateway.map(Arc::from),
            from: at(0),
            to: at(to),
            cause: Arc::from("netlink-overrun"),
            count: None,
        }))
    };
    let changes = [
        gap(None, 1),
        gap(Some("gw1"), 1),
        gap(Some("gw1"), 2),
        gap(None, 1),
    ];
    store.apply(&changes).await.unwrap();
    store.apply(&changes).await.unwrap();
    let mut reader = lab.reader().await;
    let gaps = reader.gaps_json().await.unwrap();
    assert_eq!(gaps.len(), 3);
    assert_eq!(gaps[0]["to_timestamp"], "2027-01-15T08:00:00.000001Z");
    assert_eq!(
        (&gaps[0]["cause"], &gaps[0]["count"]),
        (&json!("netlink-overrun"), &json!(null))
    );
}

const CRASH: &str = "NULOG_TEST_CRASH";

/// Not a test of its own: what the next one runs and kills.
#[tokio::test]
async fn crashing_child() {
    let Ok(crash) = std::env::var(CRASH) else {
        return;
    };
    let (directory, url) = crash.split_once(' ').unwrap();
    let mut store = nulog::Store::open(&nulog::Location::parse(url).unwrap(), 1)
        .await
        .unwrap();
    let mut block = store.reserve_ids(10).await.unwrap();
    let used = block.next().unwrap();
    store
        .apply(&[open(used.get().unsigned_abs() - (1 << 49))])
        .await
        .unwrap();
    std::fs::write(Path::new(directory).join("used"), used.to_string()).unwrap();
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
    std::thread::sleep(std::time::Duration::from_mins(1));
}

pub(crate) async fn ids_are_never_given_twice_whatever_is_killed_and_what_was_applied_is_there(lab: Lab) {
    let mut seen: HashSet<ConnId> = HashSet::new();
    for _ in 0..3 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plain::crashing_child", "--nocapture"])
            .env(CRASH, format!("{} {}", lab.directory().display(), lab.url()))
            .output()
            .unwrap();
        assert!(
            !child.status.success(),
            "{}",
            String::from_utf8_lossy(&child.stdout)
        );
        let used: u64 = std::fs::read_to_string(lab.directory().join("used"))
            .unwrap()
            .parse()
            .unwrap();
        assert!(seen.insert(ConnId::try_from(used).unwrap()));
        // The kernel released the lock with the process.
        let mut store = lab.store().await;
        assert!(store.reserve_ids(5).await.unwrap().all(|id| seen.insert(id)));
        assert!(
            store
                .active_rows()
                .await
                .unwrap()
                .iter()
                .any(|row| u64::from(row.id) == used)
        );
        store.close().await.unwrap();
    }
    assert_eq!(lab.rows().await.len(), 3);
}

pub(crate) async fn every_table_has_its_columns_in_one_order_and_nufws_names_are_among_them(lab: Lab) {
    let mut store = lab.store().await;
    store.apply(&[open(1), close(1)]).await.unwrap();
    let before = lab.rows().await;
    // The archive takes the columns by their places, as a cleaner gives them.
    let columns = crate::lab::COLUMNS;
    lab.execute(&format!("INSERT INTO ulog SELECT {columns} FROM conntrack_ulog"))
        .await;
    lab.execute("DELETE FROM conntrack_ulog").await;
    assert_eq!(lab.rows().await, before);
    let names = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, \
                 ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code, user_id, username, client_os, \
                 client_app, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out";
    for table in ["conntrack_ulog", "ulog"] {
        lab.execute(&format!("SELECT {names} FROM {table}")).await;
    }
    if lab.kind.is_some() {
        lab.execute(&format!("SELECT {names} FROM conntrack_ulog_ipv4"))
            .await;
    }
}
