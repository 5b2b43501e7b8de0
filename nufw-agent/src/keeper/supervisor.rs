//! The supervisor's loop: it serves the worker, and sees to it that there is one.
//!
//! One task. Signals are passed on; a worker that ended is followed by another; one that is silent is ended. What is answered
//! to a worker is `serving`'s part, who follows whom is `succession`'s.

mod serving;
mod succession;

use super::child::{Child, Program, Stage, Stirred};
use super::kernel::{Allowed, Kernel};
use super::restarts::{Death, Restarts};
use super::signals::{Signals, Told};
use super::store::{self, Kept};
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
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How late a silent worker or a due start may be noticed.
const TICK: Duration = Duration::from_millis(100);
/// A supervisor whose ticks are so far apart stood still itself, and cannot know what its worker did meanwhile.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// How long a worker may take to read its configuration and to begin its loop.
const PREPARING: Duration = Duration::from_mins(1);
/// How long a worker may take to end when it is told to.
const ENDING: Duration = Duration::from_secs(8);

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
    /// None in its tests, which tell it directly.
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
    /// Workers that were started; before the first one packets do not wait for another.
    generation: u32,
    /// When a worker is to be started.
    due: Option<Instant>,
    ending: bool,
    leaving: bool,
    /// The worker is to read its files again once it takes signals.
    reload: bool,
    /// The service manager was told that files are read again, and not yet that this is done.
    reloading: bool,
    /// When a worker that ends or leaves is out of patience.
    deadline: Option<Instant>,
    told_ready: bool,
    /// When a worker was last known to work.
    working: Instant,
    ticked: Instant,
    watchdog: Watchdog,
    complaints: Seldom,
    attacks: Seldom,
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
        let signals = Signals::new().map_err(|error| AgentError::System("wait for signals", error))?;
        let mut kept = plan.kept;
        let renewed = kept.renewed();
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
        let program = Program {
            path: installed().map_err(|error| AgentError::System("find this program's file", error))?,
            arguments: plan.arguments,
        };
        Ok(Self {
            signals: Some(signals),
            renews: true,
            // Packets wait already, and the program has proved that it starts: no failure ends all.
            generation: u32::from(renewed),
            watchdog: Watchdog::from_environment(),
            ..Self::new(kernel, program, plan.hung_after)
        })
    }

    fn new(kernel: Kernel, program: Program, hung_after: Duration) -> Self {
        Self {
            signals: None,
            program,
            renews: false,
            hung_after,
            kernel,
            present: None,
            next: None,
            restarts: Restarts::default(),
            generation: 0,
            due: None,
            ending: false,
            leaving: false,
            reload: false,
            reloading: false,
            deadline: None,
            told_ready: false,
            working: clock::mono(),
            ticked: clock::mono(),
            watchdog: Watchdog::default(),
            complaints: Seldom::default(),
            attacks: Seldom::default(),
        }
    }

    /// Runs until SIGTERM or SIGINT; within the same runtime, on the main thread, which the worker's life hangs on.
    pub async fn run(mut self) -> Result<Ended, AgentError> {
        let Some(mut signals) = self.signals.take() else {
            return Ok(Ended::AsTold);
        };
        let first = Child::spawn(&self.program, clock::mono())
            .map_err(|error| AgentError::System("start the worker", error))?;
        self.present = Some(first);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let woken = tokio::select! {
                stirred = stirs(self.present.as_ref()) => Woken::Present(stirred),
                stirred = stirs(self.next.as_ref()) => Woken::Next(stirred),
                told = signals.next() => Woken::Told(told),
                _ = tick.tick() => Woken::Tick,
            };
            if let Some(ended) = self.turn(woken) {
                return Ok(ended);
            }
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
            Told::PassOn(signal) => self.pass_on(signal),
            Told::Replace => self.replace(now),
        }
        None
    }

    fn pass_on(&mut self, signal: Signal) {
        let reload = signal == Signal::HUP;
        if reload && self.told_ready {
            lifecycle::notify_reloading();
            self.reloading = true;
        }
        match &self.present {
            Some(present) if present.stage == Stage::Running => present.signal(signal),
            // It would end by it. What it has read already may be what changed.
            _ => self.reload |= reload,
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.is_sound(now) {
            self.watchdog.turned(now);
        }
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
        let stood_still = now.saturating_duration_since(self.ticked) > STOOD_STILL;
        self.ticked = now;
        let Some(present) = &mut self.present else { return };
        if stood_still {
            present.heard = now;
        }
        let patience = match present.stage {
            Stage::Running => self.hung_after,
            Stage::Preparing | Stage::Ready | Stage::Started => PREPARING.max(self.hung_after),
        };
        let silent = now.saturating_duration_since(present.heard);
        if present.condemned.is_none() && (late || silent >= patience) {
            tracing::warn!(
                worker = present.pid(),
                ?silent,
                "the worker does nothing any more; it is ended"
            );
            present.condemn(Death::Hung);
        }
    }

    /// Whether the service manager need not do anything: a worker works, or not long ago one did, and its successors are seen
    /// to here.
    fn is_sound(&self, now: Instant) -> bool {
        now < self.working + self.hung_after + PREPARING
    }
}

#[cfg(test)]
mod tests;
