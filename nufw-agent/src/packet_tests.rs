//! Packets written down by hand from the RFCs, and everything that can be cut from or broken in them.

use super::*;
use etherparse::{PacketBuilder, ip_number};
use proptest::prelude::*;

/// As a kernel that has every tracker.
fn parse(packet: &[u8], hw_protocol: u16) -> Result<Parsed, Unparsable> {
    super::parse(packet, hw_protocol, Tracking::ALL)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|b| char::from(b).to_digit(16))
        .map(|digit| u8::try_from(digit).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// An IPv4 header from 192.0.2.1 to 198.51.100.2 (RFC 791 §3.1), and `payload`.
fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = hex("45000000 1c464000 40000000 c0000201 c6336402");
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    packet[2..4].copy_from_slice(&total);
    packet[9] = protocol;
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 header from `2001:db8::1` to `2001:db8::2` (RFC 8200 §3), and `payload`.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet =
        hex("60000000 00000040 20010db8000000000000000000000001 20010db8000000000000000000000002");
    packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet[6] = next;
    packet.extend_from_slice(payload);
    packet
}

/// RFC 9293 §3.1: ports 40000 → 443, SYN.
const SYN: &str = "9c4001bb 00000001 00000000 5002 ffff 0000 0000";
/// RFC 768: ports 53000 → 53.
const UDP: &str = "cf080035 0008 0000";

fn shown(packet: &[u8], hw_protocol: u16) -> String {
    parse(packet, hw_protocol).unwrap().tuple.to_string()
}

#[test]
fn tcp_over_ipv4() {
    let parsed = parse(&v4(6, &hex(SYN)), ETHERTYPE_IPV4).unwrap();
    assert_eq!(
        parsed.tuple.to_string(),
        "tcp 192.0.2.1:40000 -> 198.51.100.2:443"
    );
    assert_eq!(parsed.tcp, Some(TcpStep::Opens));
    let ack = hex("9c4001bb 00000001 00000001 5010 ffff 0000 0000");
    assert_eq!(parse(&v4(6, &ack), ETHERTYPE_IPV4).unwrap().tcp, None);
    let syn_ack = hex("9c4001bb 00000001 00000001 5012 ffff 0000 0000");
    assert_eq!(
        parse(&v4(6, &syn_ack), ETHERTYPE_IPV4).unwrap().tcp,
        Some(TcpStep::Answers)
    );
}

#[test]
fn every_transport_with_ports() {
    let udplite = hex("cf080035 0008 0000");
    let sctp = hex("0b590b59 00000000 11223344");
    let dccp = hex("13890016 06000000 01000000");
    assert_eq!(
        shown(&v4(17, &hex(UDP)), 0),
        "udp 192.0.2.1:53000 -> 198.51.100.2:53"
    );
    assert_eq!(
        shown(&v6(17, &hex(UDP)), 0),
        "udp [2001:db8::1]:53000 -> [2001:db8::2]:53"
    );
    assert_eq!(
        shown(&v4(136, &udplite), 0),
        "udplite 192.0.2.1:53000 -> 198.51.100.2:53"
    );
    assert_eq!(
        shown(&v4(132, &sctp), 0),
        "sctp 192.0.2.1:2905 -> 198.51.100.2:2905"
    );
    assert_eq!(
        shown(&v6(33, &dccp), ETHERTYPE_IPV6),
        "dccp [2001:db8::1]:5001 -> [2001:db8::2]:22"
    );
}

#[test]
fn icmp_queries_have_their_identifier() {
    assert_eq!(
        shown(&v4(1, &hex("0800 0000 1234 0001")), ETHERTYPE_IPV4),
        "icmp 192.0.2.1 -> 198.51.100.2 type 8 code 0 id 4660"
    );
    assert_eq!(
        shown(&v6(58, &hex("8000 0000 abcd 0001")), ETHERTYPE_IPV6),
        "icmpv6 2001:db8::1 -> 2001:db8::2 type 128 code 0 id 43981"
    );
    assert_eq!(
        shown(&v4(1, &hex("0d00 0000 0007 0001 00000000 00000000 00000000")), 0),
        "icmp 192.0.2.1 -> 198.51.100.2 type 13 code 0 id 7"
    );
    assert_eq!(
        shown(&v6(58, &hex("8500 0000 ffff ffff")), 0),
        "icmpv6 2001:db8::1 -> 2001:db8::2 type 133 code 0 id 0",
        "a router solicitation has none"
    );
}

