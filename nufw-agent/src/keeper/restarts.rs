//! When the next worker starts, and what becomes of the packets that the last one had read.
//!
//! Pure: time is a parameter.

use crate::queue::PutBack;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many workers are started without delay within [`WINDOW`]; further ones wait for [`PAUSE`] each.
const BURST: usize = 16;
/// See [`BURST`].
const WINDOW: Duration = Duration::from_secs(10);
/// See [`BURST`]. Packets wait in the queue meanwhile, until it is full.
const PAUSE: Duration = Duration::from_secs(1);
/// A worker that lived so long was not ended by what its predecessor had read.
const SOUND: Duration = Duration::from_mins(1);
/// So many workers that fail one after the other may have failed by one and the same packet.
const SUSPICIOUS: u32 = 3;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Somebody killed it, as far as can be seen.
    Killed,
    /// It ended by itself, or had to be ended for what it asked for: a fault, or something that it lacks.
    Failed,
    /// It did nothing for too long.
    Hung,
    /// It ended before it was given anything: it has read no packet.
    Unready,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// For the packets that it had read and not answered.
    pub(super) packets: PutBack,
    /// How long to wait before the next.
    pub(super) pause: Duration,
}

/// What is remembered of former workers.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    recent: VecDeque<Instant>,
    failed_in_a_row: u32,
}

impl Restarts {
    /// A worker that lived for `lived` has ended.
    pub(super) fn after(&mut self, death: Death, lived: Duration, now: Instant) -> Verdict {
        match death {
            Death::Killed | Death::Unready => {}
            Death::Failed | Death::Hung if lived < SOUND => self.failed_in_a_row += 1,
            Death::Failed | Death::Hung => self.failed_in_a_row = 1,
        }
        while self.recent.front().is_some_and(|then| *then + WINDOW <= now) {
            self.recent.pop_front();
        }
        let pause = if self.recent.len() >= BURST {
            PAUSE
        } else {
            self.recent.push_back(now);
            Duration::ZERO
        };
        let packets = if self.failed_in_a_row >= SUSPICIOUS {
            self.failed_in_a_row = 0;
            PutBack::Drop
        } else {
            PutBack::Repeat
        };
        Verdict { packets, pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_common::clock;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn whoever_is_killed_a_hundred_times_loses_no_packet() {
        let mut restarts = Restarts::default();
        let mut now = clock::mono();
        for _ in 0..100 {
            let verdict = restarts.after(Death::Killed, SOON, now);
            assert_eq!(verdict.packets, PutBack::Repeat);
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn the_third_failure_in_a_row_drops_what_may_have_caused_it() {
        let mut restarts = Restarts::default();
        let now = clock::mono();
        let mut fails = |death, lived| restarts.after(death, lived, now).packets;
        assert_eq!(fails(Death::Failed, SOON), PutBack::Repeat);
        assert_eq!(fails(Death::Hung, SOON), PutBack::Repeat);
        assert_eq!(fails(Death::Killed, SOON), PutBack::Repeat, "says nothing");
        assert_eq!(fails(Death::Unready, SOON), PutBack::Repeat, "has read nothing");
        assert_eq!(fails(Death::Failed, SOON), PutBack::Drop);
        assert_eq!(fails(Death::Failed, SOON), PutBack::Repeat, "it is gone");
        assert_eq!(fails(Death::Failed, SOON), PutBack::Repeat);
        assert_eq!(fails(Death::Failed, SOUND), PutBack::Repeat, "it was sound");
    }

    #[test]
    fn sixteen_start_at_once_and_further_ones_pause() {
        let mut restarts = Restarts::default();
        let now = clock::mono();
        let mut deaths = [Death::Unready, Death::Killed, Death::Failed, Death::Hung]
            .into_iter()
            .cycle();
        let mut pause = |now| {
            let death = deaths.next().unwrap_or(Death::Killed);
            restarts.after(death, SOON, now).pause
        };
        for _ in 0..BURST {
            assert_eq!(pause(now), Duration::ZERO);
        }
        assert_eq!(pause(now), PAUSE);
        assert_eq!(pause(now + WINDOW), Duration::ZERO);
    }
}
