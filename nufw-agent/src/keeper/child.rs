//! A worker as the supervisor sees it: a process, the channel to it, and when it was last heard.
//!
//! Decides nothing.

use super::channel::Channel;
use super::restarts::Death;
use super::store::OWN_VARIABLES;
use crate::socket::watch;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// Tells the program that it is a worker.
pub(super) const AS_WORKER: &str = "--as-worker";

/// What is started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The file; what is there at the time of a start is what is started.
    pub(super) path: PathBuf,
    /// The supervisor's own arguments.
    pub(super) arguments: Vec<OsString>,
}

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It reads its configuration.
    Preparing,
    /// It waits to be started.
    Ready,
    /// It was given the descriptors.
    Started,
    /// It has turned its loop at least once, and takes signals.
    Running,
}

/// A worker.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    exited: AsyncFd<OwnedFd>,
    channel: AsyncFd<Channel>,
    pub(super) stage: Stage,
    pub(super) born: Instant,
    pub(super) heard: Instant,
    /// The supervisor has killed it, and takes its end for this.
    pub(super) condemned: Option<Death>,
    closed: bool,
    unheard: bool,
}

impl Child {
    pub(super) fn spawn(program: &Program, now: Instant) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let mut process = match command(&program.path, program, theirs.try_clone()?).spawn() {
            // It was removed, or is being written: what runs here can still be started.
            Err(error) => {
                tracing::warn!(%error, program = %program.path.display(), "the program cannot be started; the one that runs already is used");
                command(Path::new("/proc/self/exe"), program, theirs).spawn()?
            }
            Ok(process) => process,
        };
        let watched = rustix::process::Pid::from_raw(process.id().cast_signed())
            .ok_or(io::ErrorKind::NotFound.into())
            .and_then(|pid| watch(pidfd_open(pid, PidfdFlags::empty())?))
            .and_then(|exited| Ok((exited, watch(ours)?)));
        let (exited, channel) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                process.kill()?;
                process.wait()?;
                return Err(error);
            }
        };
        Ok(Self {
            process,
            exited,
            channel,
            stage: Stage::Preparing,
            born: now,
            heard: now,
            condemned: None,
            closed: false,
            unheard: false,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it says something or has ended. Cancel-safe.
    pub(super) async fn stirs(&self) -> io::Result<Stirred> {
        tokio::select! {
            biased;
            said = self.channel.readable(), if !self.closed => {
                said?.retain_ready();
                Ok(Stirred::Said)
            }
            ended = self.exited.readable() => {
                ended?.retain_ready();
                Ok(Stirred::Ended)
            }
        }
    }

    /// The next message, if there is one.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.closed {
            return Ok(None);
        }
        let received = self
            .channel
            .try_io(tokio::io::Interest::READABLE, |channel| channel.receive(false));
        match received {
            Ok(Some(received)) => Ok(Some(received.message)),
            Ok(None) => {
                self.closed = true;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same of one who has ended, whatever the runtime knows.
    pub(super) fn last_words(&mut self) -> Option<Vec<u8>> {
        if self.unheard {
            return None;
        }
        let received = self.channel.get_ref().receive(false).ok()??;
        Some(received.message)
    }

    /// Nothing that it says is listened to any more.
    pub(super) fn unheard(&mut self) {
        (self.closed, self.unheard) = (true, true);
    }

    pub(super) fn channel(&self) -> &Channel {
        self.channel.get_ref()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended, which is told otherwise.
        let _ = pidfd_send_signal(self.exited.get_ref(), signal);
    }

    /// Kills it; its end counts as this, whatever its status will be.
    pub(super) fn condemn(&mut self, death: Death) {
        self.condemned = Some(death);
        self.signal(Signal::KILL);
    }

    /// How it ended; if it has not, it is killed.
    pub(super) fn ended(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.process.wait()
    }
}

impl Drop for Child {
    /// Nobody may read the queue beside a successor.
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.process.wait();
        }
    }
}

/// What [`Child::stirs`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stirred {
    /// It said something, or closed its channel.
    Said,
    /// It has ended.
    Ended,
}

fn command(path: &Path, program: &Program, channel: OwnedFd) -> Command {
    let mut command = Command::new(path);
    command
        .arg0(program.path.file_name().unwrap_or("nufw-agent".as_ref()))
        .args(&program.arguments)
        .arg(AS_WORKER)
        .stdin(Stdio::from(channel));
    for variable in OWN_VARIABLES {
        command.env_remove(variable);
    }
    command
}
