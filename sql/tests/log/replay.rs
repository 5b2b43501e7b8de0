//! What comes from the spool: once, whatever is repeated, and never beside its row in the archive.

use crate::lab::Lab;
use crate::make::{addr, at, close, close_with, drop_row, established, id, open, open_row};
use nulog::{Change, EndReason, SessionRow, Spool, StoreError, User};
use std::sync::Arc;

async fn spool(lab: &Lab, file: &str) -> Spool {
    Spool::open(&lab.directory().join(file), 1, 1 << 30)
        .await
        .unwrap()
}

pub(crate) async fn the_position_is_committed_with_the_rows_and_belongs_to_one_spool(lab: Lab) {
    let (one, other) = (spool(&lab, "one.db").await, spool(&lab, "other.db").await);
    let mut store = lab.store().await;
    assert_eq!(store.spooled(one.name()).await.unwrap(), 0);
    store.replay(one.name(), 5, &mut vec![open(1)]).await.unwrap();
    assert_eq!(store.spooled(one.name()).await.unwrap(), 5);
    assert_eq!(store.spooled(other.name()).await.unwrap(), 0);
    let conflict = Change::Open(Box::new(nulog::OpenRow {
        gateway: Arc::from("gw2"),
        ..open_row(1)
    }));
    let error = store
        .replay(one.name(), 6, &mut vec![open(2), conflict])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    assert_eq!(
        store.spooled(one.name()).await.unwrap(),
        5,
        "neither rows nor position"
    );
    assert_eq!(lab.rows().await.len(), 1);
    // An empty group has a position, too.
    store.replay(one.name(), 7, &mut Vec::new()).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(lab.store().await.spooled(one.name()).await.unwrap(), 7);
}

pub(crate) async fn a_row_that_was_archived_meanwhile_is_not_made_anew_but_filled(lab: Lab) {
    let spool = spool(&lab, "spool.db").await;
    let mut store = lab.store().await;
    let gone = close_with(1, |close| (close.counters, close.binding) = (None, None));
    store.apply(&[open(1), gone, drop_row(2)]).await.unwrap();
    lab.archive().await;
    let mut changes = vec![open(1), established(1), close(1), drop_row(2), open(3)];
    let applied = store.replay(spool.name(), 1, &mut changes).await.unwrap();
    assert_eq!(applied.missing, 0);
    let rows = lab.rows().await;
    let ids: Vec<_> = rows
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, [1, 2, 3].map(|n| id(n).to_string()));
    assert_eq!(rows[0]["state"], 3);
    assert!(!rows[0]["ct_id"].is_null(), "what was unknown is filled");
    let other = Change::Drop(Box::new(nulog::OpenRow {
        gateway: Arc::from("gw2"),
        ..open_row(2)
    }));
    let error = store.replay(spool.name(), 2, &mut vec![other]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
}

pub(crate) async fn ids_that_the_spool_had_are_not_given_out_by_an_older_copy_of_the_database(lab: Lab) {
    let mut store = lab.store().await;
    let last = store.reserve_ids(10).await.unwrap().last().unwrap();
    store.skip_ids(last.get() + 1001).await.unwrap();
    let next = store.reserve_ids(10).await.unwrap().next().unwrap();
    assert_eq!(next.get(), last.get() + 1001);
    store.skip_ids(last.get()).await.unwrap();
    let next = store.reserve_ids(10).await.unwrap().next().unwrap();
    assert_eq!(next.get(), last.get() + 1011);
}

pub(crate) async fn sessions_of_a_run_before_that_come_from_the_spool_are_ended(lab: Lab) {
    let mut store = lab.store().await;
    let session = Change::SessionStart(Box::new(SessionRow {
        id: id(1),
        user: User {
            id: 1001,
            name: Arc::from("alice"),
        },
        address: addr("10.0.0.7"),
        os: ["Linux", "6.1", "x"].map(Arc::from),
        start: at(0),
    }));
    store.apply(&[session]).await.unwrap();
    store.end_open_sessions().await.unwrap();
    let mut reader = lab.reader().await;
    let sessions = reader.sessions_json().await.unwrap();
    assert_eq!(sessions[0]["end_reason"], "server-restart");
    assert!(sessions[0]["end_time"].is_null());
    // Its end was in the spool, too.
    let end = |reason| Change::SessionEnd {
        id: id(1),
        at: at(5_000_000),
        reason,
    };
    store.apply(&[end(EndReason::Ordered)]).await.unwrap();
    store.apply(&[end(EndReason::Lost)]).await.unwrap();
    store.end_open_sessions().await.unwrap();
    let sessions = reader.sessions_json().await.unwrap();
    assert_eq!(sessions[0]["end_reason"], "ordered", "the first one counts");
    assert_eq!(sessions[0]["duration"], 5.0);
}
