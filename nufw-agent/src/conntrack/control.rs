//! Requests about single entries of the connection table: look, change the mark, limit the time, delete; asked and answered
//! without waiting.
//!
//! A socket of its own, so that no answer stands between events. What is asked for, and what follows from an answer, is the
//! caller's business; the kernel wants `CAP_NET_ADMIN` of whoever sends, for a look too.

use super::decode::decode;
use super::events::Messages;
use super::{ConntrackError, open};
use crate::keeper::Keeper;
use crate::nfnl::{NLM_F_ACK, NLM_F_REQUEST, Writer};
use crate::socket;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::Socket;
use nufw_proto::{CtEntry, Transport, Tuple};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

/// Requests that the kernel has not answered. Each answer to a look is charged a page, and the default receive buffer
/// holds about 40 of them.
pub const IN_FLIGHT: usize = 16;

/// `NFNL_SUBSYS_CTNETLINK << 8` with `enum cntl_msg_types`.
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;

/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
// `enum ctattr_type`, `ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Identifier, type and code of ICMP; those of ICMPv6 are 7, 8, 9.
const CTA_PROTO_ICMP: [u16; 3] = [4, 5, 6];
const CTA_PROTO_ICMPV6: [u16; 3] = [7, 8, 9];

/// Of `enum ip_conntrack_status`.
const IPS_FIXED_TIMEOUT: u32 = 1 << 10;

/// Bytes of an answer: an entry takes some hundred.
const ANSWER: usize = 8192;

/// An entry, by what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The kernel's id. It is compared by [`Order::Delete`] in the kernel; after a look the caller must compare it.
    pub id: u32,
    /// Its zone.
    pub zone: u16,
    /// Its original tuple.
    pub original: Tuple,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Say what it is at the moment. The kernel goes by the tuple and not by the id.
    Look,
    /// Change these bits of its mark. The kernel goes by the tuple and not by the id.
    Mark {
        /// The bits' new values.
        value: u32,
        /// The bits.
        mask: u32,
    },
    /// Delete it, if it has the id.
    Delete,
    /// Let it end after so long, whatever passes (`IPS_FIXED_TIMEOUT`); neither can be taken back. The kernel goes by the tuple
    /// and not by the id.
    EndIn {
        /// From now.
        seconds: u32,
        /// Its status bits as last seen: the kernel refuses a request that would take one away.
        status: u32,
    },
}

/// What the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The entry that a look found.
    Found(Box<CtEntry>),
    /// It is done.
    Done,
    /// It has no such entry (ENOENT).
    Absent,
    /// It refuses, for this errno; 0 for an answer that cannot be read.
    Refused(i32),
}

/// How requests reach the kernel.
#[derive(Debug)]
enum Way {
    /// Over a socket of this process, which has the capability.
    Own(Socket),
    /// Over the supervisor, which does; the answers come over a socket that it hands over.
    Keeper(Arc<Keeper>),
}

/// The socket.
#[derive(Debug)]
pub struct Control {
    way: Way,
    wanted: Vec<(u32, Target, Order)>,
    /// Requests made and not answered.
    in_flight: usize,
    buffer: Vec<u8>,
}

impl Control {
    /// Opens the socket.
    pub fn open() -> Result<Self, ConntrackError> {
        Ok(Self::by(Way::Own(open()?)))
    }

    /// Another one that asks in the same way, for requests of its own.
    pub fn another(&self) -> Result<Self, ConntrackError> {
        match &self.way {
            Way::Own(_) => Self::open(),
            Way::Keeper(keeper) => Ok(Self::kept_by(Arc::clone(keeper))),
        }
    }

    /// Through a supervisor that may ask.
    pub fn kept_by(keeper: Arc<Keeper>) -> Self {
        Self::by(Way::Keeper(keeper))
    }

    fn by(way: Way) -> Self {
        Self {
            way,
            wanted: Vec::new(),
            in_flight: 0,
            buffer: Vec::with_capacity(ANSWER),
        }
    }

    /// Whether another request may be made; what is made beyond that is answered all the same, if the receive buffer holds it.
    pub fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT
    }

    /// Whether an answer is awaited.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Makes a request; [`Self::exchange`] sends it. The token comes back with its answer.
    pub fn submit(&mut self, token: u32, target: &Target, order: Order) {
        self.wanted.push((token, *target, order));
        self.in_flight += 1;
    }

    /// Sends what was submitted and takes the answers that are there: the kernel answers within the send.
    pub fn exchange(&mut self, out: &mut Vec<(u32, Answer)>) -> io::Result<()> {
        let wanted = std::mem::take(&mut self.wanted);
        let done = wanted
            .chunks(IN_FLIGHT)
            .try_for_each(|part| self.exchange_part(part, out));
        // Whatever was not answered by now will not be; whoever waits for it asks again.
        self.in_flight = 0;
        done
    }

    fn exchange_part(
        &mut self,
        part: &[(u32, Target, Order)],
        out: &mut Vec<(u32, Answer)>,
    ) -> io::Result<()> {
        match &self.way {
            Way::Own(socket) => {
                send(socket, part)?;
                take_answers(socket, &mut self.buffer, out)
            }
            Way::Keeper(keeper) => {
                let socket = socket::netlink(keeper.control(part)?);
                take_answers(&socket, &mut self.buffer, out)
            }
        }
    }
}

