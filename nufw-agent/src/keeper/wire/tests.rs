use super::*;
use proptest::prelude::*;

fn disposition() -> impl Strategy<Value = Disposition> {
    prop_oneof![
        Just(Disposition::Drop),
        any::<Option<u32>>().prop_map(|mark| Disposition::Accept { mark }),
        any::<Option<u32>>().prop_map(|mark| Disposition::Repeat { mark }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let verdicts = prop::collection::vec((any::<u32>(), disposition()), 1..40);
    prop_oneof![
        Just(Request::Ready),
        Just(Request::Beat),
        Just(Request::Dump),
        Just(Request::Rules),
        (any::<u16>(), verdicts).prop_map(|(queue, verdicts)| Request::Verdicts { queue, verdicts }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let queues = prop::collection::vec(any::<u16>(), 0..MAX_QUEUES);
    prop_oneof![
        any::<i32>().prop_map(Reply::Done),
        (any::<u32>(), any::<u32>(), queues, any::<Option<bool>>()).prop_map(
            |(parent, generation, queues, events)| Reply::Start(Start {
                parent,
                generation,
                queues,
                events,
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
        kind in 0u8..8,
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
        at in 0usize..27,
        value: u8,
        verdicts in prop::collection::vec((any::<u32>(), disposition()), 2),
    ) {
        let mut bytes = Request::Verdicts { queue: 7, verdicts }.encode();
        bytes[at] = value;
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(&request.encode(), &bytes);
        }
    }
}

#[test]
fn a_request_holds_512_verdicts_and_not_one_more() {
    let of = |count: u32| {
        let verdicts = (0..count).map(|id| (id, Disposition::Drop)).collect();
        Request::Verdicts { queue: 0, verdicts }.encode()
    };
    assert_eq!(of(512).len(), MAX_MESSAGE);
    assert!(Request::decode(&of(512)).is_ok());
    assert_eq!(
        Request::decode(&of(513)),
        Err(Malformed::Length {
            kind: VERDICTS,
            found: 2 + 513 * 12
        })
    );
    assert!(Request::decode(&of(0)).is_err(), "and at least one");
}

#[test]
fn codes_that_the_kernel_has_and_the_list_has_not_are_refused() {
    // NF_STOLEN is 2 in the kernel, NF_QUEUE 3, NF_STOP 5; here the numbers are others and end at 4.
    let mut bytes = Request::Verdicts {
        queue: 0,
        verdicts: vec![(1, Disposition::Drop)],
    }
    .encode();
    bytes[7] = 5;
    assert_eq!(
        Request::decode(&bytes),
        Err(Malformed::Value {
            kind: VERDICTS,
            found: 5
        })
    );
    // A drop has no mark.
    bytes[7] = 0;
    bytes[11] = 1;
    assert!(Request::decode(&bytes).is_err());
}
