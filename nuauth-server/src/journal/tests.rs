//! The journal on a real log: what it promises when all is well and when the database is away.
//!
//! "Away" is made by moving the file aside, which the store refuses to write to; a full disk is real, in a mount namespace.

mod counts;
mod upkeep;

use super::lanes::Lanes;
use super::*;
use nufw_proto::{Addr, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Close, CloseReason, Established, Location, OpenRow, Reader, RowFilter};
use proptest::prelude::*;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{TempDir, tempdir};

const PATIENCE: Duration = Duration::from_secs(20);

fn id(sequence: u64) -> ConnId {
    ConnId::try_from((1 << 49) + sequence).unwrap()
}

fn row(sequence: u64) -> Box<OpenRow> {
    let addr = |text: &str| text.parse::<Addr>().unwrap();
    let ports = Transport::Tcp(Ports { src: 1, dst: 2 });
    let tuple = Tuple::new(addr("10.0.0.1"), addr("10.0.0.2"), ports).unwrap();
    Box::new(OpenRow {
        id: id(sequence),
        gateway: Arc::from("gw1"),
        received: Timestamp::from_micros(i64::try_from(sequence).unwrap()),
        prefix: Arc::from(""),
        mark: Mark(0),
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        zone: 0,
        original: tuple,
        shown: tuple,
        user: None,
        client_os: None,
        client_app: None,
        acl: Arc::from("test"),
        parent: None,
        policy: Arc::from(""),
        auth: None,
    })
}

fn later(change: Change) -> Entry {
    Entry {
        change,
        urgent: false,
    }
}

fn open(sequence: u64) -> Entry {
    later(Change::Open(row(sequence)))
}

fn urgent(sequence: u64) -> Entry {
    Entry {
        change: Change::Open(row(sequence)),
        urgent: true,
    }
}

fn dropped(sequence: u64) -> Entry {
    later(Change::Drop(row(sequence)))
}

fn established(sequence: u64) -> Entry {
    let row = row(sequence);
    let binding = Binding {
        ct_id: 1,
        ct_mark: Mark(0),
        original: row.original,
        reply: row.original,
    };
    later(Change::Established(Box::new(Established {
        id: row.id,
        at: Some(Timestamp::from_micros(1)),
        binding: Some(binding),
    })))
}

fn close(sequence: u64) -> Entry {
    later(Change::Close(Box::new(Close {
        id: id(sequence),
        at: Some(Timestamp::from_micros(2)),
        reason: CloseReason::Finished,
        counters: None,
        binding: None,
    })))
}

fn acknowledge(through: u64) -> Entry {
    later(Change::Acknowledge {
        gateway: Arc::from("gw1"),
        boot: BootId(7),
        through: EventSeq(through),
    })
}

