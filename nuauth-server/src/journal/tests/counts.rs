//! Counters of live rows: they take no one's place, wait while the database is away, and the last ones count.

use super::*;
use nufw_proto::{Count, Counters};

fn counted(sequence: u64, packets: u64) -> Entry {
    let count = Count {
        packets,
        bytes: packets * 100,
    };
    later(Change::Counted {
        id: id(sequence),
        counters: Counters {
            original: count,
            reply: count,
        },
    })
}

fn lanes(rows_per_commit: usize) -> Lanes {
    let limits = Limits {
        rows_per_commit,
        ..Limits::default()
    };
    Lanes::new(limits, i64::MAX)
}

fn push(lanes: &mut Lanes, entries: impl IntoIterator<Item = Entry>) {
    entries.into_iter().for_each(|entry| lanes.push(entry));
}

/// Row and packets of the counters among these changes.
fn counts(changes: &[Change]) -> Vec<(ConnId, u64)> {
    let of = |change: &Change| match change {
        Change::Counted { id, counters } => Some((*id, counters.original.packets)),
        _ => None,
    };
    changes.iter().filter_map(of).collect()
}

#[test]
fn counters_go_last_only_when_no_open_is_left_and_take_a_share() {
    let mut lanes = lanes(8);
    push(&mut lanes, (1..=20).map(|row| counted(row, row)));
    push(&mut lanes, (21..=32).map(open));
    let first = lanes.take(true);
    assert_eq!((first.changes.len(), counts(&first.changes).len()), (8, 0));
    // Four OPENs are left: they go, and a quarter of the transaction is for counters.
    let second = lanes.take(true);
    assert_eq!(counts(&second.changes), [(id(1), 1), (id(2), 2)]);
    assert!(matches!(second.changes[3], Change::Open(_)), "they come last");
    assert_eq!(counts(&lanes.take(true).changes), [(id(3), 3), (id(4), 4)]);
    assert_eq!(lanes.waiting().counts, 16);
    assert_eq!(lanes.waiting().updates, 0, "they slow no gateway down");
}

#[test]
fn of_each_row_the_last_counters_count_and_its_end_more() {
    let mut lanes = lanes(64);
    push(
        &mut lanes,
        [counted(1, 1), counted(2, 1), counted(1, 5), counted(3, 1)],
    );
    let mut seen = close(2);
    let mut unseen = close(3);
    if let Change::Close(close) = &mut seen.change {
        let count = Count { packets: 9, bytes: 9 };
        close.counters = Some(Counters {
            original: count,
            reply: count,
        });
    }
    if let Change::Close(close) = &mut unseen.change {
        close.reason = CloseReason::Resync;
    }
    push(&mut lanes, [seen, unseen]);
    assert_eq!(counts(&lanes.take(true).changes), [(id(1), 5), (id(3), 1)]);
}

#[test]
fn counters_of_a_failed_transaction_come_again_unless_there_are_later_ones() {
    let mut lanes = lanes(64);
    push(&mut lanes, [counted(1, 1), counted(2, 1)]);
    let batch = lanes.take(true);
    push(&mut lanes, [counted(2, 2)]);
    assert_eq!(lanes.failed(batch), []);
    let batch = lanes.take(true);
    assert_eq!(counts(&batch.changes), [(id(1), 1), (id(2), 2)]);
    // What is for the spool leaves them where they were.
    push(&mut lanes, [close(4)]);
    let rest = lanes.leave_counts(batch);
    assert!(rest.is_empty());
    let away = lanes.take(false);
    assert_eq!((away.changes.len(), counts(&away.changes).len()), (1, 0));
    assert_eq!(lanes.take(true).changes.len(), 2);
}

#[tokio::test]
async fn counters_reach_the_row_and_wait_while_the_database_is_away() {
    let mut lab = Lab::new(Limits::default()).await;
    lab.submit([open(1), counted(1, 3)]);
    lab.committed().await;
    lab.take_database_away();
    lab.submit([counted(1, 4), acknowledge(1)]);
    lab.give_database_back();
    lab.committed().await;
    lab.journal.drain(PATIENCE).await.unwrap();
    let rows = lab.rows().await;
    let packets: Vec<_> = rows.iter().map(|row| row["packets_in"].as_i64()).collect();
    assert_eq!(packets, [Some(4)]);
    assert_eq!(lab.journal.stats().durable.counts, 2);
}
