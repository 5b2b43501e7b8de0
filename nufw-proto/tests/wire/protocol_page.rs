//! docs/protocol.md and the code say the same: every frame type, every limit.

use crate::samples::{Sample, agent_to_server, client_to_server, server_to_agent, server_to_client};
use nufw_proto::{
    CLIENT_ALPN, CLIENT_PORT, FRAME_HEADER, GATEWAY_ALPN, GATEWAY_PORT, LoginBytes, MAX_BATCH, MAX_BODY,
    MAX_GREETING_BODY, MAX_TICKET_BODY, Message, SecretBytes,
};
use std::collections::BTreeSet;
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table that stands under a heading, cells without their code marks.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> = page
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "there is no table under {heading:?}");
    rows
}

#[test]
fn the_table_of_frame_types_is_that_of_the_code() {
    fn add<M: Message>(samples: &[Sample<M>], types: &mut BTreeSet<[String; 3]>) {
        for Sample { name, message, .. } in samples {
            types.insert([
                M::NAME.to_owned(),
                message.frame_type().to_string(),
                (*name).to_owned(),
            ]);
        }
    }
    let mut in_code = BTreeSet::new();
    add(&agent_to_server(), &mut in_code);
    add(&server_to_agent(), &mut in_code);
    add(&client_to_server(), &mut in_code);
    add(&server_to_client(), &mut in_code);
    let rows = table(&page(), "## Table of frame types");
    let on_page: BTreeSet<[String; 3]> = rows
        .iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    assert_eq!(on_page, in_code);
    assert_eq!(rows.len(), in_code.len(), "a row is there twice");
}

#[test]
fn the_limits_are_those_of_the_code() {
    let on_page: BTreeSet<(String, String)> = table(&page(), "## Limits")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let limits = [
        ("FRAME_HEADER", FRAME_HEADER),
        ("MAX_BODY", MAX_BODY),
        ("MAX_GREETING_BODY", MAX_GREETING_BODY),
        ("MAX_TICKET_BODY", MAX_TICKET_BODY),
        ("MAX_BATCH", MAX_BATCH),
        ("SecretBytes::MAX", SecretBytes::MAX),
        ("LoginBytes::MAX", LoginBytes::MAX),
    ];
    assert_eq!(
        on_page,
        limits
            .map(|(name, limit)| (name.to_owned(), limit.to_string()))
            .into()
    );
}

#[test]
fn ports_and_protocol_names_are_those_of_the_code() {
    let rows = table(&page(), "## Transport");
    let utf8 = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    let expected = [
        ("gateway", GATEWAY_PORT.to_string(), utf8(GATEWAY_ALPN)),
        ("client", CLIENT_PORT.to_string(), utf8(CLIENT_ALPN)),
    ];
    for (row, (protocol, port, alpn)) in rows.iter().zip(expected) {
        assert_eq!(row[..3], [protocol.to_owned(), port, alpn]);
    }
    assert_eq!(rows.len(), 2);
}
