//! From netlink-packet-netfilter's attributes to the wire's `CtEntry`.
//!
//! The crate hands attributes that it does not know (id, zone, counters, timestamps, ICMP keys) on as bytes; they are
//! read here, after `linux/netfilter/nfnetlink_conntrack.h`. Nothing is guessed: what is absent stays absent.

use netlink_packet_core::{DefaultNla, NLA_TYPE_MASK, Nla, NlaBuffer, NlasIterator, Parseable as _};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple as TupleAttribute,
};
use nufw_proto::{
    Addr, Count, Counters, CtEntry, CtStatus, IcmpKey, Mark, Ports, TcpState, Timestamp, Transport, Tuple,
};

const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_ID: u16 = 12;
const CTA_TUPLE_MASTER: u16 = 14;
const CTA_ZONE: u16 = 18;
const CTA_TIMESTAMP: u16 = 20;
const CTA_TIMESTAMP_EVENT: u16 = 27;

const CTA_TUPLE_ZONE: u16 = 3;

const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;

const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Longest value of an attribute that is read here: two nested 64-bit numbers with their headers and padding.
const VALUE: usize = 64;

/// An entry, and the time of its event if the message is one and the kernel says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// The entry.
    pub entry: CtEntry,
    /// When the event happened (`CTA_TIMESTAMP_EVENT`).
    pub event_time: Option<Timestamp>,
    /// What is left of its timeout, seconds (`CTA_TIMEOUT`).
    pub timeout: Option<u32>,
}

