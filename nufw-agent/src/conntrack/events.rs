//! The stream of conntrack events: NEW, UPDATE and DESTROY, read without ever waiting.
//!
//! Losing events is a value here, not an error: when the receive buffer overflows the kernel says so once
//! ([`Received::Overrun`]) and the caller reconciles by a dump. `NETLINK_NO_ENOBUFS` would hide exactly that.

use super::{
    ConntrackError, Interest, READ_BUFFER, SocketCounters, Unrepresentable, decode, filter, open,
    socket_counters, watch,
};
use crate::keeper::{Hand, IN_HAND};
use bytes::BufMut;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::Socket;
use nufw_proto::{CtEvent, CtEventKind, EventSeq, Removal, Timestamp};
use std::io;
use tokio::io::unix::AsyncFd;

/// Multicast groups of NEW, UPDATE and DESTROY (`enum nfnetlink_groups`).
const GROUPS: [u32; 3] = [1, 2, 3];

/// How the event socket is opened.
#[derive(Debug, Clone)]
pub struct EventOptions {
    /// Receive buffer to ask for, bytes.
    pub receive_buffer: usize,
    /// Which events are wanted; the others do not leave the kernel.
    pub interest: Interest,
}

/// Why [`Events::receive`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// There is no event left.
    Empty,
    /// The budget is spent; there may be more.
    BudgetSpent,
    /// The kernel dropped events, because the receive buffer was full. Those that are in it can still be read.
    Overrun,
}

/// The event socket.
#[derive(Debug)]
pub struct Events {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    /// Where datagrams are put first, so that none is lost with this process.
    hand: Option<Hand>,
    granted: usize,
    forced: bool,
    unrepresentable: u64,
}

impl Events {
    /// Subscribes. Needs `CAP_NET_ADMIN` and a tokio runtime.
    pub fn open(options: &EventOptions) -> Result<Self, ConntrackError> {
        let socket = open()?;
        let forced = grow_receive_buffer(&socket, options.receive_buffer)?;
        // Before the groups are joined, or other events slip in between.
        filter::attach(&socket, &options.interest).map_err(ConntrackError::Filter)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(ConntrackError::Subscribe)?;
        }
        Self::kept(socket, forced)
    }

    /// A subscription whose socket came from elsewhere; its buffer is made as large as wanted. Needs `CAP_NET_ADMIN` to
    /// make it larger than the host's limit.
    pub fn take_over(socket: Socket, options: &EventOptions) -> Result<Self, ConntrackError> {
        let forced = grow_receive_buffer(&socket, options.receive_buffer)?;
        Self::kept(socket, forced)
    }

    /// A subscription that a supervisor keeps; needs no capability.
    pub fn kept(socket: Socket, forced: bool) -> Result<Self, ConntrackError> {
        // Whether reading waits is the socket's, and was also a predecessor's to change.
        socket.set_non_blocking(true).map_err(ConntrackError::Open)?;
        // The kernel doubles what it is asked for and reports the double.
        let granted = socket.get_rx_buf_sz().map_err(ConntrackError::Open)?;
        Ok(Self {
            socket: watch(socket)?,
            buffer: Vec::with_capacity(READ_BUFFER),
            hand: None,
            granted,
            forced,
            unrepresentable: 0,
        })
    }

    /// The socket alone, to be kept.
    pub fn into_socket(self) -> Socket {
        self.socket.into_inner()
    }

    /// Bytes of the receive buffer as the kernel granted it, and whether it was forced beyond `rmem_max`.
    pub fn receive_buffer(&self) -> (usize, bool) {
        (self.granted, self.forced)
    }

    /// What the kernel holds for this socket, and what it could not put there.
    pub fn kernel_counters(&self) -> Option<SocketCounters> {
        socket_counters(self.port()?)
    }

    /// The socket's netlink port, by which the kernel lists it.
    pub fn port(&self) -> Option<u32> {
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        self.socket.get_ref().get_address(&mut address).ok()?;
        Some(address.port_number())
    }

    /// The inode of the socket, by which the kernel's table of sockets names it.
    pub fn socket_inode(&self) -> Option<u64> {
        rustix::fs::fstat(self.socket.get_ref())
            .ok()
            .map(|file| file.st_ino)
    }

    /// Entries that the wire has no form for, since the start.
    pub fn unrepresentable(&self) -> u64 {
        self.unrepresentable
    }

    /// Waits until there may be something to receive. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// From here on datagrams are put into `hand` first; then at most [`IN_HAND`] are read in one call.
    pub fn put_into(&mut self, hand: Hand) {
        self.hand = Some(hand);
    }

    /// Says which number the next event has, before [`Self::receive`].
    pub fn hold(&mut self, next: EventSeq) {
        if let Some(hand) = &mut self.hand {
            hand.hold(next);
        }
    }

    /// Reads datagrams that a predecessor had in hand.
    pub fn read_left(&mut self, datagrams: Vec<Vec<u8>>, received: Timestamp, out: &mut Vec<CtEvent>) {
        for datagram in datagrams {
            self.buffer = datagram;
            self.take_datagram(received, out);
        }
    }

    /// Appends events to `out`, at most `budget` messages, without waiting.
    ///
    /// `Received::Empty` is the kernel's word, not the reactor's: every event of before the call has been read.
    /// `received` is the time for events that carry none.
    pub fn receive(
        &mut self,
        budget: usize,
        received: Timestamp,
        out: &mut Vec<CtEvent>,
    ) -> Result<Received, ConntrackError> {
        let budget = match self.hand {
            Some(_) => budget.min(IN_HAND),
            None => budget,
        };
        for index in 0..budget {
            self.buffer.clear();
            let outcome = match &mut self.hand {
                None => read(&self.socket, &mut self.buffer),
                Some(hand) => {
                    let place = hand.place(index);
                    read(&self.socket, &mut &mut *place).inspect(|length| {
                        self.buffer
                            .extend_from_slice(place.get(..*length).unwrap_or(place));
                    })
                }
            };
            match outcome {
                Ok(_) => self.take_datagram(received, out),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Empty),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Received::Overrun),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ConntrackError::Receive(e)),
            }
        }
        Ok(Received::BudgetSpent)
    }

    fn take_datagram(&mut self, received: Timestamp, out: &mut Vec<CtEvent>) {
        for message in Messages::new(&self.buffer) {
            match message.as_ref().map(|m| event(m, received)) {
                Ok(Some(Ok(event))) => out.push(event),
                Ok(None) => {}
                Ok(Some(Err(why))) => {
                    self.unrepresentable += 1;
                    tracing::trace!(%why, "a conntrack event is left out");
                }
                Err(why) => {
                    self.unrepresentable += 1;
                    tracing::debug!(%why, "a conntrack event cannot be read");
                }
            }
        }
    }
}

