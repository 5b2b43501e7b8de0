//! What a worker says, and what it is answered.
//!
//! A worker that says what is not on the list, or before its time, is ended; whatever it had read is its successor's.

use super::super::child::Stage;
use super::super::restarts::Death;
use super::super::wire::{Reply, Request, Start};
use super::Supervisor;
use nufw_common::{clock, lifecycle};
use rustix::process::Signal;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

/// Messages taken from a worker before others are looked at.
const AT_ONCE: usize = 64;

impl Supervisor {
    /// Serves the present worker.
    pub(super) fn hear(&mut self, now: Instant) {
        for _ in 0..AT_ONCE {
            let Some(present) = &mut self.present else { return };
            match present.next() {
                Ok(Some(message)) => self.serve(&message, now),
                Ok(None) => return,
                Err(error) => return self.banish(&error),
            }
        }
    }

    fn serve(&mut self, message: &[u8], now: Instant) {
        let Some(present) = &mut self.present else { return };
        let request = match Request::decode(message) {
            Ok(request) => request,
            Err(error) => return self.banish(&error),
        };
        present.heard = now;
        match (&request, present.stage) {
            (Request::Ready, Stage::Preparing) => {
                present.stage = Stage::Ready;
                return self.start_present(now);
            }
            (Request::Ready, _) => return self.banish(&"it says twice that it is ready"),
            (_, Stage::Preparing | Stage::Ready) => return self.banish(&"it has not been started yet"),
            (Request::Beat, Stage::Started) => {
                present.stage = Stage::Running;
                return self.works(now);
            }
            (Request::Beat, Stage::Running) => {
                self.working = now;
                return;
            }
            (Request::Reloaded, _) => return self.reloaded(),
            _ => {}
        }
        match self.kernel.perform(request) {
            Ok(outcome) => self.answer(&outcome),
            Err(foreign) => self.banish(&foreign),
        }
    }

    /// The worker has begun, and takes signals.
    fn works(&mut self, now: Instant) {
        self.working = now;
        if std::mem::take(&mut self.reload) {
            if let Some(present) = &self.present {
                present.signal(Signal::HUP);
            }
        } else {
            // One that was told to read its files again may be gone; this one has read them at its start.
            self.reloaded();
        }
        if !std::mem::replace(&mut self.told_ready, true) {
            lifecycle::notify_ready();
        }
    }

    fn reloaded(&mut self) {
        if std::mem::take(&mut self.reloading) {
            lifecycle::notify_ready();
        }
    }

    fn answer(&mut self, outcome: &io::Result<Option<OwnedFd>>) {
        let (errno, descriptor) = match outcome {
            Ok(descriptor) => (0, descriptor.as_ref()),
            Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), None),
        };
        let descriptors: Vec<_> = descriptor.iter().map(|descriptor| descriptor.as_fd()).collect();
        let Some(present) = &self.present else { return };
        if let Err(error) = present
            .channel()
            .send(&Reply::Done(errno).encode(), &descriptors, false)
        {
            self.unless_gone(&error);
        }
    }

    /// A worker that does not take what it asked for is out of order, unless it is gone.
    fn unless_gone(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe && error.kind() != io::ErrorKind::ConnectionReset {
            self.banish(error);
        }
    }

    /// The worker did what it may not: it is ended, and nothing of what it asked for is done.
    fn banish(&mut self, why: &dyn std::fmt::Display) {
        let Some(present) = &mut self.present else { return };
        if self.attacks.may_warn(clock::mono()) {
            tracing::error!(
                worker = present.pid(),
                %why,
                "the worker asks for what it may not have; it is ended, another takes over"
            );
        }
        present.condemn(Death::Failed);
        present.unheard();
    }

    /// Gives the worker that has its turn what it works with.
    pub(super) fn start_present(&mut self, now: Instant) {
        match self.kernel.mend_memory() {
            Ok(false) => {}
            Ok(true) => tracing::error!(
                "a worker has spoilt the memory of events; it is new, and what was in it is made good by a comparison"
            ),
            Err(error) => tracing::error!(%error, "no memory of events can be made"),
        }
        let Some(present) = &mut self.present else { return };
        let start = Reply::Start(Start {
            parent: std::process::id(),
            generation: self.generation,
            queues: self.kernel.numbers(),
            events: self.kernel.events_forced(),
            open: self.kernel.open_places(),
        });
        present.stage = Stage::Started;
        (present.heard, present.born) = (now, now);
        self.generation = self.generation.saturating_add(1);
        let sent = present
            .channel()
            .send(&start.encode(), &self.kernel.descriptors(), false);
        if let Err(error) = sent {
            self.unless_gone(&error);
        }
    }

    pub(super) fn hear_next(&mut self) {
        let Some(next) = &mut self.next else { return };
        match next
            .next()
            .map(|message| message.map(|message| Request::decode(&message)))
        {
            Ok(Some(Ok(Request::Ready))) if next.stage == Stage::Preparing => {
                next.stage = Stage::Ready;
                self.succeed();
            }
            Ok(None) => {}
            _ => next.signal(Signal::KILL),
        }
    }
}
