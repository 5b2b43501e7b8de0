//! Rows that were closed without having seen the connection's end, in case the end is reported late.
//!
//! Bounded; the oldest is forgotten first, and its end is then counted as unrelated. Logs nothing.

use super::conns::Flow;
use nufw_proto::{ConnId, Mark, Timestamp};
use nulog::CloseReason;
use std::collections::{HashMap, VecDeque};

/// A closed row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) row: ConnId,
    pub(super) reason: CloseReason,
    /// Whether an answer was seen.
    pub(super) established: bool,
    /// The entry that it was bound to.
    pub(super) ct_id: Option<u32>,
    /// When the gateway received the connection's first packet.
    pub(super) received: Timestamp,
    /// When the gateway dropped the last packet that was granted, had no verdict come: it made no entry after that.
    pub(super) decided_by: Timestamp,
    /// The user's mark.
    pub(super) user_mark: Mark,
}

pub(super) struct EndedUnseen {
    /// By the original tuple where an entry was bound, else by what the packet showed.
    rows: HashMap<Flow, Vec<Ended>>,
    order: VecDeque<(Flow, ConnId)>,
    max: usize,
}

impl EndedUnseen {
    pub(super) fn new(max: usize) -> Self {
        Self {
            rows: HashMap::new(),
            order: VecDeque::new(),
            max,
        }
    }

    pub(super) fn keep(&mut self, flow: Flow, ended: Ended) {
        self.rows.entry(flow).or_default().push(ended);
        self.order.push_back((flow, ended.row));
        while self.order.len() > self.max {
            if let Some((flow, row)) = self.order.pop_front() {
                self.remove(&flow, row);
            }
        }
    }

    /// The youngest row that `matches`.
    pub(super) fn youngest(&self, flow: &Flow, matches: impl Fn(&Ended) -> bool) -> Option<Ended> {
        let rows = self.rows.get(flow)?.iter();
        rows.filter(|ended| matches(ended))
            .max_by_key(|ended| ended.received)
            .copied()
    }

    pub(super) fn remove(&mut self, flow: &Flow, row: ConnId) {
        if let Some(rows) = self.rows.get_mut(flow) {
            rows.retain(|ended| ended.row != row);
            if rows.is_empty() {
                self.rows.remove(flow);
            }
        }
    }
}
