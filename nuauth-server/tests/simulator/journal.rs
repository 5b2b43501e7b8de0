//! A model of the journal and of the log: groups that commit or fail, rows that only move forward.

use nuauth_server::engine::LogEntry;
use nufw_proto::{BootId, ConnId, Counters, EventSeq, Timestamp};
use nulog::{ActiveRow, Binding, Change, Close, CloseReason, OpenRow, State, Translated};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One row of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) state: State,
    pub(crate) open: OpenRow,
    pub(crate) start: Option<Timestamp>,
    pub(crate) end: Option<Timestamp>,
    pub(crate) reason: Option<CloseReason>,
    pub(crate) counters: Option<Counters>,
    /// Packets that it was said to have carried while it was live.
    pub(crate) interim: u64,
    pub(crate) binding: Option<Binding>,
}

/// What the journal tells the engine.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    Committed {
        opened: Vec<ConnId>,
        acknowledged: Vec<(Arc<str>, BootId, EventSeq)>,
    },
    Failed(Vec<ConnId>),
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// What is durable.
    pub(crate) rows: BTreeMap<ConnId, Row>,
    pub(crate) acknowledged: BTreeMap<Arc<str>, (BootId, EventSeq)>,
    next_id: u64,
    position: u64,
    opens: VecDeque<(u64, LogEntry)>,
    updates: VecDeque<(u64, LogEntry)>,
    drops: VecDeque<(u64, LogEntry)>,
    pub(crate) reports: VecDeque<Report>,
}

impl Journal {
    /// Ids that were never given out before.
    pub(crate) fn reserve(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.next_id + 1;
        self.next_id += count;
        first..first + count
    }

    pub(crate) fn submit(&mut self, entry: LogEntry) {
        let lane = match &entry.change {
            Change::Open(_) => &mut self.opens,
            Change::Drop(_) => &mut self.drops,
            _ => &mut self.updates,
        };
        lane.push_back((self.position, entry));
        self.position += 1;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.opens.is_empty() && self.updates.is_empty() && self.drops.is_empty() && self.reports.is_empty()
    }

    fn take(&mut self, rng: &mut StdRng) -> Vec<(u64, LogEntry)> {
        let mut group: Vec<_> = self
            .opens
            .drain(..rng.random_range(0..=self.opens.len()))
            .collect();
        // An update never overtakes the OPEN before it.
        let oldest_open = self.opens.front().map_or(u64::MAX, |(position, _)| *position);
        let room = rng.random_range(0..=self.updates.len());
        for _ in 0..room {
            if self
                .updates
                .front()
                .is_some_and(|(position, _)| *position < oldest_open)
            {
                group.extend(self.updates.pop_front());
            }
        }
        group.extend(self.drops.drain(..rng.random_range(0..=self.drops.len())));
        group
    }

    /// Commits what waits, or a part of it.
    pub(crate) fn commit(&mut self, rng: &mut StdRng) {
        let group = self.take(rng);
        let (mut opened, mut acknowledged) = (Vec::new(), Vec::new());
        for (_, entry) in &group {
            self.apply(&entry.change);
            match &entry.change {
                Change::Open(row) => opened.push(row.id),
                Change::Acknowledge {
                    gateway,
                    boot,
                    through,
                } => acknowledged.push((Arc::clone(gateway), *boot, *through)),
                _ => {}
            }
        }
        if !opened.is_empty() || !acknowledged.is_empty() {
            self.reports.push_back(Report::Committed { opened, acknowledged });
        }
    }

    /// A commit fails: what is urgent is given up, the rest is kept. Now and then it reached the disk all the same.
    pub(crate) fn fail(&mut self, rng: &mut StdRng) {
        let group = self.take(rng);
        if rng.random_ratio(1, 3) {
            for (_, entry) in &group {
                self.apply(&entry.change);
            }
        }
        let mut given_up = Vec::new();
        for (position, entry) in group.into_iter().rev() {
            match &entry.change {
                Change::Open(row) if entry.urgent => given_up.push(row.id),
                Change::Open(_) => self.opens.push_front((position, entry)),
                Change::Drop(_) => self.drops.push_front((position, entry)),
                _ => self.updates.push_front((position, entry)),
            }
        }
        given_up.reverse();
        for id in &given_up {
            let close = Close {
                id: *id,
                at: None,
                reason: CloseReason::LogFailed,
                counters: None,
                binding: None,
            };
            self.submit(LogEntry {
                change: Change::Close(Box::new(close)),
                urgent: false,
            });
        }
        let waiting = std::mem::take(&mut self.opens);
        for (position, entry) in waiting {
            match &entry.change {
                Change::Open(row) if entry.urgent => given_up.push(row.id),
                _ => self.opens.push_back((position, entry)),
            }
        }
        if !given_up.is_empty() {
            self.reports.push_back(Report::Failed(given_up));
        }
    }

