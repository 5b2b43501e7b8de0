//! What the supervisor is told by signal, in words.
//!
//! What is done about it is the supervisor's business.

use rustix::process::Signal;
use std::io;
use tokio::signal::unix::{self, SignalKind};

/// The signals of the supervisor. From their making on they no longer end the process by themselves.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    report: unix::Signal,
    replace: unix::Signal,
}

impl Signals {
    /// Takes them over; within a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            report: unix::signal(SignalKind::user_defined1())?,
            replace: unix::signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::PassOn(Signal::HUP),
            _ = self.report.recv() => Told::PassOn(Signal::USR1),
            _ = self.replace.recv() => Told::Replace,
        }
    }
}

/// What the supervisor is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    /// SIGTERM, SIGINT: end.
    End,
    /// SIGHUP, SIGUSR1: what the worker is to hear.
    PassOn(Signal),
    /// SIGUSR2: let the installed program take over.
    Replace,
}
