//! Single entries of the connection table that are looked at until they are over, a bounded number in each turn.
//!
//! Keeps the places; what an answer means, and how many there may be, is said by `kills` and `expiries`.

use crate::conntrack::{Answer, Control, Order, Target};
use hashbrown::HashMap;
use nufw_proto::ConnId;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// What is watched: the entry of a row.
pub(super) trait OfRow {
    fn row(&self) -> ConnId;
    fn target(&self) -> &Target;
}

#[derive(Debug)]
pub(super) struct Watched<T> {
    all: HashMap<u32, T>,
    by_row: HashMap<ConnId, u32>,
    last_token: u32,
    fresh: VecDeque<u32>,
    /// When to look again, in the order of time.
    looks: VecDeque<(Instant, u32)>,
    every: Duration,
}

impl<T: OfRow> Watched<T> {
    /// Nothing yet; what is added will be looked at at once, and then so often.
    pub(super) fn every(every: Duration) -> Self {
        Self {
            all: HashMap::new(),
            by_row: HashMap::new(),
            last_token: 0,
            fresh: VecDeque::new(),
            looks: VecDeque::new(),
            every,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn of(&self, row: ConnId) -> Option<&T> {
        self.by_row.get(&row).and_then(|token| self.all.get(token))
    }

    /// By the token that answers name; 0 is nobody's.
    pub(super) fn get_mut(&mut self, token: u32) -> Option<&mut T> {
        self.all.get_mut(&token)
    }

    pub(super) fn add(&mut self, item: T) {
        let mut token = self.last_token;
        loop {
            token = token.wrapping_add(1);
            if token != 0 && !self.all.contains_key(&token) {
                break;
            }
        }
        self.last_token = token;
        self.by_row.insert(item.row(), token);
        self.all.insert(token, item);
        self.fresh.push_back(token);
    }

    pub(super) fn remove(&mut self, token: u32) -> Option<T> {
        let item = self.all.remove(&token)?;
        self.by_row.remove(&item.row());
        Some(item)
    }

    /// Whether something has never been looked at.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Looks at what is due, as far as there is room, and lets the kernel answer everything that was submitted; `None` when
    /// there was nothing.
    pub(super) fn exchange(
        &mut self,
        control: &mut Control,
        answers: &mut Vec<(u32, Answer)>,
        now: Instant,
    ) -> Option<io::Result<()>> {
        while control.has_room()
            && let Some(token) = self.due(now)
        {
            if let Some(item) = self.all.get(&token) {
                control.submit(token, item.target(), Order::Look);
                // Should the answer be lost, it is looked again.
                self.looks.push_back((now + self.every, token));
            }
        }
        control.is_busy().then(|| control.exchange(answers))
    }

    fn due(&mut self, now: Instant) -> Option<u32> {
        self.fresh.pop_front().or_else(|| {
            let (_, token) = self.looks.pop_front_if(|(at, _)| *at <= now)?;
            Some(token)
        })
    }
}
