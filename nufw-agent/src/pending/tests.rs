use super::*;
use nufw_common::clock;
use proptest::prelude::*;
use std::collections::BTreeMap;

const TIMEOUT: Duration = Duration::from_secs(15);

#[test]
fn a_full_table_refuses_and_forgets_nobody() {
    let now = clock::mono();
    let mut pending = Pending::new(2, TIMEOUT);
    let first = pending.insert(10, now).unwrap();
    let second = pending.insert(11, now).unwrap();
    assert_eq!(pending.insert(12, now), Err(Full));
    assert_eq!(pending.answer(first), Some(10));
    let third = pending.insert(12, now).unwrap();
    assert_eq!(
        (pending.answer(second), pending.answer(third)),
        (Some(11), Some(12))
    );
}

#[test]
fn what_is_answered_costs_nothing_later() {
    let now = clock::mono();
    let mut pending = Pending::new(100, TIMEOUT);
    let stuck = pending.insert(0, now).unwrap();
    for packet in 1..100_000 {
        let ask = pending.insert(packet, now).unwrap();
        assert_eq!(pending.answer(ask), Some(packet));
    }
    assert!(pending.deadlines.len() <= 201, "{}", pending.deadlines.len());
    assert_eq!(pending.answer(stuck), Some(0));
    assert!(pending.deadlines.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Insert,
    Answer(prop::sample::Index),
    Again(prop::sample::Index),
    Wait(u64),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Insert),
        6 => any::<prop::sample::Index>().prop_map(Step::Answer),
        1 => any::<prop::sample::Index>().prop_map(Step::Again),
        2 => (0_u64..20).prop_map(Step::Wait),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    /// Against a plain map: every packet leaves exactly once, by the right door, and names are never used again.
    #[test]
    fn every_packet_leaves_exactly_once(steps in prop::collection::vec(step(), 0..400)) {
        let mut now = clock::mono();
        let mut pending = Pending::new(20, TIMEOUT);
        let mut model: BTreeMap<AskId, (u32, Instant)> = BTreeMap::new();
        let mut gone: Vec<AskId> = Vec::new();
        let mut packet = 0;
        for step in steps {
            match step {
                Step::Insert => {
                    packet += 1;
                    if let Ok(ask) = pending.insert(packet, now) {
                        prop_assert!(model.len() < 20);
                        prop_assert!(!gone.contains(&ask));
                        prop_assert!(model.insert(ask, (packet, now + TIMEOUT)).is_none());
                    } else {
                        prop_assert_eq!(model.len(), 20);
                    }
                }
                Step::Answer(which) if !model.is_empty() => {
                    let ask = *which.get(&model.keys().copied().collect::<Vec<_>>());
                    prop_assert_eq!(pending.answer(ask), model.remove(&ask).map(|(packet, _)| packet));
                    gone.push(ask);
                }
                Step::Again(which) if !gone.is_empty() => {
                    prop_assert_eq!(pending.answer(*which.get(&gone)), None);
                }
                Step::Answer(_) | Step::Again(_) => {}
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    while let Some((ask, packet)) = pending.expire(now) {
                        let (expected, deadline) = model.remove(&ask).unwrap();
                        prop_assert_eq!(packet, expected);
                        prop_assert!(deadline <= now);
                        gone.push(ask);
                    }
                    prop_assert!(model.values().all(|(_, deadline)| *deadline > now));
                }
                Step::Drain => {
                    let mut drained: Vec<u32> = pending.drain().collect();
                    drained.sort_unstable();
                    let mut expected: Vec<u32> = model.values().map(|(packet, _)| *packet).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(drained, expected);
                    gone.extend(std::mem::take(&mut model).into_keys());
                }
            }
            prop_assert_eq!(pending.len(), model.len());
        }
    }
}
