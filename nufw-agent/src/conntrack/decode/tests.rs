use super::*;
use netlink_packet_core::ParseableParametrized as _;
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use proptest::prelude::*;

fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    nla(kind | 0x8000, &parts.concat())
}

fn attributes(bytes: &[u8]) -> Vec<ConntrackAttribute> {
    match ConntrackMessage::parse_with_param(bytes, 0).unwrap() {
        ConntrackMessage::New(attributes) => attributes,
        other => panic!("{other:?}"),
    }
}

fn v4(src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
    nested(1, &[nla(1, &src), nla(2, &dst)])
}

fn tuple_of(protocol: u8, keys: &[Vec<u8>]) -> Vec<u8> {
    let mut parts = vec![nla(1, &[protocol])];
    parts.extend_from_slice(keys);
    [v4([10, 0, 0, 1], [10, 0, 0, 2]), nested(2, &parts)].concat()
}

fn ports(src: u16, dst: u16) -> Vec<Vec<u8>> {
    vec![nla(2, &src.to_be_bytes()), nla(3, &dst.to_be_bytes())]
}

fn entry_of(original: &[u8], reply: &[u8], more: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [nla(1 | 0x8000, original), nla(2 | 0x8000, reply)].concat();
    bytes.extend(more.concat());
    bytes
}

#[test]
fn sctp_dccp_udplite_and_gre_are_read_though_they_cannot_be_made_here() {
    let key = Ports { src: 1000, dst: 2000 };
    let cases = [
        (132, Transport::Sctp(key)),
        (33, Transport::Dccp(key)),
        (136, Transport::UdpLite(key)),
        (47, Transport::Gre(key)),
    ];
    for (protocol, expected) in cases {
        let tuple = tuple_of(protocol, &ports(1000, 2000));
        let bytes = entry_of(&tuple, &tuple, &[nla(12, &7_u32.to_be_bytes())]);
        let decoded = decode(&attributes(&bytes)).unwrap();
        assert_eq!(decoded.entry.original.transport(), expected);
        assert_eq!(decoded.entry.id, 7);
    }
}

#[test]
fn a_protocol_that_the_kernel_has_no_tracker_for_has_no_ports() {
    let none = Ports { src: 0, dst: 0 };
    let cases = [
        (132, Transport::Sctp(none)),
        (33, Transport::Dccp(none)),
        (136, Transport::UdpLite(none)),
        (47, Transport::Gre(none)),
        (50, Transport::Other(50)),
    ];
    for (protocol, expected) in cases {
        let tuple = tuple_of(protocol, &[]);
        let bytes = entry_of(&tuple, &tuple, &[nla(12, &7_u32.to_be_bytes())]);
        let decoded = decode(&attributes(&bytes)).unwrap();
        assert_eq!(decoded.entry.original.transport(), expected);
    }
}

#[test]
fn the_connection_that_an_entry_belongs_to_is_told() {
    let control = tuple_of(6, &ports(40000, 21));
    let data = tuple_of(6, &ports(20, 40001));
    let id = nla(12, &7_u32.to_be_bytes());
    let master = nested(CTA_TUPLE_MASTER, std::slice::from_ref(&control));
    let decoded = decode(&attributes(&entry_of(&data, &data, &[id.clone(), master]))).unwrap();
    assert_eq!(
        decoded.entry.master.unwrap().to_string(),
        "tcp 10.0.0.1:40000 -> 10.0.0.2:21"
    );
    let broken = nested(CTA_TUPLE_MASTER, &[control[..20].to_vec()]);
    let decoded = decode(&attributes(&entry_of(&data, &data, &[id, broken]))).unwrap();
    assert_eq!(decoded.entry.master, None, "the entry itself is whole");
}

#[test]
fn the_zone_of_one_direction_counts_for_the_original() {
    let tuple = tuple_of(17, &ports(1, 2));
    let with_zone = [tuple.clone(), nla(3, &9_u16.to_be_bytes())].concat();
    let id = nla(12, &7_u32.to_be_bytes());
    let decoded = decode(&attributes(&entry_of(
        &with_zone,
        &tuple,
        std::slice::from_ref(&id),
    )))
    .unwrap();
    assert_eq!(decoded.entry.zone, 9);
    let decoded = decode(&attributes(&entry_of(
        &tuple,
        &with_zone,
        std::slice::from_ref(&id),
    )))
    .unwrap();
    assert_eq!(decoded.entry.zone, 0);
    let decoded = decode(&attributes(&entry_of(
        &tuple,
        &tuple,
        &[id, nla(18, &5_u16.to_be_bytes())],
    )))
    .unwrap();
    assert_eq!(decoded.entry.zone, 5);
}

#[test]
fn what_has_no_identity_is_unrepresentable() {
    let tuple = tuple_of(17, &ports(1, 2));
    let id = nla(12, &7_u32.to_be_bytes());
    let without_id = entry_of(&tuple, &tuple, &[]);
    assert_eq!(
        decode(&attributes(&without_id)),
        Err(Unrepresentable::Missing("id"))
    );
    let portless = tuple_of(6, &[]);
    let bytes = entry_of(&portless, &tuple, std::slice::from_ref(&id));
    assert_eq!(
        decode(&attributes(&bytes)),
        Err(Unrepresentable::Tuple("original"))
    );
    // An IPv4-mapped pair of an IPv6 entry is IPv4 to us, and then ICMPv6 makes no sense.
    let mapped = |last| [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, last]].concat();
    let icmpv6 = [
        nested(1, &[nla(3, &mapped(1)), nla(4, &mapped(2))]),
        nested(2, &[nla(1, &[58]), nla(7, &[0, 1]), nla(8, &[128]), nla(9, &[0])]),
    ]
    .concat();
    let bytes = entry_of(&icmpv6, &icmpv6, &[id]);
    assert_eq!(
        decode(&attributes(&bytes)),
        Err(Unrepresentable::Tuple("original"))
    );
}

#[test]
fn one_direction_without_counters_is_none_at_all() {
    let tuple = tuple_of(17, &ports(1, 2));
    let id = nla(12, &7_u32.to_be_bytes());
    let count = nested(9, &[nla(1, &3_u64.to_be_bytes()), nla(2, &300_u64.to_be_bytes())]);
    let decoded = decode(&attributes(&entry_of(&tuple, &tuple, &[id, count]))).unwrap();
    assert_eq!(decoded.entry.counters, None);
}

proptest! {
    /// Attributes with any bytes: an answer, never a panic.
    #[test]
    fn any_attribute_values_are_read_or_refused(
        values in prop::collection::vec((0_u16..30, prop::collection::vec(any::<u8>(), 0..80)), 0..12),
    ) {
        let tuple = tuple_of(17, &ports(1, 2));
        let more: Vec<Vec<u8>> = values.iter().map(|(kind, value)| nla(*kind, value)).collect();
        let bytes = entry_of(&tuple, &tuple, &more);
        if let Ok(ConntrackMessage::New(attributes)) = ConntrackMessage::parse_with_param(&bytes[..], 0) {
            let _ = decode(&attributes);
        }
    }
}
