//! The NFQUEUE: packets come out of the kernel, verdicts go back, in any order and many at once.
//!
//! Reading never waits for a decision, and nothing here decides. A packet that cannot be understood is dropped at
//! once; a verdict that comes too late is a value ([`Refused`]), not an error.

mod codec;
mod interfaces;
mod kernel;
mod put_back;

pub use codec::{Disposition, QueuedPacket};
pub use interfaces::{InterfaceNames, MAX_NAMES};
pub use kernel::{Holder, KernelCounters, holder, kernel_counters, other_event_listeners};
pub use put_back::{PutBack, put_back};

use crate::keeper::Keeper;
use crate::nfnl::{Messages, NLMSG_ERROR, Status, Writer};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::io::Errno;
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a packet message has besides the packet: headers and every other attribute, generously.
const MESSAGE_OVERHEAD: usize = 4096;
/// Most verdicts in one send: about 20 KiB, far below the default send buffer (212,992).
const VERDICTS_PER_SEND: usize = crate::keeper::MAX_VERDICTS;
/// How often a send that the kernel has no memory for is tried again at once.
const SEND_TRIES: u32 = 8;
/// Datagrams read while the kernel's answer to the configuration is awaited; more means that it will not come.
const ANSWER_PATIENCE: usize = 100_000;
/// Most [`Refused`] verdicts kept until they are taken; later ones are only counted.
const MAX_REFUSED: usize = 65_536;

/// How a queue is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOptions {
    /// The queue's number, as in the rule's `--queue-num`.
    pub number: u16,
    /// How many queues are read, from that number on, as in the rule's `--queue-balance`; 0 is as 1.
    pub count: u16,
    /// Most packets that wait in the kernel in each queue; a packet beyond that is dropped, or passes with `fail_open`.
    pub length: u32,
    /// How many bytes of each packet are copied: enough for its headers.
    pub copy_range: u16,
    /// Bytes wanted for the socket's receive buffer.
    pub receive_buffer: usize,
    /// Whether packets that find the queue full pass without a decision. Only ever the administrator's choice.
    pub fail_open: bool,
    /// Whether one more queue is read, whose number follows theirs: of packets that are let pass at once, and that pass when
    /// it is full.
    pub passing: bool,
}

impl QueueOptions {
    /// The numbers of all queues.
    pub fn numbers(&self) -> RangeInclusive<u16> {
        self.number..=self.passing().unwrap_or(self.last())
    }

    /// The last one whose packets wait.
    fn last(&self) -> u16 {
        self.number.saturating_add(self.count.saturating_sub(1))
    }

    /// The number of the queue of packets that are let pass at once.
    pub fn passing(&self) -> Option<u16> {
        self.passing.then(|| self.last().saturating_add(1))
    }

    fn settings(&self, number: u16) -> codec::Settings {
        codec::Settings {
            copy_range: self.copy_range,
            length: self.length,
            fail_open: self.fail_open || self.passing() == Some(number),
        }
    }
}

/// Why a queue cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another program reads the queue.
    #[error(
        "queue {number} is taken by {holder}: stop that program, or choose another number (queue.number)"
    )]
    Taken {
        /// The queue.
        number: u16,
        /// Who has it.
        holder: Holder,
    },
    /// The kernel wants a capability.
    #[error(
        "the kernel refuses queue {number}: the agent needs CAP_NET_ADMIN in this network namespace; start it as root or with AmbientCapabilities=CAP_NET_ADMIN"
    )]
    NotPermitted {
        /// The queue.
        number: u16,
    },
    /// The kernel has no queues.
    #[error(
        "the kernel cannot queue packets ({source}): it needs CONFIG_NETFILTER_NETLINK_QUEUE, try `modprobe nfnetlink_queue`"
    )]
    Unsupported {
        /// What it said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer came to the configuration request.
    #[error("the kernel did not answer the configuration of queue {number}")]
    NoAnswer {
        /// The queue.
        number: u16,
    },
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> QueueError {
    move |source| QueueError::System { action, source }
}

/// A verdict that the kernel did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The queue.
    pub queue: u16,
    /// The packet.
    pub packet_id: u32,
    /// Whether the packet was gone (ENOENT), as after a flush or when its interface went down.
    pub gone: bool,
    /// The errno.
    pub errno: i32,
}

/// What a queue has met since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueStats {
    /// Packets handed out.
    pub packets: u64,
    /// Verdicts sent.
    pub verdicts: u64,
    /// Verdicts for packets that were gone.
    pub late: u64,
    /// Verdicts that the kernel refused for any other reason.
    pub refused: u64,
    /// Messages that could not be understood; their packets were dropped.
    pub unreadable: u64,
    /// Times the receive buffer overflowed, as far as the kernel told; `user_dropped` of [`KernelCounters`] counts
    /// the packets.
    pub overruns: u64,
}

