//! Where the limits are, driven to: the largest that fits, and the first that does not.

use crate::samples::{batch, frame, row, text, tuple};
use nufw_proto::client;
use nufw_proto::gateway;
use nufw_proto::{
    AskId, BadText, Batch, BatchTooLarge, ClaimId, Count, Counters, CtEntry, CtEvent, CtEventKind, CtStatus,
    Decoded, DumpId, EventSeq, FRAME_HEADER, LoginBytes, MAX_BATCH, MAX_BODY, MAX_GREETING_BODY,
    MAX_TICKET_BODY, Mark, Message, Ports, Removal, SecretBytes, TcpState, Text, Timestamp, Transport, Tuple,
    WireError, decode, encode,
};
use serde::Deserialize;
use std::cell::Cell;
use std::fmt::Debug;

/// The tuple that takes the most bytes.
fn widest() -> Tuple {
    let ports = Ports {
        src: u16::MAX,
        dst: u16::MAX,
    };
    tuple("ffff:ffff::ffff", "ffff:ffff::fffe", Transport::Dccp(ports))
}

fn longest<const MAX: usize>() -> Text<MAX> {
    text(&"w".repeat(MAX))
}

fn full<T: Clone>(item: T) -> Batch<T> {
    batch(vec![item; MAX_BATCH])
}

fn fits<M: Message + PartialEq + Debug>(message: M, max_body: usize) {
    let frame = frame(&message);
    let used = frame.len();
    assert!(used - FRAME_HEADER <= max_body, "{used} bytes");
    assert_eq!(decode(&frame, max_body), Ok(Decoded::Message(message, used)));
}

fn widest_entry() -> CtEntry {
    let count = Count {
        packets: u64::MAX,
        bytes: u64::MAX,
    };
    let end_of_time = Timestamp::from_micros(i64::MIN);
    CtEntry {
        id: u32::MAX,
        zone: u16::MAX,
        original: widest(),
        reply: widest(),
        master: Some(widest()),
        mark: Mark(u32::MAX),
        status: CtStatus(u32::MAX),
        tcp_state: Some(TcpState(u8::MAX)),
        counters: Some(Counters {
            original: count,
            reply: count,
        }),
        start: Some(end_of_time),
        stop: Some(end_of_time),
    }
}

#[test]
fn a_full_batch_of_the_widest_items_fits_a_frame() {
    let at = Timestamp::from_micros(i64::MIN);
    let ask = gateway::Ask {
        id: AskId(u64::MAX),
        hook: gateway::Hook::Postrouting,
        zone: u16::MAX,
        tuple: widest(),
        in_dev: longest(),
        out_dev: longest(),
        mark: Mark(u32::MAX),
        received: at,
        tracked: true,
    };
    let bridged = gateway::BridgedAsk {
        ask: ask.clone(),
        phys_in: longest(),
        phys_out: longest(),
    };
    fits(gateway::ToServer::Asks(full(ask)), MAX_BODY);
    fits(gateway::ToServer::BridgedAsks(full(bridged)), MAX_BODY);
    let live = gateway::Live {
        row: row(u64::MAX >> 1),
        id: u32::MAX,
        zone: u16::MAX,
        original: widest(),
    };
    fits(gateway::ToAgent::Kill(full(live)), MAX_BODY);
    let expiry = gateway::Expiry {
        live,
        seconds: u32::MAX,
    };
    fits(gateway::ToAgent::Expire(full(expiry)), MAX_BODY);
    fits(gateway::ToServer::LetGo(full(row(u64::MAX >> 1))), MAX_BODY);
    fits(
        gateway::ToServer::Killed(full(gateway::Killed {
            row: row(u64::MAX >> 1),
            step: gateway::KillStep::Failed,
        })),
        MAX_BODY,
    );
    fits(
        gateway::ToServer::Unused(full(gateway::Unused {
            id: AskId(u64::MAX),
            row: row(u64::MAX >> 1),
        })),
        MAX_BODY,
    );
    let event = CtEvent {
        kind: CtEventKind::Destroy,
        entry: widest_entry(),
        at,
        at_kernel: true,
        removal: Removal::ByProgram,
    };
    let events = gateway::Events {
        first: EventSeq(u64::MAX),
        events: full(event),
    };
    fits(gateway::ToServer::Events(events), MAX_BODY);
    let part = gateway::DumpPart {
        dump: DumpId(u64::MAX),
        entries: full(widest_entry()),
    };
    fits(gateway::ToServer::DumpPart(part), MAX_BODY);
    let verdict = gateway::Verdict::Accept {
        row: row(u64::MAX >> 1),
        mark: Mark(u32::MAX),
    };
    fits(
        gateway::ToAgent::Answers(full(gateway::Answer {
            id: AskId(u64::MAX),
            verdict,
        })),
        MAX_BODY,
    );
    let addresses = gateway::KnownAddresses {
        reset: true,
        added: full(widest().src()),
        removed: full(widest().dst()),
        others_can_pass: true,
    };
    fits(gateway::ToAgent::KnownAddresses(addresses), MAX_BODY);
    let request = client::ClaimRequest {
        id: ClaimId(u64::MAX),
        hook: gateway::Hook::Postrouting,
        tuple: widest(),
    };
    fits(client::ToClient::ClaimRequests(full(request)), MAX_BODY);
}

