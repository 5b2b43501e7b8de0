//! What wakes the agent besides queue, events and link: signals and two timers.
//!
//! The timers live as long as the agent: arming one costs a system call.

use nufw_common::clock;
use nufw_common::lifecycle::Signals;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::signal;

/// How late deadlines, heartbeats and the like may be noticed.
const TICK: Duration = Duration::from_millis(100);

/// The wakers.
pub(super) struct Wakers {
    pub(super) signals: Signals,
    pub(super) report: signal::unix::Signal,
    pub(super) leave: signal::unix::Signal,
    pub(super) tick: tokio::time::Interval,
    pub(super) pause: Pin<Box<tokio::time::Sleep>>,
}

impl Wakers {
    pub(super) fn new() -> io::Result<Self> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Self {
            signals: Signals::new()?,
            report: signal::unix::signal(signal::unix::SignalKind::user_defined1())?,
            leave: signal::unix::signal(signal::unix::SignalKind::user_defined2())?,
            tick,
            pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
        })
    }

    /// Arms the pause.
    pub(super) fn pause_for(&mut self, time: Duration) {
        self.pause.as_mut().reset((clock::mono() + time).into());
    }
}