/// A socket on which the kernel was asked, and from which its answers come. Asking needs `CAP_NET_ADMIN`, reading does not.
pub(crate) fn request(wanted: &[(u32, Target, Order)]) -> Result<Socket, ConntrackError> {
    let socket = open()?;
    send(&socket, wanted).map_err(ConntrackError::Request)?;
    Ok(socket)
}

fn send(socket: &Socket, wanted: &[(u32, Target, Order)]) -> io::Result<()> {
    let mut requests = Writer::default();
    for (token, target, order) in wanted {
        write(&mut requests, *token, target, *order);
    }
    socket.send(requests.bytes(), 0).map(drop)
}

fn write(requests: &mut Writer, token: u32, target: &Target, order: Order) {
    let family = if target.original.src().is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // A look is answered by the entry or by an error; an acknowledgement besides would be one answer too many.
    let (kind, flags) = match order {
        Order::Look => (CT_GET, NLM_F_REQUEST),
        Order::Mark { .. } | Order::EndIn { .. } => (CT_NEW, NLM_F_REQUEST | NLM_F_ACK),
        Order::Delete => (CT_DELETE, NLM_F_REQUEST | NLM_F_ACK),
    };
    requests.begin(kind, flags, token, u8::try_from(family).unwrap_or(0), 0);
    requests.attribute(CTA_TUPLE_ORIG | NESTED, &tuple(&target.original));
    if target.zone != 0 {
        requests.attribute(CTA_ZONE, &target.zone.to_be_bytes());
    }
    match order {
        Order::Look => {}
        Order::Mark { value, mask } => {
            requests.attribute_be32(CTA_MARK, value & mask);
            requests.attribute_be32(CTA_MARK_MASK, mask);
        }
        Order::Delete => requests.attribute_be32(CTA_ID, target.id),
        Order::EndIn { seconds, status } => {
            requests.attribute_be32(CTA_TIMEOUT, seconds);
            requests.attribute_be32(CTA_STATUS, status | IPS_FIXED_TIMEOUT);
        }
    }
}

/// Reads the answers that are there.
fn take_answers(socket: &Socket, buffer: &mut Vec<u8>, out: &mut Vec<(u32, Answer)>) -> io::Result<()> {
    loop {
        buffer.clear();
        match socket.recv(buffer, libc::MSG_DONTWAIT) {
            Ok(_) => {
                for message in Messages::new(buffer).flatten() {
                    if let Some(answer) = answer(&message) {
                        out.push((message.header.sequence_number, answer));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn answer(message: &NetlinkMessage<NetfilterMessage>) -> Option<Answer> {
    match &message.payload {
        NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
            ..
        }) => Some(decode(attributes).map_or(Answer::Refused(0), |decoded| {
            Answer::Found(Box::new(decoded.entry))
        })),
        NetlinkPayload::Error(error) => Some(match error.raw_code().saturating_neg() {
            0 => Answer::Done,
            libc::ENOENT => Answer::Absent,
            errno => Answer::Refused(errno),
        }),
        _ => None,
    }
}

/// The value of a tuple attribute.
fn tuple(tuple: &Tuple) -> Vec<u8> {
    let mut addresses = Nest::default();
    match (tuple.src().ip(), tuple.dst().ip()) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            addresses.put(CTA_IP_V4_SRC, &src.octets());
            addresses.put(CTA_IP_V4_DST, &dst.octets());
        }
        (src, dst) => {
            let octets = |ip| match ip {
                std::net::IpAddr::V4(ip) => std::net::Ipv4Addr::to_ipv6_mapped(&ip).octets(),
                std::net::IpAddr::V6(ip) => ip.octets(),
            };
            addresses.put(CTA_IP_V6_SRC, &octets(src));
            addresses.put(CTA_IP_V6_DST, &octets(dst));
        }
    }
    let transport = tuple.transport();
    let mut keys = Nest::default();
    keys.put(CTA_PROTO_NUM, &[transport.protocol()]);
    if let Some(ports) = transport.ports() {
        keys.put(CTA_PROTO_SRC_PORT, &ports.src.to_be_bytes());
        keys.put(CTA_PROTO_DST_PORT, &ports.dst.to_be_bytes());
    }
    if let Some(key) = transport.icmp() {
        let [id, kind, code] = match transport {
            Transport::Icmpv6(_) => CTA_PROTO_ICMPV6,
            _ => CTA_PROTO_ICMP,
        };
        keys.put(id, &key.id.to_be_bytes());
        keys.put(kind, &[key.kind]);
        keys.put(code, &[key.code]);
    }
    let mut both = Nest::default();
    both.put(CTA_TUPLE_IP | NESTED, &addresses.0);
    both.put(CTA_TUPLE_PROTO | NESTED, &keys.0);
    both.0
}

/// Attributes within an attribute; all of ours are short.
#[derive(Default)]
struct Nest(Vec<u8>);

impl Nest {
    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
