//! Random sequences of changes, with duplicates and in any order, against a model that a reader can hold in the head.

use crate::lab::{Lab, after};
use crate::make::*;
use nufw_proto::Mark;
use nulog::{Binding, Change, Close, CloseReason, Established, OpenRow, Store};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of one case; few, so that they meet.
const ROWS: u64 = 4;

/// A change of one of the rows, before the case's own ids are known.
#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Drop(u64),
    Established {
        row: u64,
        at: Option<i64>,
        ct_id: u32,
    },
    Close {
        row: u64,
        at: Option<i64>,
        reason: CloseReason,
        counters: bool,
        ct_id: Option<u32>,
    },
    Counted {
        row: u64,
        bytes: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop_oneof![
        Just(CloseReason::Finished),
        Just(CloseReason::Resync),
        Just(CloseReason::Replaced),
        Just(CloseReason::Reset)
    ];
    // Row 0 is always a DROP row, the others never.
    prop_oneof![
        2 => (1..ROWS).prop_map(Step::Open),
        1 => Just(Step::Drop(0)),
        3 => (0..ROWS, proptest::option::of(1..9_i64), 1..3_u32)
            .prop_map(|(row, at, ct_id)| Step::Established { row, at, ct_id }),
        3 => (0..ROWS, proptest::option::of(1..9_i64), reason, any::<bool>(), proptest::option::of(1..3_u32))
            .prop_map(|(row, at, reason, counters, ct_id)| Step::Close { row, at, reason, counters, ct_id }),
        // Less than, as much as, and more than the end has.
        2 => (0..ROWS, 399..402_u64).prop_map(|(row, bytes)| Step::Counted { row, bytes }),
    ]
}

fn bound(ct_id: u32) -> Binding {
    Binding {
        ct_id,
        ct_mark: Mark(ct_id),
        original: tcp(
            "10.0.0.7",
            40312,
            "10.1.1.2",
            1000 + u16::try_from(ct_id).unwrap(),
        ),
        reply: tcp(
            "192.168.0.9",
            8443,
            "203.0.113.5",
            2000 + u16::try_from(ct_id).unwrap(),
        ),
    }
}

fn change(step: &Step, base: u64) -> Change {
    let row = |n: &u64| OpenRow {
        received: at(i64::try_from(*n).unwrap()),
        ..open_row(base + n)
    };
    match step {
        Step::Open(n) => Change::Open(Box::new(row(n))),
        Step::Drop(n) => Change::Drop(Box::new(row(n))),
        Step::Established { row, at: time, ct_id } => Change::Established(Box::new(Established {
            id: id(base + row),
            at: time.map(at),
            binding: Some(bound(*ct_id)),
        })),
        Step::Close {
            row,
            at: time,
            reason,
            counters: counted,
            ct_id,
        } => Change::Close(Box::new(Close {
            id: id(base + row),
            at: time.map(at),
            reason: *reason,
            counters: counted.then(counters),
            binding: ct_id.map(bound),
        })),
        Step::Counted { row, bytes } => {
            let mut counted = counters();
            counted.reply.bytes = *bytes;
            Change::Counted {
                id: id(base + row),
                counters: counted,
            }
        }
    }
}

/// One row as the promises have it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    state: u8,
    start: Option<i64>,
    end: Option<i64>,
    reason: Option<CloseReason>,
    bytes: Option<u64>,
    ct_id: Option<u32>,
}

#[derive(Default)]
struct Model(BTreeMap<u64, Row>);

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Open(n) => {
                self.0.entry(*n).or_insert(Row {
                    state: 1,
                    ..Row::default()
                });
            }
            Step::Drop(n) => {
                self.0.entry(*n).or_default();
            }
            Step::Established { row, at, ct_id } => {
                if let Some(row) = self.0.get_mut(row).filter(|row| row.state != 0) {
                    row.state = row.state.max(2);
                    row.start = row.start.or(*at);
                    row.ct_id = row.ct_id.or(Some(*ct_id));
                }
            }
            Step::Close {
                row,
                at,
                reason,
                counters,
                ct_id,
            } => {
                if let Some(row) = self.0.get_mut(row).filter(|row| row.state != 0) {
                    row.state = 3;
                    let truer = at.is_some() && !reason.is_inferred();
                    if truer && row.reason.is_some_and(CloseReason::is_inferred) {
                        (row.end, row.reason) = (*at, Some(*reason));
                    }
                    row.end = row.end.or(*at);
                    row.reason = row.reason.or(Some(*reason));
                    row.bytes = row.bytes.max(counters.then_some(400));
                    row.ct_id = row.ct_id.or(*ct_id);
                }
            }
            Step::Counted { row, bytes } => {
                if let Some(row) = self.0.get_mut(row).filter(|row| row.state != 0) {
                    row.bytes = row.bytes.max(Some(*bytes));
                }
            }
        }
    }

    fn rows(&self, base: u64) -> Vec<Value> {
        let time = |micros: Option<i64>| micros.map(|micros| format!("2027-01-15T08:00:00.{micros:06}Z"));
        let row = |(n, row): (&u64, &Row)| {
            let dport = row.ct_id.map_or(443, |ct_id| 1000 + ct_id);
            json!([
                id(base + n).get().to_string(),
                row.state,
                time(row.start),
                time(row.end),
                row.reason.map(CloseReason::as_str),
                row.bytes,
                row.ct_id.map(|ct_id| ct_id.to_string()),
                dport,
                row.ct_id.map(|ct_id| 2000 + ct_id),
                8443
            ])
        };
        self.0.iter().map(row).collect()
    }
}

async fn found(lab: &Lab, base: u64) -> Vec<Value> {
    let rows = lab.rows_where(&after(base - 1)).await;
    let columns = [
        "id",
        "state",
        "start_timestamp",
        "end_timestamp",
        "close_reason",
        "bytes_out",
        "ct_id",
        "dport",
        "reply_dport",
        "reply_sport",
    ];
    rows.iter()
        .map(|row| columns.iter().map(|column| row[*column].clone()).collect())
        .collect()
}

/// Applies the steps in transactions of the given lengths, each as often as its flag says.
async fn run(
    lab: &Lab,
    store: &mut Store,
    base: u64,
    transactions: &[(Vec<Step>, bool)],
) -> (Vec<Value>, Vec<Value>) {
    let mut model = Model::default();
    for (steps, twice) in transactions {
        let changes: Vec<_> = steps.iter().map(|step| change(step, base)).collect();
        for _ in 0..=usize::from(*twice) {
            store.apply(&changes).await.unwrap();
        }
        for step in steps {
            model.apply(step);
        }
        if *twice {
            for step in steps {
                model.apply(step);
            }
        }
    }
    (found(lab, base).await, model.rows(base))
}

/// Blocks, since the strategy's runner does.
pub(crate) fn any_sequence_of_changes_leaves_what_the_model_says(
    runtime: &tokio::runtime::Runtime,
    lab: &Lab,
) {
    let store = std::cell::RefCell::new(runtime.block_on(lab.store()));
    let cases = AtomicU64::new(1);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: if lab.kind.is_some() { 100 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let transactions =
        proptest::collection::vec((proptest::collection::vec(step(), 1..12), any::<bool>()), 1..5);
    runner
        .run(&transactions, |transactions| {
            let base = cases.fetch_add(1, Ordering::Relaxed) * 10;
            let (found, expected) = runtime.block_on(run(lab, &mut store.borrow_mut(), base, &transactions));
            prop_assert_eq!(found, expected);
            Ok(())
        })
        .unwrap();
}
