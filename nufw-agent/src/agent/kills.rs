//! Ending connections that the server wants ended: refused in both directions by a bit of their mark, then forgotten.
//!
//! Which ones is the server's decision; an entry is touched only while tuple, zone and id all are what was ordered. Whether
//! the host's rules refuse by the bit is `refusals`' part: where they do not, the entry is deleted at once.

use super::watched::{OfRow, Watched};
use crate::conntrack::{Answer, Control, Order, Target};
use crate::stats::{Seldom, Stats};
use nufw_proto::gateway::{KillStep, Killed, Live};
use nufw_proto::{ConnId, Counters, CtEntry, Mark};
use std::time::{Duration, Instant};

/// Connections that are being ended; another one is answered as failed, and the server orders it again.
const MAX_ENDING: usize = 65_536;
/// Requests to the kernel in one turn, some 20 microseconds each.
const REQUESTS: usize = 256;
/// How often it is looked whether both ends were told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An entry that is refused is deleted after so long, whoever was told.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// How far the end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is looked for.
    Look,
    /// It gets the bit.
    Mark,
    /// It is looked whether the bit came to the right entry.
    Verify,
    /// Its packets are refused.
    Refused { counted: Option<Counters> },
    /// It is deleted.
    Delete,
}

#[derive(Debug)]
struct Ending {
    row: ConnId,
    target: Target,
    stage: Stage,
    /// When the stage began, or [`Stage::Refused`] was reached.
    since: Instant,
}

