//! The bytes of every message as they are committed in `tests/vectors`: the wire must not change by accident.
//!
//! A vector is hexadecimal text with comments; `NUFW_WRITE_VECTORS=1 cargo test -p nufw-proto vectors` writes the ones
//! that are missing, and never overwrites one. A vector that has to change is deleted by hand, with a new major
//! version of the protocol.

use crate::samples::{Sample, for_every_direction, frame, read_whole};
use nufw_proto::{FRAME_HEADER, Message};
use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Reads a vector: bytes in hexadecimal, `41*65` for a byte that comes 65 times, `#` to the end of the line a comment.
pub(crate) fn parse(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::split_whitespace)
    {
        let (byte, times) = word.split_once('*').unwrap_or((word, "1"));
        assert_eq!(byte.len(), 2, "{word:?} is not a byte");
        bytes.extend(std::iter::repeat_n(
            u8::from_str_radix(byte, 16).unwrap(),
            times.parse().unwrap(),
        ));
    }
    bytes
}

fn file_name<M: Message>(name: &str, case: &str) -> String {
    format!("{}.{name}.{case}.hex", M::NAME)
}

fn render<M: Message + Debug>(message: &M) -> String {
    let mut text = String::new();
    for line in format!("{message:#?}").lines() {
        writeln!(text, "# {line}").unwrap();
    }
    let frame = frame(message);
    let (header, body) = frame.split_at(FRAME_HEADER);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    writeln!(
        text,
        "{}  {}  {}  # length {}, type {}, flags {}",
        hex(&header[..4]),
        hex(&header[4..6]),
        hex(&header[6..]),
        body.len(),
        message.frame_type(),
        header[7]
    )
    .unwrap();
    for line in body.chunks(16) {
        writeln!(text, "{}", hex(line)).unwrap();
    }
    text
}

#[test]
fn every_message_has_the_bytes_that_are_committed() {
    fn check<M: Message + PartialEq + Debug>(samples: &[Sample<M>]) {
        for Sample { name, case, message } in samples {
            let path = directory().join(file_name::<M>(name, case));
            if !path.exists() && std::env::var_os("NUFW_WRITE_VECTORS").is_some() {
                fs::write(&path, render(message)).unwrap();
            }
            let Ok(text) = fs::read_to_string(&path) else {
                panic!(
                    "{} is missing: write it with NUFW_WRITE_VECTORS=1 and read what it says",
                    path.display()
                );
            };
            let bytes = parse(&text);
            assert_eq!(bytes, frame(message), "{} is not what is sent", path.display());
            assert_eq!(&read_whole::<M>(&bytes), message, "{}", path.display());
        }
    }
    for_every_direction!(check);
}

#[test]
fn every_committed_vector_belongs_to_a_message() {
    fn names<M: Message>(samples: &[Sample<M>], wanted: &mut BTreeSet<String>) {
        for Sample { name, case, .. } in samples {
            assert!(
                wanted.insert(file_name::<M>(name, case)),
                "two samples are called {name} {case}"
            );
        }
    }
    let mut wanted = BTreeSet::new();
    names(&crate::samples::agent_to_server(), &mut wanted);
    names(&crate::samples::server_to_agent(), &mut wanted);
    names(&crate::samples::client_to_server(), &mut wanted);
    names(&crate::samples::server_to_client(), &mut wanted);
    let found: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, wanted);
}
