//! Lives under fire: a process of its own feeds a journal while its database is killed, stopped and started again, rows are
//! archived beside it, and it is itself killed in whatever phase it is in.
//!
//! What it was told it tells us at once. At the end every row of which it was told is there exactly once, live or archived,
//! with every change whose event was acknowledged; and nobody ever saw a state move backwards.

use crate::lab::{Place, acknowledge, close, dropped, established, id_of, urgent};
use crate::support::{self, Kind};
use nuauth_server::journal::{Journal, Limits, Opened, Report, SpoolSettings};
use nufw_proto::ConnId;
use nulog::Location;
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Tells a process of this program that it is the one that feeds.
const FEEDER: &str = "NUAUTH_SPOOL_FEEDER";
/// How many fates are drawn by lot, and from which number on.
const SEEDS: &str = "NUAUTH_SPOOL_SEEDS";
const FIRST_SEED: &str = "NUAUTH_SPOOL_FIRST_SEED";
const DEFAULT_SEEDS: u64 = 3;
/// Blows that fall in one fate.
const BLOWS: usize = 10;
/// Rows of which neither end was told, above which none is opened.
const OUTSTANDING: usize = 400;

const COLUMNS: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, \
     ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, \
     username, client_os, client_app, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, \
     reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, \
     ct_mark, ct_zone, acl, close_reason";

/// What was told of one row.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    opened: bool,
    established: bool,
    closed: bool,
}

#[derive(Default)]
struct Facts {
    rows: BTreeMap<u64, Told>,
    /// The spool was seen at work, and seen at home again.
    spooled: usize,
    home: bool,
    ready: usize,
    told: usize,
}

// ---- the process that feeds ---------------------------------------------------------------------------------------------

/// Not a test by itself: what the other process runs.
#[test]
fn feeder() {
    let Ok(arguments) = std::env::var(FEEDER) else {
        return;
    };
    let [url, spool, boot, backlog] = arguments.split('|').collect::<Vec<_>>()[..] else {
        panic!("{arguments}");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(feed(url, Path::new(spool), boot.parse().unwrap(), backlog));
}

/// An event of an agent: of which row, and whether it is its end.
#[derive(Clone, Copy)]
struct Event {
    id: ConnId,
    end: bool,
}

async fn feed(url: &str, spool: &Path, boot: u64, backlog: &str) {
    let patience = Duration::from_secs(1);
    let location = Location::parse(url)
        .unwrap()
        .with_timeouts(patience, 2 * patience);
    let settings = SpoolSettings {
        path: spool.to_path_buf(),
        limit: 1 << 30,
        stall_after: Duration::from_millis(100),
    };
    let (sender, mut reports) = mpsc::unbounded_channel();
    let limits = Limits {
        ids_per_block: 2000,
        rows_per_commit: 64,
        ..Limits::default()
    };
    let opened = Journal::open(&location, 1, Some(&settings), limits, sender).await;
    let Opened { journal, .. } = match opened {
        Ok(opened) => opened,
        Err(error) => {
            println!("refused {error}");
            return;
        }
    };
    println!("ready");
    // Told in the order of their numbers; what is told again is told as it would be the first time.
    let mut events: Vec<Event> = Vec::new();
    let mut durable = 0;
    let mut blocks = std::collections::VecDeque::new();
    let (mut outstanding, mut ending, mut active) = (0_usize, false, false);
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = Arc::clone(&ended);
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::stdin().read_line(&mut text);
        end.store(true, std::sync::atomic::Ordering::Release);
    });
    let mut draws = StdRng::seed_from_u64(boot);
    let mut again = Vec::new();
    for word in backlog.split(',').filter(|word| !word.is_empty()) {
        let (kind, raw) = word.split_at(1);
        let id = ConnId::try_from(raw.parse::<u64>().unwrap()).unwrap();
        again.push(Event { id, end: kind == "c" });
    }
    submit(&journal, boot, &mut events, &again);
    loop {
        while let Ok(report) = reports.try_recv() {
            match report {
                Report::Ids(block) => blocks.push_back(block),
                Report::Committed { opened, acknowledged } => {
                    let mut told = String::new();
                    let mut next = Vec::new();
                    for id in opened {
                        told.push_str(&format!("o{}\n", u64::from(id)));
                        outstanding -= 1;
                        if draws.random_bool(0.9) {
                            next.push(Event { id, end: false });
                        }
                        if draws.random_bool(0.8) {
                            next.push(Event { id, end: true });
                        }
                    }
                    for (_, of, through) in acknowledged {
                        if of.0 != boot {
                            continue;
                        }
                        let through = usize::try_from(through.0).unwrap();
                        for event in &events[durable..through] {
                            let kind = if event.end { 'c' } else { 'e' };
                            told.push_str(&format!("{kind}{}\n", u64::from(event.id)));
                        }
                        durable = durable.max(through);
                    }
                    // One write, so that whoever reads us gets it before we die.
                    let mut out = std::io::stdout().lock();
                    out.write_all(told.as_bytes()).unwrap();
                    out.flush().unwrap();
                    drop(out);
                    submit(&journal, boot, &mut events, &next);
                }
                Report::Failed { opened, .. } => outstanding -= opened.len(),
                Report::Loaded { .. } | Report::Recovered => {}
            }
        }
        let status = journal.spool_status();
        if status.active != active {
            active = status.active;
            println!("{}", if active { "away" } else { "home" });
        }
        if ended.load(std::sync::atomic::Ordering::Acquire) {
            ending = true;
        }
        if ending && outstanding == 0 && durable == events.len() && !active {
            journal.drain(Duration::from_secs(20)).await.unwrap();
            println!("done");
            return;
        }
        if !ending && outstanding < OUTSTANDING {
            let mut group = Vec::new();
            for _ in 0..draws.random_range(1..8) {
                let Some(id) = next_id(&mut blocks) else { break };
                if draws.random_bool(0.2) {
                    group.push(dropped(id));
                } else {
                    outstanding += 1;
                    group.push(urgent(id));
                }
            }
            journal.submit(group);
        }
        tokio::time::sleep(Duration::from_millis(draws.random_range(0..4))).await;
    }
}

