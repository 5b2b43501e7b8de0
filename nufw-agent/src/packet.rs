//! What a queued packet shows: the tuple that conntrack would name it by.
//!
//! Reads headers only and only as far as the kernel itself does when it makes its tuple, so that both mean the same
//! connection. Nothing is guessed: what cannot be read with certainty is [`Unparsable`], and so dropped.

use crate::conntrack::Tracking;
use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    TcpHeaderSlice, UdpHeaderSlice, err,
};
use nufw_proto::{Addr, IcmpKey, Ports, Transport, Tuple};

/// `EtherType` of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A packet's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Its tuple.
    pub tuple: Tuple,
    /// What a TCP segment does to its connection, by its flags.
    pub tcp: Option<TcpStep>,
}

/// What a TCP segment does to its connection (RFC 9293 §3.5, §3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpStep {
    /// It opens it: SYN without ACK.
    Opens,
    /// It answers that: SYN and ACK.
    Answers,
    /// Its sender has nothing more to say: FIN.
    Finishes,
    /// It resets it: RST, whatever else.
    Resets,
}

impl TcpStep {
    fn of(tcp: &TcpHeaderSlice<'_>) -> Option<Self> {
        match (tcp.rst(), tcp.syn(), tcp.ack(), tcp.fin()) {
            (true, ..) => Some(Self::Resets),
            (_, true, true, _) => Some(Self::Answers),
            (_, true, false, _) => Some(Self::Opens),
            (_, _, _, true) => Some(Self::Finishes),
            _ => None,
        }
    }
}

/// Why a packet has no tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unparsable {
    /// The copied part ends before the headers do; a larger `queue.copy-range` would help.
    #[error("its headers are longer than the part of the packet that the kernel copies (queue.copy-range)")]
    Truncated,
    /// A header contradicts itself or the packet.
    #[error("its headers are malformed")]
    Malformed,
    /// A fragment that is not the first: it has no transport header.
    #[error("it is a fragment without a transport header")]
    Fragment,
    /// An ICMP error, which belongs to another connection.
    #[error("it is an ICMP error message")]
    IcmpError,
    /// Neither IPv4 nor IPv6.
    #[error("it is not an IP packet")]
    NotIp,
}

/// Reads a packet that starts with its IP header. `hw_protocol` is its `EtherType`, 0 when unknown; `tracking` says how the
/// kernel makes its tuples.
pub fn parse(packet: &[u8], hw_protocol: u16, tracking: Tracking) -> Result<Parsed, Unparsable> {
    let version = packet.first().ok_or(Unparsable::Truncated)? >> 4;
    match (hw_protocol, version) {
        (0 | ETHERTYPE_IPV4, 4) => ipv4(packet, tracking),
        (0 | ETHERTYPE_IPV6, 6) => ipv6(packet, tracking),
        (ETHERTYPE_IPV4 | ETHERTYPE_IPV6, _) => Err(Unparsable::Malformed),
        _ => Err(Unparsable::NotIp),
    }
}

/// Bytes of a packet from some header on.
#[derive(Clone, Copy)]
struct Rest<'a> {
    bytes: &'a [u8],
    /// Whether the packet goes on after the bytes: then what is missing was cut off, else it never was there.
    cut: bool,
}

impl<'a> Rest<'a> {
    /// The payload after `header` bytes of a packet that says it has `total` bytes. A super-packet says 0, because its
    /// length does not fit.
    fn new(packet: &'a [u8], header: usize, total: usize) -> Result<Self, Unparsable> {
        let end = if total == 0 { packet.len() } else { total };
        if end < header {
            return Err(Unparsable::Malformed);
        }
        let bytes = packet
            .get(header..end.min(packet.len()))
            .ok_or(Unparsable::Truncated)?;
        Ok(Self {
            bytes,
            cut: total == 0 || end > packet.len(),
        })
    }

    fn too_short(self) -> Unparsable {
        if self.cut {
            Unparsable::Truncated
        } else {
            Unparsable::Malformed
        }
    }

    fn after(self, header: &[u8]) -> Self {
        Self {
            bytes: self.bytes.get(header.len()..).unwrap_or_default(),
            ..self
        }
    }