    /// The server dies: what is not durable is lost.
    pub(crate) fn crash(&mut self) {
        self.opens.clear();
        self.updates.clear();
        self.drops.clear();
        self.reports.clear();
    }

    pub(crate) fn active(&self) -> Vec<ActiveRow> {
        self.rows
            .values()
            .filter(|row| matches!(row.state, State::Open | State::Established))
            .map(|row| ActiveRow {
                id: row.open.id,
                gateway: Arc::clone(&row.open.gateway),
                state: row.state,
                received: row.open.received,
                zone: row.open.zone,
                original: row.binding.map_or(row.open.original, |binding| binding.original),
                translated: row
                    .binding
                    .map_or(Translated::Shown(row.open.shown), Translated::Bound),
                mark: row.open.mark,
                user_id: row.open.user.as_ref().map(|user| user.id),
                username: row.open.user.as_ref().map(|user| Arc::clone(&user.name)),
                client_os: row.open.client_os.clone(),
                client_app: row.open.client_app.clone(),
                in_dev: Arc::clone(&row.open.in_dev),
                out_dev: Arc::clone(&row.open.out_dev),
                phys_in: Arc::clone(&row.open.phys_in),
                phys_out: Arc::clone(&row.open.phys_out),
                auth: row.open.auth.clone(),
            })
            .collect()
    }

    fn insert(&mut self, open: &OpenRow, state: State) {
        assert!(
            u64::from(open.id) <= self.next_id,
            "row {} has an id of nobody's",
            open.id
        );
        let row = Row {
            state,
            open: open.clone(),
            start: None,
            end: None,
            reason: None,
            counters: None,
            interim: 0,
            binding: None,
        };
        let existing = self.rows.entry(open.id).or_insert_with(|| row.clone());
        assert_eq!(existing.open, row.open, "id {} was used twice", open.id);
    }

    /// The rules of the log. What the engine says must also be true by itself: nothing that is set may be said otherwise.
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Open(open) => self.insert(open, State::Open),
            Change::Drop(open) => self.insert(open, State::Drop),
            Change::Established(established) => {
                let row = self.live(established.id);
                if let Some(row) = row {
                    row.state = row.state.max(State::Established);
                    row.start = row.start.or(established.at);
                    row.binding = row.binding.or(established.binding);
                }
            }
            Change::Close(close) => {
                if let Some(row) = self.live(close.id) {
                    row.state = State::Close;
                    let inferred = row.reason.is_some_and(CloseReason::is_inferred);
                    if inferred && !close.reason.is_inferred() && close.at.is_some() {
                        (row.end, row.reason) = (close.at, Some(close.reason));
                    }
                    row.end = row.end.or(close.at);
                    row.reason = row.reason.or(Some(close.reason));
                    if let (Some(set), Some(said)) = (row.counters, close.counters) {
                        assert_eq!(set, said, "row {} has two ends", close.id);
                    }
                    row.counters = row.counters.or(close.counters);
                    row.binding = row.binding.or(close.binding);
                }
            }
            Change::Counted { id, counters } => {
                if let Some(row) = self.live(*id) {
                    let packets = counters.original.packets + counters.reply.packets;
                    row.interim = row.interim.max(packets);
                }
            }
            Change::Acknowledge {
                gateway,
                boot,
                through,
            } => {
                let last = self
                    .acknowledged
                    .entry(Arc::clone(gateway))
                    .or_insert((*boot, *through));
                if last.0 == *boot {
                    last.1 = last.1.max(*through);
                } else {
                    *last = (*boot, *through);
                }
            }
            _ => {}
        }
    }

    fn live(&mut self, id: ConnId) -> Option<&mut Row> {
        let row = self.rows.get_mut(&id)?;
        assert_ne!(row.state, State::Drop, "a DROP row {id} was touched");
        Some(row)
    }
}
