//! How the protocol grows: an unknown frame is skipped if it says that it may be, else it ends the connection.

use crate::samples::{Sample, for_every_direction, frame, read_whole};
use nufw_proto::{Decoded, FRAME_HEADER, MAX_BODY, Message, WireError, decode, encode_ignorable};
use std::collections::BTreeSet;
use std::fmt::Debug;

fn unknown_frame(frame_type: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(frame_type.to_be_bytes());
    frame.extend(flags.to_be_bytes());
    frame.extend(body);
    frame
}

#[test]
fn every_unknown_type_is_skipped_when_ignorable_and_refused_when_not() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        let known: BTreeSet<u16> = samples.iter().map(|sample| sample.message.frame_type()).collect();
        for frame_type in (0..=u16::MAX).filter(|frame_type| !known.contains(frame_type)) {
            let body = b"a later version's facts";
            assert_eq!(
                decode::<M>(&unknown_frame(frame_type, 1, body), MAX_BODY),
                Ok(Decoded::Skipped(FRAME_HEADER + body.len()))
            );
            assert_eq!(
                decode::<M>(&unknown_frame(frame_type, 0, body), MAX_BODY),
                Err(WireError::UnknownType(frame_type))
            );
        }
    }
    for_every_direction!(check);
}

#[test]
fn a_skipped_frame_obeys_the_size_limit_too() {
    let frame = unknown_frame(60_000, 1, &[0; 101]);
    assert_eq!(
        decode::<nufw_proto::gateway::ToServer>(&frame, 100),
        Err(WireError::TooLarge { found: 101, max: 100 })
    );
}

#[test]
fn a_known_message_is_read_whether_it_is_ignorable_or_not() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { message, .. } in samples {
            let mut frame = Vec::new();
            encode_ignorable(message, &mut frame).unwrap();
            assert_eq!(frame[6..8], [0, 1]);
            assert_eq!(&read_whole::<M>(&frame), message);
        }
    }
    for_every_direction!(check);
}

#[test]
fn what_an_older_receiver_may_miss_says_so() {
    fn ignorable<M: Message>(samples: &[Sample<M>]) -> BTreeSet<u16> {
        let flagged = samples.iter().filter(|sample| frame(&sample.message)[7] == 1);
        flagged.map(|sample| sample.message.frame_type()).collect()
    }
    assert_eq!(
        ignorable(&crate::samples::agent_to_server()),
        BTreeSet::from([17])
    );
    assert_eq!(
        ignorable(&crate::samples::server_to_agent()),
        BTreeSet::from([140])
    );
    assert!(ignorable(&crate::samples::client_to_server()).is_empty());
    assert!(ignorable(&crate::samples::server_to_client()).is_empty());
}

#[test]
fn every_reserved_flag_is_refused_even_with_the_ignorable_one() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { message, .. } in samples {
            for bit in 1..16 {
                for flags in [1 << bit, 1 << bit | 1] {
                    let mut frame = frame(message);
                    frame[6..8].copy_from_slice(&u16::to_be_bytes(flags));
                    assert_eq!(
                        decode::<M>(&frame, MAX_BODY),
                        Err(WireError::ReservedFlags(flags))
                    );
                }
            }
        }
    }
    for_every_direction!(check);
}