    fn first<const N: usize>(self) -> Result<[u8; N], Unparsable> {
        self.bytes.first_chunk().copied().ok_or_else(|| self.too_short())
    }
}

fn ipv4(packet: &[u8], tracking: Tracking) -> Result<Parsed, Unparsable> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| match error {
        err::ipv4::HeaderSliceError::Len(_) => Unparsable::Truncated,
        err::ipv4::HeaderSliceError::Content(_) => Unparsable::Malformed,
    })?;
    if header.fragments_offset().value() != 0 {
        return Err(Unparsable::Fragment);
    }
    let rest = Rest::new(packet, header.slice().len(), usize::from(header.total_len()))?;
    // An authentication header is a protocol of its own to IPv4 conntrack.
    let (transport, tcp) = transport(header.protocol().0, rest, true, tracking)?;
    finish(
        Addr::from(header.source_addr()),
        Addr::from(header.destination_addr()),
        transport,
        tcp,
    )
}

fn ipv6(packet: &[u8], tracking: Tracking) -> Result<Parsed, Unparsable> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| match error {
        err::ipv6::HeaderSliceError::Len(_) => Unparsable::Truncated,
        err::ipv6::HeaderSliceError::Content(_) => Unparsable::Malformed,
    })?;
    // A mapped address on the wire would be taken for the IPv4 address that it names.
    if [header.source_addr(), header.destination_addr()]
        .iter()
        .any(|address| address.to_ipv4_mapped().is_some())
    {
        return Err(Unparsable::Malformed);
    }
    let length = match header.payload_length() {
        0 => 0,
        payload => header.slice().len() + usize::from(payload),
    };
    let rest = Rest::new(packet, header.slice().len(), length)?;
    let (protocol, rest) = skip_extensions(header.next_header().0, rest)?;
    let (transport, tcp) = transport(protocol, rest, false, tracking)?;
    finish(
        Addr::from(header.source_addr()),
        Addr::from(header.destination_addr()),
        transport,
        tcp,
    )
}

/// Walks the extension headers that the kernel walks (`ipv6_skip_exthdr`): hop-by-hop, routing, fragment,
/// authentication, destination options. Any other number is the transport protocol, save "no next header" (59), which
/// conntrack does not track.
fn skip_extensions(mut next: u8, mut rest: Rest<'_>) -> Result<(u8, Rest<'_>), Unparsable> {
    loop {
        let header: &[u8];
        (next, header) = match next {
            0 | 43 | 60 => {
                let extension =
                    Ipv6RawExtHeaderSlice::from_slice(rest.bytes).map_err(|_| rest.too_short())?;
                (extension.next_header().0, extension.slice())
            }
            44 => {
                let fragment =
                    Ipv6FragmentHeaderSlice::from_slice(rest.bytes).map_err(|_| rest.too_short())?;
                if fragment.fragment_offset().value() != 0 {
                    return Err(Unparsable::Fragment);
                }
                (fragment.next_header().0, fragment.slice())
            }
            51 => {
                let auth = IpAuthHeaderSlice::from_slice(rest.bytes).map_err(|error| match error {
                    err::ip_auth::HeaderSliceError::Len(_) => rest.too_short(),
                    err::ip_auth::HeaderSliceError::Content(_) => Unparsable::Malformed,
                })?;
                (auth.next_header().0, auth.slice())
            }
            59 => return Err(Unparsable::Malformed),
            transport => return Ok((transport, rest)),
        };
        rest = rest.after(header);
    }
}

