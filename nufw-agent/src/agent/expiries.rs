//! Connections whose time is limited: the kernel is told when it is over, for the case that nobody is there then.
//!
//! That an entry ends at a fixed time has a price: it outlives a connection that ended before. So such entries are looked at,
//! and those whose connection is over are deleted, after the server was told. Whose time is limited is the server's decision.

use super::watched::{OfRow, Watched};
use crate::conntrack::{Answer, Control, Order, Target};
use crate::stats::Seldom;
use nufw_proto::gateway::Expiry;
use nufw_proto::{ConnId, CtEntry, TcpState};
use std::time::{Duration, Instant};

/// Connections that are known here; the kernel is not told of further ones, which the server ends all the same.
const MAX_KNOWN: usize = 65_536;
/// Requests to the kernel in one turn, some 20 microseconds each.
const REQUESTS: usize = 128;
/// How often it is looked whether a connection is over.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// A connection that carried nothing for so long is over, unless it is TCP with both sides open, which the kernel lets be idle
/// for days.
const IDLE: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct Limited {
    row: ConnId,
    target: Target,
    /// When the kernel is to end it.
    until: Instant,
    /// Packets of both directions when they last grew, and when that was.
    carried: Option<(u64, Instant)>,
    /// Both sides had finished at the last look.
    finished: bool,
}

impl OfRow for Limited {
    fn row(&self) -> ConnId {
        self.row
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// Those connections.
#[derive(Debug)]
pub(super) struct Expiries {
    control: Option<Control>,
    known: Watched<Limited>,
    told: Vec<ConnId>,
    answers: Vec<(u32, Answer)>,
    warned: Seldom,
}

/// What to do about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It ends by itself, or is another one by now.
    Forget,
    /// It gets its fixed end.
    Limit,
    /// It has it, and the connection lives.
    Leave,
    /// It has it, and the connection is over.
    LetGo,
}

impl Expiries {
    pub(super) fn new(control: Option<Control>) -> Self {
        Self {
            control,
            known: Watched::every(LOOK_EVERY),
            told: Vec::new(),
            answers: Vec::new(),
            warned: Seldom::default(),
        }
    }

    /// The server limits a connection's time.
    pub(super) fn order(&mut self, Expiry { live, seconds }: Expiry, now: Instant) {
        if self.control.is_none() || self.known.of(live.row).is_some() {
            return;
        }
        if self.known.len() >= MAX_KNOWN {
            if self.warned.may_warn(now) {
                tracing::warn!(
                    known = self.known.len(),
                    "more connections have a limited time than are followed; should server and agent be away when it is over, the further ones go on"
                );
            }
            return;
        }
        let limited = Limited {
            row: live.row,
            target: Target {
                id: live.id,
                zone: live.zone,
                original: live.original,
            },
            until: now + Duration::from_secs(seconds.into()),
            carried: None,
            finished: false,
        };
        self.known.add(limited);
    }

    /// Whether [`Self::step`] has something to do at once.
    pub(super) fn has_work(&self) -> bool {
        self.known.has_fresh()
    }

    /// Rows whose entries are deleted since their connections are over.
    pub(super) fn told(&mut self) -> &mut Vec<ConnId> {
        &mut self.told
    }

    /// Asks the kernel, as much as fits a turn, and draws the conclusions.
    pub(super) fn step(&mut self, now: Instant) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        for _ in 0..REQUESTS / crate::conntrack::IN_FLIGHT {
            let mut answers = std::mem::take(&mut self.answers);
            let Some(exchanged) = self.known.exchange(&mut control, &mut answers, now) else {
                self.answers = answers;
                break;
            };
            if let Err(error) = exchanged
                && self.warned.may_warn(now)
            {
                tracing::warn!(%error, "the kernel cannot be told when connections are to end; trying again");
            }
            for (token, answer) in answers.drain(..) {
                self.answered(token, answer, &mut control, now);
            }
            self.answers = answers;
        }
        self.control = Some(control);
    }

    fn answered(&mut self, token: u32, answer: Answer, control: &mut Control, now: Instant) {
        let Some(limited) = self.known.get_mut(token) else {
            return;
        };
        let entry = match answer {
            Answer::Absent => {
                self.known.remove(token);
                return;
            }
            // Its status may have changed between the look and the request, or it has a fixed end already: the next look tells.
            Answer::Done | Answer::Refused(libc::EBUSY | libc::EPERM) => return,
            Answer::Refused(errno) => {
                if self.warned.may_warn(now) {
                    let error = std::io::Error::from_raw_os_error(errno);
                    tracing::warn!(%error, "the kernel does not take the end of a connection; the server orders it in its time");
                }
                return;
            }
            Answer::Found(entry) => entry,
        };
        let target = limited.target;
        match limited.next(&entry, now) {
            Step::Forget => {
                self.known.remove(token);
            }
            Step::Leave => {}
            Step::Limit => {
                let left = limited.until.saturating_duration_since(now);
                let order = Order::EndIn {
                    seconds: u32::try_from(left.as_secs()).unwrap_or(u32::MAX),
                    status: entry.status.0,
                };
                control.submit(token, &target, order);
            }
            Step::LetGo => {
                // Told before the event of its end can be read.
                self.told.push(limited.row);
                control.submit(token, &target, Order::Delete);
                self.known.remove(token);
            }
        }
    }
}

