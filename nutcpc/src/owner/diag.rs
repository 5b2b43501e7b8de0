//! Asks the kernel which sockets exist, by `sock_diag`: one by its exact tuple, or many by port and state.
//!
//! Says what the kernel says. Whether a socket is the one that was asked for is decided in [`super::matching`], and
//! nothing here looks into /proc.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator, Parseable,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, INET_DIAG_SKV6ONLY, SOCK_DIAG_BY_FAMILY};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nufw_proto::{Addr, Transport, Tuple};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Questions in one `sendto`. Each answer is charged about 1.3 kB of the socket's receive buffer, 208 kB by default:
/// 64 answers never overflow it.
const QUESTIONS_PER_SEND: usize = 64;
/// The kernel fills at most 32 KiB of a dump at once.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Most sockets of one dump that are looked at; a host with more connections of one protocol gets no answer by port.
const MAX_DUMPED: usize = 1 << 20;

/// Bytes of `struct inet_diag_msg`.
const INET_DIAG_MSG_LEN: usize = 72;

/// `TCP_ESTABLISHED`; of a UDP socket: connected.
pub(super) const ESTABLISHED: u8 = 1;
/// `TCP_SYN_SENT`.
pub(super) const SYN_SENT: u8 = 2;
/// `TCP_TIME_WAIT`: no process owns it.
pub(super) const TIME_WAIT: u8 = 6;
/// `TCP_CLOSE`.
pub(super) const CLOSE: u8 = 7;
/// `TCP_LISTEN`.
pub(super) const LISTEN: u8 = 10;

/// One end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Address; unspecified when the socket has none at this end.
    pub(super) addr: Addr,
    /// Port; 0 when the socket has none at this end.
    pub(super) port: u16,
}

/// A socket as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketRow {
    /// Its own end.
    pub(super) local: End,
    /// The peer.
    pub(super) remote: End,
    /// TCP state; of a UDP socket [`ESTABLISHED`] or [`CLOSE`].
    pub(super) state: u8,
    /// Owner.
    pub(super) uid: u32,
    /// An unconnected IPv6 socket that sends no IPv4.
    pub(super) is_v6_only: bool,
    /// Inode, by which /proc/PID/fd names it; 0 when no process holds it.
    pub(super) inode: u32,
}

/// Which sockets a dump shall show.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// IANA protocol number.
    pub(super) protocol: u8,
    /// IPv4 sockets (and IPv6 sockets, which may carry IPv4), or IPv6 sockets only.
    pub(super) ipv4: bool,
    /// States.
    pub(super) states: StateFlags,
    /// Only this local port.
    pub(super) local_port: Option<u16>,
}

