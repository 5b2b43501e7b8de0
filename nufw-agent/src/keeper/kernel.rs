//! What the supervisor does with its capability: it opens the sockets, and it carries out what the worker may ask for.
//!
//! Nothing of a packet or an event is looked at. What was opened is what [`Request`] can be about.

use super::looked::Looked;
use super::memory;
use super::store::Kept;
use super::wire::{Open, Request};
use crate::agent::{AgentError, Load};
use crate::conntrack::{
    ConntrackError, EventOptions, Events, Interest, Order, Target, request_control, request_dump,
};
use crate::nfnl::Writer;
use crate::observe::Opened;
use crate::queue::{Disposition, PutBack, Queue, QueueError, QueueOptions, put_back, send_verdicts};
use crate::socket;
use netlink_sys::Socket;
use nufw_common::clock;
use nufw_proto::{BootId, Mark};
use rand::RngExt as _;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a queue may still be another's: one who was just killed takes a moment to be gone.
const TAKEN_PATIENCE: Duration = Duration::from_secs(1);
/// Most threads that list rules at one time; each ends by itself.
const MAX_LISTINGS: usize = 4;

/// Queues of one socket that is kept.
#[derive(Debug)]
struct KeptQueues {
    numbers: RangeInclusive<u16>,
    socket: Socket,
    /// Of each queue, the id of the last packet that was answered, or one near it; 0 before the first.
    last: Vec<u32>,
}

impl KeptQueues {
    fn place(&self, queue: u16) -> Option<usize> {
        let place = usize::from(queue.checked_sub(*self.numbers.start())?);
        self.numbers.contains(&queue).then_some(place)
    }
}

/// What the configuration lets a worker ask for, beyond the sockets.
#[derive(Clone)]
pub struct Allowed {
    /// The bit by which ended connections are refused, the only one that is set in entries of the connection table.
    pub kill_bit: Mark,
    /// What loads the firewall's rules again when they are gone; `None` where that is the administrator's part.
    pub load: Option<Load>,
}

/// The sockets.
pub(super) struct Kernel {
    queues: Vec<KeptQueues>,
    events: Option<(Socket, bool, String)>,
    memory: OwnedFd,
    opened: Opened,
    allowed: Allowed,
    writer: Writer,
    listings: Arc<AtomicUsize>,
}

/// A request about something that is not the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a verdict for queue {0}, which is not ours")]
pub(super) struct Foreign(pub(super) u16);

/// How the memory is called where it is kept.
const MEMORY: &str = "memory";

/// How the places are called at which the agent is watched.
pub(super) const METRICS: &str = "metrics";
/// See [`METRICS`].
pub(super) const STATUS: &str = "status";

/// How the socket of kept queues is called.
fn queue_name(numbers: &RangeInclusive<u16>) -> String {
    match (numbers.start(), numbers.end()) {
        (one, other) if one == other => format!("queue-{one}"),
        (first, last) => format!("queues-{first}-{last}"),
    }
}

/// How the event socket is called: with what its filter lets through.
fn events_name(interest: &Interest) -> String {
    match interest {
        Interest::All => "events-all".to_owned(),
        Interest::Marked(mask) => format!("events-marked-{:08x}", mask.0),
        Interest::Chosen(chosen) => format!("events-chosen-{:016x}", fingerprint(&format!("{chosen:?}"))),
    }
}

