//! What a live connection costs in memory.

use crate::world::{answered, entry, rules};
use nuauth_server::engine::{Engine, Input, Limits, LinkId, Now};
use nufw_proto::gateway::{Capabilities, DumpBegin, DumpPart, Hello, ToAgent, ToServer};
use nufw_proto::{
    Addr, Batch, BootId, ConnId, DumpId, EventSeq, MAX_BATCH, Mark, Ports, Text, Timestamp, Transport, Tuple,
};
use nulog::{ActiveRow, State, Translated};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// Counts what the present thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is going has no counter any more.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

#[expect(unsafe_code, reason = "the interface of an allocator is unsafe")]
// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Live connections in the measurement: just above a power of two, where hash tables have just grown, is their dearest.
const CONNECTIONS: u32 = 132_000;
/// The figure that must not be passed, bytes for each.
const MOST: isize = 300;

fn tuple(number: u32) -> Tuple {
    let ports = Ports {
        src: u16::try_from(number % 60_000).unwrap() + 1024,
        dst: 443,
    };
    let src: Addr = std::net::Ipv4Addr::from(0x0a00_0000 + number / 60_000).into();
    Tuple::new(src, "192.0.2.1".parse().unwrap(), Transport::Tcp(ports)).unwrap()
}

fn row(number: u32) -> ActiveRow {
    ActiveRow {
        id: ConnId::try_from(u64::from(number) + 1).unwrap(),
        gateway: Arc::from("gw"),
        state: State::Open,
        received: Timestamp::from_micros(1),
        zone: 0,
        original: tuple(number),
        translated: Translated::Shown(tuple(number)),
        mark: Mark(1),
        user_id: Some(1),
        username: Some(Arc::from("alice")),
        client_os: None,
        client_app: Some(Arc::from("/usr/bin/firefox")),
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        auth: None,
    }
}

#[test]
fn a_live_connection_stays_below_its_figure() {
    let now = Now {
        mono: Duration::from_secs(1),
        wall: Timestamp::from_micros(1),
    };
    let mut out = Vec::new();
    let before = HELD.get();
    let mut engine = Engine::new(Limits::default(), rules());
    let rows: Vec<ActiveRow> = (0..CONNECTIONS).map(row).collect();
    let acknowledged = Vec::new();
    engine.handle(Input::Loaded { rows, acknowledged }, now, &mut out);
    let each = |held: isize| held / isize::try_from(CONNECTIONS).unwrap();
    let unbound = each(HELD.get() - before);
    let link = LinkId(1);
    let hello = Hello {
        software: Text::default(),
        boot: BootId(1),
        capabilities: Capabilities::default(),
        packet_timeout_ms: 15_000,
        relays_events: true,
        marked_only: false,
        sets_marks: true,
        first_held: EventSeq(1),
    };
    let name = Arc::from("gw");
    engine.handle(Input::GatewayUp { link, name, hello }, now, &mut out);
    let asked = out.iter().find_map(|effect| match effect {
        nuauth_server::engine::Effect::Agent {
            message: ToAgent::DumpRequest(request),
            ..
        } => Some(request.dump),
        _ => None,
    });
    let dump: DumpId = asked.unwrap();
    let message = ToServer::DumpBegin(DumpBegin { dump });
    engine.handle(Input::Gateway { link, message }, now, &mut out);
    let numbers: Vec<u32> = (0..CONNECTIONS).collect();
    for part in numbers.chunks(MAX_BATCH) {
        let entries: Vec<_> = part.iter().map(|&n| answered(entry(n, tuple(n)))).collect();
        let entries = Batch::try_from(entries).unwrap();
        let message = ToServer::DumpPart(DumpPart { dump, entries });
        engine.handle(Input::Gateway { link, message }, now, &mut out);
        out = Vec::new();
    }
    let bound = each(HELD.get() - before);
    assert_eq!(engine.stats().live_connections, u64::from(CONNECTIONS));
    println!("bytes for each of {CONNECTIONS} live connections: {unbound} waiting, {bound} established");
    assert!(unbound.max(bound) <= MOST, "{unbound} and {bound} bytes");
}
