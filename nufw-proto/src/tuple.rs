//! The tuple of a connection: addresses and what the transport adds to tell two connections apart.
//!
//! The words are conntrack's: a connection has an *original* tuple and a *reply* tuple. Whether two tuples
//! belong together is the engine's business, not this module's.

use crate::Addr;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Source and destination port, host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
}

/// What conntrack tells two ICMP exchanges apart by (`nf_conntrack_tuple.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IcmpKey {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Query identifier, host byte order; 0 for types that have none.
    pub id: u16,
}

/// The transport protocol with its part of the tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WireTransport", into = "WireTransport")]
pub enum Transport {
    /// TCP, protocol 6.
    Tcp(Ports),
    /// UDP, protocol 17.
    Udp(Ports),
    /// UDP-Lite, protocol 136 (RFC 3828).
    UdpLite(Ports),
    /// SCTP, protocol 132.
    Sctp(Ports),
    /// DCCP, protocol 33.
    Dccp(Ports),
    /// GRE, protocol 47: in the place of ports conntrack's keys, the call identifiers of version 1 (RFC 2637 §4.1), 0 for
    /// other versions (`nf_conntrack_proto_gre.c`).
    Gre(Ports),
    /// ICMP, protocol 1; only between IPv4 addresses.
    Icmp(IcmpKey),
    /// ICMPv6, protocol 58; only between IPv6 addresses.
    Icmpv6(IcmpKey),
    /// Any other IP protocol, by its IANA number; never a number that has a variant of its own.
    Other(u8),
}

impl Transport {
    /// The transport for a protocol number, built from ports, an ICMP key or nothing.
    ///
    /// `ports` is used by the protocols that have ports, `icmp` by the two that have types; `None` when the
    /// protocol needs what was not given. GRE without keys has those of version 0.
    pub fn from_parts(protocol: u8, ports: Option<Ports>, icmp: Option<IcmpKey>) -> Option<Self> {
        Some(match protocol {
            6 => Self::Tcp(ports?),
            17 => Self::Udp(ports?),
            136 => Self::UdpLite(ports?),
            132 => Self::Sctp(ports?),
            33 => Self::Dccp(ports?),
            47 => Self::Gre(ports.unwrap_or(Ports { src: 0, dst: 0 })),
            1 => Self::Icmp(icmp?),
            58 => Self::Icmpv6(icmp?),
            other => Self::Other(other),
        })
    }