/// A bound NFQUEUE, or several of consecutive numbers.
///
/// They share one socket: so packets come in the order in which the kernel queued them, whichever queue it was, and who
/// has read it to its end has read all of them.
#[derive(Debug)]
pub struct Queue {
    socket: AsyncFd<Socket>,
    number: u16,
    last: u16,
    buffer: Vec<u8>,
    /// Verdicts that are still to be sent.
    unsent: Vec<(u16, u32, Disposition)>,
    writer: Writer,
    /// Sends the verdicts, where this process may not.
    keeper: Option<Arc<Keeper>>,
    /// Packets that came while the kernel's answer to a request was awaited.
    kept: VecDeque<QueuedPacket>,
    refused: Vec<Refused>,
    stats: QueueStats,
    granted: usize,
}

impl Queue {
    /// Binds the queue. Must be called inside a tokio runtime.
    pub fn open(options: &QueueOptions) -> Result<Self, QueueError> {
        let mut socket =
            Socket::new(NETLINK_NETFILTER).map_err(|source| QueueError::Unsupported { source })?;
        socket.bind_auto().map_err(system("bind a netlink socket"))?;
        socket
            .set_non_blocking(true)
            .map_err(system("make a netlink socket non-blocking"))?;
        // An overflow would otherwise mark the socket congested, and the kernel would drop every packet until it is
        // drained; so only what does not fit is dropped (and counted as user_dropped).
        socket
            .set_no_enobufs(true)
            .map_err(system("set NETLINK_NO_ENOBUFS"))?;
        let mut queue = Self::over(socket, options, None)?;
        queue.granted = grow_receive_buffer(queue.socket.get_ref(), options.receive_buffer)
            .map_err(system("set the receive buffer"))?;
        queue.configure(options, codec::open)?;
        Ok(queue)
    }

    /// A queue that is bound already, whose socket came from elsewhere: its options are set again. Needs `CAP_NET_ADMIN`.
    pub fn take_over(socket: Socket, options: &QueueOptions) -> Result<Self, QueueError> {
        let mut queue = Self::over(socket, options, None)?;
        queue.granted = grow_receive_buffer(queue.socket.get_ref(), options.receive_buffer)
            .map_err(system("set the receive buffer"))?;
        queue.configure(options, codec::adjust)?;
        Ok(queue)
    }

    /// A queue that a supervisor keeps open and configured, and for which it sends the verdicts. Needs no capability.
    pub fn kept_by(keeper: Arc<Keeper>, socket: Socket, options: &QueueOptions) -> Result<Self, QueueError> {
        Self::over(socket, options, Some(keeper))
    }

    fn over(socket: Socket, options: &QueueOptions, keeper: Option<Arc<Keeper>>) -> Result<Self, QueueError> {
        let granted = sockopt::socket_recv_buffer_size(&socket)
            .map_err(|errno| system("ask for the receive buffer")(errno.into()))?;
        Ok(Self {
            socket: watch(socket).map_err(system("watch a netlink socket"))?,
            number: options.number,
            last: *options.numbers().end(),
            buffer: vec![0; usize::from(options.copy_range) + MESSAGE_OVERHEAD],
            unsent: Vec::new(),
            writer: Writer::default(),
            keeper,
            kept: VecDeque::new(),
            refused: Vec::new(),
            stats: QueueStats::default(),
            granted,
        })
    }

    fn configure(
        &mut self,
        options: &QueueOptions,
        write: fn(&mut Writer, u16, codec::Settings),
    ) -> Result<(), QueueError> {
        for number in self.numbers() {
            let mut request = Writer::default();
            write(&mut request, number, options.settings(number));
            self.request(&request, number)?;
        }
        Ok(())
    }

    /// The socket alone, to be kept. Packets that were read and not handed out have to be put back.
    pub fn into_socket(self) -> Socket {
        self.socket.into_inner()
    }

    /// Changes how many packets may wait in each queue.
    pub fn set_length(&mut self, length: u32) -> Result<(), QueueError> {
        for number in self.numbers() {
            let mut request = Writer::default();
            codec::length(&mut request, number, length);
            self.request(&request, number)?;
        }
        Ok(())
    }

