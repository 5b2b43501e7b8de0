//! The supervisor's loop: it serves the worker, and sees to it that there is one.
//!
//! One task. Signals are passed on; a worker that ended is followed by another; one that is silent is ended.

use super::child::{Child, Program, Stage, Stirred};
use super::kernel::{Allowed, Kernel};
use super::restarts::{Death, Restarts};
use super::signals::{Signals, Told};
use super::store::{self, Kept};
use super::wire::{Reply, Request, Start};
use crate::agent::AgentError;
use crate::conntrack::EventOptions;
use crate::observe::Opened;
use crate::queue::{PutBack, QueueOptions};
use crate::stats::Seldom;
use nufw_common::watchdog::Watchdog;
use nufw_common::{clock, lifecycle};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How late a silent worker or a due start may be noticed.
const TICK: Duration = Duration::from_millis(100);
/// How long a worker may take to read its configuration and to begin its loop.
const PREPARING: Duration = Duration::from_mins(1);
/// How long a worker may take to end when it is told to.
const ENDING: Duration = Duration::from_secs(8);
/// How long a worker may take to make room for its successor, while packets wait.
const LEAVING: Duration = Duration::from_secs(2);
/// Messages taken from a worker before others are looked at.
const AT_ONCE: usize = 64;

/// What the supervisor needs to know.
pub struct Plan {
    /// The queues.
    pub queues: Vec<QueueOptions>,
    /// The event socket, if events are relayed.
    pub events: Option<EventOptions>,
    /// Events that are kept until the server has acknowledged them.
    pub max_unacknowledged: usize,
    /// A worker that says nothing for so long is ended.
    pub hung_after: Duration,
    /// Where the agent is watched.
    pub opened: Opened,
    /// What a worker may ask for beyond the sockets.
    pub allowed: Allowed,
    /// What outlived a former process.
    pub kept: Kept,
    /// The arguments that this process was started with, without its name.
    pub arguments: Vec<OsString>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    AsTold,
    /// The first worker ended before it began, with this exit code, and has said why.
    AtOnce(u8),
}

#[derive(Debug, Clone, Copy)]
enum Woken {
    Present(Stirred),
    Next(Stirred),
    Told(Told),
    Tick,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "what was told and what was done are facts of their own"
)]
/// The supervisor.
pub struct Supervisor {
    signals: Option<Signals>,
    program: Program,
    /// Whether the supervisor itself is replaced too. Not in its tests, whose process it is.
    renews: bool,
    hung_after: Duration,
    kernel: Kernel,
    present: Option<Child>,
    /// Prepares, or waits for the present one to leave.
    next: Option<Child>,
    restarts: Restarts,
    generation: u32,
    /// When a worker is to be started.
    due: Option<Instant>,
    ending: bool,
    leaving: bool,
    /// The worker is to read its files again once it takes signals.
    reload: bool,
    /// When a worker that ends or leaves is out of patience.
    deadline: Option<Instant>,
    told_ready: bool,
    /// Speaks to the service manager while a worker lives.
    watchdog: Watchdog,
    complaints: Seldom,
}

/// Opens everything; within a tokio runtime. No other thread or process has been started when it returns.
pub(crate) async fn open(plan: Plan) -> Result<Supervisor, AgentError> {
    let signals = Signals::new().map_err(|error| AgentError::System("wait for signals", error))?;
    let mut kept = plan.kept;
    let kernel = Kernel::open(
        &plan.queues,
        plan.events.as_ref(),
        plan.max_unacknowledged,
        (plan.opened, plan.allowed),
        &mut kept,
    )
    .await?;
    kept.forget();
    // What a worker of a former supervisor had read, or came while the queue was configured.
    kernel.put_back(PutBack::Repeat)?;
    for (name, descriptor) in kernel.named() {
        store::keep(&name, descriptor);
    }
    Ok(Supervisor {
        signals: Some(signals),
        program: Program {
            path: installed().map_err(|error| AgentError::System("find this program's file", error))?,
            arguments: plan.arguments,
        },
        renews: true,
        hung_after: plan.hung_after,
        kernel,
        present: None,
        next: None,
        restarts: Restarts::default(),
        generation: 0,
        due: None,
        ending: false,
        leaving: false,
        reload: false,
        deadline: None,
        told_ready: false,
        watchdog: Watchdog::from_environment(),
        complaints: Seldom::default(),
    })
}

/// Runs until SIGTERM or SIGINT; within a tokio runtime, on the main thread, which the worker's life hangs on.
async fn run(mut supervisor: Supervisor, mut signals: Signals) -> Result<Ended, AgentError> {
    let first = Child::spawn(&supervisor.program, clock::mono())
        .map_err(|error| AgentError::System("start the worker", error))?;
    supervisor.present = Some(first);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let woken = tokio::select! {
            stirred = stirs(supervisor.present.as_ref()) => Woken::Present(stirred),
            stirred = stirs(supervisor.next.as_ref()) => Woken::Next(stirred),
            told = signals.next() => Woken::Told(told),
            _ = tick.tick() => Woken::Tick,
        };
        if let Some(ended) = supervisor.turn(woken) {
            return Ok(ended);
        }
    }
}