/// Asks for a buffer of so many bytes; tells whether it was granted beyond the host's limit.
fn grow_receive_buffer(socket: &Socket, wanted: usize) -> Result<bool, ConntrackError> {
    let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, wanted).is_ok();
    if !forced {
        // In a user namespace the right to force is missing; the kernel then grants up to rmem_max.
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, wanted)
            .map_err(|e| ConntrackError::Open(e.into()))?;
    }
    Ok(forced)
}

fn event(
    message: &NetlinkMessage<NetfilterMessage>,
    received: Timestamp,
) -> Option<Result<CtEvent, Unrepresentable>> {
    let NetlinkPayload::InnerMessage(NetfilterMessage {
        inner: NetfilterMessageInner::Conntrack(inner),
        ..
    }) = &message.payload
    else {
        return None;
    };
    let (kind, attributes) = match inner {
        ConntrackMessage::New(attributes) if message.header.flags & (NLM_F_CREATE | NLM_F_EXCL) != 0 => {
            (CtEventKind::New, attributes)
        }
        ConntrackMessage::New(attributes) => (CtEventKind::Update, attributes),
        ConntrackMessage::Delete(attributes) => (CtEventKind::Destroy, attributes),
        _ => return None,
    };
    let by = message.header.port_number;
    Some(decode(attributes).map(|decoded| CtEvent {
        kind,
        entry: decoded.entry,
        at: decoded.event_time.unwrap_or(received),
        at_kernel: decoded.event_time.is_some(),
        removal: match kind {
            CtEventKind::Destroy if by != 0 => Removal::ByProgram,
            CtEventKind::Destroy if decoded.timeout.is_some_and(|left| left > 0) => Removal::Early,
            _ => Removal::Unsaid,
        },
    }))
}

/// Reads one datagram, really asking the kernel: the runtime may believe a socket to be empty that it has not looked at
/// since.
pub(super) fn read(socket: &AsyncFd<Socket>, buffer: &mut impl BufMut) -> io::Result<usize> {
    let mut asked = false;
    let answer = socket.try_io(tokio::io::Interest::READABLE, |socket| {
        asked = true;
        socket.recv(buffer, 0)
    });
    if asked {
        answer
    } else {
        socket.get_ref().recv(buffer, 0)
    }
}

/// The netlink messages of one datagram.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<NetlinkMessage<NetfilterMessage>, netlink_packet_core::DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self
            .rest
            .first_chunk::<4>()
            .map(|bytes| u32::from_ne_bytes(*bytes))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let parsed = NetlinkMessage::deserialize(self.rest);
        // A message that claims to be longer than its datagram, or shorter than a header, ends the datagram.
        let aligned = length.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        self.rest = if length < 16 {
            &[]
        } else {
            self.rest.get(aligned..).unwrap_or_default()
        };
        Some(parsed)
    }
}
