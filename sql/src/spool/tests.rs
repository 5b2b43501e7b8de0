//! What the spool promises of its file: order, durability, its limit, and that a crash leaves nothing half.

use super::*;
use crate::ids::IdBlock;
use nufw_proto::{BootId, EventSeq};
use proptest::prelude::*;
use tempfile::tempdir;

const LIMIT: u64 = 1 << 20;

fn acknowledge(through: u64) -> Change {
    Change::Acknowledge {
        gateway: Arc::from("gw1"),
        boot: BootId(7),
        through: EventSeq(through),
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

async fn open(directory: &Path) -> Spool {
    Spool::open(&directory.join("spool.db"), 1, LIMIT).await.unwrap()
}

async fn all(spool: &mut Spool) -> Vec<Change> {
    let records = spool.read_after(0, 1_000_000).await.unwrap();
    records.into_iter().flat_map(|record| record.changes).collect()
}

#[tokio::test]
async fn what_was_put_in_is_there_after_a_crash_in_its_order_and_what_was_forgotten_is_not() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    assert!(spool.is_done());
    for n in 0..20 {
        spool
            .append(&[acknowledge(2 * n), acknowledge(2 * n + 1)], at(1))
            .await
            .unwrap();
    }
    let name = spool.name();
    let first = spool.read(5).await.unwrap();
    assert_eq!(first.len(), 2, "groups stay whole");
    spool.forget(first[1].position).await.unwrap();
    assert_eq!(spool.held().rows, 36);
    drop(spool);
    let mut spool = open(directory.path()).await;
    assert_eq!(
        (spool.name(), spool.held().rows),
        (name, 40),
        "only the database knows"
    );
    let expected: Vec<Change> = (0..40).map(acknowledge).collect();
    assert_eq!(all(&mut spool).await, expected);
    spool.forget(first[1].position).await.unwrap();
    spool.append(&[acknowledge(40)], at(2)).await.unwrap();
    drop(spool);
    let mut spool = open(directory.path()).await;
    let expected: Vec<Change> = (4..41).map(acknowledge).collect();
    assert_eq!(all(&mut spool).await, expected);
    assert_eq!(spool.held().oldest, Some(at(1)));
}

#[tokio::test]
async fn a_position_is_never_used_again() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    spool.append(&[acknowledge(1)], at(1)).await.unwrap();
    spool.forget(spool.last()).await.unwrap();
    spool.sweep().await.unwrap();
    let last = spool.last();
    drop(spool);
    let mut spool = open(directory.path()).await;
    assert_eq!(spool.last(), last);
    spool.append(&[acknowledge(2)], at(1)).await.unwrap();
    assert_eq!(spool.read(10).await.unwrap()[0].position, last + 1);
}

#[tokio::test]
async fn the_time_on_the_spool_is_one_row_of_log_gap_although_the_server_crashed_meanwhile() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    spool.append(&[acknowledge(1)], at(5)).await.unwrap();
    drop(spool);
    let mut spool = open(directory.path()).await;
    spool.append(&[acknowledge(2)], at(7)).await.unwrap();
    spool.forget(spool.last()).await.unwrap();
    assert!(!spool.is_done(), "log_gap has not been told");
    spool.conclude(at(9)).await.unwrap();
    spool.conclude(at(10)).await.unwrap();
    let records = spool.read(10).await.unwrap();
    let [SpoolRecord { position, changes }] = records.as_slice() else {
        panic!("{records:?}")
    };
    let [Change::Gap(gap)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (gap.from, gap.to, &*gap.cause, gap.count),
        (at(5), at(9), "spooled", Some(0))
    );
    spool.forget(*position).await.unwrap();
    assert!(spool.is_done());
}

