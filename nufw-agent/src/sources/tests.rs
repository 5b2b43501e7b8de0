use super::*;
use nufw_common::clock;
use nufw_proto::Batch;
use std::net::Ipv4Addr;

fn addr(n: u32) -> Addr {
    Addr::from(Ipv4Addr::from_bits(n))
}

fn news(reset: bool, added: &[u32], removed: &[u32], others_can_pass: bool) -> KnownAddresses {
    let batch =
        |numbers: &[u32]| Batch::try_from(numbers.iter().copied().map(addr).collect::<Vec<_>>()).unwrap();
    KnownAddresses {
        reset,
        added: batch(added),
        removed: batch(removed),
        others_can_pass,
    }
}

fn asked(sources: &mut Sources, source: u32, times: u32, now: Instant) -> u32 {
    (0..times)
        .map(|_| u32::from(sources.may_ask(addr(source), now)))
        .sum()
}

#[test]
fn until_the_server_speaks_everybody_may_be_asked_for() {
    let now = clock::mono();
    assert_eq!(asked(&mut Sources::new(now), 1, 1000, now), 1000);
}

#[test]
fn an_address_with_a_session_is_never_limited_and_others_are() {
    let now = clock::mono();
    let mut sources = Sources::new(now);
    assert!(sources.learn(&news(true, &[1], &[], false)));
    assert_eq!(asked(&mut sources, 1, 1000, now), 1000);
    assert_eq!(asked(&mut sources, 2, 1000, now), UNKNOWN_PER_SOURCE);
    let later = now + Duration::from_millis(500);
    assert_eq!(asked(&mut sources, 2, 1000, later), UNKNOWN_PER_SOURCE / 2);
    sources.learn(&news(false, &[2], &[1], false));
    assert_eq!(asked(&mut sources, 2, 1000, later), 1000);
    assert_eq!(asked(&mut sources, 1, 1000, later), UNKNOWN_PER_SOURCE);
    sources.learn(&news(false, &[], &[], true));
    assert_eq!(asked(&mut sources, 1, 1000, later), 1000);
}

#[test]
fn a_reset_forgets() {
    let now = clock::mono();
    let mut sources = Sources::new(now);
    sources.learn(&news(true, &[1, 2], &[], false));
    sources.learn(&news(true, &[3], &[], false));
    assert_eq!(sources.known(), 1);
    assert_eq!(asked(&mut sources, 1, 100, now), UNKNOWN_PER_SOURCE);
}

#[test]
fn all_unknown_addresses_share_a_limit() {
    let now = clock::mono();
    let mut sources = Sources::new(now);
    sources.learn(&news(true, &[], &[], false));
    let total: u32 = (0..1000).map(|n| asked(&mut sources, n, 5, now)).sum();
    assert_eq!(total, UNKNOWN_TOGETHER);
}

#[test]
fn the_table_is_bounded_and_makes_room_for_others_after_a_second() {
    let now = clock::mono();
    let mut sources = Sources::new(now);
    sources.learn(&news(true, &[], &[], false));
    for n in 0..100_000 {
        sources.may_ask(addr(n), now + Duration::from_millis(1));
    }
    assert_eq!(sources.counted.len(), MAX_COUNTED);
    assert!(sources.may_ask(addr(200_000), now + Duration::from_secs(2)));
    assert_eq!(sources.counted.len(), 1);
}
