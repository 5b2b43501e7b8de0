//! Dumps of the connection table for the server: which are wanted, how far the present one is.
//!
//! What is read in one turn is sent in a later one, when the events of before it have been sent: no part shows an entry
//! whose NEW is still to come or whose DESTROY went before, and the end follows every event of before it. So the server
//! may conclude from what a dump lacks.

use crate::conntrack::{Dump, DumpProgress, Interest};
use crate::keeper::Access;
use crate::link::Link;
use crate::stats::Stats;
use hashbrown::HashSet;
use nufw_proto::gateway::{DumpBegin, DumpEnd, DumpPart, ToServer};
use nufw_proto::{Batch, CtEntry, CtEvent, CtEventKind, DumpId, EventSeq, MAX_BATCH, Tuple};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The dump that the agent sends unasked, after a gap.
const UNASKED: DumpId = DumpId(0);
/// Least time between two unasked dumps.
const UNASKED_EVERY: Duration = Duration::from_secs(10);
/// Requests that may wait for the present dump to end; the oldest is forgotten.
const MAX_REQUESTS: usize = 8;
/// Messages of the kernel read in one turn: about a thousand entries, a millisecond or two.
const READS: usize = 8;
/// Ends that are remembered while a dump runs; beyond that the dump is told to be incomplete.
const MAX_DESTROYED: usize = 1 << 20;

#[derive(Debug)]
struct Running {
    id: DumpId,
    /// `None` once the kernel's table is read to its end.
    source: Option<Dump>,
    complete: bool,
    /// Read, but not sent: until event `after` has been.
    held: Vec<CtEntry>,
    /// `None` while the events of before are still to be read.
    after: Option<EventSeq>,
    /// Entries that ended since the dump began; the kernel prepares a part ahead of time.
    destroyed: HashSet<Identity>,
}

type Identity = (u32, u16, Tuple);

fn identity(entry: &CtEntry) -> Identity {
    (entry.id, entry.zone, entry.original)
}

/// The dumps.
#[derive(Debug)]
pub(super) struct Dumps {
    access: Access,
    interest: Interest,
    requested: VecDeque<DumpId>,
    unasked: bool,
    last_unasked: Option<Instant>,
    running: Option<Running>,
}

impl Dumps {
    pub(super) fn new(access: Access, interest: Interest) -> Self {
        Self {
            access,
            interest,
            requested: VecDeque::new(),
            unasked: false,
            last_unasked: None,
            running: None,
        }
    }

    /// The server wants one.
    pub(super) fn request(&mut self, id: DumpId) {
        if self.requested.len() >= MAX_REQUESTS {
            self.requested.pop_front();
        }
        self.requested.push_back(id);
    }

    /// Events were lost: one is sent unasked, when the rate allows.
    pub(super) fn want_one(&mut self) {
        self.unasked = true;
    }

    /// Whether a dump is on its way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// An event is about to be told.
    pub(super) fn on_event(&mut self, event: &CtEvent) {
        let Some(running) = &mut self.running else {
            return;
        };
        match event.kind {
            CtEventKind::Destroy if running.destroyed.len() >= MAX_DESTROYED => running.complete = false,
            CtEventKind::Destroy => {
                running.destroyed.insert(identity(&event.entry));
            }
            // A tuple that is used again can get the same id again.
            CtEventKind::New => {
                running.destroyed.remove(&identity(&event.entry));
            }
            CtEventKind::Update => {}
        }
    }

    /// Every event of before this moment is read; `last` is the last of them.
    pub(super) fn on_events_whole(&mut self, last: EventSeq) {
        if let Some(Running {
            after: after @ None, ..
        }) = &mut self.running
        {
            *after = Some(last);
        }
    }

    /// Events were lost while the present dump runs: nothing may be concluded from what it lacks.
    pub(super) fn spoil(&mut self) {
        if let Some(running) = &mut self.running {
            running.complete = false;
        }
    }

    /// The link is lost: the server asks again over the next.
    pub(super) fn abandon(&mut self) {
        self.running = None;
        self.requested.clear();
    }

    /// Whether [`Self::step`] has something to do.
    pub(super) fn has_work(&self, link: &Link, now: Instant) -> bool {
        let wanted = !self.requested.is_empty() || (self.unasked && now >= self.unasked_due(now));
        link.has_room() && (self.running.is_some() || wanted)
    }

    fn unasked_due(&self, now: Instant) -> Instant {
        self.last_unasked.map_or(now, |last| last + UNASKED_EVERY)
    }

    /// Sends what is held, if its time has come, and reads on, or begins what is wanted.
    pub(super) fn step(&mut self, link: &mut Link, last_sent: EventSeq, stats: &mut Stats, now: Instant) {
        if !link.has_room() {
            return;
        }
        let Some(running) = &mut self.running else {
            self.begin(link, stats, now);
            return;
        };
        if running.after.is_none_or(|after| after > last_sent) {
            return;
        }
        running.send_held(link);
        if running.source.is_some() {
            running.read(stats);
            return;
        }
        let (id, complete) = (running.id, running.complete);
        link.queue(&ToServer::DumpEnd(DumpEnd { dump: id, complete }));
        tracing::debug!(dump = %id, complete, "the connection table was dumped");
        self.running = None;
    }

    fn begin(&mut self, link: &mut Link, stats: &mut Stats, now: Instant) {
        let id = if let Some(id) = self.requested.pop_front() {
            id
        } else if self.unasked && now >= self.unasked_due(now) {
            self.unasked = false;
            self.last_unasked = Some(now);
            UNASKED
        } else {
            return;
        };
        // The server hears of it before the kernel is asked, so it knows which of its rows the dump can show.
        link.queue(&ToServer::DumpBegin(DumpBegin { dump: id }));
        stats.dumps += 1;
        let source = Dump::start(&self.access, self.interest.clone())
            .inspect_err(|error| tracing::warn!(%error, "the connection table cannot be dumped"))
            .ok();
        let mut running = Running {
            id,
            complete: source.is_some(),
            source,
            held: Vec::new(),
            after: None,
            destroyed: HashSet::new(),
        };
        running.read(stats);
        self.running = Some(running);
    }
}

impl Running {
    fn read(&mut self, stats: &mut Stats) {
        self.after = None;
        let Some(source) = &mut self.source else {
            return;
        };
        if let DumpProgress::Done { complete } = source.step(READS, &mut self.held) {
            self.complete &= complete;
            stats.unrepresentable += source.unrepresentable();
            self.source = None;
        }
    }

    fn send_held(&mut self, link: &mut Link) {
        let destroyed = &self.destroyed;
        self.held.retain(|entry| !destroyed.contains(&identity(entry)));
        for part in self.held.chunks(MAX_BATCH) {
            if let Ok(entries) = Batch::try_from(part.to_vec()) {
                link.queue(&ToServer::DumpPart(DumpPart {
                    dump: self.id,
                    entries,
                }));
            }
        }
        self.held.clear();
    }
}
