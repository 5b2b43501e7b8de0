//! What waits to be committed, and in which order it goes. Pure.
//!
//! OPENs first, since somebody waits for each; then updates in the order they came; DROP rows when there is room. An update is
//! never taken while an OPEN that was submitted before it is left waiting. Counters of live rows go last and only when no OPEN
//! waits; of each row only the last ones are kept.

use super::{Entry, Limits, Waiting};
use nufw_common::clock;
use nufw_proto::{BootId, ConnId, Counters, EventSeq};
use nulog::{Change, Close, CloseReason, GapRow};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// The word in `log_gap` for DROP rows that found no room.
const DROPS_LEFT_OUT: &str = "drop-rows-left-out";
/// Counters take one in so many places of a transaction.
const COUNTS_SHARE: usize = 4;
/// A gap row is written at the latest when it spans this many microseconds, even if the flood goes on.
const LONGEST_GAP: i64 = 10_000_000;

struct Queued {
    position: u64,
    /// When it was submitted.
    since: Instant,
    entry: Entry,
}

/// The waiting changes.
pub(super) struct Lanes {
    limits: Limits,
    next_position: u64,
    /// When what is pushed was submitted.
    now: Instant,
    opens: VecDeque<Queued>,
    updates: VecDeque<Queued>,
    drops: VecDeque<Queued>,
    /// What live rows have carried: one for each at most, so that the engine's limit of connections bounds it.
    counts: BTreeMap<ConnId, Counters>,
    /// DROP rows that were left out since the last gap row, by gateway.
    left_out: BTreeMap<Arc<str>, GapRow>,
    /// How many there were since the start.
    left_out_ever: u64,
    /// Updates that are being committed: they still count for the limit.
    updates_in_flight: usize,
    /// When an id of this value or above is used, more are needed.
    refill_at: i64,
    ids_wanted: bool,
}

/// What is committed together. The changes are in the order of their effect; `positions` and `urgent` go with them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    positions: Vec<u64>,
    since: Vec<Instant>,
    urgent: Vec<bool>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push(&mut self, queued: Queued) {
        self.changes.push(queued.entry.change);
        self.urgent.push(queued.entry.urgent);
        self.positions.push(queued.position);
        self.since.push(queued.since);
    }

    /// Each change with the time of its submission.
    pub(super) fn with_times(&self) -> impl Iterator<Item = (&Change, Instant)> {
        self.changes.iter().zip(self.since.iter().copied())
    }

    pub(super) fn contains(&self, id: ConnId) -> bool {
        self.changes.iter().any(|change| row_of(change) == Some(id))
    }

    /// The OPENs in it.
    pub(super) fn opened(&self) -> Vec<ConnId> {
        let opened = self.changes.iter().filter_map(|change| match change {
            Change::Open(row) => Some(row.id),
            _ => None,
        });
        opened.collect()
    }

    /// The acknowledgements in it, the last one of each boot.
    pub(super) fn acknowledged(&self) -> Vec<(Arc<str>, BootId, EventSeq)> {
        let mut last: Vec<(Arc<str>, BootId, EventSeq)> = Vec::new();
        for change in &self.changes {
            let Change::Acknowledge {
                gateway,
                boot,
                through,
            } = change
            else {
                continue;
            };
            match last
                .iter_mut()
                .find(|(name, seen, _)| name == gateway && seen == boot)
            {
                Some((_, _, reached)) => *reached = (*reached).max(*through),
                None => last.push((Arc::clone(gateway), *boot, *through)),
            }
        }
        last
    }

    fn into_queued(self) -> impl Iterator<Item = Queued> {
        let places = self.positions.into_iter().zip(self.since);
        let flags = self.urgent.into_iter().zip(places);
        self.changes
            .into_iter()
            .zip(flags)
            .map(|(change, (urgent, (position, since)))| Queued {
                position,
                since,
                entry: Entry { change, urgent },
            })
    }
}

/// The row that a change is about.
pub(super) fn row_of(change: &Change) -> Option<ConnId> {
    match change {
        Change::Open(row) | Change::Drop(row) => Some(row.id),
        Change::Established(established) => Some(established.id),
        Change::Close(close) => Some(close.id),
        Change::SessionStart(session) => Some(session.id),
        Change::SessionEnd { id, .. } | Change::Counted { id, .. } => Some(*id),
        Change::Acknowledge { .. } | Change::Gap(_) | Change::Heartbeat { .. } => None,
    }
}

