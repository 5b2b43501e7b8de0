//! Sets of addresses and of ports: what a rule lists, and what it names of a file.
//!
//! Kept as sorted ranges that do not touch, so that a list of a hundred thousand addresses is asked as quickly as one of ten.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of numbers as ranges, both ends within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges<K>(Vec<(K, K)>);

impl<K> Default for Ranges<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Numbers that have neighbours.
pub trait Number: Copy + Ord {
    /// The next one.
    fn next(self) -> Option<Self>;
    /// The smallest one.
    const LEAST: Self;
}

macro_rules! numbers {
    ($($kind:ty),+) => {$(
        impl Number for $kind {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            const LEAST: Self = 0;
        }
    )+};
}

numbers!(u16, u32, u128);

impl<K: Number> Ranges<K> {
    /// The union of ranges.
    pub fn union(mut ranges: Vec<(K, K)>) -> Self {
        ranges.sort_unstable();
        let mut union: Vec<(K, K)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match union.last_mut() {
                Some((_, end)) if end.next().is_none_or(|next| from <= next) => *end = (*end).max(to),
                _ => union.push((from, to)),
            }
        }
        Self(union)
    }

    /// Whether it is in the set.
    pub fn contains(&self, number: K) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    /// Whether every number of the other set is in this one.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(from, to)| {
            let after = self.0.partition_point(|(start, _)| start <= from);
            after > 0 && *to <= self.0[after - 1].1
        })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (K, K)> {
        self.0.iter().copied()
    }

    /// How many ranges it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ranges<u32>,
    /// IPv6.
    pub v6: Ranges<u128>,
}

impl Addresses {
    /// The union of items.
    pub fn of(items: impl IntoIterator<Item = Item>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::V4(from, to) => v4.push((from.to_bits(), to.to_bits())),
                Item::V6(from, to) => v6.push((from.to_bits(), to.to_bits())),
            }
        }
        Self {
            v4: Ranges::union(v4),
            v6: Ranges::union(v6),
        }
    }

    /// The same with those of another set.
    #[must_use]
    pub fn with(self, other: &Self) -> Self {
        Self {
            v4: Ranges::union(self.v4.iter().chain(other.v4.iter()).collect()),
            v6: Ranges::union(self.v6.iter().chain(other.v6.iter()).collect()),
        }
    }

    /// Whether it is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    /// Whether every address of the other set is in this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.v4.covers(&other.v4) && self.v6.covers(&other.v6)
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.len() + self.v6.len() == 0
    }

    /// As it is written: networks where they are whole, else ranges.
    pub fn words(&self) -> Vec<String> {
        let v4 = self.v4.iter().map(|(from, to)| {
            let (from, to) = (Ipv4Addr::from_bits(from), Ipv4Addr::from_bits(to));
            let bits = (from.to_bits() ^ to.to_bits()).leading_zeros();
            let net = Ipv4Net::new(from, u8::try_from(bits).unwrap_or(32)).ok();
            word(
                net.filter(|net| net.network() == from && net.broadcast() == to)
                    .map(IpNet::V4),
                from,
                to,
            )
        });
        let v6 = self.v6.iter().map(|(from, to)| {
            let (from, to) = (Ipv6Addr::from_bits(from), Ipv6Addr::from_bits(to));
            let bits = (from.to_bits() ^ to.to_bits()).leading_zeros();
            let net = Ipv6Net::new(from, u8::try_from(bits).unwrap_or(128)).ok();
            word(
                net.filter(|net| net.network() == from && net.broadcast() == to)
                    .map(IpNet::V6),
                from,
                to,
            )
        });
        v4.chain(v6).collect()
    }
}

fn word(net: Option<IpNet>, from: impl fmt::Display, to: impl fmt::Display) -> String {
    match net {
        Some(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Some(net) => net.to_string(),
        None => format!("{from}-{to}"),
    }
}

/// One item of a list of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// IPv4, from and to.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6, from and to.
    V6(Ipv6Addr, Ipv6Addr),
}

/// What is wrong with an item, as what was expected.
pub(super) type Expected = String;