/// The `sock_diag` socket.
pub(super) struct Diag {
    socket: Socket,
    sequence: u32,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Diag {
    /// Opens the socket; needs no privilege.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        // Connected to the kernel: no other process can send an answer of its own making.
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            out: Vec::new(),
            input: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Looks for the socket of each tuple, in their order. The kernel may name one that fits only partly (a listening
    /// or unconnected one): the caller compares.
    pub(super) fn exact(&mut self, tuples: &[Tuple]) -> io::Result<Vec<Option<SocketRow>>> {
        let mut rows = vec![None; tuples.len()];
        let positions: Vec<usize> = (0..tuples.len()).filter(|&i| is_askable(&tuples[i])).collect();
        for chunk in positions.chunks(QUESTIONS_PER_SEND) {
            self.out.clear();
            let first = self.sequence.wrapping_add(1);
            for &position in chunk {
                self.sequence = self.sequence.wrapping_add(1);
                append(&mut self.out, exact_request(&tuples[position]), self.sequence, 0);
            }
            self.socket.send(&self.out, 0)?;
            // The kernel answers within `send`, one datagram each.
            let mut answers = 0;
            while answers < chunk.len() {
                receive(&self.socket, &mut self.input)?;
                each_message(&self.input, |header, payload| {
                    let index = header.sequence_number.wrapping_sub(first) as usize;
                    let Some(&position) = chunk.get(index) else {
                        return Ok(());
                    };
                    answers += 1;
                    match header.message_type {
                        SOCK_DIAG_BY_FAMILY => rows[position] = parse_row(payload),
                        NLMSG_ERROR => match error_code(payload) {
                            // No such socket, or the kernel has no sock_diag for this protocol.
                            libc::ENOENT => {}
                            code => tracing::debug!(code, "the kernel refused a question about a socket"),
                        },
                        _ => {}
                    }
                    Ok(())
                })?;
            }
        }
        Ok(rows)
    }

    /// Shows every socket that passes the filter.
    pub(super) fn dump(&mut self, filter: &Filter, mut each: impl FnMut(SocketRow)) -> io::Result<()> {
        let families: &[u8] = if filter.ipv4 {
            &[AF_INET, AF_INET6]
        } else {
            &[AF_INET6]
        };
        for &family in families {
            self.dump_family(family, filter, &mut each)?;
        }
        Ok(())
    }

    fn dump_family(
        &mut self,
        family: u8,
        filter: &Filter,
        each: &mut impl FnMut(SocketRow),
    ) -> io::Result<()> {
        let mut id = if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        };
        id.source_port = filter.local_port.unwrap_or(0);
        let request = InetRequest {
            family,
            protocol: filter.protocol,
            extensions: ExtensionFlags::empty(),
            states: filter.states.clone(),
            socket_id: id,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.out.clear();
        append(&mut self.out, request, sequence, NLM_F_DUMP);
        self.socket.send(&self.out, 0)?;
        let (mut done, mut seen) = (false, 0_usize);
        while !done {
            receive(&self.socket, &mut self.input)?;
            each_message(&self.input, |header, payload| {
                if header.sequence_number != sequence {
                    return Ok(());
                }
                match header.message_type {
                    SOCK_DIAG_BY_FAMILY => {
                        seen += 1;
                        if seen > MAX_DUMPED {
                            return Err(io::Error::other("more sockets than can be looked at"));
                        }
                        if let Some(row) = parse_row(payload) {
                            each(row);
                        }
                    }
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => match error_code(payload) {
                        libc::ENOENT => done = true,
                        code => return Err(io::Error::from_raw_os_error(code)),
                    },
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Tells whether the kernel answers for this protocol at all.
    pub(super) fn answers_for(&mut self, protocol: u8) -> io::Result<bool> {
        let request = InetRequest {
            family: AF_INET,
            protocol,
            extensions: ExtensionFlags::empty(),
            // No state: the kernel has nothing to walk through.
            states: StateFlags::empty(),
            socket_id: SocketId::new_v4(),
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.out.clear();
        append(&mut self.out, request, self.sequence, NLM_F_DUMP);
        self.socket.send(&self.out, 0)?;
        let mut answer = None;
        while answer.is_none() {
            receive(&self.socket, &mut self.input)?;
            each_message(&self.input, |header, payload| {
                match header.message_type {
                    NLMSG_DONE => answer = Some(true),
                    NLMSG_ERROR if error_code(payload) == libc::ENOENT => answer = Some(false),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(error_code(payload))),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(answer == Some(true))
    }
}

/// Tells whether `sock_diag` knows the protocol.
fn is_askable(tuple: &Tuple) -> bool {
    matches!(
        tuple.transport(),
        Transport::Tcp(_) | Transport::Udp(_) | Transport::UdpLite(_)
    )
}

fn exact_request(tuple: &Tuple) -> InetRequest {
    let (src, dst) = (tuple.src().ip(), tuple.dst().ip());
    let (sport, dport) = tuple.transport().ports().map_or((0, 0), |p| (p.src, p.dst));
    let mut id = SocketId {
        source_port: sport,
        destination_port: dport,
        source_address: src,
        destination_address: dst,
        interface_id: 0,
        cookie: [0xff; 8],
    };
    // For UDP the kernel looks the tuple up as that of a packet that comes in.
    if !matches!(tuple.transport(), Transport::Tcp(_)) {
        std::mem::swap(&mut id.source_port, &mut id.destination_port);
        std::mem::swap(&mut id.source_address, &mut id.destination_address);
    }
    InetRequest {
        family: if tuple.src().is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: tuple.protocol(),
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: id,
    }
}

fn append(out: &mut Vec<u8>, request: InetRequest, sequence: u32, flags: u16) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let payload = NetlinkPayload::from(SockDiagMessage::InetRequest(request));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let start = out.len();
    out.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut out[start..]);
}

/// Takes one datagram. Answers are there when `send` returns and dumps continue within `recv`, so waiting would only
/// hide that one was lost.
fn receive(socket: &Socket, input: &mut Vec<u8>) -> io::Result<()> {
    loop {
        input.clear();
        match socket.recv(input, libc::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn each_message(
    mut bytes: &[u8],
    mut each: impl FnMut(NetlinkHeader, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let malformed = |_| io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short");
        let message = NetlinkBuffer::new_checked(&bytes).map_err(malformed)?;
        let header = NetlinkHeader::parse(&message).map_err(malformed)?;
        each(header, message.payload())?;
        let length = (header.length as usize).next_multiple_of(4).min(bytes.len());
        bytes = &bytes[length..];
    }
    Ok(())
}

fn error_code(payload: &[u8]) -> i32 {
    payload
        .first_chunk::<4>()
        .map_or(libc::EPROTO, |code| i32::from_ne_bytes(*code).saturating_neg())
}

fn parse_row(payload: &[u8]) -> Option<SocketRow> {
    let row = InetResponseHeader::parse(payload).ok()?;
    let id = row.socket_id;
    Some(SocketRow {
        local: End {
            addr: id.source_address.into(),
            port: id.source_port,
        },
        remote: End {
            addr: id.destination_address.into(),
            port: id.destination_port,
        },
        state: row.state,
        uid: row.uid,
        is_v6_only: has_v6_only(payload),
        inode: row.inode,
    })
}

/// `INET_DIAG_SKV6ONLY`, which the kernel adds for unconnected IPv6 sockets.
fn has_v6_only(payload: &[u8]) -> bool {
    let attributes = payload.get(INET_DIAG_MSG_LEN..).unwrap_or_default();
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .any(|attribute| attribute.kind() == INET_DIAG_SKV6ONLY && attribute.value() == [1])
}

/// Tells whether the address stands for "any".
pub(super) fn is_any(addr: Addr) -> bool {
    match addr.ip() {
        IpAddr::V4(v4) => v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => v6 == Ipv6Addr::UNSPECIFIED,
    }
}