/// The two messages with long texts are the exception, which docs/protocol.md tells to those who send them.
#[test]
fn a_batch_with_the_longest_program_names_does_not_fit_and_leaves_no_trace() {
    let mine = client::Mine {
        seen: widest(),
        program: Some(longest()),
    };
    let claim = client::Claim {
        id: ClaimId(u64::MAX),
        finding: client::Finding::Mine(mine.clone()),
    };
    let mut out = b"before".to_vec();
    let error = encode(&client::ToServer::Claims(full(claim.clone())), &mut out).unwrap_err();
    assert!(error.found > MAX_BODY && error.max == MAX_BODY, "{error}");
    assert_eq!(out, b"before");
    fits(client::ToServer::Claims(batch(vec![claim; 240])), MAX_BODY);
    fits(
        client::ToServer::Announce(batch(vec![client::Announce { mine }; 240])),
        MAX_BODY,
    );
}

#[test]
fn the_largest_first_messages_fit_a_greeting() {
    let everything = gateway::Capabilities(u64::MAX);
    let os = client::OsInfo {
        name: longest(),
        release: longest(),
        version: longest(),
    };
    let hello = client::Hello {
        software: longest(),
        capabilities: everything,
        os,
        system: true,
    };
    fits(client::ToServer::Hello(hello), MAX_GREETING_BODY);
    let secret = SecretBytes::new(vec![0xff; SecretBytes::MAX]).unwrap();
    // Of a ticket's login more is taken, where it was offered.
    for (length, max_body) in [(4096, MAX_GREETING_BODY), (LoginBytes::MAX, MAX_TICKET_BODY)] {
        let login = client::Login {
            mechanism: longest(),
            response: LoginBytes::new(vec![0xff; length]).unwrap(),
        };
        fits(client::ToServer::Login(login), max_body);
    }
    fits(
        client::ToServer::Prove(client::Prove {
            token: secret.clone(),
        }),
        MAX_GREETING_BODY,
    );
    let hello = gateway::Hello {
        software: longest(),
        boot: nufw_proto::BootId(u64::MAX),
        capabilities: everything,
        packet_timeout_ms: u32::MAX,
        relays_events: true,
        marked_only: true,
        sets_marks: true,
        first_held: EventSeq(u64::MAX),
    };
    fits(gateway::ToServer::Hello(hello), MAX_GREETING_BODY);
    let welcome = gateway::Welcome {
        software: longest(),
        capabilities: everything,
        gateway: longest(),
        acknowledged: EventSeq(u64::MAX),
        dead_after_ms: u32::MAX,
        mark_mask: Mark(u32::MAX),
    };
    fits(gateway::ToAgent::Welcome(welcome), MAX_GREETING_BODY);
    let logged_in = client::LoggedIn {
        session: nufw_proto::SessionId(u64::MAX),
        user: longest(),
        address: widest().src(),
        token: secret,
        address_lease_ms: u32::MAX,
        dead_after_ms: u32::MAX,
    };
    fits(client::ToClient::LoggedIn(logged_in), MAX_GREETING_BODY);
    fits(
        client::ToClient::Goodbye(gateway::Goodbye { reason: longest() }),
        MAX_GREETING_BODY,
    );
}

#[test]
fn a_body_one_byte_above_the_limit_is_refused_before_it_is_complete() {
    for max in [MAX_BODY, MAX_GREETING_BODY] {
        let header =
            |length: usize| [&u32::try_from(length).unwrap().to_be_bytes()[..], &[0, 4, 0, 0]].concat();
        let found = decode::<gateway::ToServer>(&header(max), max);
        assert_eq!(found, Ok(Decoded::NeedBytes(FRAME_HEADER + max)));
        let found = decode::<gateway::ToServer>(&header(max + 1), max);
        assert_eq!(found, Err(WireError::TooLarge { found: max + 1, max }));
    }
}

#[test]
fn a_batch_holds_1024_items_and_not_one_more() {
    assert_eq!(
        Batch::try_from(vec![0_u8; MAX_BATCH]).map(|batch| batch.len()),
        Ok(1024)
    );
    assert_eq!(
        Batch::try_from(vec![0_u8; MAX_BATCH + 1]),
        Err(BatchTooLarge(1025))
    );
}

#[test]
fn a_secret_has_4096_bytes_and_not_one_more() {
    assert!(SecretBytes::new(vec![0; 4096]).is_ok());
    assert_eq!(
        SecretBytes::new(vec![0; 4097]),
        Err(BadText::TooLong {
            found: 4097,
            max: 4096
        })
    );
}

thread_local! {
    static READ: Cell<usize> = const { Cell::new(0) };
}

/// An item that counts how many of it were read.
#[derive(Debug)]
struct Counted;

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        READ.set(READ.get() + 1);
        u8::deserialize(deserializer).map(|_| Self)
    }
}

/// Items are many times larger in memory than on the wire: a frame full of them must not be built first and refused
/// afterwards.
#[test]
fn no_more_items_are_read_than_a_batch_may_have() {
    // 1025 (a varint), then as many bytes.
    let body = [&[0x81, 0x08][..], &vec![0; MAX_BATCH + 1]].concat();
    assert!(postcard::from_bytes::<Batch<Counted>>(&body).is_err());
    assert_eq!(READ.get(), 0, "a count that is too large is refused at once");

    // A count that promises more than there is left is not believed.
    let body = [&[0xff, 0xff, 0x0f][..], &vec![0; 5_000]].concat();
    assert!(postcard::from_bytes::<Batch<Counted>>(&body).is_err());
    assert_eq!(READ.get(), MAX_BATCH + 1);
}