/// The file that this program was started from, and that the next worker is started from. An upgrade puts another there.
fn installed() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(match text.strip_suffix(" (deleted)") {
        Some(text) => PathBuf::from(text),
        None => path,
    })
}

async fn stirs(child: Option<&Child>) -> Stirred {
    match child {
        None => std::future::pending().await,
        // What cannot be watched is as good as ended.
        Some(child) => child.stirs().await.unwrap_or(Stirred::Ended),
    }
}

impl Supervisor {
    /// Opens everything; within a tokio runtime. No other thread or process has been started when it returns.
    pub async fn open(plan: Plan) -> Result<Self, AgentError> {
        open(plan).await
    }

    /// Runs until SIGTERM or SIGINT; within the same runtime, on the main thread, which the worker's life hangs on.
    pub async fn run(mut self) -> Result<Ended, AgentError> {
        match self.signals.take() {
            Some(signals) => run(self, signals).await,
            None => Ok(Ended::AsTold),
        }
    }

    fn turn(&mut self, woken: Woken) -> Option<Ended> {
        let now = clock::mono();
        match woken {
            Woken::Present(Stirred::Said) => self.hear(now),
            Woken::Present(Stirred::Ended) => return self.present_ended(now),
            Woken::Next(Stirred::Said) => self.hear_next(),
            Woken::Next(Stirred::Ended) => self.next_ended(now),
            Woken::Told(told) => return self.told(told, now),
            Woken::Tick => self.tick(now),
        }
        None
    }

    /// Serves the present worker.
    fn hear(&mut self, now: Instant) {
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
                self.watchdog.turned(now);
                present.stage = Stage::Running;
                if std::mem::take(&mut self.reload) {
                    present.signal(Signal::HUP);
                }
                if !std::mem::replace(&mut self.told_ready, true) {
                    lifecycle::notify_ready();
                }
                return;
            }
            (Request::Beat, _) => return self.watchdog.turned(now),
            _ => {}
        }
        match self.kernel.perform(request) {
            Ok(outcome) => self.answer(&outcome),
            Err(foreign) => self.banish(&foreign),
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
        if let Some(present) = &mut self.present {
            tracing::error!(
                worker = present.pid(),
                %why,
                "the worker asks for what it may not have; it is ended, another takes over"
            );
            present.signal(Signal::KILL);
            present.unheard();
        }
    }

    /// Gives the worker that has its turn what it works with.
    fn start_present(&mut self, now: Instant) {
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

    fn hear_next(&mut self) {
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

    /// The successor waits: the present worker makes room, if there is one.
    fn succeed(&mut self) {
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

    fn next_ended(&mut self, now: Instant) {
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

    fn present_ended(&mut self, now: Instant) -> Option<Ended> {
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
                    .unwrap_or(nufw_common::exit::Exit::Software as u8),
            ));
        }
        if std::mem::take(&mut self.leaving) {
            self.put_back(PutBack::Repeat);
            self.renew();
            self.start_next(now);
            return None;
        }
        let death = match &status {
            _ if child.hung => Death::Hung,
            Ok(status) if status.signal() == Some(libc::SIGKILL) => Death::Killed,
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
    fn start_next(&mut self, now: Instant) {
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
                self.due = Some(now + Duration::from_secs(1));
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

    fn told(&mut self, told: Told, now: Instant) -> Option<Ended> {
        match told {
            Told::End => {
                lifecycle::notify_stopping();
                self.next = None;
                self.ending = true;
                match &self.present {
                    Some(present) if present.stage == Stage::Running => present.signal(Signal::TERM),
                    Some(present) => present.signal(Signal::KILL),
                    None => return Some(Ended::AsTold),
                }
                self.deadline = Some(now + ENDING);
            }
            Told::PassOn(signal) => match self
                .present
                .as_ref()
                .filter(|child| child.stage == Stage::Running)
            {
                Some(present) => present.signal(signal),
                // It would end by it. What it has read already may be what changed.
                None => self.reload |= signal == Signal::HUP,
            },
            Told::Replace if self.ending || self.next.is_some() => {}
            Told::Replace => match Child::spawn(&self.program, now) {
                Ok(next) => self.next = Some(next),
                Err(error) => {
                    tracing::warn!(%error, "no worker can be started that could take over; the present one stays");
                }
            },
        }
        None
    }

    fn tick(&mut self, now: Instant) {
        if self.due.is_some_and(|due| now >= due) {
            self.start_next(now);
        }
        if let Some(next) = self.next.as_ref()
            && next.stage == Stage::Preparing
            && now >= next.born + PREPARING
        {
            next.signal(Signal::KILL);
        }
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        let Some(present) = &mut self.present else { return };
        let patience = match present.stage {
            Stage::Running => self.hung_after,
            Stage::Preparing | Stage::Ready | Stage::Started => PREPARING.max(self.hung_after),
        };
        let silent = now.saturating_duration_since(present.heard);
        if !present.hung && (late || silent >= patience) {
            tracing::warn!(
                worker = present.pid(),
                ?silent,
                "the worker does nothing any more; it is ended"
            );
            present.hung = true;
            present.signal(Signal::KILL);
        }
    }
}

fn said(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
