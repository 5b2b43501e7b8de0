//! Addresses and tuples cannot hold what must not exist: a mapped address, a mixture of families.

use crate::strategies;
use nufw_proto::{Addr, FamilyMismatch, Ports, Transport, Tuple};
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn is_mapped(addr: Addr) -> bool {
    matches!(addr.ip(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// Any IPv6 address, every second one mapped.
fn any_v6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        any::<u128>().prop_map(Ipv6Addr::from),
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped()),
    ]
}

proptest! {
    #[test]
    fn no_way_of_making_an_address_makes_a_mapped_one(v6 in any_v6()) {
        let ways: [Addr; 4] =
            [v6.into(), IpAddr::V6(v6).into(), v6.to_string().parse().unwrap(), format!("{v6}").parse().unwrap()];
        for addr in ways {
            prop_assert!(!is_mapped(addr));
            prop_assert_eq!(addr, ways[0]);
            prop_assert_eq!(addr.ip(), IpAddr::V6(v6).to_canonical());
        }
    }

    #[test]
    fn a_mapped_address_and_its_ipv4_address_are_one(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from(bits);
        let (plain, mapped) = (Addr::from(v4), Addr::from(v4.to_ipv6_mapped()));
        prop_assert_eq!(plain, mapped);
        prop_assert!(mapped.is_ipv4());
        prop_assert_eq!(HashSet::from([plain, mapped]).len(), 1);
    }

    #[test]
    fn a_mapped_address_is_refused_from_the_wire(bits in any::<u32>()) {
        let mut wire = vec![1];
        wire.extend(Ipv4Addr::from(bits).to_ipv6_mapped().octets());
        prop_assert!(postcard::from_bytes::<Addr>(&wire).is_err());
    }

    #[test]
    fn an_address_reads_back_what_it_shows(addr in strategies::addr()) {
        prop_assert_eq!(addr.to_string().parse(), Ok(addr));
    }

    #[test]
    fn a_tuple_is_of_one_family_or_refused(
        src in strategies::addr(),
        dst in strategies::addr(),
        transport in strategies::transport(),
    ) {
        let fits = src.is_ipv4() == dst.is_ipv4() && match transport {
            Transport::Icmp(_) => src.is_ipv4(),
            Transport::Icmpv6(_) => !src.is_ipv4(),
            _ => true,
        };
        match Tuple::new(src, dst, transport) {
            Ok(tuple) => {
                prop_assert!(fits);
                prop_assert_eq!((tuple.src(), tuple.dst(), tuple.transport()), (src, dst, transport));
            }
            Err(FamilyMismatch) => prop_assert!(!fits),
        }
    }

    #[test]
    fn whatever_the_wire_says_a_tuple_keeps_its_promises(
        src in prop_oneof![any_v6().prop_map(IpAddr::V6), any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()))],
        dst in prop_oneof![any_v6().prop_map(IpAddr::V6), any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()))],
        rest in proptest::collection::vec(0..160_u8, 1..9),
    ) {
        let mut wire = Vec::new();
        for ip in [src, dst] {
            match ip {
                IpAddr::V4(v4) => { wire.push(0); wire.extend(v4.octets()); }
                IpAddr::V6(v6) => { wire.push(1); wire.extend(v6.octets()); }
            }
        }
        wire.push(rest[0] % 8);
        wire.extend(&rest[1..]);
        if let Ok((tuple, _)) = postcard::take_from_bytes::<Tuple>(&wire) {
            prop_assert!(!is_mapped(tuple.src()) && !is_mapped(tuple.dst()));
            prop_assert_eq!(tuple.src().is_ipv4(), tuple.dst().is_ipv4());
            if let Transport::Other(number) = tuple.transport() {
                prop_assert!(![1, 6, 17, 33, 47, 58, 132, 136].contains(&number));
            }
            prop_assert_eq!(Tuple::new(tuple.src(), tuple.dst(), tuple.transport()), Ok(tuple));
        }
    }

    #[test]
    fn another_destination_keeps_source_protocol_and_family(
        tuple in strategies::tuple(),
        dst in strategies::addr(),
        port in proptest::option::of(any::<u16>()),
    ) {
        let Ok(moved) = tuple.with_destination(dst, port) else {
            prop_assert_ne!(tuple.src().is_ipv4(), dst.is_ipv4());
            return Ok(());
        };
        prop_assert_eq!((moved.src(), moved.dst(), moved.protocol()), (tuple.src(), dst, tuple.protocol()));
        let expected = tuple.transport().ports().map(|Ports { src, dst }| Ports { src, dst: port.unwrap_or(dst) });
        prop_assert_eq!(moved.transport().ports(), expected);
        prop_assert_eq!(moved.transport().icmp(), tuple.transport().icmp());
    }

    #[test]
    fn a_transport_is_rebuilt_from_its_parts(transport in strategies::transport()) {
        let rebuilt = Transport::from_parts(transport.protocol(), transport.ports(), transport.icmp());
        prop_assert_eq!(rebuilt, Some(transport));
    }
}

#[test]
fn a_protocol_with_a_form_of_its_own_is_refused_as_other() {
    for number in 0..=u8::MAX {
        let other = postcard::from_bytes::<Transport>(&[7, number]);
        if [1, 6, 17, 33, 47, 58, 132, 136].contains(&number) {
            assert!(other.is_err(), "{number}");
        } else {
            assert_eq!(other, Ok(Transport::Other(number)));
        }
    }
}

#[test]
fn a_protocol_that_needs_ports_or_a_type_is_not_made_without() {
    for protocol in [1, 6, 17, 33, 58, 132, 136] {
        assert_eq!(Transport::from_parts(protocol, None, None), None);
    }
    assert_eq!(Transport::from_parts(50, None, None), Some(Transport::Other(50)));
    let no_keys = Transport::Gre(Ports { src: 0, dst: 0 });
    assert_eq!(Transport::from_parts(47, None, None), Some(no_keys));
}
