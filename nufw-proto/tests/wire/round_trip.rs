//! Every message comes out of its frame as it went in.

use crate::samples::{Sample, for_every_direction, frame, read_whole};
use nufw_proto::{Decoded, FRAME_HEADER, Flags, MAX_BODY, Message, decode};
use std::collections::BTreeSet;
use std::fmt::Debug;

#[test]
fn every_message_goes_there_and_back() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { name, case, message } in samples {
            let frame = frame(message);
            assert_eq!(&read_whole::<M>(&frame), message, "{} {name} {case}", M::NAME);
        }
    }
    for_every_direction!(check);
}

#[test]
fn only_the_first_frame_of_a_buffer_is_read() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        let stream: Vec<u8> = samples.iter().flat_map(|sample| frame(&sample.message)).collect();
        let mut rest = stream.as_slice();
        for Sample { name, case, message } in samples {
            let Ok(Decoded::Message(found, used)) = decode::<M>(rest, MAX_BODY) else {
                panic!("{} {name} {case} was not found in the stream", M::NAME);
            };
            assert_eq!(&found, message);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }
    for_every_direction!(check);
}

#[test]
fn encoding_appends_and_leaves_what_was_there() {
    fn check<M: Message>(samples: &[Sample<M>]) {
        for Sample { message, .. } in samples {
            let mut out = b"before".to_vec();
            nufw_proto::encode(message, &mut out).unwrap();
            assert_eq!(out, [b"before".as_slice(), &frame(message)].concat());
        }
    }
    for_every_direction!(check);
}

/// So that a frame sent to the wrong port or in the wrong direction is never taken for something else.
#[test]
fn the_two_directions_of_a_protocol_share_no_frame_type() {
    fn types<M: Message>(samples: &[Sample<M>]) -> BTreeSet<u16> {
        samples.iter().map(|sample| sample.message.frame_type()).collect()
    }
    use crate::samples::{agent_to_server, client_to_server, server_to_agent, server_to_client};
    assert!(types(&agent_to_server()).is_disjoint(&types(&server_to_agent())));
    assert!(types(&client_to_server()).is_disjoint(&types(&server_to_client())));
}

#[test]
fn the_header_is_length_type_and_flags_in_network_byte_order() {
    fn check<M: Message>(samples: &[Sample<M>]) {
        for Sample { message, .. } in samples {
            let frame = frame(message);
            let length = u32::try_from(frame.len() - FRAME_HEADER).unwrap();
            assert_eq!(frame[..4], length.to_be_bytes());
            assert_eq!(frame[4..6], message.frame_type().to_be_bytes());
            let ignorable = u8::from(message.flags() == Flags::IGNORABLE);
            assert_eq!(frame[6..8], [0, ignorable]);
        }
    }
    for_every_direction!(check);
}

#[test]
fn a_secret_is_not_shown_by_debug() {
    let shown = format!(
        "{:?}",
        crate::samples::client_to_server()
            .into_iter()
            .map(|s| s.message)
            .collect::<Vec<_>>()
    );
    assert!(shown.contains("SecretBytes(20 bytes)"), "{shown}");
    assert!(!shown.contains("correct horse"), "{shown}");
}