/// The wire has no form for this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unrepresentable {
    /// An attribute without which an entry has no identity is missing.
    #[error("the entry has no {0}")]
    Missing(&'static str),
    /// The parts of a tuple do not fit together.
    #[error("the {0} tuple has no form on the wire")]
    Tuple(&'static str),
}

/// Reads one entry.
pub fn decode(attributes: &[ConntrackAttribute]) -> Result<Decoded, Unrepresentable> {
    let mut original = None;
    let mut reply = None;
    let mut id = None;
    let mut zone = 0;
    let mut master = None;
    let mut mark = Mark(0);
    let mut status = CtStatus(0);
    let mut tcp_state = None;
    let mut counted = (None, None);
    let mut times = (None, None);
    let mut event_time = None;
    let mut timeout = None;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => {
                original = Some(tuple(parts).ok_or(Unrepresentable::Tuple("original"))?);
                if let Some(own) = tuple_zone(parts) {
                    zone = own;
                }
            }
            ConntrackAttribute::CtaTupleReply(parts) => {
                reply = Some(tuple(parts).ok_or(Unrepresentable::Tuple("reply"))?);
            }
            ConntrackAttribute::CtaProtoInfo(infos) => tcp_state = find_tcp_state(infos),
            ConntrackAttribute::CtaStatus(bits) => status = CtStatus(bits.bits()),
            ConntrackAttribute::CtaMark(value) => mark = Mark(*value),
            ConntrackAttribute::CtaTimeout(seconds) => timeout = Some(*seconds),
            ConntrackAttribute::Other(nla) => {
                let value = Value::of(nla);
                match nla.kind() & NLA_TYPE_MASK {
                    CTA_ID => id = value.number(),
                    CTA_TUPLE_MASTER => master = tuple(&parts(nla)),
                    CTA_ZONE => zone = value.number().unwrap_or(zone),
                    CTA_COUNTERS_ORIG => counted.0 = count(&value),
                    CTA_COUNTERS_REPLY => counted.1 = count(&value),
                    CTA_TIMESTAMP => {
                        times = (
                            value.nested(CTA_TIMESTAMP_START).map(Timestamp::from_nanos),
                            value.nested(CTA_TIMESTAMP_STOP).map(Timestamp::from_nanos),
                        );
                    }
                    CTA_TIMESTAMP_EVENT => event_time = value.number().map(Timestamp::from_nanos),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let (start, stop) = times;
    let counters = match counted {
        (Some(original), Some(reply)) => Some(Counters { original, reply }),
        _ => None,
    };
    Ok(Decoded {
        entry: CtEntry {
            id: id.ok_or(Unrepresentable::Missing("id"))?,
            zone,
            original: original.ok_or(Unrepresentable::Missing("original tuple"))?,
            reply: reply.ok_or(Unrepresentable::Missing("reply tuple"))?,
            master,
            mark,
            status,
            tcp_state,
            counters,
            start,
            stop,
        },
        event_time,
        timeout,
    })
}

fn tuple(attributes: &[TupleAttribute]) -> Option<Tuple> {
    let mut src = None;
    let mut dst = None;
    let mut protocol = None;
    let mut ports = (None, None);
    let mut icmp = (None, None, None);
    for attribute in attributes {
        match attribute {
            TupleAttribute::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => src = Some(Addr::from(*ip)),
                        IPTuple::DestinationAddress(ip) => dst = Some(Addr::from(*ip)),
                        _ => {}
                    }
                }
            }
            TupleAttribute::Proto(keys) => {
                for key in keys {
                    match key {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        ProtoTuple::Other(nla) => {
                            let value = Value::of(nla);
                            match nla.kind() & NLA_TYPE_MASK {
                                CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID => icmp.0 = value.number(),
                                CTA_PROTO_ICMP_TYPE | CTA_PROTO_ICMPV6_TYPE => icmp.1 = value.number(),
                                CTA_PROTO_ICMP_CODE | CTA_PROTO_ICMPV6_CODE => icmp.2 = value.number(),
                                _ => {}
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let ports = match (ports, protocol) {
        ((Some(src), Some(dst)), _) => Some(Ports { src, dst }),
        // A kernel without a tracker of its own for the protocol tells no ports: see `Tracking`.
        ((None, None), Some(DCCP | SCTP | UDPLITE)) => Some(Ports { src: 0, dst: 0 }),
        _ => None,
    };
    let icmp = match icmp {
        (Some(id), Some(kind), Some(code)) => Some(IcmpKey { kind, code, id }),
        _ => None,
    };
    Tuple::new(src?, dst?, Transport::from_parts(protocol?, ports, icmp)?).ok()
}

/// The parts of a tuple that the crate hands on as bytes.
fn parts(nla: &DefaultNla) -> Vec<TupleAttribute> {
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    NlasIterator::new(&bytes)
        .flatten()
        .filter_map(|part| TupleAttribute::parse(&part).ok())
        .collect()
}

/// The zone of one direction; the kernel says it within the tuple when the two directions differ.
fn tuple_zone(parts: &[TupleAttribute]) -> Option<u16> {
    parts.iter().find_map(|part| match part {
        TupleAttribute::Other(nla) if nla.kind() & NLA_TYPE_MASK == CTA_TUPLE_ZONE => Value::of(nla).number(),
        _ => None,
    })
}

fn find_tcp_state(infos: &[ProtoInfo]) -> Option<TcpState> {
    infos.iter().find_map(|info| match info {
        ProtoInfo::TCP(parts) => parts.iter().find_map(|part| match part {
            ProtoInfoTCP::State(state) => Some(TcpState(*state)),
            _ => None,
        }),
        _ => None,
    })
}

fn count(value: &Value) -> Option<Count> {
    Some(Count {
        packets: value.nested(CTA_COUNTERS_PACKETS)?,
        bytes: value.nested(CTA_COUNTERS_BYTES)?,
    })
}

/// The bytes of an attribute that the crate does not know; empty if there are more than any of ours has.
struct Value {
    bytes: [u8; VALUE],
    len: usize,
}

impl Value {
    fn of(nla: &DefaultNla) -> Self {
        let mut bytes = [0; VALUE];
        let len = nla.value_len();
        match bytes.get_mut(..len) {
            Some(room) => {
                nla.emit_value(room);
                Self { bytes, len }
            }
            None => Self { bytes, len: 0 },
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn number<N: BigEndian>(&self) -> Option<N> {
        N::read(self.bytes())
    }

    fn nested(&self, kind: u16) -> Option<u64> {
        NlasIterator::new(self.bytes())
            .flatten()
            .find(|nla: &NlaBuffer<&[u8]>| nla.kind() == kind)
            .and_then(|nla| u64::read(nla.value()))
    }
}

/// A number in network byte order that fills its attribute exactly.
trait BigEndian: Sized {
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! big_endian {
    ($($int:ty)+) => {$(
        impl BigEndian for $int {
            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_be_bytes)
            }
        }
    )+};
}

big_endian!(u8 u16 u32 u64);

#[cfg(test)]
mod tests;
