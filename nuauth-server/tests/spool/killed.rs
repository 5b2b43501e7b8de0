//! Lives under fire: a process of its own feeds a journal while its database is killed, stopped and started again, rows are
//! archived beside it, and it is itself killed in whatever phase it is in.
//!
//! What it was told it tells us at once. At the end every row of which it was told is there exactly once, live or archived,
//! with every change whose event was acknowledged; and nobody ever saw a state move backwards.

use crate::feeder::FEEDER;
use crate::lab::{Place, id_of};
use crate::support::{self, Kind};
use nufw_common::clock;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many fates are drawn by lot, and from which number on.
const SEEDS: &str = "NUAUTH_SPOOL_SEEDS";
const FIRST_SEED: &str = "NUAUTH_SPOOL_FIRST_SEED";
const DEFAULT_SEEDS: u64 = 3;
/// Blows that fall in one fate.
const BLOWS: usize = 8;

const COLUMNS: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, \
     ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, \
     username, client_os, client_app, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, \
     reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, \
     ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth";

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
    /// How often rows began to go to the spool, and whether they do.
    spooled: usize,
    away: bool,
    /// The present life has begun, and the last one came to its end in order.
    running: bool,
    done: bool,
}

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
            .args(["--exact", "feeder::feeder", "--nocapture"])
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
        let began = clock::mono();
        while self.process.try_wait().unwrap().is_none() {
            assert!(
                began.elapsed() < Duration::from_mins(1),
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
        "ready" => facts.running = true,
        "away" => {
            facts.spooled += 1;
            facts.away = true;
        }
        "home" => facts.away = false,
        "done" => facts.done = true,
        _ => {
            let Some((kind, Ok(id))) = line.split_at_checked(1).map(|(k, id)| (k, id.parse::<u64>())) else {
                if line.starts_with("refused") {
                    eprintln!("{line}");
                }
                return;
            };
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
    let mut fire = Fire {
        feeder: None,
        lives: 0,
        kills: BTreeMap::new(),
        facts: Arc::default(),
        states: HashMap::new(),
        draws: StdRng::seed_from_u64(seed),
        kind,
        place,
    };
    fire.begin();
    // Without having met its database once it has no ids to start with.
    fire.wait_for_ready().await;
    for _ in 0..BLOWS {
        fire.nap(1000).await;
        fire.blow().await;
        fire.look().await;
    }
    fire.finish();
    fire.look().await;
    fire.judge(seed).await;
    true
}

/// What goes on in one fate.
struct Fire {
    feeder: Option<Feeder>,
    lives: u64,
    /// How often it was killed, by where its rows went at that moment.
    kills: BTreeMap<&'static str, usize>,
    facts: Arc<Mutex<Facts>>,
    states: HashMap<u64, i64>,
    draws: StdRng,
    kind: Kind,
    place: Place,
}

impl Fire {
    fn begin(&mut self) {
        self.lives += 1;
        self.feeder = Some(Feeder::start(&self.place, self.lives, &self.facts));
    }

    /// Kills the feeder, and starts another.
    fn kill(&mut self) {
        let phase = {
            let mut facts = self.facts.lock().unwrap();
            match (
                std::mem::take(&mut facts.running),
                std::mem::take(&mut facts.away),
            ) {
                (false, _) => "starting",
                (true, false) => "on the database",
                (true, true) => "on the spool",
            }
        };
        *self.kills.entry(phase).or_default() += 1;
        self.feeder.take().unwrap().kill();
        self.begin();
    }

    async fn nap(&mut self, most: u64) {
        let millis = self.draws.random_range(0..most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn blow(&mut self) {
        match self.draws.random_range(0..5) {
            0 => self.kill(),
            1 => {
                self.place.database().murder();
                self.nap(400).await;
                // Also while it is away.
                if self.draws.random_bool(0.5) {
                    self.kill();
                    self.nap(300).await;
                }
                self.place.database().begin();
            }
            2 => {
                self.place.database().freeze();
                self.nap(500).await;
                if self.draws.random_bool(0.3) {
                    self.kill();
                    self.nap(200).await;
                }
                self.place.database().thaw();
            }
            3 => {
                // When rows come home.
                self.place.database().murder();
                self.nap(200).await;
                self.place.database().begin();
                self.nap(60).await;
                self.kill();
            }
            _ => archive(&self.place, self.kind).await,
        }
    }

    async fn wait_for_ready(&self) {
        let began = clock::mono();
        while !self.facts.lock().unwrap().running {
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "the feeder does not start"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn finish(&mut self) {
        // A start is refused while the database has not seen that the life before is over; a service manager tries again.
        for _ in 0..10 {
            self.feeder.take().unwrap().finish();
            if self.facts.lock().unwrap().done {
                return;
            }
            self.begin();
        }
        panic!("the rows do not come home");
    }

    /// Nobody ever sees a state move backwards, or a dead row come to life.
    async fn look(&mut self) {
        for row in self.place.rows().await {
            let (id, state) = (u64::from(id_of(&row)), row["state"].as_i64().unwrap());
            let before = self.states.insert(id, state).unwrap_or(state);
            assert!(
                before <= state,
                "row {id} was in state {before} and is in {state}"
            );
        }
    }

    async fn judge(&self, seed: u64) {
        let rows = self.place.rows().await;
        let gaps = self.place.gaps("spooled").await;
        let mut found = BTreeMap::new();
        for row in &rows {
            let twice = found.insert(u64::from(id_of(row)), row);
            assert!(twice.is_none(), "seed {seed}: row {} is there twice", row["id"]);
        }
        let facts = self.facts.lock().unwrap();
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
            "seed {seed}: {opened} rows told of, {} in the log, {} times on the spool, {} gaps, killed {:?}",
            rows.len(),
            facts.spooled,
            gaps.len(),
            self.kills
        );
        assert!(opened > 0);
        let unique: BTreeSet<_> = gaps.iter().map(|gap| gap["from_timestamp"].to_string()).collect();
        assert_eq!(unique.len(), gaps.len(), "{gaps:?}");
        assert!(facts.spooled == 0 || !gaps.is_empty());
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
