//! Whole lives through the server's journal: each change is submitted when the one before it was reported durable.
//!
//! It stands where the engine stands: OPENs are urgent, events are acknowledged, and only the journal's reports count.

use super::life::{GATEWAY, Lives, close, established};
use crate::wait::now;
use anyhow::{Context, Result, bail};
use nuauth_server::journal::{Entry, Journal, Limits, Report};
use nufw_proto::{BootId, ConnId, EventSeq};
use nulog::{Change, IdBlock, Location, Store};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long the journal may take to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often lives begin when they begin at a rate.
const TICK: Duration = Duration::from_millis(1);
/// The longest run, whatever goes on beside it.
const LONGEST: Duration = Duration::from_mins(30);

/// What goes on beside the measured lives: it begins with the measured time, which goes on until it has ended.
pub(super) type Beside = Box<dyn FnOnce(Journal) -> JoinHandle<Result<()>>>;

/// When lives begin.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As soon as fewer than this many rows are in flight.
    InFlight(usize),
    /// So many a second.
    PerSecond(u32),
}

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Lives begun, from the first to the last.
    pub(super) begun: u64,
    /// Lives that ended in the measured time.
    pub(super) lives: u64,
    /// The measured time.
    pub(super) took: Duration,
    /// From submission to the report that it is durable, of every change of the measured time.
    pub(super) waits: Vec<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Established,
    Close,
}

struct Run {
    journal: Journal,
    lives: Lives,
    ids: VecDeque<IdBlock>,
    gateway: Arc<str>,
    boot: BootId,
    sequence: u64,
    opening: VecDeque<(ConnId, Instant)>,
    events: VecDeque<(u64, Event, ConnId, Instant)>,
    in_flight: usize,
    measuring: bool,
    outcome: Outcome,
}

/// Feeds the journal for `warm_up` and then for `time`, and lets every life come to its end.
pub(super) async fn run(
    location: &Location,
    pace: Pace,
    warm_up: Duration,
    time: Duration,
    mut beside: Option<Beside>,
) -> Result<Outcome> {
    let store = Store::open(location, 1).await?;
    let (sender, mut reports) = mpsc::unbounded_channel();
    let journal = Journal::start(store, Limits::default(), sender).await?;
    let mut run = Run {
        journal,
        lives: Lives::new(),
        ids: VecDeque::new(),
        gateway: GATEWAY.into(),
        boot: BootId(1),
        sequence: 0,
        opening: VecDeque::new(),
        events: VecDeque::new(),
        in_flight: 0,
        measuring: false,
        outcome: Outcome::default(),
    };
    // The first block of ids is there already.
    run.take(&mut reports)?;
    let start = now();
    let (measured_from, mut end) = (start + warm_up, start + warm_up + time);
    let mut began_measuring = measured_from;
    let mut beside_it: Option<JoinHandle<Result<()>>> = None;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let at = now();
        if !run.measuring && at >= measured_from && at < end {
            run.measuring = true;
            began_measuring = at;
            beside_it = beside.take().map(|begin| begin(run.journal.clone()));
        }
        if beside_it.as_ref().is_some_and(|task| !task.is_finished()) {
            anyhow::ensure!(at < start + LONGEST, "what goes on beside the lives does not end");
            end = end.max(at + TICK);
        }
        if at >= end {
            if run.measuring {
                run.measuring = false;
                run.outcome.took = at - began_measuring;
            }
            if run.in_flight == 0 {
                break;
            }
        } else {
            let due = match pace {
                Pace::InFlight(limit) => limit.saturating_sub(run.in_flight),
                Pace::PerSecond(rate) => {
                    let due = (at - start).as_micros() * u128::from(rate) / 1_000_000;
                    usize::try_from(due.saturating_sub(u128::from(run.outcome.begun)))?
                }
            };
            run.begin(due)?;
        }
        let report = tokio::select! {
            report = reports.recv() => report.context("the journal ended by itself")?,
            _ = ticks.tick() => continue,
        };
        run.take_one(report)?;
        run.take(&mut reports)?;
    }
    if let Some(task) = beside_it {
        task.await??;
    }
    run.journal.drain(PATIENCE).await?;
    Ok(run.outcome)
}

impl Run {
    fn begin(&mut self, count: usize) -> Result<()> {
        let mut entries = Vec::with_capacity(count);
        let at = now();
        for _ in 0..count {
            let Some(id) = self.id() else { break };
            entries.push(Entry {
                change: Change::Open(Box::new(self.lives.open(id)?)),
                urgent: true,
            });
            self.opening.push_back((id, at));
        }
        self.in_flight += entries.len();
        self.outcome.begun += entries.len() as u64;
        if !entries.is_empty() {
            self.journal.submit(entries);
        }
        Ok(())
    }

    fn id(&mut self) -> Option<ConnId> {
        loop {
            if let Some(id) = self.ids.front_mut()?.next() {
                return Some(id);
            }
            self.ids.pop_front();
        }
    }

    fn take(&mut self, reports: &mut mpsc::UnboundedReceiver<Report>) -> Result<()> {
        while let Ok(report) = reports.try_recv() {
            self.take_one(report)?;
        }
        Ok(())
    }

    fn take_one(&mut self, report: Report) -> Result<()> {
        let (opened, acknowledged) = match report {
            Report::Ids(block) => {
                self.ids.push_back(block);
                return Ok(());
            }
            Report::Committed { opened, acknowledged } => (opened, acknowledged),
            Report::Failed { error, .. } => bail!("rows were refused: {error}"),
            Report::Recovered | Report::Loaded { .. } => return Ok(()),
        };
        let at = now();
        let mut next = Vec::with_capacity(opened.len());
        for id in opened {
            let (expected, submitted) = self.opening.pop_front().context("a row nobody opened")?;
            anyhow::ensure!(expected == id, "rows became durable out of order");
            self.count(at - submitted);
            next.push((Event::Established, id));
        }
        for (_, boot, through) in acknowledged {
            anyhow::ensure!(boot == self.boot, "an acknowledgement of another boot");
            while let Some((_, event, id, submitted)) =
                self.events.pop_front_if(|(seq, ..)| *seq <= through.0)
            {
                self.count(at - submitted);
                match event {
                    Event::Established => next.push((Event::Close, id)),
                    Event::Close => {
                        self.in_flight -= 1;
                        self.outcome.lives += u64::from(self.measuring);
                    }
                }
            }
        }
        self.submit(next, at)
    }

    /// Events as a gateway tells them: the changes, and how far it need not tell them again.
    fn submit(&mut self, events: Vec<(Event, ConnId)>, at: Instant) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::with_capacity(events.len() + 1);
        for (event, id) in events {
            self.sequence += 1;
            self.events.push_back((self.sequence, event, id, at));
            let change = match event {
                Event::Established => Change::Established(Box::new(established(id)?)),
                Event::Close => Change::Close(Box::new(close(id)?)),
            };
            entries.push(Entry {
                change,
                urgent: false,
            });
        }
        entries.push(Entry {
            change: Change::Acknowledge {
                gateway: Arc::clone(&self.gateway),
                boot: self.boot,
                through: EventSeq(self.sequence),
            },
            urgent: false,
        });
        self.journal.submit(entries);
        Ok(())
    }

    fn count(&mut self, wait: Duration) {
        if self.measuring {
            self.outcome.waits.push(wait);
        }
    }
}
