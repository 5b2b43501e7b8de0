//! A question as askers write it: two addresses, two ports, a protocol; all text.
//!
//! Everything is checked here, so that what follows only knows valid tuples.

use nufw_proto::{Addr, Ports, Transport, Tuple};

/// What is wrong with a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not an address.
    #[error("{what} {found:?} is not an IPv4 or IPv6 address")]
    Address {
        /// Which one.
        what: &'static str,
        /// What was there.
        found: String,
    },
    /// Not a port.
    #[error("{what} {found:?} is not a port number from 1 to 65535")]
    Port {
        /// Which one.
        what: &'static str,
        /// What was there.
        found: String,
    },
    /// Not a protocol with ports.
    #[error("protocol {0:?} is none of tcp, udp, udplite, sctp, dccp")]
    Protocol(String),
    /// One address is IPv4, the other IPv6.
    #[error("source and destination are of different address families")]
    Families,
}

/// Characters of a wrong value that a message shows.
const SHOWN: usize = 64;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Reads the name or IANA number of a protocol that has ports.
pub fn parse_protocol(text: &str) -> Result<u8, AskError> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "tcp" | "6" => 6,
        "udp" | "17" => 17,
        "udplite" | "136" => 136,
        "sctp" | "132" => 132,
        "dccp" | "33" => 33,
        _ => return Err(AskError::Protocol(shown(text))),
    })
}

fn address(what: &'static str, text: &str) -> Result<Addr, AskError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text).parse().map_err(|_| AskError::Address {
        what,
        found: shown(text),
    })
}

fn port(what: &'static str, text: &str) -> Result<u16, AskError> {
    Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| AskError::Port {
            what,
            found: shown(text),
        })
}

/// Reads a tuple as the asker sees it: the source is the far end, the client. Brackets around an IPv6 address are allowed,
/// and an IPv4-mapped address is the IPv4 address.
pub fn parse_tuple(src: &str, sport: &str, dst: &str, dport: &str, protocol: u8) -> Result<Tuple, AskError> {
    let ports = Ports {
        src: port("source port", sport)?,
        dst: port("destination port", dport)?,
    };
    let transport = Transport::from_parts(protocol, Some(ports), None)
        .filter(|transport| transport.ports().is_some())
        .ok_or_else(|| AskError::Protocol(protocol.to_string()))?;
    Tuple::new(
        address("source address", src)?,
        address("destination address", dst)?,
        transport,
    )
    .map_err(|_| AskError::Families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_and_one_in_brackets_are_the_plain_ones() {
        let plain = parse_tuple("10.0.0.7", "40312", "10.1.1.1", "443", 6).unwrap();
        let mapped = parse_tuple("::ffff:10.0.0.7", "40312", "[::ffff:10.1.1.1]", "443", 6).unwrap();
        assert_eq!(plain, mapped);
    }

    #[test]
    fn each_mistake_is_named() {
        let cases = [
            (
                ["10.0.0", "1", "10.1.1.1", "2"],
                "source address \"10.0.0\" is not",
            ),
            (["10.0.0.7", "0", "10.1.1.1", "2"], "source port \"0\" is not"),
            (
                ["10.0.0.7", "1", "10.1.1.1", "+2"],
                "destination port \"+2\" is not",
            ),
            (
                ["10.0.0.7", "1", "10.1.1.1", "65536"],
                "destination port \"65536\"",
            ),
            (["10.0.0.7", "1", "fd00::1", "2"], "different address families"),
            (["", "1", "", "2"], "source address \"\""),
            (["unix:", "1", "10.1.1.1", "2"], "source address \"unix:\""),
        ];
        for ([src, sport, dst, dport], expected) in cases {
            let error = parse_tuple(src, sport, dst, dport, 6).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(
            parse_protocol("icmp")
                .unwrap_err()
                .to_string()
                .contains("\"icmp\"")
        );
        assert!(parse_tuple("10.0.0.7", "1", "10.1.1.1", "2", 1).is_err());
        let long = parse_tuple(&"9".repeat(10_000), "1", "10.1.1.1", "2", 6).unwrap_err();
        assert!(long.to_string().len() < 200);
    }
}