    /// The IANA protocol number.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp(_) => 17,
            Self::UdpLite(_) => 136,
            Self::Sctp(_) => 132,
            Self::Dccp(_) => 33,
            Self::Gre(_) => 47,
            Self::Icmp(_) => 1,
            Self::Icmpv6(_) => 58,
            Self::Other(number) => number,
        }
    }

    /// The ports, for protocols that have them, and what stands in their place for GRE.
    pub fn ports(self) -> Option<Ports> {
        match self {
            Self::Tcp(p) | Self::Udp(p) | Self::UdpLite(p) | Self::Sctp(p) | Self::Dccp(p) | Self::Gre(p) => {
                Some(p)
            }
            Self::Icmp(_) | Self::Icmpv6(_) | Self::Other(_) => None,
        }
    }

    /// The ICMP key, for the two protocols that have one.
    pub fn icmp(self) -> Option<IcmpKey> {
        match self {
            Self::Icmp(key) | Self::Icmpv6(key) => Some(key),
            Self::Tcp(_)
            | Self::Udp(_)
            | Self::UdpLite(_)
            | Self::Sctp(_)
            | Self::Dccp(_)
            | Self::Gre(_)
            | Self::Other(_) => None,
        }
    }

    /// The same transport with other ports; unchanged where the protocol has none.
    #[must_use]
    pub fn with_ports(self, ports: Ports) -> Self {
        match self {
            Self::Tcp(_) => Self::Tcp(ports),
            Self::Udp(_) => Self::Udp(ports),
            Self::UdpLite(_) => Self::UdpLite(ports),
            Self::Sctp(_) => Self::Sctp(ports),
            Self::Dccp(_) => Self::Dccp(ports),
            Self::Gre(_) => Self::Gre(ports),
            other @ (Self::Icmp(_) | Self::Icmpv6(_) | Self::Other(_)) => other,
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WireTuple", into = "WireTuple")]
pub struct Tuple {
    src: Addr,
    dst: Addr,
    transport: Transport,
}

/// The two addresses, or the addresses and the ICMP version, are not of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tuple mixes IPv4 and IPv6")]
pub struct FamilyMismatch;

impl Tuple {
    /// Builds a tuple; refuses a mixture of IPv4 and IPv6.
    pub fn new(src: Addr, dst: Addr, transport: Transport) -> Result<Self, FamilyMismatch> {
        let family_fits = match transport {
            Transport::Icmp(_) => src.is_ipv4(),
            Transport::Icmpv6(_) => !src.is_ipv4(),
            Transport::Tcp(_)
            | Transport::Udp(_)
            | Transport::UdpLite(_)
            | Transport::Sctp(_)
            | Transport::Dccp(_)
            | Transport::Gre(_)
            | Transport::Other(_) => true,
        };
        if src.is_ipv4() != dst.is_ipv4() || !family_fits {
            return Err(FamilyMismatch);
        }
        Ok(Self { src, dst, transport })
    }

    /// Source address.
    pub fn src(&self) -> Addr {
        self.src
    }

    /// Destination address.
    pub fn dst(&self) -> Addr {
        self.dst
    }

    /// Transport protocol and its part of the tuple.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// IANA number of the transport protocol.
    pub fn protocol(&self) -> u8 {
        self.transport.protocol()
    }

    /// The same connection with another destination (and destination port, where there are ports); refuses another
    /// family.
    pub fn with_destination(&self, dst: Addr, port: Option<u16>) -> Result<Self, FamilyMismatch> {
        let transport = match (self.transport.ports(), port) {
            (Some(ports), Some(port)) => self.transport.with_ports(Ports {
                src: ports.src,
                dst: port,
            }),
            _ => self.transport,
        };
        Self::new(self.src, dst, transport)
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.transport {
            Transport::Tcp(_) => "tcp",
            Transport::Udp(_) => "udp",
            Transport::UdpLite(_) => "udplite",
            Transport::Sctp(_) => "sctp",
            Transport::Dccp(_) => "dccp",
            Transport::Gre(_) => "gre",
            Transport::Icmp(_) => "icmp",
            Transport::Icmpv6(_) => "icmpv6",
            Transport::Other(number) => return write!(f, "proto {number} {} -> {}", self.src, self.dst),
        };
        match (self.transport.ports(), self.transport.icmp()) {
            (Some(ports), _) => {
                let (src, dst) = (
                    std::net::SocketAddr::new(self.src.ip(), ports.src),
                    std::net::SocketAddr::new(self.dst.ip(), ports.dst),
                );
                write!(f, "{name} {src} -> {dst}")
            }
            (None, Some(icmp)) => {
                write!(
                    f,
                    "{name} {} -> {} type {} code {} id {}",
                    self.src, self.dst, icmp.kind, icmp.code, icmp.id
                )
            }
            (None, None) => write!(f, "{name} {} -> {}", self.src, self.dst),
        }
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A protocol that has a variant of its own was sent as "other".
#[derive(Debug, thiserror::Error)]
#[error("protocol {0} must be sent in its own form")]
struct NotOther(u8);

#[derive(Serialize, Deserialize)]
enum WireTransport {
    Tcp(Ports),
    Udp(Ports),
    UdpLite(Ports),
    Sctp(Ports),
    Dccp(Ports),
    Icmp(IcmpKey),
    Icmpv6(IcmpKey),
    Other(u8),
    Gre(Ports),
}

impl From<Transport> for WireTransport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp(p) => Self::Tcp(p),
            Transport::Udp(p) => Self::Udp(p),
            Transport::UdpLite(p) => Self::UdpLite(p),
            Transport::Sctp(p) => Self::Sctp(p),
            Transport::Dccp(p) => Self::Dccp(p),
            Transport::Gre(p) => Self::Gre(p),
            Transport::Icmp(k) => Self::Icmp(k),
            Transport::Icmpv6(k) => Self::Icmpv6(k),
            Transport::Other(n) => Self::Other(n),
        }
    }
}

impl TryFrom<WireTransport> for Transport {
    type Error = NotOther;

    fn try_from(wire: WireTransport) -> Result<Self, NotOther> {
        Ok(match wire {
            WireTransport::Tcp(p) => Self::Tcp(p),
            WireTransport::Udp(p) => Self::Udp(p),
            WireTransport::UdpLite(p) => Self::UdpLite(p),
            WireTransport::Sctp(p) => Self::Sctp(p),
            WireTransport::Dccp(p) => Self::Dccp(p),
            WireTransport::Gre(p) => Self::Gre(p),
            WireTransport::Icmp(k) => Self::Icmp(k),
            WireTransport::Icmpv6(k) => Self::Icmpv6(k),
            WireTransport::Other(n) => match n {
                1 | 6 | 17 | 33 | 47 | 58 | 132 | 136 => return Err(NotOther(n)),
                n => Self::Other(n),
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WireTuple {
    src: Addr,
    dst: Addr,
    transport: Transport,
}

impl From<Tuple> for WireTuple {
    fn from(Tuple { src, dst, transport }: Tuple) -> Self {
        Self { src, dst, transport }
    }
}

impl TryFrom<WireTuple> for Tuple {
    type Error = FamilyMismatch;

    fn try_from(WireTuple { src, dst, transport }: WireTuple) -> Result<Self, FamilyMismatch> {
        Self::new(src, dst, transport)
    }
}