#[test]
fn icmp_errors_belong_to_another_connection() {
    for kind in [3u8, 4, 5, 11, 12] {
        let packet = v4(1, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            parse(&packet, ETHERTYPE_IPV4),
            Err(Unparsable::IcmpError),
            "type {kind}"
        );
    }
    for kind in [1u8, 2, 3, 4, 127] {
        let packet = v6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            parse(&packet, ETHERTYPE_IPV6),
            Err(Unparsable::IcmpError),
            "type {kind}"
        );
    }
}

#[test]
fn other_protocols_have_only_their_number() {
    assert_eq!(shown(&v4(4, &[]), 0), "proto 4 192.0.2.1 -> 198.51.100.2");
    assert_eq!(
        shown(&v4(51, &hex("06040000")), 0),
        "proto 51 192.0.2.1 -> 198.51.100.2",
        "an authentication header is a protocol to IPv4 conntrack"
    );
    assert_eq!(shown(&v6(50, &[1; 20]), 0), "proto 50 2001:db8::1 -> 2001:db8::2");
}

#[test]
fn gre_is_told_apart_by_its_call_identifier() {
    // RFC 2784 §2.1: version 0, IPv4 inside. RFC 2637 §4.1: version 1, key and sequence, PPP, length 8, call 0x1234.
    let plain = hex("0000 0800 4500");
    let call = hex("3001 880b 0008 1234 00000001");
    assert_eq!(shown(&v4(47, &plain), 0), "gre 192.0.2.1:0 -> 198.51.100.2:0");
    assert_eq!(shown(&v4(47, &call), 0), "gre 192.0.2.1:0 -> 198.51.100.2:4660");
    assert_eq!(
        shown(&v6(47, &call), 0),
        "gre [2001:db8::1]:0 -> [2001:db8::2]:4660"
    );
    assert_eq!(
        shown(&v4(47, &[0]), 0),
        "gre 192.0.2.1:0 -> 198.51.100.2:0",
        "too short to have a version"
    );
    let no_ppp = hex("3001 0800 0008 1234 00000001");
    assert_eq!(parse(&v4(47, &no_ppp), 0), Err(Unparsable::Malformed));
    assert_eq!(parse(&v4(47, &call[..6]), 0), Err(Unparsable::Malformed));
    assert_eq!(parse(&v4(47, &call)[..26], 0), Err(Unparsable::Truncated));
}

#[test]
fn without_the_kernels_tracker_a_protocol_has_no_ports_to_it() {
    let tracking = Tracking {
        dccp: false,
        sctp: false,
        gre: false,
    };
    let ports = |protocol, payload: &str| {
        let parsed = super::parse(&v4(protocol, &hex(payload)), 0, tracking).unwrap();
        parsed.tuple.transport().ports().unwrap()
    };
    assert_eq!(ports(132, "0b590b59 00000000 11223344"), NONE);
    assert_eq!(ports(33, "13890016 06000000 01000000"), NONE);
    assert_eq!(ports(47, "3001 880b 0008 1234 00000001"), NONE);
    assert_eq!(ports(17, UDP), Ports { src: 53000, dst: 53 });
}

#[test]
fn a_packet_without_a_next_header_is_no_connection() {
    assert_eq!(parse(&v6(59, &[]), 0), Err(Unparsable::Malformed));
}

#[test]
fn ipv6_extension_headers_are_passed() {
    let mut payload = hex("2b00 0104 00000000");
    payload.extend(hex("3c00 0000 00000000"));
    payload.extend(hex("2c00 0104 00000000"));
    payload.extend(hex("3300 0001 11111111"));
    payload.extend(hex("0602 0000 00000100 00000001 00000000"));
    payload.extend(hex(SYN));
    let packet = v6(0, &payload);
    assert_eq!(
        shown(&packet, ETHERTYPE_IPV6),
        "tcp [2001:db8::1]:40000 -> [2001:db8::2]:443"
    );
}

#[test]
fn fragments_but_the_first_are_refused() {
    let mut packet = v4(17, &hex(UDP));
    packet[6] = 0x20;
    assert!(parse(&packet, 0).is_ok(), "the first, more follow");
    packet[7] = 0x01;
    assert_eq!(parse(&packet, 0), Err(Unparsable::Fragment));
    let mut first = hex("1100 0001 11111111");
    first.extend(hex(UDP));
    assert!(parse(&v6(44, &first), 0).is_ok());
    first[3] = 0x09;
    assert_eq!(parse(&v6(44, &first), 0), Err(Unparsable::Fragment));
}

