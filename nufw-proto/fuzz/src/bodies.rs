//! What every fuzz target does with its bytes, shared with the bounded run of the ordinary tests.
//!
//! Only the public API of nufw-proto is used; nothing in the product exists for the fuzzer's sake.

use nufw_proto::{Decoded, FRAME_HEADER, MAX_BODY, Message, decode, encode};
use std::fmt::Debug;

/// Reads `data` as a peer's stream to its end or to its first fault. Whatever is taken for a message must come out of
/// its own encoding unchanged, in no more bytes than it came in, and its encoding must be stable.
pub(crate) fn read_stream<M: Message + PartialEq + Debug>(data: &[u8]) {
    let mut rest = data;
    loop {
        match decode::<M>(rest, MAX_BODY) {
            Ok(Decoded::NeedBytes(wanted)) => {
                assert!(wanted > rest.len(), "more bytes are asked for than there are");
                assert!(
                    wanted <= FRAME_HEADER + MAX_BODY,
                    "no more than a frame is ever asked for"
                );
                return;
            }
            Ok(Decoded::Skipped(used)) => rest = &rest[used..],
            Ok(Decoded::Message(message, used)) => {
                same_again(&message, used);
                rest = &rest[used..];
            }
            Err(refusal) => {
                assert!(!refusal.to_string().is_empty());
                return;
            }
        }
    }
}

fn same_again<M: Message + PartialEq + Debug>(message: &M, used: usize) {
    let mut first = Vec::new();
    if let Err(error) = encode(message, &mut first) {
        panic!("a message that came in one frame does not fit one: {error}");
    }
    assert!(first.len() <= used, "our encoding is never longer than a peer's");
    let length = first.len();
    match decode::<M>(&first, MAX_BODY) {
        Ok(Decoded::Message(again, used)) => {
            assert_eq!(used, length);
            let mut second = Vec::new();
            assert!(encode(&again, &mut second).is_ok());
            assert_eq!(first, second);
            assert_eq!(message, &again);
        }
        other => panic!("our own encoding is not read back: {other:?}"),
    }
}