impl Lanes {
    pub(super) fn new(limits: Limits, refill_at: i64) -> Self {
        Self {
            limits,
            next_position: 0,
            now: clock::mono(),
            opens: VecDeque::new(),
            updates: VecDeque::new(),
            drops: VecDeque::new(),
            counts: BTreeMap::new(),
            left_out: BTreeMap::new(),
            left_out_ever: 0,
            updates_in_flight: 0,
            refill_at,
            ids_wanted: false,
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            opens: self.opens.len(),
            updates: self.updates.len() + self.updates_in_flight,
            drops: self.drops.len(),
            counts: self.counts.len(),
        }
    }

    pub(super) fn ids_wanted(&self) -> bool {
        self.ids_wanted
    }

    pub(super) fn ids_reserved(&mut self, refill_at: i64) {
        self.refill_at = refill_at;
        self.ids_wanted = false;
    }

    /// What is pushed from here on was submitted at `now`.
    pub(super) fn at(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) fn left_out_ever(&self) -> u64 {
        self.left_out_ever
    }

    pub(super) fn push(&mut self, entry: Entry) {
        match &entry.change {
            Change::Counted { id, counters } => {
                self.counts.insert(*id, *counters);
                return;
            }
            // Whatever waits of a row that ends is less true than its end, or was never written.
            Change::Close(close) if close.counters.is_some() => drop(self.counts.remove(&close.id)),
            _ => {}
        }
        if let Change::Open(_) | Change::Drop(_) | Change::SessionStart(_) = &entry.change
            && row_of(&entry.change).is_some_and(|id| id.get() >= self.refill_at)
        {
            self.ids_wanted = true;
        }
        let position = self.next_position;
        let since = self.now;
        self.next_position += 1;
        if let Change::Drop(row) = &entry.change {
            if self.drops.len() >= self.limits.drops {
                let gateway = Arc::clone(&row.gateway);
                let received = row.received;
                self.leave_out(gateway, received);
                return;
            }
            self.drops.push_back(Queued {
                position,
                since,
                entry,
            });
        } else if matches!(entry.change, Change::Open(_)) {
            self.opens.push_back(Queued {
                position,
                since,
                entry,
            });
        } else {
            self.updates.push_back(Queued {
                position,
                since,
                entry,
            });
        }
    }

    fn leave_out(&mut self, gateway: Arc<str>, received: nufw_proto::Timestamp) {
        self.left_out_ever += 1;
        let gap = self.left_out.entry(gateway).or_insert_with_key(|gateway| GapRow {
            gateway: Some(Arc::clone(gateway)),
            from: received,
            to: received,
            cause: Arc::from(DROPS_LEFT_OUT),
            count: Some(0),
        });
        gap.from = gap.from.min(received);
        gap.to = gap.to.max(received);
        gap.count = gap.count.map(|count| count + 1);
    }

    /// Takes the next transaction out of the lanes, counters of live rows among it if they are wanted.
    pub(super) fn take(&mut self, with_counts: bool) -> Batch {
        let room = self.limits.rows_per_commit;
        let mut batch = Batch::default();
        // Updates keep a quarter of each transaction, so that a storm of OPENs cannot hold them back for ever. Above their limit
        // they get three: rows are then opened more slowly than ended, so that the lane shrinks whatever comes.
        let share = if self.updates.len() > self.limits.updates {
            room - room / 4
        } else {
            room / 4
        };
        let for_opens = room - self.updates.len().min(share);
        while batch.changes.len() < for_opens
            && let Some(open) = self.opens.pop_front()
        {
            batch.push(open);
        }
        let oldest_open = self.opens.front().map_or(u64::MAX, |open| open.position);
        while batch.changes.len() < room
            && self
                .updates
                .front()
                .is_some_and(|update| update.position < oldest_open)
            && let Some(update) = self.updates.pop_front()
        {
            batch.push(update);
            self.updates_in_flight += 1;
        }
        while batch.changes.len() < room
            && let Some(row) = self.drops.pop_front()
        {
            batch.push(row);
        }
        if with_counts && self.opens.is_empty() {
            self.take_counts(room, &mut batch);
        }
        let caught_up = self.drops.is_empty();
        let due = |gap: &GapRow| caught_up || gap.to.micros() - gap.from.micros() >= LONGEST_GAP;
        if self.left_out.values().any(due) {
            for gap in std::mem::take(&mut self.left_out).into_values() {
                let position = self.next_position;
                self.next_position += 1;
                let change = Change::Gap(Box::new(gap));
                batch.push(Queued {
                    position,
                    since: self.now,
                    entry: Entry {
                        change,
                        urgent: false,
                    },
                });
                self.updates_in_flight += 1;
            }
        }
        batch
    }