/// The transport's part of the tuple, and what a TCP segment does.
fn transport(
    protocol: u8,
    rest: Rest<'_>,
    is_ipv4: bool,
    tracking: Tracking,
) -> Result<(Transport, Option<TcpStep>), Unparsable> {
    let mut step = None;
    let tracked = |by_ports: bool, ports| if by_ports { ports } else { NONE };
    let transport = match protocol {
        6 => {
            let tcp = TcpHeaderSlice::from_slice(rest.bytes).map_err(|error| match error {
                err::tcp::HeaderSliceError::Len(_) => rest.too_short(),
                err::tcp::HeaderSliceError::Content(_) => Unparsable::Malformed,
            })?;
            step = TcpStep::of(&tcp);
            Transport::Tcp(Ports {
                src: tcp.source_port(),
                dst: tcp.destination_port(),
            })
        }
        17 => {
            let udp = UdpHeaderSlice::from_slice(rest.bytes).map_err(|_| rest.too_short())?;
            Transport::Udp(Ports {
                src: udp.source_port(),
                dst: udp.destination_port(),
            })
        }
        // RFC 3828 §3.1, RFC 9260 §3.1, RFC 4340 §5.1: ports first; the whole generic header must be there.
        136 => Transport::UdpLite(ports(rest.first::<8>()?)),
        132 => Transport::Sctp(tracked(tracking.sctp, ports(rest.first::<12>()?))),
        33 => Transport::Dccp(tracked(tracking.dccp, ports(rest.first::<12>()?))),
        47 => Transport::Gre(tracked(tracking.gre, gre(rest)?)),
        1 if is_ipv4 => Transport::Icmp(icmp(rest.first()?, icmpv4_class)?),
        58 if !is_ipv4 => Transport::Icmpv6(icmp(rest.first()?, icmpv6_class)?),
        1 | 58 => return Err(Unparsable::Malformed),
        other => Transport::Other(other),
    };
    Ok((transport, step))
}

/// What conntrack has in the place of ports where there are none.
const NONE: Ports = Ports { src: 0, dst: 0 };

/// The keys of GRE (`gre_pkt_to_tuple`): the call identifier of version 1, which carries PPP alone (RFC 2637 §4.1). The
/// other direction's identifier is known to the kernel only where its PPTP helper saw the call, and such a packet is
/// RELATED, so that it is never asked for.
fn gre(rest: Rest<'_>) -> Result<Ports, Unparsable> {
    const VERSION: u8 = 0x07;
    const PPP: [u8; 2] = [0x88, 0x0b];
    let [_, flags, protocol @ ..] = match rest.first::<4>() {
        Err(Unparsable::Malformed) => return Ok(NONE),
        header => header?,
    };
    if flags & VERSION != 1 {
        return Ok(NONE);
    }
    let [.., a, b] = rest.first::<8>()?;
    if protocol != PPP {
        return Err(Unparsable::Malformed);
    }
    Ok(Ports {
        src: 0,
        dst: u16::from_be_bytes([a, b]),
    })
}

fn ports<const N: usize>(header: [u8; N]) -> Ports {
    match header.first_chunk() {
        Some([a, b, c, d]) => Ports {
            src: u16::from_be_bytes([*a, *b]),
            dst: u16::from_be_bytes([*c, *d]),
        },
        None => NONE,
    }
}

enum IcmpClass {
    Error,
    Query,
    Other,
}

/// RFC 792, RFC 950: what has an identifier, and what reports about another packet.
fn icmpv4_class(kind: u8) -> IcmpClass {
    match kind {
        3 | 4 | 5 | 11 | 12 => IcmpClass::Error,
        0 | 8 | 13..=18 => IcmpClass::Query,
        _ => IcmpClass::Other,
    }
}

/// RFC 4443: types below 128 are errors. RFC 4620's node information queries are told apart by the same two bytes in
/// conntrack, so here too.
fn icmpv6_class(kind: u8) -> IcmpClass {
    match kind {
        0..=127 => IcmpClass::Error,
        128 | 129 | 139 | 140 => IcmpClass::Query,
        _ => IcmpClass::Other,
    }
}

fn icmp([kind, code, _, _, a, b, _, _]: [u8; 8], class: fn(u8) -> IcmpClass) -> Result<IcmpKey, Unparsable> {
    let id = match class(kind) {
        IcmpClass::Error => return Err(Unparsable::IcmpError),
        IcmpClass::Query => u16::from_be_bytes([a, b]),
        IcmpClass::Other => 0,
    };
    Ok(IcmpKey { kind, code, id })
}

fn finish(src: Addr, dst: Addr, transport: Transport, tcp: Option<TcpStep>) -> Result<Parsed, Unparsable> {
    let tuple = Tuple::new(src, dst, transport).map_err(|_| Unparsable::Malformed)?;
    Ok(Parsed { tuple, tcp })
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
