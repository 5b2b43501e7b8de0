use super::*;
use nufw_proto::{
    Addr, Count, Counters, CtEntry, CtEventKind, CtStatus, Mark, Ports, Removal, TcpState, Transport, Tuple,
};
use proptest::prelude::*;
use std::net::Ipv6Addr;

fn event(number: u64) -> CtEvent {
    let address = |last| Addr::from(Ipv6Addr::new(0xfd00, !0, !0, !0, !0, !0, !0, last));
    let ports = Transport::Tcp(Ports {
        src: u16::MAX,
        dst: u16::MAX,
    });
    let tuple = Tuple::new(address(1), address(2), ports).unwrap();
    let most = Count {
        packets: u64::MAX,
        bytes: u64::MAX,
    };
    let time = Some(Timestamp::from_micros(i64::MIN));
    CtEvent {
        kind: CtEventKind::Destroy,
        entry: CtEntry {
            id: u32::MAX,
            zone: u16::MAX,
            original: tuple,
            reply: tuple,
            mark: Mark(u32::MAX),
            status: CtStatus(u32::MAX),
            tcp_state: Some(TcpState(u8::MAX)),
            counters: Some(Counters {
                original: most,
                reply: most,
            }),
            start: time,
            stop: time,
            master: Some(tuple),
        },
        at: Timestamp::from_micros(number.cast_signed()),
        at_kernel: true,
        removal: Removal::ByProgram,
    }
}

const MAX: usize = 2000;

fn open(memory: &OwnedFd) -> (Memory, Hand, Left) {
    let copy = memory.try_clone().unwrap();
    Memory::open(copy, BootId(99), Timestamp::from_micros(5)).unwrap()
}

#[test]
fn the_largest_event_fits_its_slot() {
    let mut space = [0; SLOT - 10];
    // With room for a few fields more.
    assert!(
        postcard::to_slice(&event(u64::MAX >> 1), &mut space)
            .unwrap()
            .len()
            < SLOT - 30
    );
}

/// Another number in [`LAYOUT`] is due when this fails: a successor of another version would read nonsense.
#[test]
fn the_layout_is_that_of_its_number() {
    let mut space = [0; SLOT];
    let length = postcard::to_slice(&event(7), &mut space).unwrap().len();
    assert_eq!((LAYOUT, length), (u64::from_be_bytes(*b"nufwEv02"), 211));
}

#[test]
fn a_successor_finds_what_was_committed_and_nothing_else() {
    let memory = make(BootId(7), MAX).unwrap();
    assert!(fits(memory.as_fd(), MAX));
    assert!(!fits(memory.as_fd(), MAX + 1));
    {
        let (mut first, _, left) = open(&memory);
        assert_eq!((first.boot(), left.predecessors, left.first), (BootId(7), 0, 1));
        for number in 1..=10 {
            first.add(&event(number));
        }
        first.commit(EventSeq(1));
        first.keep_from(EventSeq(4));
        first.note_packet(0, 4711);
        first.note_packet(63, 4712);
        first.add(&event(11));
        // It dies before the last one counts.
    }
    assert_eq!(last_packet(memory.as_fd(), 0), 4711);
    assert_eq!(last_packet(memory.as_fd(), 63), 4712, "each queue has its own");
    let (mut second, _, left) = open(&memory);
    assert_eq!((second.boot(), left.predecessors, left.first), (BootId(7), 1, 4));
    assert_eq!(left.events, (4..=10).map(event).collect::<Vec<_>>());
    assert_eq!(second.next(), EventSeq(11));
}

#[test]
fn it_holds_as_many_events_as_may_be_unacknowledged_for_ever() {
    let memory = make(BootId(7), MAX).unwrap();
    let max = MAX as u64;
    {
        let (mut first, _, _) = open(&memory);
        for number in 1..=40 * max {
            first.add(&event(number));
            first.commit(EventSeq(number.saturating_sub(max) + 1));
        }
    }
    let (_, _, left) = open(&memory);
    assert_eq!(left.first, 39 * max + 1);
    assert_eq!(
        left.events,
        (39 * max + 1..=40 * max).map(event).collect::<Vec<_>>()
    );
}

#[test]
fn memory_of_forgotten_events_is_given_back() {
    let memory = make(BootId(7), 100_000).unwrap();
    let blocks = || rustix::fs::fstat(&memory).unwrap().st_blocks;
    let (mut first, _, _) = open(&memory);
    for number in 1..=50_000 {
        first.add(&event(number));
    }
    first.commit(EventSeq(1));
    let full = blocks();
    first.keep_from(EventSeq(50_001));
    assert!(blocks() * 8 < full, "{} of {full}", blocks());
}

#[test]
fn what_was_read_and_did_not_become_an_event_is_found_in_hand() {
    let memory = make(BootId(7), MAX).unwrap();
    let datagram = |byte: u8| {
        let mut bytes = 20u32.to_ne_bytes().to_vec();
        bytes.extend([byte; 16]);
        bytes
    };
    {
        let (mut first, mut hand, _) = open(&memory);
        hand.hold(first.next());
        for (index, byte) in [(0, 1), (1, 2)] {
            hand.place(index)[..20].copy_from_slice(&datagram(byte));
        }
        // These became events.
        first.add(&event(1));
        first.add(&event(2));
        first.commit(EventSeq(1));
        hand.hold(first.next());
        hand.place(0)[..20].copy_from_slice(&datagram(3));
        // It asked for another, and none came.
        hand.place(1);
    }
    let (_, _, left) = open(&memory);
    assert_eq!(left.events.len(), 2);
    assert_eq!(left.datagrams, [datagram(3)]);
}

#[test]
fn a_gap_is_told_until_what_followed_it_is_durable() {
    let memory = make(BootId(7), MAX).unwrap();
    let gap = Some(Gap {
        from: Timestamp::from_micros(3),
        to: Timestamp::from_micros(5),
        cause: GapCause::NetlinkOverrun,
    });
    {
        let (mut first, _, _) = open(&memory);
        first.note_gap(Timestamp::from_micros(3));
        first.add(&event(1));
        first.commit(EventSeq(1));
    }
    {
        let (mut second, _, left) = open(&memory);
        assert_eq!(left.gap, gap);
        second.keep_from(EventSeq(2));
    }
    assert_eq!(open(&memory).2.gap, None);
}

proptest! {
    /// A worker that was taken over leaves anything: its successor begins a new boot at worst.
    #[test]
    fn nonsense_is_survived(at in 0u64..80, bytes in prop::collection::vec(any::<u8>(), 1..40)) {
        let memory = make(BootId(7), MAX).unwrap();
        {
            let (mut first, _, _) = open(&memory);
            first.add(&event(1));
            first.commit(EventSeq(1));
        }
        rustix::io::pwrite(&memory, &bytes, at).unwrap();
        let copy = memory.try_clone().unwrap();
        if let Ok((mut second, _, left)) = Memory::open(copy, BootId(99), Timestamp::from_micros(5)) {
            prop_assert!(left.events.len() <= MAX + SPARE);
            second.add(&event(2));
            second.commit(second.next());
        }
    }
}
