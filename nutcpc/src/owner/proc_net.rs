//! ICMP and raw sockets, from the tables in /proc/net: `sock_diag` does not know the former, and the latter only on
//! kernels built for it.
//!
//! Reads tables; the decision whose an echo request is, is in [`super::matching`].

use super::diag::{End, SocketRow};
use nufw_proto::Addr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most bytes of one table that are read.
const MAX_TABLE: u64 = 4 << 20;

/// A table of /proc/net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// IPv4 echo sockets; the local port is the echo identifier.
    Icmp,
    /// IPv6 echo sockets.
    Icmp6,
    /// IPv4 raw sockets; the local port is the protocol.
    Raw,
    /// IPv6 raw sockets.
    Raw6,
}

impl Table {
    // Of this thread, which may be in another network namespace than the process was born in.
    fn path(self) -> &'static str {
        match self {
            Self::Icmp => "/proc/thread-self/net/icmp",
            Self::Icmp6 => "/proc/thread-self/net/icmp6",
            Self::Raw => "/proc/thread-self/net/raw",
            Self::Raw6 => "/proc/thread-self/net/raw6",
        }
    }

    /// Reads the whole table. Lines that cannot be read are passed over.
    pub(super) fn read(self) -> io::Result<Vec<SocketRow>> {
        let file = match std::fs::File::open(self.path()) {
            Ok(file) => file,
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let lines = BufReader::new(file.take(MAX_TABLE)).lines();
        let mut rows = Vec::new();
        for line in lines.skip(1) {
            rows.extend(parse_line(&line?));
        }
        Ok(rows)
    }
}

/// `sl: local:port remote:port st tx:rx tr:when retrnsmt uid timeout inode …`
fn parse_line(line: &str) -> Option<SocketRow> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = parse_end(fields.next()?)?;
    let remote = parse_end(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(SocketRow {
        local,
        remote,
        state,
        uid,
        is_v6_only: false,
        inode,
    })
}

/// The address is printed as 32-bit words in the byte order of the host, the port as a number.
fn parse_end(text: &str) -> Option<End> {
    let (address, port) = text.split_once(':')?;
    let mut words = [0_u32; 4];
    let count = address.len() / 8;
    if !address.is_ascii() || address.len() % 8 != 0 || count > 4 {
        return None;
    }
    for (i, word) in words.iter_mut().take(count).enumerate() {
        *word = u32::from_str_radix(&address[i * 8..i * 8 + 8], 16).ok()?;
    }
    let addr = match count {
        1 => Addr::from(Ipv4Addr::from(words[0].to_ne_bytes())),
        4 => {
            let mut octets = [0; 16];
            for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            Addr::from(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(End { addr, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_each_family_is_read() {
        let v4 = " 2217: 0A00000A:002A 08080808:0000 01 00000000:00000000 00:00000000 00000000  1000        0 48123 2 0000000000000000 0";
        let row = parse_line(v4).unwrap();
        assert_eq!(
            row.local,
            End {
                addr: "10.0.0.10".parse().unwrap(),
                port: 42
            }
        );
        assert_eq!(
            row.remote,
            End {
                addr: "8.8.8.8".parse().unwrap(),
                port: 0
            }
        );
        assert_eq!((row.state, row.uid, row.inode), (1, 1000, 48123));

        let v6 = "   58: 000000FD000000000000000005000000:003A 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0000000000000000 0";
        let row = parse_line(v6).unwrap();
        assert_eq!(
            row.local,
            End {
                addr: "fd00::5".parse().unwrap(),
                port: 58
            }
        );
        assert_eq!((row.state, row.uid, row.inode), (7, 0, 9));
    }

    #[test]
    fn what_is_not_a_line_is_passed_over() {
        for line in [
            "",
            "1:",
            "1: é0000000:0000 00000000:0000 07",
            "1: 0:0 0:0 7 0:0 0:0 0 0 0 0",
            "x y z",
        ] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }
}
