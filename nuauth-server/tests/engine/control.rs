//! What programs of the server's host ask: who is behind a live connection, what became of an old one, who is there.

use crate::entries::{answered, entry, natted, reversed, tcp, udp};
use crate::world::{World, user};
use nuauth_server::engine::{Limits, LiveConn};

use nufw_proto::{ConnId, CtEventKind, Tuple};
use nulog::CloseReason;
use std::time::Duration;

const CLIENT: &str = "10.0.0.7:40312";
const SITE: &str = "192.0.2.80:443";
/// Where DNAT sends it.
const INSIDE: &str = "192.168.0.9:8443";
/// What masquerade makes of the client.
const OUTSIDE: &str = "203.0.113.5:61000";

fn start() -> (World, nuauth_server::engine::LinkId, nufw_proto::SessionId) {
    let mut world = World::new();
    let gateway = world.gateway();
    let alice = world.login("alice", "10.0.0.7");
    (world, gateway, alice)
}

fn found(world: &World, ends: Tuple) -> Option<(ConnId, bool)> {
    let found: Option<LiveConn> = world.find(&ends);
    found.map(|conn| {
        assert_eq!((conn.user, &*conn.gateway), (Some(user("alice").user.id), "gw"));
        (conn.id, conn.original)
    })
}

#[test]
fn a_connection_is_found_from_both_ends_before_and_after_its_entry_is_seen() {
    let (mut w, gw, alice) = start();
    let tuple = tcp(CLIENT, SITE);
    assert_eq!(found(&w, tuple), None);
    let row = w.granted(gw, alice, tuple);
    assert_eq!(found(&w, tuple), Some((row, true)));
    w.event(gw, CtEventKind::New, entry(1, tuple));
    assert_eq!(found(&w, tuple), Some((row, true)));
    assert_eq!(
        found(&w, reversed(&tuple)),
        None,
        "the ends are the asker's, peer first"
    );
    assert_eq!(found(&w, udp(CLIENT, SITE)), None);
    w.event(gw, CtEventKind::Destroy, entry(1, tuple));
    assert_eq!(found(&w, tuple), None);
}

#[test]
fn the_service_behind_both_translations_finds_what_it_sees() {
    let (mut w, gw, alice) = start();
    // The queue shows the original source and the translated destination.
    let row = w.granted(gw, alice, tcp(CLIENT, INSIDE));
    let ct = natted(1, tcp(CLIENT, SITE), tcp(INSIDE, OUTSIDE));
    w.event(gw, CtEventKind::New, ct);
    assert_eq!(found(&w, tcp(OUTSIDE, INSIDE)), Some((row, false)));
    assert_eq!(found(&w, tcp(CLIENT, SITE)), Some((row, true)));
    w.event(gw, CtEventKind::Destroy, ct);
    assert_eq!(found(&w, tcp(OUTSIDE, INSIDE)), None);
    assert_eq!(found(&w, tcp(CLIENT, SITE)), None);
}

#[test]
fn of_two_connections_between_the_same_ends_the_newer_is_found() {
    let (mut w, gw, alice) = start();
    let translated = |id, client| natted(id, tcp(client, SITE), tcp(SITE, OUTSIDE));
    w.granted(gw, alice, tcp(CLIENT, SITE));
    w.event(gw, CtEventKind::New, translated(1, CLIENT));
    let newer = w.granted(gw, alice, tcp("10.0.0.7:40313", SITE));
    w.event(gw, CtEventKind::New, translated(2, "10.0.0.7:40313"));
    assert_eq!(found(&w, tcp(OUTSIDE, SITE)), Some((newer, false)));
}

#[test]
fn an_old_row_that_is_doubted_is_looked_for_and_stays_while_the_kernel_has_it() {
    let mut w = World::with(|limits| limits.counters_every = Duration::ZERO);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let first = w.requested().unwrap();
    w.dump(gw, first, &[], true);
    // One-way UDP: never answered, and open for days.
    let one_way = udp(CLIENT, "192.0.2.9:514");
    let row = w.granted(gw, alice, one_way);
    w.event(gw, CtEventKind::New, entry(1, one_way));
    let gone = w.granted(gw, alice, tcp(CLIENT, SITE));
    w.event(gw, CtEventKind::New, answered(entry(2, tcp(CLIENT, SITE))));
    w.pass(Duration::from_hours(72));
    assert_eq!(w.requested(), Some(first), "nobody doubts them");
    w.verify(&["gw", "gw-elsewhere"]);
    w.pass(Duration::from_millis(100));
    let second = w.requested().unwrap();
    assert_ne!(first, second);
    w.dump(gw, second, &[entry(1, one_way)], true);
    assert_eq!(w.ends(), [(gone, CloseReason::Resync)]);
    assert_eq!(found(&w, one_way), Some((row, true)));
    // Doubts that come often do not make the gateway show its table each time.
    w.verify(&["gw"]);
    w.pass(Duration::from_millis(100));
    assert_eq!(w.requested(), Some(second));
}

#[test]
fn the_log_hears_of_a_gateway_at_once_and_then_as_long_as_it_is_linked() {
    let (mut w, gw, _) = start();
    let heartbeats = |w: &World| w.heartbeats.iter().map(|(_, at)| at.micros()).collect::<Vec<_>>();
    assert_eq!(heartbeats(&w).len(), 1);
    assert_eq!(&*w.heartbeats[0].0, "gw");
    w.pass(Duration::ZERO);
    let interval = Limits::default().heartbeat_interval;
    for _ in 0..10 {
        w.pass(interval / 2);
    }
    let later = heartbeats(&w);
    assert_eq!(later.len(), 1 + 1 + 5);
    assert!(later.is_sorted(), "{later:?}");
    w.down(gw);
    w.pass(interval);
    assert_eq!(heartbeats(&w), later);
}