impl Item {
    /// An address, a network without host bits, or a range of addresses.
    pub fn parse(text: &str) -> Result<Self, Expected> {
        if let Some((from, to)) = text.split_once('-') {
            let ends = from
                .trim()
                .parse::<IpAddr>()
                .ok()
                .zip(to.trim().parse::<IpAddr>().ok());
            return match ends.map(|(from, to)| (from.to_canonical(), to.to_canonical())) {
                Some((IpAddr::V4(from), IpAddr::V4(to))) if from <= to => Ok(Self::V4(from, to)),
                Some((IpAddr::V6(from), IpAddr::V6(to))) if from <= to => Ok(Self::V6(from, to)),
                _ => Err(
                    "a range of addresses of one family, the lower one first, such as \"10.0.0.5-10.0.0.9\""
                        .to_owned(),
                ),
            };
        }
        let parsed = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match parsed.map(canonical) {
            Ok(net) if net.trunc() == net => Ok(Self::from(net)),
            Ok(net) => Err(format!(
                "a network without host bits, such as \"{}\"",
                net.trunc()
            )),
            Err(_) => Err("an address or a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"".to_owned()),
        }
    }

    /// Whether it is of IPv4.
    pub fn is_v4(self) -> bool {
        matches!(self, Self::V4(..))
    }
}

impl From<IpNet> for Item {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4(net.network(), net.broadcast()),
            IpNet::V6(net) => Self::V6(net.network(), net.broadcast()),
        }
    }
}

/// An IPv4-mapped IPv6 network is the IPv4 network, as addresses are everywhere else.
fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok())
            .map_or(net, IpNet::V4),
        _ => net,
    }
}

/// A port or a range of ports; digits only: no sign, no blanks.
pub(super) fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| -> Option<u16> {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Ports as they are written.
pub(super) fn port_words(ports: &Ranges<u16>) -> Vec<String> {
    ports
        .iter()
        .map(|(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(items: &[&str]) -> Addresses {
        Addresses::of(items.iter().map(|item| Item::parse(item).unwrap()))
    }

    #[test]
    fn lists_are_shown_in_their_shortest_form() {
        let set = addresses(&[
            "10.0.0.0/9",
            "10.128.0.0/9",
            "192.0.2.5-192.0.2.9",
            "192.0.2.7",
            "2001:db8::/32",
            "::ffff:198.51.100.7",
            "0.0.0.0-0.0.0.255",
        ]);
        assert_eq!(
            set.words(),
            [
                "0.0.0.0/24",
                "10.0.0.0/8",
                "192.0.2.5-192.0.2.9",
                "198.51.100.7",
                "2001:db8::/32"
            ]
        );
        assert_eq!(addresses(&["0.0.0.0/0", "::/0"]).words(), ["0.0.0.0/0", "::/0"]);
        assert!(set.covers(&addresses(&["10.5.0.0/16", "192.0.2.6"])));
        assert!(!set.covers(&addresses(&["10.5.0.0/16", "192.0.2.4-192.0.2.6"])));
    }

    #[test]
    fn what_is_no_item_says_what_would_be() {
        for (text, expected) in [
            (
                "10.0.0.1/8",
                "a network without host bits, such as \"10.0.0.0/8\"",
            ),
            ("10.0.0.9-10.0.0.5", "a range of addresses of one family"),
            ("10.0.0.9-::1", "a range of addresses of one family"),
            ("10.0.0", "an address or a network"),
        ] {
            let error = Item::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        for text in ["80-70", "+80", "", "80-", "65536"] {
            assert_eq!(parse_ports(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_union_has_what_one_of_its_ranges_has(
            ranges in prop::collection::vec((0_u16..40, 0_u16..8), 0..8),
            number in 0_u16..64,
        ) {
            let ranges: Vec<(u16, u16)> = ranges.into_iter().map(|(from, more)| (from, from + more)).collect();
            let expected = ranges.iter().any(|(from, to)| (*from..=*to).contains(&number));
            prop_assert_eq!(Ranges::union(ranges).contains(number), expected);
        }
    }
}