    /// Adds counters where there is room: a share of the transaction, so that an OPEN that comes meanwhile waits for no more.
    fn take_counts(&mut self, room: usize, batch: &mut Batch) {
        let share = (room / COUNTS_SHARE).min(room.saturating_sub(batch.changes.len()));
        for _ in 0..share {
            let Some((id, counters)) = self.counts.pop_first() else {
                return;
            };
            batch.push(Queued {
                position: u64::MAX,
                since: self.now,
                entry: Entry {
                    change: Change::Counted { id, counters },
                    urgent: false,
                },
            });
        }
    }

    /// Takes the counters out of a batch: while the database is away they would fill the spool, and the last ones are
    /// enough when it is back.
    pub(super) fn leave_counts(&mut self, batch: Batch) -> Batch {
        let mut rest = Batch::default();
        for queued in batch.into_queued() {
            match queued.entry.change {
                Change::Counted { id, counters } => self.keep_counters(id, counters),
                _ => rest.push(queued),
            }
        }
        rest
    }

    fn keep_counters(&mut self, id: ConnId, counters: Counters) {
        self.counts.entry(id).or_insert(counters);
    }

    /// Takes the DROP rows out of a batch and counts them as left out.
    pub(super) fn leave_out_drops(&mut self, batch: Batch) -> Batch {
        let mut rest = Batch::default();
        for queued in batch.into_queued() {
            match &queued.entry.change {
                Change::Drop(row) => self.leave_out(Arc::clone(&row.gateway), row.received),
                _ => rest.push(queued),
            }
        }
        rest
    }

    /// The batch of the last [`Self::take`] is durable.
    pub(super) fn committed(&mut self) {
        self.updates_in_flight = 0;
    }

    /// The batch of the last [`Self::take`] failed. Its urgent OPENs, and those that wait, are given up and returned; the
    /// rest is put back where it was.
    pub(super) fn failed(&mut self, batch: Batch) -> Vec<ConnId> {
        self.updates_in_flight = 0;
        let mut given_up = Vec::new();
        for queued in batch.into_queued().collect::<Vec<_>>().into_iter().rev() {
            match &queued.entry.change {
                Change::Open(row) if queued.entry.urgent => given_up.push(row.id),
                Change::Open(_) => self.opens.push_front(queued),
                Change::Drop(_) => self.drops.push_front(queued),
                Change::Counted { id, counters } => self.keep_counters(*id, *counters),
                _ => self.updates.push_front(queued),
            }
        }
        given_up.reverse();
        for id in &given_up {
            // The commit may have reached the disk although it failed. Where the row is missing this changes nothing.
            let change = Change::Close(Box::new(Close {
                id: *id,
                at: None,
                reason: CloseReason::LogFailed,
                counters: None,
                binding: None,
            }));
            self.push(Entry {
                change,
                urgent: false,
            });
        }
        given_up.extend(self.give_up_urgent());
        given_up
    }

    /// Takes out the urgent OPENs that wait, of which no attempt was made.
    pub(super) fn give_up_urgent(&mut self) -> Vec<ConnId> {
        let mut given_up = Vec::new();
        self.opens.retain(|queued| match &queued.entry.change {
            Change::Open(row) if queued.entry.urgent => {
                given_up.push(row.id);
                false
            }
            _ => true,
        });
        given_up
    }

    /// The batch failed because of one row that can never be stored. Everything else is put back; the row and every change
    /// of it is left out, since its id names another row or none. The number of changes left out, and whether an OPEN was
    /// among them.
    pub(super) fn spoiled(&mut self, batch: Batch, id: ConnId) -> (usize, bool) {
        self.updates_in_flight = 0;
        let mut left_out = 0;
        let mut opened = false;
        for queued in batch.into_queued().collect::<Vec<_>>().into_iter().rev() {
            if row_of(&queued.entry.change) == Some(id) {
                left_out += 1;
                opened |= matches!(queued.entry.change, Change::Open(_));
                continue;
            }
            match &queued.entry.change {
                Change::Open(_) => self.opens.push_front(queued),
                Change::Drop(_) => self.drops.push_front(queued),
                Change::Counted { id, counters } => self.keep_counters(*id, *counters),
                _ => self.updates.push_front(queued),
            }
        }
        self.counts.remove(&id);
        let before = self.updates.len();
        self.updates
            .retain(|queued| row_of(&queued.entry.change) != Some(id));
        (left_out + before - self.updates.len(), opened)
    }
}