fn next_id(blocks: &mut std::collections::VecDeque<nulog::IdBlock>) -> Option<ConnId> {
    loop {
        match blocks.front_mut()?.next() {
            Some(id) => return Some(id),
            None => {
                blocks.pop_front();
            }
        }
    }
}

fn submit(journal: &Journal, boot: u64, events: &mut Vec<Event>, next: &[Event]) {
    let mut group = Vec::new();
    for event in next {
        events.push(*event);
        group.push(if event.end {
            close(event.id)
        } else {
            established(event.id)
        });
    }
    if !group.is_empty() {
        group.push(acknowledge(boot, events.len() as u64));
        journal.submit(group);
    }
}

// ---- who watches it -----------------------------------------------------------------------------------------------------

struct Feeder {
    process: Child,
    reader: std::thread::JoinHandle<()>,
}

impl Feeder {
    fn start(place: &Place, boot: u64, facts: &Arc<Mutex<Facts>>) -> Self {
        let backlog: Vec<String> = {
            let facts = facts.lock().unwrap();
            let left = facts.rows.iter().filter(|(_, told)| told.opened && !told.closed);
            left.rev()
                .take(300)
                .map(|(id, told)| {
                    let kind = if told.established { "c" } else { "e" };
                    format!("{kind}{id}")
                })
                .collect()
        };
        let arguments = [
            place.url.clone(),
            place.spool().display().to_string(),
            boot.to_string(),
            backlog.join(","),
        ];
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::feeder", "--nocapture"])
            .env(FEEDER, arguments.join("|"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let facts = Arc::clone(facts);
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                note(&mut facts.lock().unwrap(), &line);
            }
        });
        Self { process, reader }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.reader.join().unwrap();
    }

    /// Lets it come to its end.
    fn finish(mut self) {
        drop(self.process.stdin.take());
        let began = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the journal does not come to its end"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(self.process.wait().unwrap().success());
        self.reader.join().unwrap();
    }
}

fn note(facts: &mut Facts, line: &str) {
    // The harness of the other process says things, too.
    let line = line.rsplit("... ").next().unwrap_or_default();
    match line {
        "ready" => facts.ready += 1,
        "away" => facts.spooled += 1,
        "home" | "done" => facts.home = true,
        _ => {
            let Some((kind, Ok(id))) = line.split_at_checked(1).map(|(k, id)| (k, id.parse::<u64>())) else {
                if line.starts_with("refused") {
                    eprintln!("{line}");
                }
                return;
            };
            facts.told += 1;
            let told = facts.rows.entry(id).or_default();
            match kind {
                "o" => told.opened = true,
                "e" => told.established = true,
                "c" => told.closed = true,
                _ => {}
            }
        }
    }
}

#[test]
fn whatever_is_killed_nothing_that_was_told_is_lost_doubled_or_backwards() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let first = number(FIRST_SEED, std::process::id().into());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for seed in first..first + number(SEEDS, DEFAULT_SEEDS) {
        if !runtime.block_on(fate(seed)) {
            return;
        }
    }
}

