//! A bystander's count of DROP rows: never more than the rates allow, and the rest told as a number.

use nuauth_server::engine::Limits;
use nulog::{GapRow, OpenRow};
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// Rows that are allowed within twice the burst: what was saved up, and what came meanwhile.
    per_source: usize,
    per_gateway: usize,
    window: u64,
    /// When rows were written lately, by source or gateway.
    rows: BTreeMap<String, VecDeque<u64>>,
    /// Rows that the present server told as a number.
    pub(crate) told: u64,
}

impl Flood {
    pub(crate) fn new(limits: &Limits) -> Self {
        let window = 2 * limits.drop_burst.as_secs();
        let rows = |per_second: usize| per_second * usize::try_from(window).unwrap_or(0);
        Self {
            per_source: rows(limits.drops_per_source),
            per_gateway: rows(limits.drops_per_gateway),
            window: window / 2 * 1_000_000,
            ..Self::default()
        }
    }

    pub(crate) fn row(&mut self, row: &OpenRow, now: u64) {
        let source = row.shown.src().to_string();
        for (key, most) in [
            (source, self.per_source),
            (row.gateway.to_string(), self.per_gateway),
        ] {
            let lately = self.rows.entry(key.clone()).or_default();
            while lately.front().is_some_and(|&at| at + self.window < now) {
                lately.pop_front();
            }
            lately.push_back(now);
            assert!(
                lately.len() <= most,
                "{key} fills the log with {} drops",
                lately.len()
            );
        }
    }

    pub(crate) fn gap(&mut self, gap: &GapRow) {
        if &*gap.cause == "drops-aggregated" {
            self.told += gap.count.unwrap_or(0);
        }
    }

    /// The next server begins with whole bursts.
    pub(crate) fn server_crashed(&mut self) {
        self.rows.clear();
        self.told = 0;
    }
}
