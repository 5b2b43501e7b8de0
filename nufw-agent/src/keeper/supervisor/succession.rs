//! Who works next: after a death, after a hang, and when another program is installed.
//!
//! Nobody reads the queue beside a successor, and what a predecessor had read is put back before it begins.

use super::super::child::{Child, Stage};
use super::super::restarts::Death;
use super::super::store;
use super::super::wire::Request;
use super::{Ended, Supervisor};
use crate::queue::PutBack;
use nufw_common::clock;
use nufw_common::exit::Exit;
use rustix::process::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How long a worker may take to make room for its successor, while packets wait.
const LEAVING: Duration = Duration::from_secs(2);
/// How long it takes until it is tried again to start a process, where the system makes none.
const NO_PROCESS: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Tries the program that is installed; it takes over if it starts.
    pub(super) fn replace(&mut self, now: Instant) {
        if self.ending || self.next.is_some() {
            return;
        }
        match Child::spawn(&self.program, now) {
            Ok(next) => self.next = Some(next),
            Err(error) => {
                tracing::warn!(%error, "no worker can be started that could take over; the present one stays");
            }
        }
    }

    /// The successor waits: the present worker makes room, if there is one.
    pub(super) fn succeed(&mut self) {
        let now = clock::mono();
        match &self.present {
            None => self.promote(now),
            Some(present) => {
                present.signal(match present.stage {
                    Stage::Running => Signal::USR2,
                    // It does not know the signal yet, and has done nothing.
                    Stage::Preparing | Stage::Ready | Stage::Started => Signal::KILL,
                });
                (self.leaving, self.deadline) = (true, Some(now + LEAVING));
            }
        }
    }

    fn promote(&mut self, now: Instant) {
        self.present = self.next.take();
        self.due = None;
        if self
            .present
            .as_ref()
            .is_some_and(|child| child.stage == Stage::Ready)
        {
            self.start_present(now);
        }
    }

    pub(super) fn next_ended(&mut self, now: Instant) {
        let Some(mut next) = self.next.take() else { return };
        let status = next.ended();
        tracing::warn!(
            status = %said(&status),
            "the worker that should take over does not start; the present one stays"
        );
        if self.present.is_none() {
            self.due = Some(now);
        }
    }

    pub(super) fn present_ended(&mut self, now: Instant) -> Option<Ended> {
        let mut child = self.present.take()?;
        let status = child.ended();
        // What it decided counts.
        while let Some(message) = child.last_words() {
            if let Ok(request @ Request::Verdicts(_)) = Request::decode(&message) {
                let _ = self.kernel.perform(request);
            }
        }
        self.deadline = None;
        if self.ending {
            return Some(Ended::AsTold);
        }
        if self.generation == 0 {
            let code = status.ok().and_then(|status| status.code());
            return Some(Ended::AtOnce(
                code.and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(Exit::Software as u8),
            ));
        }
        if std::mem::take(&mut self.leaving) {
            self.put_back(PutBack::Repeat);
            self.renew();
            self.start_next(now);
            return None;
        }
        let death = match (child.condemned, &status) {
            _ if matches!(child.stage, Stage::Preparing | Stage::Ready) => Death::Unready,
            (Some(death), _) => death,
            (None, Ok(status)) if status.signal() == Some(libc::SIGKILL) => Death::Killed,
            _ => Death::Failed,
        };
        let lived = now.saturating_duration_since(child.born);
        let verdict = self.restarts.after(death, lived, now);
        self.put_back(verdict.packets);
        if verdict.packets == PutBack::Drop {
            tracing::error!(
                "workers fail one after the other; the packets that they had read are dropped, one of them may be why"
            );
        }
        if verdict.pause.is_zero() || self.complaints.may_warn(now) {
            tracing::warn!(
                worker = child.pid(),
                status = %said(&status),
                ?lived,
                pause = ?verdict.pause,
                "the worker ended; its packets wait for another, which takes over"
            );
        }
        if verdict.pause.is_zero() {
            self.start_next(now);
        } else {
            self.due = Some(now + verdict.pause);
        }
        None
    }

    fn put_back(&self, how: PutBack) {
        if let Err(error) = self.kernel.put_back(how) {
            tracing::error!(%error, "packets that a worker had read stay in the queue until their connections give up");
        }
    }

    /// Starts the successor, or one that must first prepare.
    pub(super) fn start_next(&mut self, now: Instant) {
        self.due = None;
        if self.next.is_some() {
            return self.promote(now);
        }
        match Child::spawn(&self.program, now) {
            Ok(child) => self.present = Some(child),
            Err(error) => {
                if self.complaints.may_warn(now) {
                    tracing::error!(%error, "no worker can be started; packets wait in the queue");
                }
                self.due = Some(now + NO_PROCESS);
            }
        }
    }

    /// The supervisor becomes the program that is installed, with its configuration of now; it comes back only if that
    /// fails.
    fn renew(&mut self) {
        if !self.renews {
            return;
        }
        // It has proved that the program starts; the supervisor to be starts its own.
        self.next = None;
        let path = &self.program.path;
        tracing::info!(program = %path.display(), "the supervisor becomes the program that is installed");
        let error = store::become_anew(path, &self.program.arguments, &self.kernel.left_behind());
        tracing::warn!(%error, "the supervisor cannot become the program that is installed; it goes on as it is");
    }
}

fn said(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