#[tokio::test]
async fn at_the_limit_nothing_more_is_taken_and_what_leaves_makes_room() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    let group: Vec<Change> = (0..1000).map(acknowledge).collect();
    let error = loop {
        if let Err(error) = spool.append(&group, at(1)).await {
            break error;
        }
    };
    assert!(
        matches!(error, StoreError::SpoolFull { limit: LIMIT, .. }),
        "{error:?}"
    );
    assert!(spool.is_fuller_than(3, 4) && spool.held().bytes <= LIMIT);
    let first = spool.read(1).await.unwrap();
    spool.forget(first[0].position).await.unwrap();
    spool.append(&group, at(1)).await.unwrap();
    // The file stays as large as its contents, however often they change.
    for _ in 0..200 {
        let first = spool.read(1).await.unwrap();
        spool.forget(first[0].position).await.unwrap();
        spool.append(&group, at(1)).await.unwrap();
    }
    let size = std::fs::metadata(directory.path().join("spool.db"))
        .unwrap()
        .len();
    assert!(size < 2 * LIMIT, "{size}");
    spool.forget(spool.last()).await.unwrap();
    spool.sweep().await.unwrap();
    let size = std::fs::metadata(directory.path().join("spool.db"))
        .unwrap()
        .len();
    assert!(size < 64 * 1024, "{size}");
}

#[tokio::test]
async fn ids_that_are_kept_are_given_out_once() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    assert_eq!(spool.take_ids(10).await.unwrap(), None);
    spool.keep_ids(&IdBlock::new(1, 100, 15).unwrap()).await.unwrap();
    assert_eq!(
        spool.take_ids(10).await.unwrap(),
        Some(IdBlock::new(1, 100, 10).unwrap())
    );
    drop(spool);
    let mut spool = open(directory.path()).await;
    assert_eq!(spool.ids_left().await.unwrap(), 5);
    assert_eq!(
        spool.take_ids(10).await.unwrap(),
        Some(IdBlock::new(1, 110, 5).unwrap())
    );
    assert_eq!(spool.take_ids(10).await.unwrap(), None);
}

#[tokio::test]
async fn a_spool_of_another_server_and_one_that_is_in_use_are_refused() {
    let directory = tempdir().unwrap();
    let spool = open(directory.path()).await;
    let path = directory.path().join("spool.db");
    let error = Spool::open(&path, 1, LIMIT).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    spool.close().await.unwrap();
    let error = Spool::open(&path, 2, LIMIT).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::OtherServer {
                found: 1,
                configured: 2,
                ..
            }
        ),
        "{error:?}"
    );
    let error = Spool::open(&directory.path().join("no/spool.db"), 1, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NoDirectory(_)), "{error:?}");
}

#[tokio::test]
async fn a_file_that_was_taken_away_takes_nothing_more() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    std::fs::rename(directory.path().join("spool.db"), directory.path().join("aside")).unwrap();
    let error = spool.append(&[acknowledge(1)], at(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone(_)), "{error:?}");
    std::fs::rename(directory.path().join("aside"), directory.path().join("spool.db")).unwrap();
    spool.append(&[acknowledge(1)], at(1)).await.unwrap();
}

#[tokio::test]
async fn a_group_that_is_given_up_half_way_is_whole_or_not_there() {
    let directory = tempdir().unwrap();
    let mut spool = open(directory.path()).await;
    let group: Vec<Change> = (0..500).map(acknowledge).collect();
    for micros in 0..200 {
        let append = spool.append(&group, at(1));
        let _ = tokio::time::timeout(std::time::Duration::from_micros(micros * 10), append).await;
    }
    spool.append(&group, at(1)).await.unwrap();
    let records = spool.read_after(0, 1_000_000).await.unwrap();
    assert!(records.iter().all(|record| record.changes == group));
    assert_eq!(records.last().map(|record| record.position), Some(spool.last()));
    assert_eq!(spool.held().rows, 500 * records.len() as u64);
}

proptest! {
    /// Damaged bytes are an error, or another group; never a crash.
    #[test]
    fn damaged_groups_do_no_harm(through in any::<u64>(), at in 0..64_usize, to in any::<u8>()) {
        let group = [acknowledge(through), acknowledge(1)];
        let mut bytes = record::encode(&group).unwrap();
        prop_assert_eq!(record::decode(&bytes).unwrap(), group);
        let index = at % bytes.len();
        prop_assert!(record::decode(&bytes[..index]).is_err());
        bytes[index] = to;
        let _ = record::decode(&bytes);
    }
}
