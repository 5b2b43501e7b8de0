//! The worker's end: what only the supervisor may do is asked for here, one request at a time.
//!
//! Each request waits for its answer, so that whoever has sent verdicts knows that the kernel has them.

use super::channel::{Channel, Received};
use super::wire::{self, MAX_VERDICTS, Open, Reply, Request};
use crate::conntrack::{Order, Target};
use crate::queue::Disposition;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two beats.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// How this process comes by what needs `CAP_NET_ADMIN`.
#[derive(Debug, Clone)]
pub enum Access {
    /// It has the capability itself.
    Own,
    /// A supervisor has it.
    Keeper(Arc<Keeper>),
}

/// What a worker works with.
#[derive(Debug)]
pub struct Handed {
    /// The sockets of queues, with the numbers of each one's.
    pub queues: Vec<(RangeInclusive<u16>, OwnedFd)>,
    /// The event socket, and whether its buffer was forced beyond the host's limit.
    pub events: Option<(OwnedFd, bool)>,
    /// What former workers left.
    pub memory: OwnedFd,
    /// The listening socket of metrics and health.
    pub metrics: Option<OwnedFd>,
    /// The listening socket of the status.
    pub status: Option<OwnedFd>,
    /// How many workers this supervisor had before.
    pub generation: u32,
}

/// The supervisor, as the worker sees it.
#[derive(Debug)]
pub struct Keeper {
    channel: Mutex<Channel>,
    beaten: Mutex<Option<Instant>>,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor is gone")
}

fn nonsense() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the supervisor answered something else than was asked",
    )
}

impl Keeper {
    /// Takes the channel over from standard input, which is empty from then on.
    pub fn from_stdin() -> io::Result<Self> {
        let descriptor = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let channel = Channel::from_descriptor(descriptor)?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(Self::over(channel))
    }

    pub(super) fn over(channel: Channel) -> Self {
        Self {
            channel: Mutex::new(channel),
            beaten: Mutex::new(None),
        }
    }

    /// Says that the worker may be started, and waits for its turn. From then on it ends with the supervisor.
    pub fn start(&self) -> io::Result<Handed> {
        let Received {
            message,
            mut descriptors,
        } = self.ask(&Request::Ready.encode())?;
        let Ok(Reply::Start(start)) = Reply::decode(&message) else {
            return Err(nonsense());
        };
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        // Whose supervisor died before the line above would never hear of it.
        if parent != Some(start.parent) {
            return Err(gone());
        }
        let Open { metrics, status } = start.open;
        let others = [start.events.is_some(), metrics, status];
        let others: usize = others.into_iter().map(usize::from).sum();
        if descriptors.len() != start.queues.len() + others + 1 {
            return Err(nonsense());
        }
        let status = status.then(|| descriptors.pop()).flatten();
        let metrics = metrics.then(|| descriptors.pop()).flatten();
        let memory = descriptors.pop().ok_or_else(nonsense)?;
        let events = match start.events {
            Some(forced) => Some((descriptors.pop().ok_or_else(nonsense)?, forced)),
            None => None,
        };
        Ok(Handed {
            queues: start.queues.into_iter().zip(descriptors).collect(),
            events,
            memory,
            metrics,
            status,
            generation: start.generation,
        })
    }

    fn ask(&self, message: &[u8]) -> io::Result<Received> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(message, &[], true)?;
        channel.receive(true)?.ok_or_else(gone)
    }

    fn done(&self, message: &[u8]) -> io::Result<Vec<OwnedFd>> {
        let Received { message, descriptors } = self.ask(message)?;
        match Reply::decode(&message) {
            Ok(Reply::Done(0)) => Ok(descriptors),
            Ok(Reply::Done(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(nonsense()),
        }
    }

    fn one_descriptor(&self, request: &Request) -> io::Result<OwnedFd> {
        self.done(&request.encode())?.pop().ok_or_else(nonsense)
    }

    /// Has at most [`MAX_VERDICTS`] verdicts sent; they are with the kernel when it returns.
    pub fn verdicts(&self, verdicts: &[(u16, u32, Disposition)]) -> io::Result<()> {
        debug_assert!(verdicts.len() <= MAX_VERDICTS);
        self.done(&wire::encode_verdicts(verdicts)).map(drop)
    }

    /// A socket from which the whole connection table can be read.
    pub fn dump(&self) -> io::Result<OwnedFd> {
        self.one_descriptor(&Request::Dump)
    }

    /// A pipe from which one look at the firewall's rules can be read, as [`super::Looked`] in JSON. With `mend` they are
    /// loaded before.
    pub fn rules(&self, mend: bool) -> io::Result<OwnedFd> {
        self.one_descriptor(&Request::Rules { mend })
    }

    /// A socket from which the kernel's answers about single entries of the connection table can be read.
    pub fn control(&self, wanted: &[(u32, Target, Order)]) -> io::Result<OwnedFd> {
        self.done(&wire::encode_control(wanted))?
            .pop()
            .ok_or_else(nonsense)
    }

    /// Says that the worker has read its files again, which the supervisor tells the service manager.
    pub fn reloaded(&self) -> io::Result<()> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(&Request::Reloaded.encode(), &[], true)
    }

    /// Says that the worker is alive, if it has not lately.
    pub fn beat(&self, now: Instant) -> io::Result<()> {
        let mut beaten = self.beaten.lock().unwrap_or_else(PoisonError::into_inner);
        if beaten.is_some_and(|last| now < last + BEAT_EVERY) {
            return Ok(());
        }
        *beaten = Some(now);
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        match channel.send(&Request::Beat.encode(), &[], false) {
            // The supervisor has enough to read, and so can tell that this worker lives.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }
}