impl Limited {
    /// What follows from a look.
    fn next(&mut self, entry: &CtEntry, now: Instant) -> Step {
        if entry.id != self.target.id {
            return Step::Forget;
        }
        let finished = matches!(entry.tcp_state, Some(TcpState::TIME_WAIT | TcpState::CLOSE));
        if !entry.status.fixed_timeout() {
            // What nobody has answered yet, and what is over, has a short time of its own.
            return match (finished, entry.status.seen_reply()) {
                (true, _) => Step::Forget,
                (false, true) => Step::Limit,
                (false, false) => Step::Leave,
            };
        }
        if finished {
            // Seen twice, so that the last segments have had their time.
            return if std::mem::replace(&mut self.finished, true) {
                Step::LetGo
            } else {
                Step::Leave
            };
        }
        self.finished = false;
        let both_open = entry.tcp_state == Some(TcpState::ESTABLISHED);
        let Some(counters) = entry.counters.filter(|_| !both_open) else {
            return Step::Leave;
        };
        let packets = counters.original.packets.saturating_add(counters.reply.packets);
        match self.carried {
            Some((before, since)) if before == packets => {
                if now.saturating_duration_since(since) >= IDLE {
                    Step::LetGo
                } else {
                    Step::Leave
                }
            }
            _ => {
                self.carried = Some((packets, now));
                Step::Leave
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_common::clock;
    use nufw_proto::{Count, Counters, CtStatus, Mark, Ports, Transport, Tuple};

    /// `SEEN_REPLY`, and with it the fixed timeout.
    const ANSWERED: u32 = 1 << 1;
    const FIXED: u32 = ANSWERED | 1 << 10;

    fn entry(status: u32, tcp_state: Option<TcpState>, packets: u64) -> CtEntry {
        let ports = Transport::Udp(Ports { src: 1, dst: 2 });
        let addr = |text: &str| text.parse().unwrap();
        let original = Tuple::new(addr("10.0.0.1"), addr("10.0.0.2"), ports).unwrap();
        let count = Count { packets, bytes: 0 };
        CtEntry {
            id: 7,
            zone: 0,
            original,
            reply: original,
            master: None,
            mark: Mark(0),
            status: CtStatus(status),
            tcp_state,
            counters: Some(Counters {
                original: count,
                reply: count,
            }),
            start: None,
            stop: None,
        }
    }

    fn limited(now: Instant) -> Limited {
        Limited {
            row: ConnId::try_from(1).unwrap(),
            target: Target {
                id: 7,
                zone: 0,
                original: entry(0, None, 0).original,
            },
            until: now,
            carried: None,
            finished: false,
        }
    }

    #[test]
    fn what_is_answered_gets_its_end_and_what_is_over_does_not() {
        let now = clock::mono();
        let next = |entry: &CtEntry| limited(now).next(entry, now);
        let open = Some(TcpState::ESTABLISHED);
        assert_eq!(next(&entry(ANSWERED, open, 1)), Step::Limit);
        assert_eq!(next(&entry(0, Some(TcpState::SYN_SENT), 1)), Step::Leave);
        assert_eq!(next(&entry(ANSWERED, Some(TcpState::TIME_WAIT), 1)), Step::Forget);
        let another = CtEntry {
            id: 8,
            ..entry(ANSWERED, open, 1)
        };
        assert_eq!(next(&another), Step::Forget);
    }

    #[test]
    fn an_entry_that_outlives_its_connection_is_let_go() {
        let now = clock::mono();
        let mut tcp = limited(now);
        for (state, step) in [
            (TcpState::ESTABLISHED, Step::Leave),
            (TcpState::TIME_WAIT, Step::Leave),
            (TcpState::TIME_WAIT, Step::LetGo),
        ] {
            assert_eq!(tcp.next(&entry(FIXED, Some(state), 9), now), step);
        }
        let mut udp = limited(now);
        for (packets, after, step) in [
            (9, 0, Step::Leave),
            (9, 299, Step::Leave),
            (10, 300, Step::Leave),
            (10, 599, Step::Leave),
            (10, 600, Step::LetGo),
        ] {
            let at = now + Duration::from_secs(after);
            assert_eq!(udp.next(&entry(FIXED, None, packets), at), step, "{after}");
        }
        // An open TCP connection may be silent as long as it has time.
        let mut idle = limited(now);
        for after in [0, 600, 6000] {
            let at = now + Duration::from_secs(after);
            let open = entry(FIXED, Some(TcpState::ESTABLISHED), 9);
            assert_eq!(idle.next(&open, at), Step::Leave);
        }
    }
}
