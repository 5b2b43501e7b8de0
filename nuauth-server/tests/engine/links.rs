//! Links that come and go: acknowledgements, packets that were lost with their link.

use crate::world::{World, answered, ended, entry, tcp};
use nuauth_server::engine::{Effect, Input};
use nufw_proto::gateway::Verdict;
use nufw_proto::{BootId, ConnId, CtEntry, CtEventKind, SessionId, TcpState};
use nulog::{Change, CloseReason};
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");
/// Longer than a packet that was granted may come again under the same row (`Limits::confirm_within`).
const LONG: Duration = Duration::from_secs(31);

#[test]
fn events_without_consequence_are_acknowledged_at_once() {
    let mut w = World::new();
    let gw = w.gateway();
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    assert_eq!(w.acks(), [1, 2]);
    assert_eq!(w.log.len(), 0);
}

#[test]
fn events_with_consequence_are_acknowledged_when_it_is_durable() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    assert_eq!(w.acks(), [1], "nothing of it is in the log");
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    let [.., close, acknowledge] = &w.log[..] else {
        panic!("nothing was logged")
    };
    assert!(matches!(close.change, Change::Close(_)));
    assert!(matches!(&acknowledge.change, Change::Acknowledge { through, .. } if through.0 == 2));
    // An event without consequence must not be acknowledged ahead of the one before it.
    w.event(gw, CtEventKind::New, ct);
    assert_eq!(w.acks(), [1]);
    w.commit();
    assert_eq!(w.acks().last(), Some(&3));
}

#[test]
fn the_same_boot_goes_on_where_it_was() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    let events = [
        w.event_now(CtEventKind::New, ct),
        w.event_now(CtEventKind::Destroy, ended(ct, TcpState::CLOSE)),
    ];
    w.events(gw, 1, &events);
    w.input(Input::GatewayDown { link: gw });
    // Not durable yet, so it is sent again; but the same tuple and id live again.
    let gw = w.gateway();
    assert_eq!(w.welcomed_at(gw), 0);
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.events(gw, 1, &events);
    let new = w.event_now(CtEventKind::New, ct);
    w.events(gw, 3, &[new]);
    assert_eq!(w.ends().len(), 1);
    assert_eq!(w.stats().repeated_events, 2);
    let end = w.event_now(CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    w.events(gw, 4, &[end]);
    assert_eq!(w.ends()[1], (row, CloseReason::Refused));
}

#[test]
fn no_link_hears_of_more_than_it_carried() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    let events = [
        w.event_now(CtEventKind::New, ct),
        w.event_now(CtEventKind::Update, answered(ct)),
    ];
    w.events(gw, 1, &events);
    let gw = w.gateway();
    w.commit();
    assert_eq!(w.acks(), [] as [u64; 0], "the new link has carried nothing");
    w.events(gw, 1, &events[..1]);
    w.events(gw, 2, &events[1..]);
    assert_eq!(w.acks(), [1, 2]);
}

#[test]
fn another_boot_begins_anew() {
    let mut w = World::new();
    let gw = w.gateway();
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let gw = w.gateway_as("gw", |hello| hello.boot = BootId(2));
    assert_eq!(w.welcomed_at(gw), 0);
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    assert_eq!(w.stats().repeated_events, 0);
    assert_eq!(w.acks(), [1, 1]);
}

#[test]
fn a_late_commit_of_an_earlier_boot_acknowledges_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::Update, answered(entry(1, tcp(WEB.0, WEB.1))));
    let second = |hello: &mut nufw_proto::gateway::Hello| hello.boot = BootId(2);
    w.gateway_as("gw", second);
    w.commit();
    assert_eq!(w.acks(), [] as [u64; 0]);
    let gw = w.gateway_as("gw", second);
    assert_eq!(w.welcomed_at(gw), 0);
}

#[test]
fn a_gateway_has_one_link() {
    let mut w = World::new();
    let old = w.gateway();
    let new = w.gateway();
    assert!(matches!(w.others[..], [Effect::EndLink { link, .. }] if link == old));
    w.event(old, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.input(Input::GatewayDown { link: old });
    assert_eq!(w.stats().stale_messages, 1);
    w.event(new, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    assert_eq!(w.stats().unrelated_events, 1);
}

#[test]
fn packets_that_were_lost_with_their_link_get_no_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.input(Input::GatewayDown { link: gw });
    w.claim(alice);
    assert_eq!(w.verdict(ask), None);
    assert_eq!((w.opened().len(), w.dropped().len()), (0, 0));
    assert_eq!(w.stats().pending_asks, 0);
}

/// A packet waits for its row when its link is lost.
fn lost_while_written() -> (World, SessionId, ConnId) {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    w.input(Input::GatewayDown { link: gw });
    w.commit();
    assert_eq!(w.verdict(ask), None);
    assert_eq!(w.ends(), [], "it may come again");
    let row = w.opened()[0].id;
    w.pass(Duration::from_secs(1));
    (w, alice, row)
}

#[test]
fn a_row_whose_packets_were_lost_with_their_link_is_closed() {
    let (mut w, _, row) = lost_while_written();
    let gw = w.gateway();
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::NeverForwarded)]);
}

