use super::*;
use nufw_proto::{Addr, Ports, Transport, Tuple};
use proptest::prelude::*;
use std::net::IpAddr;

fn disposition() -> impl Strategy<Value = Disposition> {
    prop_oneof![
        Just(Disposition::Drop),
        any::<Option<u32>>().prop_map(|mark| Disposition::Accept { mark }),
        any::<Option<u32>>().prop_map(|mark| Disposition::Repeat { mark }),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let addresses = prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        any::<([u16; 8], [u16; 8])>().prop_map(|(mut a, mut b)| {
            // Not one that stands for an IPv4 address.
            (a[0], b[0]) = (0xfd00, 0xfd00);
            (IpAddr::from(a), IpAddr::from(b))
        }),
    ];
    (any::<u32>(), any::<u16>(), addresses, any::<(u16, u16)>()).prop_map(|(id, zone, (a, b), (src, dst))| {
        let ports = Transport::Tcp(Ports { src, dst });
        let original = Tuple::new(Addr::from(a), Addr::from(b), ports).unwrap();
        Target { id, zone, original }
    })
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        Just(Order::Look),
        Just(Order::Delete),
        any::<(u32, u32)>().prop_map(|(value, mask)| Order::Mark { value, mask }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let verdicts = prop::collection::vec((any::<u16>(), any::<u32>(), disposition()), 1..40);
    let wanted = prop::collection::vec((any::<u32>(), target(), order()), 1..=IN_FLIGHT);
    prop_oneof![
        Just(Request::Ready),
        Just(Request::Beat),
        Just(Request::Reloaded),
        Just(Request::Dump),
        any::<bool>().prop_map(|mend| Request::Rules { mend }),
        verdicts.prop_map(Request::Verdicts),
        wanted.prop_map(Request::Control),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let queues = prop::collection::vec(any::<(u16, u16)>().prop_map(|(a, b)| a..=b), 0..MAX_QUEUES);
    let open = any::<(bool, bool)>().prop_map(|(metrics, status)| Open { metrics, status });
    prop_oneof![
        any::<i32>().prop_map(Reply::Done),
        (any::<u32>(), any::<u32>(), queues, any::<Option<bool>>(), open).prop_map(
            |(parent, generation, queues, events, open)| Reply::Start(Start {
                parent,
                generation,
                queues,
                events,
                open,
            })
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(request in request(), reply in reply()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    /// Whatever a worker that was taken over sends: it is refused, or it is one of the listed requests in the one form
    /// that it has.
    #[test]
    fn only_listed_requests_in_their_only_form_are_understood(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0u8..10,
    ) {
        for bytes in [bytes.clone(), [&[kind], bytes.as_slice()].concat()] {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(&request.encode(), &bytes);
            }
            if let Ok(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(&reply.encode(), &bytes);
            }
        }
    }

    #[test]
    fn a_damaged_verdict_is_another_verdict_or_refused(
        at in 0usize..25,
        value: u8,
        verdicts in prop::collection::vec((any::<u16>(), any::<u32>(), disposition()), 2),
    ) {
        let mut bytes = Request::Verdicts(verdicts).encode();
        bytes[at] = value;
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(&request.encode(), &bytes);
        }
    }
}

#[test]
fn a_request_holds_512_verdicts_and_not_one_more() {
    let of = |count: u32| {
        let verdicts = (0..count).map(|id| (0, id, Disposition::Drop)).collect();
        Request::Verdicts(verdicts).encode()
    };
    assert_eq!(of(512).len(), MAX_MESSAGE);
    assert!(Request::decode(&of(512)).is_ok());
    assert_eq!(
        Request::decode(&of(513)),
        Err(Malformed::Length {
            kind: VERDICTS,
            found: 513 * 12
        })
    );
    assert!(Request::decode(&of(0)).is_err(), "and at least one");
}

#[test]
fn codes_that_the_kernel_has_and_the_list_has_not_are_refused() {
    // NF_STOLEN is 2 in the kernel, NF_QUEUE 3, NF_STOP 5; here the numbers are others and end at 4.
    let mut bytes = Request::Verdicts(vec![(0, 1, Disposition::Drop)]).encode();
    bytes[3] = 5;
    assert_eq!(
        Request::decode(&bytes),
        Err(Malformed::Value {
            kind: VERDICTS,
            found: 5
        })
    );
    // A drop has no mark.
    bytes[3] = 0;
    bytes[9] = 1;
    assert!(Request::decode(&bytes).is_err());
}

#[test]
fn a_request_about_entries_holds_16_of_them_in_their_one_form() {
    let of = |count: u32| {
        let address = |last| Addr::from(IpAddr::from([192, 0, 2, last]));
        let ports = Transport::Udp(Ports { src: 1, dst: 2 });
        let original = Tuple::new(address(1), address(2), ports).unwrap();
        let target = Target {
            id: 7,
            zone: 0,
            original,
        };
        let wanted = (0..count).map(|token| (token, target, Order::Delete)).collect();
        Request::Control(wanted).encode()
    };
    assert!(Request::decode(&of(16)).is_ok());
    assert!(Request::decode(&of(17)).is_err());
    assert!(Request::decode(&of(0)).is_err(), "and at least one");
    let longer = [of(1), vec![0]].concat();
    assert!(Request::decode(&longer).is_err(), "a byte too many");
}
