//! What is asked for, as people write it: addresses, ports, protocols, states.
//!
//! Every mistake is a sentence that names what was found and what is expected.

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nufw_proto::{Addr, protocol};
use nulog::{AddrRange, State};
use std::net::{IpAddr, SocketAddr};

/// Characters of a wrong value that a message shows.
const SHOWN: usize = 64;

pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// An address or a network.
pub(super) fn range(text: &str) -> Result<AddrRange> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = Addr::from(address);
        return Ok(AddrRange {
            first: address,
            last: address,
        });
    }
    let Ok(network) = bare.parse::<IpNet>() else {
        bail!(
            "{:?} is not an address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64",
            shown(text)
        );
    };
    Ok(AddrRange {
        first: Addr::from(network.network()),
        last: Addr::from(network.broadcast()),
    })
}

/// An address with a port.
pub(super) fn endpoint(text: &str) -> Result<(Addr, u16)> {
    match text.parse::<SocketAddr>() {
        Ok(endpoint) if endpoint.port() != 0 => Ok((Addr::from(endpoint.ip()), endpoint.port())),
        _ => bail!(
            "{:?} is not an address with a port, such as 192.0.2.7:53500 or [2001:db8::7]:53500",
            shown(text)
        ),
    }
}

/// The name or IANA number of a protocol, in any letters; what `/etc/protocols` calls ICMPv6, too.
pub(super) fn protocol(text: &str) -> Result<u8> {
    let word = text.to_ascii_lowercase();
    let word = if word == "ipv6-icmp" { "icmpv6" } else { &word };
    protocol::parse(word)
        .with_context(|| format!("{:?} is not a protocol: {}", shown(text), protocol::EXPECTED))
}

/// What a protocol's number is shown as.
pub(super) fn protocol_name(number: i64) -> String {
    u8::try_from(number).map_or_else(|_| number.to_string(), protocol::show)
}

/// States by their names, with commas between them.
pub(super) fn states(text: &str) -> Result<Vec<State>> {
    text.split(',')
        .map(|word| {
            Ok(match word.trim().to_ascii_lowercase().as_str() {
                "drop" | "0" => State::Drop,
                "open" | "1" => State::Open,
                "established" | "2" => State::Established,
                "close" | "3" => State::Close,
                _ => bail!(
                    "{:?} is not a state: drop, open, established or close, several with commas between them",
                    shown(word)
                ),
            })
        })
        .collect()
}

/// What a state's number is shown as.
pub(super) fn state_name(number: i64) -> String {
    match number {
        0 => "DROP".to_owned(),
        1 => "OPEN".to_owned(),
        2 => "ESTABLISHED".to_owned(),
        3 => "CLOSE".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_become_ranges() {
        let ends = |text: &str| {
            let range = range(text).unwrap();
            (range.first.to_string(), range.last.to_string())
        };
        let pair = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        assert_eq!(ends("10.0.0.7"), pair("10.0.0.7", "10.0.0.7"));
        assert_eq!(ends("::ffff:10.0.0.7"), pair("10.0.0.7", "10.0.0.7"));
        assert_eq!(ends("10.1.2.3/16"), pair("10.1.0.0", "10.1.255.255"));
        assert_eq!(ends("0.0.0.0/0"), pair("0.0.0.0", "255.255.255.255"));
        assert_eq!(ends("2001:db8::/127"), pair("2001:db8::", "2001:db8::1"));
        for text in ["", "10.0.0", "10.0.0.0/33", "example.org"] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_has_a_port() {
        assert_eq!(endpoint("[::1]:53").unwrap().1, 53);
        assert_eq!(endpoint("1.2.3.4:53500").unwrap().0.to_string(), "1.2.3.4");
        for text in ["1.2.3.4", "1.2.3.4:0", "::1:53:x", "1.2.3.4:65536"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
