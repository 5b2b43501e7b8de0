//! A part of a message is never taken for a message, and neither is a message with something behind it.

use crate::samples::{Sample, for_every_direction, frame};
use nufw_proto::{Decoded, FRAME_HEADER, MAX_BODY, Message, WireError, decode};
use std::fmt::Debug;

#[test]
fn every_prefix_of_every_body_is_refused() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { name, case, message } in samples {
            let whole = frame(message);
            for length in 0..whole.len() - FRAME_HEADER {
                let mut cut = whole[..FRAME_HEADER + length].to_vec();
                cut[..4].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
                let refused = decode::<M>(&cut, MAX_BODY);
                assert!(
                    matches!(refused, Err(WireError::Malformed { message, .. }) if message == M::NAME),
                    "{} {name} {case} cut to {length}: {refused:?}",
                    M::NAME
                );
            }
        }
    }
    for_every_direction!(check);
}

#[test]
fn every_prefix_of_every_frame_asks_for_the_bytes_that_are_missing() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { message, .. } in samples {
            let whole = frame(message);
            for length in 0..whole.len() {
                let wanted = if length < FRAME_HEADER {
                    FRAME_HEADER
                } else {
                    whole.len()
                };
                assert_eq!(
                    decode::<M>(&whole[..length], MAX_BODY),
                    Ok(Decoded::NeedBytes(wanted))
                );
            }
        }
    }
    for_every_direction!(check);
}

#[test]
fn bytes_behind_a_message_are_refused() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { name, case, message } in samples {
            for left in [1, 2, 300] {
                let mut long = frame(message);
                long.extend(std::iter::repeat_n(0, left));
                let length = u32::try_from(long.len() - FRAME_HEADER).unwrap();
                long[..4].copy_from_slice(&length.to_be_bytes());
                let expected = WireError::TrailingBytes {
                    message: M::NAME,
                    frame_type: message.frame_type(),
                    left,
                };
                assert_eq!(
                    decode::<M>(&long, MAX_BODY),
                    Err(expected),
                    "{} {name} {case}",
                    M::NAME
                );
            }
        }
    }
    for_every_direction!(check);
}