/// A short name for a text, the same in every version of this program (FNV-1a).
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Kernel {
    /// Opens what is not kept from before; within a tokio runtime.
    pub(super) async fn open(
        queues: &[QueueOptions],
        events: Option<&EventOptions>,
        max_unacknowledged: usize,
        (opened, allowed): (Opened, Allowed),
        kept: &mut Kept,
    ) -> Result<Self, AgentError> {
        let boot = BootId(rand::rng().random());
        // Without the socket that they came from, events of before are not followed by those of now.
        let whole = events.is_some_and(|options| kept.has(&events_name(&options.interest)));
        let memory = match kept.take(MEMORY) {
            Some(memory) if whole && memory::fits(memory.as_fd(), max_unacknowledged) => memory,
            _ => memory::make(boot, max_unacknowledged)
                .map_err(|error| AgentError::System("make memory for events", error))?,
        };
        // Events first: an entry that comes to be while the queue is opened is not missed.
        let events = match events {
            None => None,
            Some(options) => {
                let name = events_name(&options.interest);
                let events = match kept.take(&name) {
                    Some(kept) => Events::take_over(socket::netlink(kept), options)?,
                    None => Events::open(options)?,
                };
                let (_, forced) = events.receive_buffer();
                Some((events.into_socket(), forced, name))
            }
        };
        let mut all = Vec::new();
        for options in queues {
            let queue = match kept.take(&queue_name(&options.numbers())) {
                Some(kept) => Queue::take_over(socket::netlink(kept), options)?,
                None => open_queue(options).await?,
            };
            let numbers = queue.numbers();
            let last = (0..numbers.len()).map(|place| memory::last_packet(memory.as_fd(), place));
            all.push(KeptQueues {
                numbers,
                last: last.collect(),
                socket: queue.into_socket(),
            });
        }
        Ok(Self {
            queues: all,
            events,
            memory,
            opened,
            allowed,
            writer: Writer::default(),
            listings: Arc::default(),
        })
    }

    #[cfg(test)]
    pub(super) fn without_sockets() -> Self {
        Self {
            queues: Vec::new(),
            events: None,
            memory: memory::make(BootId(1), 1024).unwrap(),
            opened: Opened::default(),
            allowed: Allowed {
                kill_bit: Mark(0x0200_0000),
                load: None,
            },
            writer: Writer::default(),
            listings: Arc::default(),
        }
    }

    /// The queues' numbers, by their sockets.
    pub(super) fn numbers(&self) -> Vec<RangeInclusive<u16>> {
        self.queues.iter().map(|queues| queues.numbers.clone()).collect()
    }

    /// Which places are open at which the agent is watched.
    pub(super) fn open_places(&self) -> Open {
        let (metrics, status) = self.opened.descriptors();
        Open {
            metrics: metrics.is_some(),
            status: status.is_some(),
        }
    }

    /// Whether there is an event socket, and whether its buffer was forced.
    pub(super) fn events_forced(&self) -> Option<bool> {
        self.events.as_ref().map(|(_, forced, _)| *forced)
    }

    /// The descriptors in the order in which a worker gets them: queues, events, memory, metrics, status.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let (metrics, status) = self.opened.descriptors();
        let named = self.named().into_iter().map(|(_, descriptor)| descriptor);
        named.chain(metrics).chain(status).collect()
    }

    /// Those that a later image of this process takes over, with their names.
    pub(super) fn left_behind(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let (metrics, status) = self.opened.descriptors();
        let metrics = metrics.map(|socket| (METRICS.to_owned(), socket));
        let status = status.map(|socket| (STATUS.to_owned(), socket));
        self.named().into_iter().chain(metrics).chain(status).collect()
    }

    /// Those that the service manager keeps, with their names.
    pub(super) fn named(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let queues = self
            .queues
            .iter()
            .map(|queues| (queue_name(&queues.numbers), queues.socket.as_fd()));
        let events = self
            .events
            .iter()
            .map(|(socket, _, name)| (name.clone(), socket.as_fd()));
        let memory = (MEMORY.to_owned(), self.memory.as_fd());
        queues.chain(events).chain([memory]).collect()
    }

    /// Puts back what a dead worker had read.
    pub(super) fn put_back(&self, how: PutBack) -> Result<(), QueueError> {
        for queues in &self.queues {
            let near: Vec<_> = queues.numbers.clone().zip(queues.last.iter().copied()).collect();
            put_back(&queues.socket, &near, how)?;
        }
        Ok(())
    }

    /// Carries a request out: an errno, or what the worker gets.
    pub(super) fn perform(&mut self, request: Request) -> Result<io::Result<Option<OwnedFd>>, Foreign> {
        Ok(match request {
            Request::Ready | Request::Beat => Ok(None),
            Request::Verdicts(verdicts) => {
                // All of them are looked at before any is sent.
                for (queue, packet_id, _) in &verdicts {
                    let mut sockets = self.queues.iter_mut();
                    let place = sockets.find_map(|kept| {
                        let place = kept.place(*queue)?;
                        kept.last.get_mut(place)
                    });
                    *place.ok_or(Foreign(*queue))? = *packet_id;
                }
                self.send(&verdicts).map(|()| None)
            }
            Request::Dump => match request_dump() {
                Ok(socket) => Ok(Some(socket::descriptor(socket))),
                Err(ConntrackError::Open(error) | ConntrackError::Request(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
            Request::Rules { mend } => self.look_at_rules(mend).map(Some),
            Request::Control(wanted) => self.control(&wanted).map(Some),
        })
    }

    fn send(&mut self, verdicts: &[(u16, u32, Disposition)]) -> io::Result<()> {
        for kept in &self.queues {
            // One socket is what an agent has; of several each gets its own.
            let its: Vec<_>;
            let part = if self.queues.len() == 1 {
                verdicts
            } else {
                let of = |(queue, ..): &&(u16, u32, Disposition)| kept.place(*queue).is_some();
                its = verdicts.iter().filter(of).copied().collect();
                &its
            };
            if !part.is_empty() {
                send_verdicts(&kept.socket, part, &mut self.writer)?;
            }
        }
        Ok(())
    }

    /// Asks the kernel about single entries. Of their marks nothing but the bit of ended connections is changed.
    fn control(&self, wanted: &[(u32, Target, Order)]) -> io::Result<OwnedFd> {
        let bit = self.allowed.kill_bit.0;
        let allowed = wanted.iter().all(|(_, _, order)| match *order {
            Order::Look | Order::Delete | Order::EndIn { .. } => true,
            Order::Mark { value, mask } => mask == bit && (value == 0 || value == bit),
        });
        if !allowed || self.events.is_none() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        match request_control(wanted) {
            Ok(socket) => Ok(socket::descriptor(socket)),
            Err(ConntrackError::Open(error) | ConntrackError::Request(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Looks at the rules on a thread of its own; what it finds comes out of the pipe.
    fn look_at_rules(&self, mend: bool) -> io::Result<OwnedFd> {
        if self.listings.fetch_add(1, Ordering::Relaxed) >= MAX_LISTINGS {
            self.listings.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let listing = Listing(Arc::clone(&self.listings));
        let (reader, writer) = io::pipe()?;
        let load = self.allowed.load.clone().filter(|_| mend);
        let unable = mend && load.is_none();
        std::thread::Builder::new()
            .name("list-rules".to_owned())
            .spawn(move || {
                let _listing = listing;
                // Whoever asked may be gone; then nobody needs to know.
                let mut looked = Looked::with_lent_rights(load.as_ref());
                if unable {
                    looked.not_loaded = Some("the supervisor was started without rules.reapply".to_owned());
                }
                let _ = serde_json::to_writer(io::BufWriter::new(writer), &looked);
            })?;
        Ok(reader.into())
    }
}

/// Counts a listing until it ends.
struct Listing(Arc<AtomicUsize>);

impl Drop for Listing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn open_queue(options: &QueueOptions) -> Result<Queue, QueueError> {
    let until = clock::mono() + TAKEN_PATIENCE;
    loop {
        match Queue::open(options) {
            Err(QueueError::Taken { .. }) if clock::mono() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => return opened,
        }
    }
}