#[test]
fn a_packet_that_was_lost_while_its_row_was_written_comes_again_under_it() {
    let (mut w, alice, row) = lost_while_written();
    let gw = w.gateway();
    let dump = w.requested().unwrap();
    let again = w.ask(gw, tcp(WEB.0, WEB.1));
    w.dump(gw, dump, &[], true);
    w.claim(alice);
    w.commit();
    assert_eq!(w.accepted(again), Some(row));
    assert_eq!((w.opened().len(), w.ends().len()), (1, 0));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    assert_eq!(w.closed().len(), 1, "nothing else can come of it");
}

#[test]
fn a_retransmission_over_the_new_link_joins_the_row_that_is_being_written() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let lost = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    let gw = w.gateway();
    let again = w.ask(gw, tcp(WEB.0, WEB.1));
    w.commit();
    assert_eq!(w.verdict(lost), None);
    assert_eq!(w.accepted(again), Some(w.opened()[0].id));
}

#[test]
fn a_packet_that_asks_again_over_the_next_link_keeps_its_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.pass(Duration::from_secs(1));
    // The verdict is lost with the link; the agent goes on, or another process of it that knows its events.
    let gw = w.gateway();
    let dump = w.requested().unwrap();
    let again = w.ask(gw, tcp(WEB.0, WEB.1));
    w.dump(gw, dump, &[], true);
    w.claim(alice);
    w.commit();
    assert_eq!(w.accepted(again), Some(first));
    assert_eq!(w.ends(), [], "one connection, one row");
}

#[test]
fn a_verdict_of_another_boot_of_the_agent_is_superseded() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.pass(Duration::from_secs(1));
    let gw = w.gateway_as("gw", |hello| hello.boot = BootId(2));
    let second = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    assert_ne!(first, second);
    assert_eq!(w.ends(), [(first, CloseReason::Superseded)]);
}

#[test]
fn the_events_of_a_superseded_row_still_find_it() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    let events = [
        w.event_now(CtEventKind::New, ct),
        w.event_now(CtEventKind::Destroy, ended(ct, TcpState::CLOSE)),
    ];
    w.pass(LONG);
    let gw = w.gateway();
    let second = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.events(gw, 1, &events);
    assert_eq!(
        w.stats().live_connections,
        1,
        "the second one waits for its own entry"
    );
    let close = w.closed()[1];
    assert_eq!(close.id, first);
    assert!(close.counters.is_some());
    assert_eq!(close.binding.unwrap().ct_id, 1);
    assert_ne!(first, second);
}

#[test]
fn a_late_end_is_of_the_last_connection_that_was_asked_for_before_it() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ct = entry(1, tcp(WEB.0, WEB.1));
    let vanished = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    w.pass(Duration::from_secs(1));
    // The same tuple and id again; its end is told over the next link, after another packet has been asked for.
    let superseded = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let born = CtEntry {
        start: Some(w.wall()),
        ..ct
    };
    let end = w.event_now(CtEventKind::Destroy, ended(born, TcpState::CLOSE));
    w.pass(LONG);
    let gw = w.gateway();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.events(gw, 2, &[end]);
    let ends: Vec<_> = w.closed().iter().map(|c| (c.id, c.counters.is_some())).collect();
    assert_eq!(ends, [(vanished, false), (superseded, false), (superseded, true)]);
}

#[test]
fn a_gateway_that_stops_relaying_events_has_no_live_rows() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.gateway_as("gw", |hello| hello.relays_events = false);
    assert_eq!(w.ends(), [(row, CloseReason::Untracked)]);
}

#[test]
fn a_verdict_goes_to_the_link_that_asked() {
    let mut w = World::new();
    let gw1 = w.gateway_as("gw1", |_| {});
    let gw2 = w.gateway_as("gw2", |_| {});
    let ask = w.ask(gw2, tcp(WEB.0, WEB.1));
    w.input(Input::GatewayDown { link: gw1 });
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
}
