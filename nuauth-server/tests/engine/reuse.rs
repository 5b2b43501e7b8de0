//! Tuples and entry ids that are used again: no connection gets the life of another.

use crate::world::{World, answered, counters, ended, entry, tcp, udp};
use nuauth_server::engine::LinkId;
use nufw_proto::{CtEntry, CtEvent, CtEventKind, SessionId, TcpState, Timestamp};
use nulog::CloseReason;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

fn start() -> (World, LinkId, SessionId) {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    (w, gw, alice)
}

fn at(event: CtEvent, at: Timestamp) -> CtEvent {
    CtEvent { at, ..event }
}

#[test]
fn a_new_entry_ends_the_older_one_of_its_tuple() {
    for ids in [[1, 2], [1, 1]] {
        let (mut w, gw, alice) = start();
        let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
        w.event(gw, CtEventKind::New, entry(ids[0], tcp(WEB.0, WEB.1)));
        let second = w.granted(gw, alice, tcp(WEB.0, WEB.1));
        assert_ne!(first, second);
        let ct = entry(ids[1], tcp(WEB.0, WEB.1));
        w.event(gw, CtEventKind::New, ct);
        assert_eq!(w.ends(), [(first, CloseReason::Replaced)]);
        w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
        assert_eq!(w.ends()[1], (second, CloseReason::Refused));
    }
}

#[test]
fn an_entry_without_row_ends_the_older_one_of_its_tuple_too() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.event(gw, CtEventKind::New, entry(2, tcp(WEB.0, WEB.1)));
    assert_eq!(w.ends(), [(row, CloseReason::Replaced)]);
}

#[test]
fn the_late_end_of_a_replaced_entry_fills_its_own_row() {
    for ids in [[1, 2], [1, 1]] {
        let (mut w, gw, alice) = start();
        let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
        let old = CtEntry {
            start: Some(w.wall()),
            ..entry(ids[0], tcp(WEB.0, WEB.1))
        };
        w.event(gw, CtEventKind::New, CtEntry { start: None, ..old });
        let told = w.wall();
        let second = w.granted(gw, alice, tcp(WEB.0, WEB.1));
        w.event(gw, CtEventKind::New, entry(ids[1], tcp(WEB.0, WEB.1)));
        let late = at(
            w.event_now(CtEventKind::Destroy, ended(old, TcpState::CLOSE)),
            told,
        );
        w.events(gw, 3, &[late]);
        let close = w.closed()[1];
        assert_eq!((close.id, close.counters), (first, Some(counters())));
        assert_eq!(close.reason, CloseReason::Refused, "the kernel's word counts");
        assert_eq!(w.stats().live_connections, 1);
        let end = ended(entry(ids[1], tcp(WEB.0, WEB.1)), TcpState::CLOSE);
        w.event(gw, CtEventKind::Destroy, end);
        assert_eq!(w.ends()[2].0, second);
    }
}

#[test]
fn the_end_of_an_older_entry_never_ends_the_newer_row() {
    let (mut w, gw, alice) = start();
    let born = w.wall();
    w.pass(Duration::from_secs(1));
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let old = CtEntry {
        start: Some(born),
        ..ended(entry(1, tcp(WEB.0, WEB.1)), TcpState::CLOSE)
    };
    w.event(gw, CtEventKind::Destroy, old);
    assert_eq!(w.ends(), [], "not while it waits for its own entry");
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.event(gw, CtEventKind::Destroy, old);
    assert_eq!(w.ends(), [], "nor when that has the same id");
    assert_eq!(w.stats().unrelated_events, 2);
}

