//! Canonical IP addresses: an IPv4-mapped IPv6 address cannot be constructed.
//!
//! Every address of the system passes through [`Addr`] at its edge, so that `::ffff:192.0.2.1` can
//! never slip past a rule for `192.0.2.1`. No parsing of anything else belongs here.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 address; never an IPv4-mapped one (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WireAddr", into = "WireAddr")]
pub struct Addr(IpAddr);

/// A peer sent an IPv4-mapped IPv6 address where the canonical form is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the IPv4-mapped address {0} must be sent as an IPv4 address")]
pub struct MappedAddress(pub Ipv6Addr);

impl Addr {
    /// The IP address itself.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Tells whether this is an IPv4 address.
    pub fn is_ipv4(self) -> bool {
        self.0.is_ipv4()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical())
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self(IpAddr::V4(ip))
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        Self(IpAddr::V6(ip).to_canonical())
    }
}

impl FromStr for Addr {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The form on the wire: network byte order, family by variant.
#[derive(Serialize, Deserialize)]
enum WireAddr {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl From<Addr> for WireAddr {
    fn from(addr: Addr) -> Self {
        match addr.0 {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(v6.octets()),
        }
    }
}

impl TryFrom<WireAddr> for Addr {
    type Error = MappedAddress;

    fn try_from(wire: WireAddr) -> Result<Self, MappedAddress> {
        match wire {
            WireAddr::V4(octets) => Ok(Self(IpAddr::V4(octets.into()))),
            WireAddr::V6(octets) => {
                let v6 = Ipv6Addr::from(octets);
                if v6.to_ipv4_mapped().is_some() {
                    return Err(MappedAddress(v6));
                }
                Ok(Self(IpAddr::V6(v6)))
            }
        }
    }
}
