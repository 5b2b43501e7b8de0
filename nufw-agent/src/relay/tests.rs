use super::*;
use nufw_proto::{Addr, CtEntry, CtEventKind, CtStatus, Mark, Ports, Removal, Transport, Tuple};
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn event(n: i64) -> CtEvent {
    let tuple = Tuple::new(
        Addr::from(Ipv4Addr::new(10, 0, 0, 1)),
        Addr::from(Ipv4Addr::new(10, 0, 0, 2)),
        Transport::Udp(Ports { src: 1, dst: 2 }),
    )
    .unwrap();
    CtEvent {
        kind: CtEventKind::New,
        entry: CtEntry {
            id: 0,
            zone: 0,
            original: tuple,
            reply: tuple,
            master: None,
            mark: Mark(0),
            status: CtStatus(0),
            tcp_state: None,
            counters: None,
            start: None,
            stop: None,
        },
        at: Timestamp::from_micros(n),
        at_kernel: true,
        removal: Removal::Unsaid,
    }
}

fn gap(at: i64) -> Gap {
    let at = Timestamp::from_micros(at);
    Gap {
        from: at,
        to: at,
        cause: GapCause::NetlinkOverrun,
    }
}

fn sent(relay: &mut Relay) -> Vec<ToServer> {
    std::iter::from_fn(|| relay.next_message()).collect()
}

/// Numbers of the events, each checked to be the event pushed as the n-th.
fn numbers(messages: &[ToServer]) -> Vec<u64> {
    let mut numbers = Vec::new();
    for message in messages {
        if let ToServer::Events(events) = message {
            for (number, event) in (events.first.0..).zip(events.events.iter()) {
                assert_eq!(event.at.micros(), i64::try_from(number).unwrap());
                numbers.push(number);
            }
        }
    }
    numbers
}

#[test]
fn events_are_numbered_from_one_sent_once_and_forgotten_when_durable() {
    let mut relay = Relay::new(10);
    assert_eq!(relay.first_held(), EventSeq(1));
    for n in 1..=5 {
        assert_eq!(relay.push(event(n)), Overflow::None);
    }
    assert_eq!(numbers(&sent(&mut relay)), [1, 2, 3, 4, 5]);
    assert!(sent(&mut relay).is_empty());
    relay.acknowledge(EventSeq(3)).unwrap();
    assert_eq!((relay.first_held(), relay.len()), (EventSeq(4), 2));
    relay.acknowledge(EventSeq(2)).unwrap();
    assert_eq!(relay.len(), 2);
}

#[test]
fn a_new_link_carries_what_is_not_durable() {
    let mut relay = Relay::new(10);
    for n in 1..=5 {
        relay.push(event(n));
    }
    sent(&mut relay);
    relay.resume(EventSeq(2)).unwrap();
    assert_eq!(numbers(&sent(&mut relay)), [3, 4, 5]);
    relay.resume(EventSeq(0)).unwrap();
    assert_eq!(numbers(&sent(&mut relay)), [3, 4, 5]);
    relay.resume(EventSeq(5)).unwrap();
    assert!(sent(&mut relay).is_empty());
    assert_eq!(relay.first_held(), EventSeq(6));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut relay = Relay::new(10);
    for n in 1..=3 {
        relay.push(event(n));
    }
    assert!(relay.acknowledge(EventSeq(1)).is_err());
    assert!(relay.resume(EventSeq(4)).is_err());
    relay.resume(EventSeq(3)).unwrap();
    assert!(relay.is_empty());
}

#[test]
fn at_the_limit_the_oldest_goes_and_a_gap_tells() {
    let mut relay = Relay::new(3);
    for n in 1..=5 {
        let expected = if n <= 3 { Overflow::None } else { Overflow::Unsent };
        assert_eq!(relay.push(event(n)), expected);
    }
    assert_eq!(relay.first_held(), EventSeq(3));
    relay.resume(EventSeq(0)).unwrap();
    let messages = sent(&mut relay);
    let ToServer::Gap(gap) = &messages[0] else {
        panic!("{messages:?}")
    };
    assert_eq!(
        (gap.from.micros(), gap.to.micros(), gap.cause),
        (1, 2, GapCause::StoreFull)
    );
    assert_eq!(numbers(&messages), [3, 4, 5]);
    assert_eq!(relay.push(event(6)), Overflow::Sent);
    let messages = sent(&mut relay);
    assert!(
        matches!(&messages[..], [ToServer::Gap(_), ToServer::Events(_)]),
        "{messages:?}"
    );
}