#[test]
fn the_first_event_of_an_older_entry_does_not_bind_the_newer_row() {
    let (mut w, gw, alice) = start();
    let new = w.event_now(CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.pass(Duration::from_secs(1));
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let own = w.event_now(CtEventKind::New, entry(2, tcp(WEB.0, WEB.1)));
    w.events(gw, 1, &[new, own]);
    let answer = w.event_now(CtEventKind::Update, answered(entry(2, tcp(WEB.0, WEB.1))));
    w.events(gw, 3, &[answer]);
    assert_eq!(w.established()[0].id, row);
}

#[test]
fn the_end_tells_which_of_two_entries_with_one_id_it_is_of() {
    let (mut w, gw, alice) = start();
    let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    // Its end and the beginning of the next one are lost.
    w.pass(Duration::from_secs(1));
    let second = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let gone = CtEntry {
        start: Some(w.wall()),
        ..ended(entry(1, tcp(WEB.0, WEB.1)), TcpState::CLOSE)
    };
    w.event(gw, CtEventKind::Destroy, gone);
    assert_eq!(
        w.ends(),
        [(first, CloseReason::Replaced), (second, CloseReason::Refused)]
    );
    assert_eq!(w.closed()[0].counters, None);
}

#[test]
fn an_ask_that_overtakes_the_end_of_its_tuple_gets_a_row_of_its_own() {
    let (mut w, gw, alice) = start();
    let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    let events = [
        w.event_now(CtEventKind::New, ct),
        w.event_now(CtEventKind::Destroy, ended(ct, TcpState::CLOSE)),
    ];
    // Refused and opened again within one turn of the agent: the ask is sent before the events.
    w.pass(Duration::from_millis(1));
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.events(gw, 1, &events);
    w.claim(alice);
    w.commit();
    let second = w.accepted(ask).unwrap();
    assert_ne!(first, second);
    let new = w.event_now(CtEventKind::New, ct);
    let end = w.event_now(CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    w.events(gw, 3, &[new, end]);
    assert_eq!(
        w.ends(),
        [(first, CloseReason::Refused), (second, CloseReason::Refused)]
    );
}

#[test]
fn a_row_goes_on_when_its_second_packet_was_granted_after_the_end_of_the_first() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, udp(WEB.0, WEB.1));
    let ct = entry(1, udp(WEB.0, WEB.1));
    let events = [
        w.event_now(CtEventKind::New, ct),
        w.event_now(CtEventKind::Destroy, ended(ct, TcpState(0))),
    ];
    w.pass(Duration::from_millis(1));
    let ask = w.ask(gw, udp(WEB.0, WEB.1));
    // The events are held up: the claim is here first.
    w.claim(alice);
    assert_eq!(w.accepted(ask), Some(row));
    w.events(gw, 1, &events);
    assert_eq!(w.ends(), [], "the second packet makes an entry of its own");
    let ct = entry(2, udp(WEB.0, WEB.1));
    let new = w.event_now(CtEventKind::New, ct);
    w.pass(crate::world::PACKET_TIMEOUT);
    let end = w.event_now(CtEventKind::Destroy, ended(answered(ct), TcpState(0)));
    w.events(gw, 3, &[new, end]);
    assert_eq!(w.ends(), [(row, CloseReason::IdleTimeout)]);
    let sum = w.closed()[0].counters.unwrap();
    assert_eq!(
        sum.original.packets,
        2 * counters().original.packets,
        "of both entries"
    );
}

/// A row whose second packet was granted when its entry was there already.
fn granted_twice() -> (World, LinkId, nufw_proto::AskId, nufw_proto::ConnId, CtEntry) {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, udp(WEB.0, WEB.1));
    let again = w.ask(gw, udp(WEB.0, WEB.1));
    let ct = entry(1, udp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    w.claim(alice);
    assert_eq!(
        w.accepted(again),
        Some(row),
        "its entry came while the client was asked"
    );
    (w, gw, again, row, ct)
}

#[test]
fn two_packets_of_one_connection_end_with_it() {
    let (mut w, gw, _, row, ct) = granted_twice();
    w.pass(crate::world::PACKET_TIMEOUT);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState(0)));
    assert_eq!(w.ends(), [(row, CloseReason::Unanswered)]);
    let (mut w, gw, again, row, ct) = granted_twice();
    w.unused(gw, again, row);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState(0)));
    assert_eq!(w.ends(), [(row, CloseReason::Unanswered)]);
}

#[test]
fn a_second_verdict_that_is_on_its_way_may_begin_the_connection_anew() {
    let (mut w, gw, _, row, ct) = granted_twice();
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState(0)));
    assert_eq!(w.ends(), []);
    let ct = entry(1, udp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    w.pass(crate::world::PACKET_TIMEOUT);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState(0)));
    assert_eq!(w.ends(), [(row, CloseReason::Unanswered)]);
}

#[test]
fn a_second_verdict_that_began_nothing_leaves_the_row_its_own_end() {
    let (mut w, gw, _, row, ct) = granted_twice();
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState(0)));
    let first = w.requested().unwrap();
    w.dump(gw, first, &[], true);
    assert_eq!(w.ends(), [], "asked for before the second verdict");
    w.pass(Duration::from_secs(30));
    let second = w.requested().unwrap();
    w.dump(gw, second, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::Unanswered)]);
    assert_eq!(w.closed()[0].counters, Some(counters()));
}

#[test]
fn a_second_verdict_that_began_the_connection_anew_is_found_in_a_dump() {
    let (mut w, gw, _, row, _) = granted_twice();
    // The end of the first entry is lost.
    let second = CtEntry {
        start: Some(w.wall()),
        ..answered(entry(2, udp(WEB.0, WEB.1)))
    };
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[second], true);
    assert_eq!(w.ends(), []);
    w.pass(crate::world::PACKET_TIMEOUT);
    w.event(gw, CtEventKind::Destroy, ended(second, TcpState(0)));
    assert_eq!(w.ends(), [(row, CloseReason::IdleTimeout)]);
}

#[test]
fn an_entry_with_the_mark_of_another_user_is_not_taken() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let marked = |name: &str| CtEntry {
        mark: crate::world::user(name).mark,
        ..entry(1, tcp(WEB.0, WEB.1))
    };
    w.event(gw, CtEventKind::Update, answered(marked("bob")));
    assert_eq!(w.established().len(), 0);
    w.event(gw, CtEventKind::Update, answered(marked("alice")));
    assert_eq!(w.established().len(), 1);
}
