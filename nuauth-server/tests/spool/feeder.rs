//! The process that is killed: feeds a journal with lives of connections, and tells on its standard output what it was told.

use crate::lab::{acknowledge, close, dropped, established, urgent};
use nuauth_server::journal::{Journal, Limits, Opened, Report, SpoolSettings};
use nufw_proto::{BootId, ConnId, EventSeq};
use nulog::{IdBlock, Location};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Tells a process of this program that it is the one that feeds: database, spool, its life's number, and events of lives
/// before that were not acknowledged.
pub(crate) const FEEDER: &str = "NUAUTH_SPOOL_FEEDER";
/// Rows of which neither end was told, above which none is opened.
const OUTSTANDING: usize = 400;

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

struct Feed {
    journal: Journal,
    boot: u64,
    draws: StdRng,
    blocks: VecDeque<IdBlock>,
    /// Told in the order of their numbers.
    events: Vec<Event>,
    /// How many of them are acknowledged.
    durable: usize,
    outstanding: usize,
    active: bool,
}

async fn feed(url: &str, spool: &Path, boot: u64, backlog: &str) {
    let patience = Duration::from_secs(1);
    let location = Location::parse(url)
        .unwrap()
        .with_timeouts(patience, 2 * patience);
    let settings = SpoolSettings {
        path: spool.to_path_buf(),
        limit: 1 << 30,
        stall_after: Duration::from_millis(300),
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
        Err(error) => return println!("refused {error}"),
    };
    println!("ready");
    let mut feed = Feed {
        journal,
        boot,
        draws: StdRng::seed_from_u64(boot),
        blocks: VecDeque::new(),
        events: Vec::new(),
        durable: 0,
        outstanding: 0,
        active: false,
    };
    let again = backlog.split(',').filter(|word| !word.is_empty());
    let again: Vec<Event> = again
        .map(|word| {
            let (kind, raw) = word.split_at(1);
            let id = ConnId::try_from(raw.parse::<u64>().unwrap()).unwrap();
            Event { id, end: kind == "c" }
        })
        .collect();
    feed.submit(&again);
    let ending = until_the_end_is_asked_for();
    loop {
        while let Ok(report) = reports.try_recv() {
            feed.report(report);
        }
        let active = feed.journal.spool_status().active;
        if active != feed.active {
            feed.active = active;
            println!("{}", if active { "away" } else { "home" });
        }
        let ending = ending.load(Ordering::Acquire);
        if ending && feed.outstanding == 0 && feed.durable == feed.events.len() && !active {
            feed.journal.drain(Duration::from_secs(20)).await.unwrap();
            return println!("done");
        }
        if !ending && feed.outstanding < OUTSTANDING {
            feed.open_some();
        }
        tokio::time::sleep(Duration::from_millis(feed.draws.random_range(0..4))).await;
    }
}

fn until_the_end_is_asked_for() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        end.store(true, Ordering::Release);
    });
    ended
}

impl Feed {
    fn report(&mut self, report: Report) {
        match report {
            Report::Ids(block) => self.blocks.push_back(block),
            Report::Committed { opened, acknowledged } => self.committed(opened, &acknowledged),
            Report::Failed { opened, .. } => self.outstanding -= opened.len(),
            Report::Loaded { .. } | Report::Recovered => {}
        }
    }

    /// Tells it at once, in one write, so that whoever reads us has it before we die.
    fn committed(&mut self, opened: Vec<ConnId>, acknowledged: &[(Arc<str>, BootId, EventSeq)]) {
        let mut told = String::new();
        let mut next = Vec::new();
        for id in opened {
            writeln!(told, "o{}", u64::from(id)).unwrap();
            self.outstanding -= 1;
            if self.draws.random_bool(0.9) {
                next.push(Event { id, end: false });
            }
            if self.draws.random_bool(0.8) {
                next.push(Event { id, end: true });
            }
        }
        for (_, boot, through) in acknowledged {
            // What an earlier life had in the spool is not ours.
            let through = usize::try_from(through.0).unwrap();
            if boot.0 != self.boot || through <= self.durable {
                continue;
            }
            for event in &self.events[self.durable..through] {
                let kind = if event.end { 'c' } else { 'e' };
                writeln!(told, "{kind}{}", u64::from(event.id)).unwrap();
            }
            self.durable = through;
        }
        let mut out = std::io::stdout().lock();
        out.write_all(told.as_bytes()).unwrap();
        out.flush().unwrap();
        drop(out);
        self.submit(&next);
    }

    fn submit(&mut self, next: &[Event]) {
        let mut group = Vec::new();
        for event in next {
            self.events.push(*event);
            group.push(if event.end {
                close(event.id)
            } else {
                established(event.id)
            });
        }
        if !group.is_empty() {
            group.push(acknowledge(self.boot, self.events.len() as u64));
            self.journal.submit(group);
        }
    }

    fn open_some(&mut self) {
        let mut group = Vec::new();
        for _ in 0..self.draws.random_range(1..8) {
            let Some(id) = self.next_id() else { break };
            if self.draws.random_bool(0.2) {
                group.push(dropped(id));
            } else {
                self.outstanding += 1;
                group.push(urgent(id));
            }
        }
        self.journal.submit(group);
    }

    fn next_id(&mut self) -> Option<ConnId> {
        loop {
            match self.blocks.front_mut()?.next() {
                Some(id) => return Some(id),
                None => {
                    self.blocks.pop_front();
                }
            }
        }
    }
}