#[test]
fn what_is_cut_off_differs_from_what_was_never_there() {
    let whole = v4(6, &hex(SYN));
    assert_eq!(parse(&whole[..30], 0), Err(Unparsable::Truncated));
    let mut lying = whole.clone();
    lying[3] = 30;
    assert_eq!(parse(&lying, 0), Err(Unparsable::Malformed));
    lying[3] = 19;
    assert_eq!(
        parse(&lying, 0),
        Err(Unparsable::Malformed),
        "shorter than its own header"
    );
    let mut offset = whole.clone();
    offset[32] = 0x40;
    assert_eq!(
        parse(&offset, 0),
        Err(Unparsable::Malformed),
        "a TCP header of 16 bytes"
    );
    let mut super_packet = whole;
    super_packet[2..4].copy_from_slice(&[0, 0]);
    assert!(parse(&super_packet, 0).is_ok(), "a super-packet says 0");
    assert_eq!(parse(&[], 0), Err(Unparsable::Truncated));
}

#[test]
fn the_family_must_be_what_it_says() {
    assert_eq!(
        parse(&v4(17, &hex(UDP)), ETHERTYPE_IPV6),
        Err(Unparsable::Malformed)
    );
    assert_eq!(
        parse(&v6(17, &hex(UDP)), ETHERTYPE_IPV4),
        Err(Unparsable::Malformed)
    );
    assert_eq!(parse(&v4(17, &hex(UDP)), 0x0806), Err(Unparsable::NotIp), "ARP");
    assert_eq!(parse(&[0x50, 0, 0, 0], 0), Err(Unparsable::NotIp));
    assert_eq!(
        parse(&v4(58, &[128, 0, 0, 0, 0, 1, 0, 1]), 0),
        Err(Unparsable::Malformed),
        "ICMPv6 in IPv4"
    );
    assert_eq!(
        parse(&v6(1, &[8, 0, 0, 0, 0, 1, 0, 1]), 0),
        Err(Unparsable::Malformed),
        "ICMP in IPv6"
    );
}

#[test]
fn a_mapped_address_on_the_wire_is_no_ipv4_address() {
    let mut packet = v6(17, &hex(UDP));
    let mapped = hex("00000000000000000000ffffc0000201");
    packet[8..24].copy_from_slice(&mapped);
    assert_eq!(parse(&packet, 0), Err(Unparsable::Malformed));
    packet[24..40].copy_from_slice(&mapped);
    assert_eq!(parse(&packet, 0), Err(Unparsable::Malformed));
}

fn built(protocol: u8, v6: bool, payload: &[u8]) -> Vec<u8> {
    let builder = if v6 {
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
    } else {
        PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
    };
    let mut packet = Vec::new();
    match protocol {
        6 => builder.tcp(1, 2, 3, 4).syn().write(&mut packet, payload),
        17 => builder.udp(1, 2).write(&mut packet, payload),
        1 => builder.icmpv4_echo_request(9, 1).write(&mut packet, payload),
        58 => builder.icmpv6_echo_request(9, 1).write(&mut packet, payload),
        _ => builder.write(&mut packet, ip_number::GRE, &[&[0, 0, 8, 0], payload].concat()),
    }
    .unwrap();
    packet
}

fn protocols() -> impl Strategy<Value = (u8, bool)> {
    prop_oneof![
        Just((6, false)),
        Just((6, true)),
        Just((17, false)),
        Just((17, true)),
        Just((1, false)),
        Just((58, true)),
        Just((47, false)),
        Just((47, true)),
    ]
}

proptest! {
    #[test]
    fn no_bytes_can_panic_it(bytes in prop::collection::vec(any::<u8>(), 0..200), hw: u16) {
        let _ = parse(&bytes, hw);
        let _ = parse(&bytes, 0);
    }

    #[test]
    fn a_broken_byte_cannot_panic_it((protocol, family) in protocols(), at in 0usize..100, value: u8) {
        let mut packet = built(protocol, family, &[7; 20]);
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        let _ = parse(&packet, 0);
    }

    #[test]
    fn a_cut_packet_means_the_same_or_nothing((protocol, family) in protocols(), length in 0usize..64) {
        let packet = built(protocol, family, &vec![0xaa; length]);
        let whole = parse(&packet, 0).unwrap();
        for cut in 0..packet.len() {
            match parse(&packet[..cut], 0) {
                Ok(parsed) => prop_assert_eq!(parsed, whole, "cut at {}", cut),
                Err(error) => prop_assert_eq!(error, Unparsable::Truncated, "cut at {}", cut),
            }
        }
    }

    #[test]
    fn what_follows_the_packet_is_not_read((protocol, family) in protocols(), tail in prop::collection::vec(any::<u8>(), 0..40)) {
        let packet = built(protocol, family, &[]);
        let mut padded = packet.clone();
        padded.extend_from_slice(&tail);
        prop_assert_eq!(parse(&packet, 0), parse(&padded, 0));
    }
}