async fn fate(seed: u64) -> bool {
    let kind = if seed % 3 == 2 {
        Kind::MariaDb
    } else {
        Kind::Postgres
    };
    eprintln!("seed {seed} on {kind:?} ({FIRST_SEED}={seed} {SEEDS}=1 repeats it)");
    let Some(place) = Place::server(kind, "whatever_is_killed").await else {
        return false;
    };
    let mut draws = StdRng::seed_from_u64(seed);
    let facts = Arc::new(Mutex::new(Facts::default()));
    let mut boot = 1;
    let mut feeder = Feeder::start(&place, boot, &facts);
    let mut seen = HashMap::new();
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    // Without having met its database once it has no ids to start with.
    wait_for_ready(&facts, 1).await;
    for _ in 0..BLOWS {
        let pause = draws.random_range(0..250);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let blow = blow(&mut draws);
        *counted.entry(blow).or_default() += 1;
        match blow {
            "feeder" => {
                feeder.kill();
                boot += 1;
                feeder = Feeder::start(&place, boot, &facts);
            }
            "database" => {
                place.database().murder();
                nap(&mut draws, 400).await;
                // Also while it is away.
                if draws.random_bool(0.5) {
                    feeder.kill();
                    boot += 1;
                    feeder = Feeder::start(&place, boot, &facts);
                    nap(&mut draws, 300).await;
                }
                place.database().begin();
            }
            "hang" => {
                place.database().freeze();
                nap(&mut draws, 500).await;
                if draws.random_bool(0.3) {
                    feeder.kill();
                    boot += 1;
                    feeder = Feeder::start(&place, boot, &facts);
                    nap(&mut draws, 200).await;
                }
                place.database().thaw();
            }
            "drain" => {
                // When rows come home.
                place.database().murder();
                nap(&mut draws, 200).await;
                place.database().begin();
                nap(&mut draws, 60).await;
                feeder.kill();
                boot += 1;
                feeder = Feeder::start(&place, boot, &facts);
            }
            _ => archive(&place, kind).await,
        }
        look(&place, &mut seen).await;
    }
    feeder.finish();
    look(&place, &mut seen).await;
    let facts = facts.lock().unwrap();
    assert!(facts.home, "seed {seed}: the rows did not come home");
    let rows = place.rows().await;
    let mut found = BTreeMap::new();
    for row in &rows {
        let twice = found.insert(u64::from(id_of(row)), row);
        assert!(twice.is_none(), "seed {seed}: row {} is there twice", row["id"]);
    }
    for (id, told) in &facts.rows {
        let row = found.get(id);
        let row = row.unwrap_or_else(|| panic!("seed {seed}: row {id} is lost: {told:?}"));
        let state = row["state"].as_i64().unwrap();
        assert!(!told.closed || state == 3, "seed {seed}: {told:?} {row:?}");
        assert!(!told.established || state >= 2, "seed {seed}: {told:?} {row:?}");
        assert!(
            !told.established || !row["start_timestamp"].is_null(),
            "seed {seed}: {told:?} {row:?}"
        );
        assert_ne!(state, 0, "seed {seed}: {told:?} {row:?}");
    }
    let opened = facts.rows.values().filter(|told| told.opened).count();
    eprintln!(
        "seed {seed}: {opened} rows told of, {} in the log, {} times on the spool, {boot} lives, blows {counted:?}",
        rows.len(),
        facts.spooled
    );
    assert!(opened > 0);
    let gaps = place.gaps("spooled").await;
    let unique: BTreeSet<_> = gaps.iter().map(|gap| gap["from_timestamp"].to_string()).collect();
    assert_eq!(unique.len(), gaps.len(), "{gaps:?}");
    assert!(facts.spooled == 0 || !gaps.is_empty());
    true
}

fn blow(draws: &mut impl Rng) -> &'static str {
    let blows = ["feeder", "database", "hang", "drain", "archive"];
    blows[draws.random_range(0..blows.len())]
}

async fn nap(draws: &mut StdRng, most: u64) {
    let millis = draws.random_range(0..most);
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn wait_for_ready(facts: &Arc<Mutex<Facts>>, times: usize) {
    let began = Instant::now();
    while facts.lock().unwrap().ready < times {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the feeder does not start"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Moves the dead rows to the archive, as `clean-conntrack` does.
async fn archive(place: &Place, kind: Kind) {
    let statements = match kind {
        Kind::Postgres => format!(
            "WITH moved AS (DELETE FROM conntrack_ulog WHERE state IN (0, 3) RETURNING {COLUMNS}) \
             INSERT INTO ulog ({COLUMNS}) SELECT {COLUMNS} FROM moved"
        ),
        Kind::MariaDb => format!(
            "START TRANSACTION; INSERT INTO ulog ({COLUMNS}) SELECT {COLUMNS} FROM conntrack_ulog \
             WHERE state IN (0, 3) FOR UPDATE; DELETE FROM conntrack_ulog WHERE id IN (SELECT id FROM ulog); COMMIT"
        ),
    };
    // It may meet the writer's locks; then nothing is moved.
    let _ = support::execute(kind, &place.url, &statements).await;
}

/// Nobody ever sees a state move backwards, or a dead row come to life.
async fn look(place: &Place, seen: &mut HashMap<u64, i64>) {
    for row in place.rows().await {
        let (id, state) = (u64::from(id_of(&row)), row["state"].as_i64().unwrap());
        let before = seen.insert(id, state).unwrap_or(state);
        assert!(
            before <= state,
            "row {id} was in state {before} and is in {state}"
        );
    }
}