struct Lab {
    journal: Journal,
    reports: mpsc::UnboundedReceiver<Report>,
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Lab {
    async fn new(limits: Limits) -> Self {
        let directory = tempdir().unwrap();
        let lab = Self::at(directory.path(), limits).await;
        Self {
            _directory: Some(directory),
            ..lab
        }
    }

    async fn at(directory: &Path, limits: Limits) -> Self {
        let path = directory.join("nulog.db");
        let location = Location::parse(&format!("sqlite:{}", path.display())).unwrap();
        let store = Store::open(&location, 1).await.unwrap();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let journal = Journal::start(store, limits, sender).await.unwrap();
        assert!(
            matches!(reports.try_recv(), Ok(Report::Ids(_))),
            "ids come before anything else"
        );
        Self {
            journal,
            reports,
            path,
            _directory: None,
        }
    }

    fn submit<const N: usize>(&self, entries: [Entry; N]) {
        self.journal.submit(entries.into());
    }

    async fn report(&mut self) -> Report {
        tokio::time::timeout(PATIENCE, self.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }

    async fn committed(&mut self) -> (Vec<ConnId>, Vec<(Arc<str>, BootId, EventSeq)>) {
        match self.report().await {
            Report::Committed { opened, acknowledged } => (opened, acknowledged),
            other => panic!("not a commit: {other:?}"),
        }
    }

    async fn failed(&mut self) -> (Vec<ConnId>, String) {
        match self.report().await {
            Report::Failed { opened, error } => (opened, error),
            other => panic!("not a failure: {other:?}"),
        }
    }

    fn take_database_away(&self) {
        std::fs::rename(&self.path, self.path.with_extension("aside")).unwrap();
    }

    fn give_database_back(&self) {
        std::fs::rename(self.path.with_extension("aside"), &self.path).unwrap();
    }

    async fn rows(&self) -> Vec<Map<String, Value>> {
        let location = Location::parse(&format!("sqlite:{}", self.path.display())).unwrap();
        let mut reader = Reader::open(&location).await.unwrap();
        reader.rows_json(&RowFilter::default()).await.unwrap()
    }

    async fn states(&self) -> Vec<(String, i64, String)> {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let rows = self.rows().await;
        rows.iter()
            .map(|row| {
                (
                    text(&row["id"]),
                    row["state"].as_i64().unwrap(),
                    text(&row["close_reason"]),
                )
            })
            .collect()
    }
}

fn state(sequence: u64, state: i64, reason: &str) -> (String, i64, String) {
    (id(sequence).to_string(), state, reason.to_owned())
}

#[tokio::test]
async fn what_is_reported_is_in_the_log_and_drain_leaves_nothing_behind() {
    let mut lab = Lab::new(Limits::default()).await;
    lab.submit([urgent(1), open(2)]);
    assert_eq!(lab.committed().await.0, [id(1), id(2)]);
    assert_eq!(lab.states().await, [state(1, 1, ""), state(2, 1, "")]);
    lab.submit([established(1), acknowledge(3), acknowledge(4), dropped(5)]);
    let acknowledged = (Arc::from("gw1"), BootId(7), EventSeq(4));
    assert_eq!(lab.committed().await, (vec![], vec![acknowledged]));
    lab.submit([close(2), dropped(6)]);
    lab.journal.drain(PATIENCE).await.unwrap();
    let expected = [
        state(1, 2, ""),
        state(2, 3, "finished"),
        state(5, 0, ""),
        state(6, 0, ""),
    ];
    assert!(!lab.path.with_extension("db-wal").exists());
    assert_eq!(lab.states().await, expected);
    assert!(matches!(
        lab.journal.drain(PATIENCE).await,
        Err(DrainError::Ended)
    ));
}

#[tokio::test]
async fn while_the_database_is_away_urgent_rows_fail_at_once_and_nothing_else_is_lost_or_overtakes() {
    let mut lab = Lab::new(Limits::default()).await;
    lab.submit([urgent(1)]);
    lab.committed().await;
    lab.take_database_away();
    lab.submit([
        urgent(2),
        open(3),
        close(3),
        established(3),
        close(1),
        acknowledge(9),
        dropped(4),
    ]);
    let (opened, error) = lab.failed().await;
    assert_eq!(opened, [id(2)]);
    assert!(error.contains("removed or replaced"), "{error}");
    // Not even tried: the answer does not wait for the next attempt.
    lab.submit([urgent(5), open(6)]);
    assert_eq!(lab.failed().await.0, [id(5)]);
    lab.give_database_back();
    let (opened, acknowledged) = lab.committed().await;
    assert_eq!((opened, acknowledged.len()), (vec![id(3), id(6)], 1));
    assert_eq!(lab.report().await, Report::Recovered);
    lab.submit([urgent(7)]);
    assert_eq!(lab.committed().await.0, [id(7)]);
    lab.journal.drain(PATIENCE).await.unwrap();
    let expected = [
        state(1, 3, "finished"),
        state(3, 3, "finished"),
        state(4, 0, ""),
        state(6, 1, ""),
        state(7, 1, ""),
    ];
    assert_eq!(lab.states().await, expected);
}

#[tokio::test]
async fn a_row_that_was_committed_although_it_was_reported_as_failed_is_closed() {
    // What a failing sync of the disk can do: the row is there, the answer was an error.
    let lab = Lab::new(Limits::default()).await;
    let mut lanes = Lanes::new(Limits::default(), i64::MAX);
    lanes.push(urgent(1));
    let batch = lanes.take(true);
    lab.submit([open(1)]);
    assert_eq!(lanes.failed(batch), [id(1)]);
    let compensation = lanes.take(true);
    lab.journal
        .submit(compensation.changes.iter().cloned().map(later).collect());
    lab.journal.drain(PATIENCE).await.unwrap();
    assert_eq!(lab.states().await, [state(1, 3, "log-failed")]);
}

#[tokio::test]
async fn an_id_given_out_twice_fails_alone_and_its_updates_do_not_touch_the_other_row() {
    let mut lab = Lab::new(Limits::default()).await;
    lab.submit([urgent(1)]);
    lab.committed().await;
    let mut other = row(1);
    other.gateway = Arc::from("gw2");
    let twice = later(Change::Open(other));
    lab.submit([open(2), twice, close(1), established(2)]);
    let (opened, error) = lab.failed().await;
    assert_eq!(opened, [id(1)]);
    assert!(error.contains("another gateway"), "{error}");
    assert_eq!(lab.committed().await.0, [id(2)]);
    lab.journal.drain(PATIENCE).await.unwrap();
    assert_eq!(lab.states().await, [state(1, 1, ""), state(2, 2, "")]);
}

#[tokio::test]
async fn the_next_block_of_ids_comes_when_half_of_one_is_used() {
    let limits = Limits {
        ids_per_block: 10,
        ..Limits::default()
    };
    let mut lab = Lab::new(limits).await;
    // The first block is 1 to 10.
    lab.submit([open(5)]);
    assert_eq!(lab.committed().await.0, [id(5)]);
    lab.submit([open(6)]);
    assert_eq!(lab.committed().await.0, [id(6)]);
    match lab.report().await {
        Report::Ids(mut block) => assert_eq!(block.next(), Some(id(11))),
        other => panic!("{other:?}"),
    }
    lab.submit([dropped(12), open(10)]);
    assert_eq!(lab.committed().await.0, [id(10)]);
    assert!(lab.reports.try_recv().is_err(), "one block in advance is enough");
}

#[tokio::test]
async fn gateways_are_told_to_stop_and_to_go_on() {
    let limits = Limits {
        updates: 10,
        ..Limits::default()
    };
    let lab = Lab::new(limits).await;
    let mut pressure = lab.journal.backpressure();
    lab.take_database_away();
    lab.journal.submit((0..10).map(|n| acknowledge(n + 1)).collect());
    assert!(!*pressure.borrow_and_update());
    lab.submit([acknowledge(11)]);
    assert!(*pressure.borrow_and_update());
    assert_eq!(lab.journal.waiting().updates, 11);
    lab.give_database_back();
    tokio::time::timeout(PATIENCE, pressure.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(!*pressure.borrow());
}

#[tokio::test]
async fn drop_rows_beyond_the_limit_are_counted_in_one_gap() {
    let limits = Limits {
        drops: 10,
        ..Limits::default()
    };
    let lab = Lab::new(limits).await;
    lab.take_database_away();
    lab.journal.submit((1..=100).map(dropped).collect());
    assert_eq!(lab.journal.waiting().drops, 10);
    lab.give_database_back();
    lab.journal.drain(PATIENCE).await.unwrap();
    assert_eq!(lab.rows().await.len(), 10);
    let location = Location::parse(&format!("sqlite:{}", lab.path.display())).unwrap();
    let gaps = Reader::open(&location).await.unwrap().gaps_json().await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(
        (&gaps[0]["gateway"], &gaps[0]["count"]),
        (&Value::from("gw1"), &Value::from(90))
    );
    assert_eq!(gaps[0]["to_timestamp"], "1970-01-01T00:00:00.000100Z");
}

#[test]
fn updates_above_their_limit_go_before_new_rows() {
    let limits = Limits {
        rows_per_commit: 8,
        updates: 20,
        ..Limits::default()
    };
    let mut lanes = Lanes::new(limits, i64::MAX);
    let updates_of_next = |lanes: &mut Lanes| {
        let batch = lanes.take(true);
        let opens = batch.opened().len();
        let updates = batch.changes.len() - opens;
        lanes.committed();
        (opens, updates)
    };
    (0..100).for_each(|sequence| lanes.push(open(sequence)));
    (0..22).for_each(|_| lanes.push(close(0)));
    // An update never overtakes the OPENs before it, so these have to be gone first.
    while lanes.waiting().opens > 6 {
        lanes.take(true);
        lanes.committed();
    }
    (100..200).for_each(|sequence| lanes.push(open(sequence)));
    while lanes.waiting().updates > 20 {
        assert!(updates_of_next(&mut lanes).1 <= 6);
    }
    assert_eq!(updates_of_next(&mut lanes), (6, 2), "a quarter, below the limit");
    (0..20).for_each(|_| lanes.push(close(0)));
    assert_eq!(updates_of_next(&mut lanes), (2, 6), "three quarters, above it");
}

#[tokio::test]
async fn what_was_done_is_counted_by_kind() {
    let mut lab = Lab::new(Limits {
        drops: 1,
        ..Limits::default()
    })
    .await;
    lab.submit([
        urgent(1),
        open(2),
        established(1),
        close(1),
        dropped(3),
        dropped(4),
    ]);
    while lab.journal.waiting() != Waiting::default() {
        lab.committed().await;
    }
    lab.take_database_away();
    lab.submit([urgent(5)]);
    lab.failed().await;
    let stats = lab.journal.stats();
    let Durable {
        open,
        drop,
        established,
        close,
        gaps,
        ..
    } = stats.durable;
    assert_eq!((open, drop, established, close, gaps), (2, 1, 1, 1, 1));
    assert_eq!((stats.failed_opens, stats.drops_left_out), (1, 1));
    assert!(stats.commits >= 1 && stats.failed_commits >= 1, "{stats:?}");
    assert_eq!(stats.commit_wait.count(), 2);
    assert!(stats.commit_wait.max_us > 0 && stats.commit_wait.sum_us >= stats.commit_wait.max_us);
}

#[tokio::test]
async fn a_drain_that_cannot_succeed_ends_and_says_how_much_is_missing() {
    let lab = Lab::new(Limits::default()).await;
    lab.take_database_away();
    lab.submit([open(1), close(1), dropped(2)]);
    let error = lab.journal.drain(Duration::from_millis(500)).await.unwrap_err();
    assert!(
        error.to_string().starts_with("3 changes could not be logged"),
        "{error}"
    );
}

#[tokio::test]
async fn what_comes_while_one_group_commits_goes_together_in_the_next() {
    let mut lab = Lab::new(Limits::default()).await;
    let mut commits = 0;
    for n in 1..=2000 {
        lab.submit([open(n)]);
        if n % 20 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut rows = 0;
    while rows < 2000 {
        rows += lab.committed().await.0.len();
        commits += 1;
    }
    assert!(commits < 500, "{commits} commits");
}

const MOUNTED: &str = "NUAUTH_TEST_MOUNTED";

#[tokio::test]
async fn a_full_disk_drops_what_is_urgent_and_is_over_when_space_returns() {
    let Ok(directory) = std::env::var(MOUNTED) else {
        return in_small_file_system("a_full_disk_drops_what_is_urgent_and_is_over_when_space_returns");
    };
    let directory = Path::new(&directory);
    let mut lab = Lab::at(directory, Limits::default()).await;
    let filler = directory.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    drop(file);
    let mut next = 1;
    let error = loop {
        lab.submit([urgent(next)]);
        next += 1;
        match lab.report().await {
            Report::Committed { .. } => assert!(next < 10_000, "the disk does not fill"),
            Report::Failed { opened, error } => {
                assert_eq!(opened, [id(next - 1)]);
                break error;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(error.contains("full"), "{error}");
    let committed = next - 2;
    lab.journal.submit((1..=committed).map(close).collect());
    lab.submit([open(next)]);
    assert_eq!(lab.rows().await.len() as u64, committed);
    std::fs::remove_file(filler).unwrap();
    assert_eq!(lab.committed().await.0, [id(next)]);
    assert_eq!(lab.report().await, Report::Recovered);
    lab.journal.drain(PATIENCE).await.unwrap();
    let states = lab.states().await;
    assert_eq!(states.len() as u64, committed + 1);
    let closed = states.iter().filter(|(_, state, _)| *state == 3).count();
    assert_eq!(closed as u64, committed);
}

/// Runs a test of this file again where a directory is a file system of 2 MiB, in a mount namespace of its own.
fn in_small_file_system(name: &str) {
    let directory = tempdir().unwrap();
    let script =
        r#"mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" --exact "journal::tests::$3" --nocapture"#;
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(MOUNTED, directory.path())
        .output()
        .unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if complained.contains("unshare: ") || complained.contains("mount: ") {
        eprintln!("SKIPPED {name}: no mount namespace here ({complained})");
    } else {
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{complained}"
        );
    }
}

/// What a random user of the lanes does.
#[derive(Debug, Clone)]
enum Step {
    Open { urgent: bool },
    Update { of: usize },
    Drop,
    Take { succeeds: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<bool>().prop_map(|urgent| Step::Open { urgent }),
        4 => (0..64_usize).prop_map(|of| Step::Update { of }),
        1 => Just(Step::Drop),
        3 => any::<bool>().prop_map(|succeeds| Step::Take { succeeds }),
    ]
}

proptest! {
    /// Whatever fails: every OPEN is committed once or given up once, no update is committed before the OPEN that it
    /// follows, the updates of a row keep their order, and no transaction is larger than allowed.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(steps in proptest::collection::vec(step(), 1..200)) {
        let limits = Limits { rows_per_commit: 8, drops: 5, ..Limits::default() };
        let mut lanes = Lanes::new(limits, i64::MAX);
        let mut opened: Vec<u64> = Vec::new();
        let (mut sequence, mut drops, mut updates) = (0_u64, 0_u64, 0_i64);
        let mut log: Vec<Change> = Vec::new();
        let mut given_up: Vec<ConnId> = Vec::new();
        let finish = std::iter::repeat_n(Step::Take { succeeds: true }, 200);
        for step in steps.into_iter().chain(finish) {
            match step {
                Step::Open { urgent: is_urgent } => {
                    sequence += 1;
                    opened.push(sequence);
                    lanes.push(if is_urgent { urgent(sequence) } else { open(sequence) });
                }
                Step::Update { of } if !opened.is_empty() => {
                    updates += 1;
                    lanes.push(later(Change::SessionEnd {
                        id: id(opened[of % opened.len()]),
                        at: Timestamp::from_micros(updates),
                        reason: nulog::EndReason::Logout,
                    }));
                }
                Step::Update { .. } => {}
                Step::Drop => {
                    sequence += 1;
                    drops += 1;
                    lanes.push(dropped(sequence));
                }
                Step::Take { succeeds } => {
                    let batch = lanes.take(true);
                    prop_assert!(batch.changes.len() <= limits.rows_per_commit + 1, "one gap row may be added");
                    if succeeds {
                        log.extend(batch.changes.iter().cloned());
                        lanes.committed();
                    } else if !batch.is_empty() {
                        given_up.extend(lanes.failed(batch));
                    }
                }
            }
        }
        prop_assert_eq!(lanes.waiting(), Waiting::default());
        let position = |wanted: ConnId| {
            let found = log.iter().enumerate().filter(|(_, change)| matches!(change, Change::Open(row) if row.id == wanted));
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        for sequence in &opened {
            let lost = given_up.iter().filter(|lost| **lost == id(*sequence)).count();
            prop_assert_eq!(position(id(*sequence)).len() + lost, 1, "{}", sequence);
        }
        let mut last = std::collections::HashMap::new();
        let mut logged_updates = 0;
        for (at, change) in log.iter().enumerate() {
            if let Change::SessionEnd { id: of, at: order, .. } = change {
                logged_updates += 1;
                prop_assert!(position(*of).first().is_none_or(|opened| *opened < at), "an update overtook its OPEN");
                let before = last.insert(*of, *order);
                prop_assert!(before.is_none_or(|before| before < *order), "updates of one row changed places");
            }
        }
        prop_assert_eq!(logged_updates, updates);
        let counted: u64 = log.iter().map(|change| match change {
            Change::Drop(_) => 1,
            Change::Gap(gap) => gap.count.unwrap_or(0),
            _ => 0,
        }).sum();
        prop_assert_eq!(counted, drops, "every DROP row is logged or counted");
    }
}
