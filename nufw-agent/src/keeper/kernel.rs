//! What the supervisor does with its capability: it opens the sockets, and it carries out what the worker may ask for.
//!
//! Nothing of a packet or an event is looked at. What was opened is what [`Request`] can be about.

use super::memory;
use super::store::Kept;
use super::wire::Request;
use crate::agent::AgentError;
use crate::check::RuleTexts;
use crate::conntrack::{ConntrackError, EventOptions, Events, Interest, request_dump};
use crate::nfnl::Writer;
use crate::queue::{PutBack, Queue, QueueError, QueueOptions, put_back, send_verdicts};
use crate::socket;
use netlink_sys::Socket;
use nufw_common::clock;
use nufw_proto::BootId;
use rand::RngExt as _;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a queue may still be another's: one who was just killed takes a moment to be gone.
const TAKEN_PATIENCE: Duration = Duration::from_secs(1);
/// Most threads that list rules at one time; each ends by itself.
const MAX_LISTINGS: usize = 4;

/// A queue that is kept.
#[derive(Debug)]
struct KeptQueue {
    number: u16,
    socket: Socket,
    /// The id of the last packet that was answered, or one near it; 0 before the first.
    last: u32,
}

/// The sockets.
#[derive(Debug)]
pub(super) struct Kernel {
    queues: Vec<KeptQueue>,
    events: Option<(Socket, bool, String)>,
    memory: OwnedFd,
    writer: Writer,
    listings: Arc<AtomicUsize>,
}

/// A request about something that is not the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a verdict for queue {0}, which is not ours")]
pub(super) struct Foreign(pub(super) u16);

/// How the memory is called where it is kept.
const MEMORY: &str = "memory";

/// How a kept queue is called.
fn queue_name(number: u16) -> String {
    format!("queue-{number}")
}

/// How the event socket is called: with what its filter lets through.
fn events_name(interest: Interest) -> String {
    match interest {
        Interest::All => "events-all".to_owned(),
        Interest::Marked(mask) => format!("events-marked-{:08x}", mask.0),
    }
}

impl Kernel {
    /// Opens what is not kept from before; within a tokio runtime.
    pub(super) async fn open(
        queues: &[QueueOptions],
        events: Option<&EventOptions>,
        max_unacknowledged: usize,
        kept: &mut Kept,
    ) -> Result<Self, AgentError> {
        let boot = BootId(rand::rng().random());
        // Without the socket that they came from, events of before are not followed by those of now.
        let whole = events.is_some_and(|options| kept.has(&events_name(options.interest)));
        let memory = match kept.take(MEMORY) {
            Some(memory) if whole && memory::fits(memory.as_fd(), max_unacknowledged) => memory,
            _ => memory::make(boot, max_unacknowledged)
                .map_err(|error| AgentError::System("make memory for events", error))?,
        };
        let near = memory::last_packet(memory.as_fd());
        // Events first: an entry that comes to be while the queue is opened is not missed.
        let events = match events {
            None => None,
            Some(options) => {
                let name = events_name(options.interest);
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
            let queue = match kept.take(&queue_name(options.number)) {
                Some(kept) => Queue::take_over(socket::netlink(kept), options)?,
                None => open_queue(options).await?,
            };
            all.push(KeptQueue {
                number: queue.number(),
                socket: queue.into_socket(),
                last: near,
            });
        }
        Ok(Self {
            queues: all,
            events,
            memory,
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
            writer: Writer::default(),
            listings: Arc::default(),
        }
    }

    /// The queues' numbers.
    pub(super) fn numbers(&self) -> Vec<u16> {
        self.queues.iter().map(|queue| queue.number).collect()
    }

    /// Whether there is an event socket, and whether its buffer was forced.
    pub(super) fn events_forced(&self) -> Option<bool> {
        self.events.as_ref().map(|(_, forced, _)| *forced)
    }

    /// The descriptors in the order in which a worker gets them: queues, events, memory.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.named()
            .into_iter()
            .map(|(_, descriptor)| descriptor)
            .collect()
    }

    /// The same with their names.
    pub(super) fn named(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let queues = self
            .queues
            .iter()
            .map(|queue| (queue_name(queue.number), queue.socket.as_fd()));
        let events = self
            .events
            .iter()
            .map(|(socket, _, name)| (name.clone(), socket.as_fd()));
        let memory = (MEMORY.to_owned(), self.memory.as_fd());
        queues.chain(events).chain([memory]).collect()
    }

    /// Puts back what a dead worker had read.
    pub(super) fn put_back(&self, how: PutBack) -> Result<(), QueueError> {
        for queue in &self.queues {
            put_back(&queue.socket, queue.number, queue.last, how)?;
        }
        Ok(())
    }

    /// Carries a request out: an errno, or what the worker gets.
    pub(super) fn perform(&mut self, request: Request) -> Result<io::Result<Option<OwnedFd>>, Foreign> {
        Ok(match request {
            Request::Ready | Request::Beat => Ok(None),
            Request::Verdicts { queue, verdicts } => {
                let Some(queue) = self.queues.iter_mut().find(|kept| kept.number == queue) else {
                    return Err(Foreign(queue));
                };
                if let Some((packet_id, _)) = verdicts.last() {
                    queue.last = *packet_id;
                }
                send_verdicts(&queue.socket, queue.number, &verdicts, &mut self.writer).map(|()| None)
            }
            Request::Dump => match request_dump() {
                Ok(socket) => Ok(Some(socket::descriptor(socket))),
                Err(ConntrackError::Open(error) | ConntrackError::Request(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
            Request::Rules => self.list_rules().map(Some),
        })
    }

    /// Lists the rules on a thread of its own; what it finds comes out of the pipe.
    fn list_rules(&self) -> io::Result<OwnedFd> {
        if self.listings.fetch_add(1, Ordering::Relaxed) >= MAX_LISTINGS {
            self.listings.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let listing = Listing(Arc::clone(&self.listings));
        let (reader, writer) = io::pipe()?;
        std::thread::Builder::new()
            .name("list-rules".to_owned())
            .spawn(move || {
                let _listing = listing;
                // Whoever asked may be gone; then nobody needs to know.
                let _ =
                    serde_json::to_writer(io::BufWriter::new(writer), &RuleTexts::list_with_lent_rights());
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
