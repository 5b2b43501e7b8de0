//! Sorts the changes of one transaction into groups that one statement can take, without changing their effect.
//!
//! Pure. Changes of different rows do not affect each other, so a change may join the group of its kind unless the same row
//! has a change in that group or in one that is executed later: then everything before it is executed first.

use crate::change::{Change, Close, EndReason, Established, GapRow, OpenRow, SessionRow, State};
use nufw_proto::{BootId, ConnId, Counters, EventSeq, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// One group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Insert(Vec<(&'a OpenRow, State)>),
    Establish(Vec<&'a Established>),
    Count(Vec<(ConnId, Counters)>),
    Close(Vec<&'a Close>),
    SessionStart(&'a SessionRow),
    SessionEnd(ConnId, Timestamp, EndReason),
    Gap(&'a GapRow),
    Acknowledge(&'a Arc<str>, BootId, EventSeq),
    Heartbeat(&'a Arc<str>, Timestamp),
}

/// The order in which the groups of a round are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Insert,
    Establish,
    Count,
    Close,
}

#[derive(Default)]
struct Round<'a> {
    inserts: Vec<(&'a OpenRow, State)>,
    established: Vec<&'a Established>,
    counts: Vec<(ConnId, Counters)>,
    closes: Vec<&'a Close>,
    touched: HashMap<ConnId, Stage>,
}

impl<'a> Round<'a> {
    /// Makes room for a change of row `id` in the group of `stage`.
    fn enter(&mut self, id: ConnId, stage: Stage, steps: &mut Vec<Step<'a>>) {
        if self.touched.get(&id).is_some_and(|reached| *reached >= stage) {
            self.finish(steps);
        }
        self.touched.insert(id, stage);
    }

    fn finish(&mut self, steps: &mut Vec<Step<'a>>) {
        let Self {
            inserts,
            established,
            counts,
            closes,
            touched: _,
        } = std::mem::take(self);
        if !inserts.is_empty() {
            steps.push(Step::Insert(inserts));
        }
        if !established.is_empty() {
            steps.push(Step::Establish(established));
        }
        if !counts.is_empty() {
            steps.push(Step::Count(counts));
        }
        if !closes.is_empty() {
            steps.push(Step::Close(closes));
        }
    }
}

/// The steps that have the effect of `changes`, one after the other.
pub(crate) fn steps(changes: &[Change]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut round = Round::default();
    let mut others = Vec::new();
    for change in changes {
        match change {
            Change::Open(row) => {
                round.enter(row.id, Stage::Insert, &mut steps);
                round.inserts.push((row, State::Open));
            }
            Change::Drop(row) => {
                round.enter(row.id, Stage::Insert, &mut steps);
                round.inserts.push((row, State::Drop));
            }
            Change::Established(established) => {
                round.enter(established.id, Stage::Establish, &mut steps);
                round.established.push(established);
            }
            Change::Close(close) => {
                round.enter(close.id, Stage::Close, &mut steps);
                round.closes.push(close);
            }
            Change::Counted { id, counters } => {
                round.enter(*id, Stage::Count, &mut steps);
                round.counts.push((*id, *counters));
            }
            Change::SessionStart(session) => others.push(Step::SessionStart(session)),
            Change::SessionEnd { id, at, reason } => others.push(Step::SessionEnd(*id, *at, *reason)),
            Change::Gap(gap) => others.push(Step::Gap(gap)),
            Change::Heartbeat { gateway, at } => others.push(Step::Heartbeat(gateway, *at)),
            Change::Acknowledge {
                gateway,
                boot,
                through,
            } => {
                acknowledge(&mut others, gateway, *boot, *through);
            }
        }
    }
    round.finish(&mut steps);
    steps.append(&mut others);
    steps
}

/// One statement for the acknowledgements of one boot, of which a busy gateway has many in one transaction.
fn acknowledge<'a>(others: &mut Vec<Step<'a>>, gateway: &'a Arc<str>, boot: BootId, through: EventSeq) {
    let last = others.iter_mut().rev().find_map(|step| match step {
        Step::Acknowledge(name, boot, through) if *name == gateway => Some((*boot, through)),
        _ => None,
    });
    match last {
        Some((last_boot, last_through)) if last_boot == boot => *last_through = (*last_through).max(through),
        _ => others.push(Step::Acknowledge(gateway, boot, through)),
    }
}