    /// Sends a request and waits for its answer.
    fn request(&mut self, request: &Writer, number: u16) -> Result<(), QueueError> {
        self.socket
            .get_ref()
            .send(request.bytes(), 0)
            .map_err(system("send the configuration of the queue"))?;
        let mut packets = Vec::new();
        let mut answer = None;
        // The answer is in the socket when send returns; rules that exist already can have put packets before it.
        for _ in 0..ANSWER_PATIENCE {
            if !self.read_datagram(&mut packets, &mut answer)? || answer.is_some() {
                break;
            }
        }
        self.kept.extend(packets);
        match answer.map(|status| status.errno) {
            Some(0) => Ok(()),
            Some(errno) => Err(open_error(number, Errno::from_raw_os_error(errno))),
            None => Err(QueueError::NoAnswer { number }),
        }
    }

    /// The queue's number; the first of several.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The numbers of all queues.
    pub fn numbers(&self) -> RangeInclusive<u16> {
        self.number..=self.last
    }

    /// The kernel's own account of all queues together; `None` where it cannot be seen.
    pub fn kernel_counters(&self) -> Option<KernelCounters> {
        self.numbers()
            .filter_map(kernel_counters)
            .reduce(|all, one| KernelCounters {
                port: all.port,
                waiting: all.waiting + one.waiting,
                queue_dropped: all.queue_dropped + one.queue_dropped,
                user_dropped: all.user_dropped + one.user_dropped,
                last_id: all.last_id.max(one.last_id),
            })
    }

    /// Bytes that the kernel granted for the receive buffer (it counts its own overhead in).
    pub fn granted_receive_buffer(&self) -> usize {
        self.granted
    }

    /// The inode of its socket, by which the kernel's table of sockets names it.
    pub fn socket_inode(&self) -> Option<u64> {
        rustix::fs::fstat(self.socket.get_ref())
            .ok()
            .map(|file| file.st_ino)
    }

    /// What happened since the queue was opened.
    pub fn stats(&self) -> QueueStats {
        self.stats
    }

    /// Waits until [`Self::recv_batch`] has something to read. Cancel-safe.
    pub async fn readable(&self) -> Result<(), QueueError> {
        if self.kept.is_empty() {
            let mut guard = self
                .socket
                .readable()
                .await
                .map_err(system("wait for the queue"))?;
            guard.retain_ready();
        }
        Ok(())
    }

    /// Reads the packets that wait, at most about `max`, without blocking; returns how many were added to `out`.
    ///
    /// Refused verdicts met on the way are kept for [`Self::take_refused`]. Once it has added fewer than `max`, the
    /// socket was empty, and every refusal of an earlier [`Self::flush`] is known that found room in the receive buffer.
    pub fn recv_batch(&mut self, out: &mut Vec<QueuedPacket>, max: usize) -> Result<usize, QueueError> {
        let before = out.len();
        let kept = self.kept.len().min(max);
        out.extend(self.kept.drain(..kept));
        let mut answer = None;
        while out.len() - before < max && self.read_datagram(out, &mut answer)? {}
        let added = out.len() - before;
        self.stats.packets += u64::try_from(added).unwrap_or(u64::MAX);
        Ok(added)
    }

    /// Queues a verdict about a packet of the first queue; [`Self::flush`] sends it.
    pub fn verdict(&mut self, packet_id: u32, disposition: Disposition) {
        self.verdict_in(self.number, packet_id, disposition);
    }

    /// Queues a verdict about a packet of the queue of this number.
    pub fn verdict_in(&mut self, queue: u16, packet_id: u32, disposition: Disposition) {
        self.unsent.push((queue, packet_id, disposition));
    }

    /// Sends the queued verdicts, many in one system call. On an error the unsent ones stay queued.
    ///
    /// The packets are on their way when it returns. Refusals are found by the next [`Self::recv_batch`].
    pub fn flush(&mut self) -> Result<(), QueueError> {
        while !self.unsent.is_empty() {
            let count = self.unsent.len().min(VERDICTS_PER_SEND);
            let part = self.unsent.get(..count).unwrap_or_default();
            match &self.keeper {
                None => send_verdicts(self.socket.get_ref(), part, &mut self.writer),
                Some(keeper) => keeper.verdicts(part),
            }
            .map_err(system("send verdicts"))?;
            self.unsent.drain(..count);
            self.stats.verdicts += u64::try_from(count).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Verdicts that the kernel did not take, as far as [`Self::recv_batch`] has met them.
    pub fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }

    /// Reads one datagram; `false` when there is none.
    fn read_datagram(
        &mut self,
        out: &mut Vec<QueuedPacket>,
        answer: &mut Option<Status>,
    ) -> Result<bool, QueueError> {
        let buffer = &mut self.buffer;
        let mut read = |socket: &Socket| {
            socket.recv_from(&mut buffer.as_mut_slice(), libc::MSG_TRUNC | libc::MSG_DONTWAIT)
        };
        let mut tried = false;
        let mut received = self.socket.try_io(Interest::READABLE, |socket| {
            tried = true;
            read(socket)
        });
        if !tried {
            // The runtime has not looked at the socket since it was last empty; an answer may be there all the same.
            received = read(self.socket.get_ref());
        }
        let (length, sender): (usize, SocketAddr) = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.stats.overruns += 1;
                return Ok(true);
            }
            Err(source) => {
                return Err(QueueError::System {
                    action: "read the queue",
                    source,
                });
            }
        };
        if sender.port_number() != 0 {
            // Not the kernel: nobody else may speak on this socket.
            self.stats.unreadable += 1;
            return Ok(true);
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.read_messages(buffer.get(..length).unwrap_or(&buffer), out, answer);
        self.buffer = buffer;
        Ok(true)
    }

