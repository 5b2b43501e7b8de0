//! Tuples, and the kernel's entries of them.

use nufw_proto::{
    Addr, Count, Counters, CtEntry, CtStatus, IcmpKey, Mark, Ports, TcpState, Transport, Tuple,
};
use std::net::SocketAddr;

pub(crate) fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn with_ports(src: &str, dst: &str, transport: fn(Ports) -> Transport) -> Tuple {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let ports = Ports {
        src: src.port(),
        dst: dst.port(),
    };
    Tuple::new(src.ip().into(), dst.ip().into(), transport(ports)).unwrap()
}

pub(crate) fn tcp(src: &str, dst: &str) -> Tuple {
    with_ports(src, dst, Transport::Tcp)
}

pub(crate) fn udp(src: &str, dst: &str) -> Tuple {
    with_ports(src, dst, Transport::Udp)
}

pub(crate) fn ping(src: &str, dst: &str, id: u16) -> Tuple {
    let key = IcmpKey { kind: 8, code: 0, id };
    Tuple::new(addr(src), addr(dst), Transport::Icmp(key)).unwrap()
}

/// The other direction of a connection that is not translated.
pub(crate) fn reversed(tuple: &Tuple) -> Tuple {
    let transport = match (tuple.transport().ports(), tuple.transport()) {
        (Some(ports), transport) => transport.with_ports(Ports {
            src: ports.dst,
            dst: ports.src,
        }),
        (None, Transport::Icmp(key)) => Transport::Icmp(IcmpKey { kind: 0, ..key }),
        (None, other) => other,
    };
    Tuple::new(tuple.dst(), tuple.src(), transport).unwrap()
}

/// A fresh entry without translation.
pub(crate) fn entry(id: u32, original: Tuple) -> CtEntry {
    natted(id, original, reversed(&original))
}

pub(crate) fn natted(id: u32, original: Tuple, reply: Tuple) -> CtEntry {
    CtEntry {
        id,
        zone: 0,
        original,
        reply,
        master: None,
        mark: Mark(0),
        status: CtStatus(0),
        tcp_state: matches!(original.transport(), Transport::Tcp(_)).then_some(TcpState::SYN_SENT),
        counters: None,
        start: None,
        stop: None,
    }
}

/// The entry after an answer was seen.
pub(crate) fn answered(entry: CtEntry) -> CtEntry {
    CtEntry {
        status: CtStatus(1 << 1),
        tcp_state: entry.tcp_state.map(|_| TcpState::SYN_RECV),
        ..entry
    }
}

/// The entry at its end, in a TCP state.
pub(crate) fn ended(entry: CtEntry, state: TcpState) -> CtEntry {
    CtEntry {
        tcp_state: entry.tcp_state.map(|_| state),
        counters: Some(counters()),
        ..entry
    }
}

pub(crate) fn counters() -> Counters {
    Counters {
        original: Count {
            packets: 5,
            bytes: 500,
        },
        reply: Count {
            packets: 4,
            bytes: 4000,
        },
    }
}