#[test]
fn a_gap_keeps_its_place_and_is_told_again_until_what_follows_is_durable() {
    let mut relay = Relay::new(10);
    relay.push(event(1));
    relay.note_gap(gap(1));
    relay.note_gap(gap(2));
    relay.push(event(2));
    for _ in 0..2 {
        let messages = sent(&mut relay);
        let [
            ToServer::Events(before),
            ToServer::Gap(told),
            ToServer::Events(after),
        ] = &messages[..]
        else {
            panic!("{messages:?}");
        };
        assert_eq!(
            (before.first, told.to.micros(), after.first),
            (EventSeq(1), 2, EventSeq(2))
        );
        relay.resume(EventSeq(0)).unwrap();
    }
    sent(&mut relay);
    relay.acknowledge(EventSeq(2)).unwrap();
    relay.resume(EventSeq(2)).unwrap();
    assert!(!relay.has_unsent());
}

#[test]
fn gaps_are_bounded() {
    let mut relay = Relay::new(10_000);
    for n in 1..=1000 {
        relay.push(event(n));
        relay.note_gap(gap(n));
    }
    let messages = sent(&mut relay);
    let gaps: Vec<_> = messages
        .iter()
        .filter(|m| matches!(m, ToServer::Gap(_)))
        .collect();
    assert_eq!(gaps.len(), MAX_GAPS);
    assert!(matches!(gaps[MAX_GAPS - 1], ToServer::Gap(last) if last.to.micros() == 1000));
    assert_eq!(numbers(&messages).len(), 1000);
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Gap,
    Send,
    Ack(prop::sample::Index),
    NewLink(prop::sample::Index),
}

proptest! {
    /// Whatever is lost on the way: over all links the server sees every event in order, without holes that no gap
    /// tells of, and never one that was durable before the link began.
    #[test]
    fn nothing_is_lost_in_silence(
        max in 1_usize..20,
        steps in prop::collection::vec(
            prop_oneof![
                8 => Just(Step::Push),
                1 => Just(Step::Gap),
                4 => Just(Step::Send),
                2 => any::<prop::sample::Index>().prop_map(Step::Ack),
                1 => any::<prop::sample::Index>().prop_map(Step::NewLink),
            ],
            0..300,
        ),
    ) {
        let mut relay = Relay::new(max);
        let (mut pushed, mut durable, mut seen) = (0_u64, 0_u64, 0_u64);
        let mut told_gap = false;
        for step in steps {
            match step {
                Step::Push => {
                    pushed += 1;
                    relay.push(event(i64::try_from(pushed).unwrap()));
                }
                Step::Gap => relay.note_gap(gap(i64::try_from(pushed).unwrap())),
                Step::Send => {
                    let messages = sent(&mut relay);
                    told_gap |= messages.iter().any(|m| matches!(m, ToServer::Gap(_)));
                    for number in numbers(&messages) {
                        prop_assert!(number == seen + 1 || (number > seen && told_gap), "{number} after {seen}");
                        seen = number;
                    }
                    prop_assert_eq!(seen.max(durable), pushed);
                    prop_assert!(!relay.has_unsent());
                }
                Step::Ack(which) => {
                    let through = durable + which.index(usize::try_from(seen - durable).unwrap() + 1) as u64;
                    prop_assert!(relay.acknowledge(EventSeq(through)).is_ok());
                    durable = through;
                }
                Step::NewLink(which) => {
                    // The server may have made durable what its acknowledgement did not bring back.
                    durable += which.index(usize::try_from(seen - durable).unwrap() + 1) as u64;
                    prop_assert!(relay.resume(EventSeq(durable)).is_ok());
                    seen = durable;
                    told_gap = false;
                }
            }
            prop_assert!(relay.len() <= max);
            prop_assert!(relay.first_held().0 <= pushed + 1);
        }
    }
}