    fn read_messages(&mut self, datagram: &[u8], out: &mut Vec<QueuedPacket>, answer: &mut Option<Status>) {
        for message in Messages::new(datagram) {
            let Ok(message) = message else {
                self.stats.unreadable += 1;
                return;
            };
            match message.kind {
                codec::PACKET => match codec::read_packet(&message) {
                    Ok(packet) => out.push(packet),
                    Err(unreadable) => {
                        self.stats.unreadable += 1;
                        if let Some(packet_id) = unreadable.packet_id {
                            let queue = message.nfgen().map_or(self.number, |(_, queue, _)| queue);
                            self.verdict_in(queue, packet_id, Disposition::Drop);
                        }
                    }
                },
                NLMSG_ERROR => match message.status() {
                    Ok(status) if status.request_kind == codec::VERDICT => self.note_refusal(status),
                    // Nothing was there to be put back.
                    Ok(status) if status.request_kind == codec::VERDICT_BATCH => {}
                    Ok(status) => *answer = Some(status),
                    Err(_) => self.stats.unreadable += 1,
                },
                _ => {}
            }
        }
    }

    fn note_refusal(&mut self, status: Status) {
        let gone = status.errno == libc::ENOENT;
        match (status.errno, gone) {
            (0, _) => return,
            (_, true) => self.stats.late += 1,
            (_, false) => self.stats.refused += 1,
        }
        if self.refused.len() < MAX_REFUSED {
            self.refused.push(Refused {
                queue: status.request_resource.unwrap_or(self.number),
                packet_id: status.request_sequence,
                gone,
                errno: status.errno,
            });
        }
    }
}

#[expect(
    unsafe_code,
    reason = "tokio wants a promise about the descriptor that no type makes"
)]
fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, always answers with that one, and closes it only when it is dropped,
    // which the `AsyncFd` that owns it does after it has deregistered it.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

fn open_error(number: u16, errno: Errno) -> QueueError {
    let source = io::Error::from(errno);
    match errno {
        // The kernel says EPERM both to the unprivileged and to whoever comes second.
        Errno::PERM | Errno::BUSY => match holder(number) {
            Some(holder) => QueueError::Taken { number, holder },
            None => QueueError::NotPermitted { number },
        },
        Errno::INVAL | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT => QueueError::Unsupported { source },
        _ => QueueError::System {
            action: "bind the queue",
            source,
        },
    }
}

/// Sends verdicts, each a queue, a packet id and what becomes of it, in one system call; they are with the kernel when it
/// returns.
pub(crate) fn send_verdicts(
    socket: &Socket,
    verdicts: &[(u16, u32, Disposition)],
    writer: &mut Writer,
) -> io::Result<()> {
    writer.clear();
    for (queue, packet_id, disposition) in verdicts {
        codec::verdict(writer, *queue, *packet_id, *disposition);
    }
    send_all(socket, writer)
}

fn send_all(socket: &Socket, writer: &Writer) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match socket.send(writer.bytes(), 0) {
            Ok(_) => return Ok(()),
            Err(error) if is_transient(&error) && tries < SEND_TRIES => {
                tries += 1;
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
}

/// Asks for `wanted` bytes, beyond the host's limit if permitted; returns what was granted.
fn grow_receive_buffer(socket: &Socket, wanted: usize) -> io::Result<usize> {
    // The kernel reads an int and doubles it.
    let wanted = wanted.min(0x3fff_ffff);
    if sockopt::set_socket_recv_buffer_size_force(socket, wanted).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, wanted)?;
    }
    Ok(sockopt::socket_recv_buffer_size(socket)?)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR | libc::ENOMEM)
    )
}