impl OfRow for Ending {
    fn row(&self) -> ConnId {
        self.row
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// The connections that are being ended.
#[derive(Debug)]
pub(super) struct Kills {
    control: Option<Control>,
    bit: Mark,
    endings: Watched<Ending>,
    told: Vec<Killed>,
    answers: Vec<(u32, Answer)>,
    warned: Seldom,
}

impl Kills {
    pub(super) fn new(control: Option<Control>, bit: Mark) -> Self {
        Self {
            control,
            bit,
            endings: Watched::every(LOOK_EVERY),
            told: Vec::new(),
            answers: Vec::new(),
            warned: Seldom::default(),
        }
    }

    /// The server wants a connection ended. What is being ended already is only told again.
    pub(super) fn order(&mut self, live: Live, stats: &mut Stats, now: Instant) {
        stats.kills_ordered += 1;
        if let Some(ending) = self.endings.of(live.row) {
            if matches!(ending.stage, Stage::Refused { .. }) {
                self.tell(live.row, KillStep::Refused);
            }
            return;
        }
        if self.control.is_none() || self.endings.len() >= MAX_ENDING {
            stats.kills_failed += 1;
            return self.tell(live.row, KillStep::Failed);
        }
        let ending = Ending {
            row: live.row,
            target: Target {
                id: live.id,
                zone: live.zone,
                original: live.original,
            },
            stage: Stage::Look,
            since: now,
        };
        self.endings.add(ending);
    }

    /// Whether [`Self::step`] has something to do at once.
    pub(super) fn has_work(&self) -> bool {
        self.endings.has_fresh()
    }

    /// What the server should hear.
    pub(super) fn told(&mut self) -> &mut Vec<Killed> {
        &mut self.told
    }

    /// Asks the kernel, as much as fits a turn, and draws the conclusions. `refuses` says whether packets of a family that
    /// belong to a connection with the bit are surely refused.
    pub(super) fn step(&mut self, mut refuses: impl FnMut(bool) -> bool, stats: &mut Stats, now: Instant) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        for _ in 0..REQUESTS / crate::conntrack::IN_FLIGHT {
            let mut answers = std::mem::take(&mut self.answers);
            let Some(exchanged) = self.endings.exchange(&mut control, &mut answers, now) else {
                self.answers = answers;
                break;
            };
            if let Err(error) = exchanged
                && self.warned.may_warn(now)
            {
                tracing::warn!(%error, "the kernel's connection table cannot be asked about single connections; asking again");
            }
            for (token, answer) in answers.drain(..) {
                self.answered(token, answer, &mut control, &mut refuses, stats, now);
            }
            self.answers = answers;
        }
        self.control = Some(control);
    }

    fn answered(
        &mut self,
        token: u32,
        answer: Answer,
        control: &mut Control,
        refuses: &mut impl FnMut(bool) -> bool,
        stats: &mut Stats,
        now: Instant,
    ) {
        let bit = self.bit.0;
        let Some(ending) = self.endings.get_mut(token) else {
            return;
        };
        let target = ending.target;
        let entry = match answer {
            Answer::Absent => return self.over(token, KillStep::Gone, stats),
            Answer::Refused(_) if ending.stage == Stage::Mark => {
                // As on a kernel that keeps no marks.
                ending.stage = Stage::Delete;
                return control.submit(token, &target, Order::Delete);
            }
            Answer::Refused(errno) => {
                if self.warned.may_warn(now) {
                    let error = std::io::Error::from_raw_os_error(errno);
                    tracing::warn!(%error, "the kernel refuses to end a connection; the server will order it again");
                }
                return self.over(token, KillStep::Failed, stats);
            }
            Answer::Done => {
                match ending.stage {
                    Stage::Mark => {
                        ending.stage = Stage::Verify;
                        control.submit(token, &target, Order::Look);
                    }
                    Stage::Delete => self.over(token, KillStep::Gone, stats),
                    Stage::Look | Stage::Verify | Stage::Refused { .. } => {}
                }
                return;
            }
            Answer::Found(entry) => entry,
        };
        if entry.id != target.id {
            if ending.stage == Stage::Verify && entry.mark.0 & bit != 0 {
                // Another connection of the same tuple came between look and mark: it gets its mark back.
                let other = Target {
                    id: entry.id,
                    ..target
                };
                let unmark = Order::Mark { value: 0, mask: bit };
                control.submit(0, &other, unmark);
            }
            return self.over(token, KillStep::Gone, stats);
        }
        match ending.stage {
            Stage::Look | Stage::Mark if bit != 0 && refuses(target.original.src().is_ipv4()) => {
                ending.stage = Stage::Mark;
                let mark = Order::Mark {
                    value: bit,
                    mask: bit,
                };
                control.submit(token, &target, mark);
            }
            Stage::Verify if entry.mark.0 & bit != 0 => {
                ending.stage = Stage::Refused {
                    counted: entry.counters,
                };
                ending.since = now;
                let row = ending.row;
                self.tell(row, KillStep::Refused);
            }
            Stage::Refused { counted } if now < ending.since + REFUSED_FOR && !told_both(counted, &entry) => {
            }
            Stage::Look | Stage::Mark | Stage::Verify | Stage::Refused { .. } | Stage::Delete => {
                ending.stage = Stage::Delete;
                control.submit(token, &target, Order::Delete);
            }
        }
    }

    fn over(&mut self, token: u32, step: KillStep, stats: &mut Stats) {
        if let Some(ending) = self.endings.remove(token) {
            match step {
                KillStep::Failed => stats.kills_failed += 1,
                KillStep::Gone | KillStep::Refused => stats.killed += 1,
            }
            self.tell(ending.row, step);
        }
    }

    /// Without a link nobody listens: the server orders again what it does not see end.
    fn tell(&mut self, row: ConnId, step: KillStep) {
        if self.told.len() < MAX_ENDING {
            self.told.push(Killed { row, step });
        }
    }
}

/// Whether a packet of each direction was refused since the bit was set. Without counters nobody knows.
fn told_both(before: Option<Counters>, entry: &CtEntry) -> bool {
    match (before, entry.counters) {
        (Some(before), Some(after)) => {
            after.original.packets > before.original.packets && after.reply.packets > before.reply.packets
        }
        _ => false,
    }
}
