//! Malformed frames, each a file in `tests/vectors/malformed` that says who would read it and why it is refused.
//!
//! The two lines `# read by:` (a direction) and `# refused:` (the error's words) are what the test goes by.

use crate::samples::frame;
use crate::vectors::{directory, parse};
use nufw_proto::{Decoded, MAX_BODY, Message, WireError, client, decode, gateway};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;

fn refusal<M: Message + Debug>(bytes: &[u8]) -> String {
    match decode::<M>(bytes, MAX_BODY) {
        Err(error) => error.to_string(),
        Ok(found) => panic!("it was not refused: {found:?}"),
    }
}

fn read_by(direction: &str, bytes: &[u8]) -> String {
    if direction == gateway::ToServer::NAME {
        refusal::<gateway::ToServer>(bytes)
    } else if direction == gateway::ToAgent::NAME {
        refusal::<gateway::ToAgent>(bytes)
    } else if direction == client::ToServer::NAME {
        refusal::<client::ToServer>(bytes)
    } else if direction == client::ToClient::NAME {
        refusal::<client::ToClient>(bytes)
    } else {
        panic!("there is no direction {direction:?}")
    }
}

#[test]
fn every_malformed_vector_is_refused_for_the_reason_it_states() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(directory().join("malformed")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let stated = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{} has no line {key:?}", path.display()))
                .trim()
        };
        let refusal = read_by(stated("# read by:"), &parse(&text));
        assert_eq!(refusal, stated("# refused:"), "{}", path.display());
        seen.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    let promised = [
        "address-family-unknown",
        "address-mapped",
        "batch-of-1025",
        "batch-shorter-than-its-count",
        "body-cut",
        "flag-of-two",
        "flags-reserved",
        "hook-unknown",
        "icmp-between-ipv6",
        "length-oversized",
        "number-too-wide",
        "protocol-tcp-as-other",
        "row-id-above-63-bits",
        "row-id-zero",
        "secret-too-long",
        "text-not-utf8",
        "text-too-long",
        "text-with-line-feed",
        "trailing-byte",
        "tuple-of-mixed-families",
        "type-of-other-direction",
        "type-unknown",
        "verdict-unknown",
    ];
    assert_eq!(seen, promised.iter().map(|&name| name.to_owned()).collect());
}

/// A refusal must name what an administrator can look up: which side's message, which type.
#[test]
fn a_refusal_names_direction_and_type() {
    let mut bytes = frame(&gateway::ToServer::DumpBegin(gateway::DumpBegin {
        dump: nufw_proto::DumpId(7),
    }));
    bytes.push(0);
    bytes[3] += 1;
    let error = decode::<gateway::ToServer>(&bytes, MAX_BODY);
    let expected = WireError::TrailingBytes {
        message: "gateway-to-server",
        frame_type: 6,
        left: 1,
    };
    assert_eq!(error, Err::<Decoded<gateway::ToServer>, _>(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "a gateway-to-server frame of type 6 has 1 bytes too many"
    );
}
