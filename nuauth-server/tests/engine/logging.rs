//! No grant without a row.

use crate::world::{World, counters, ended, entry, tcp};
use nuauth_server::engine::Input;
use nufw_proto::gateway::Verdict;
use nufw_proto::{CtEventKind, TcpState};
use nulog::CloseReason;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

#[test]
fn the_verdict_waits_for_the_commit() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    assert!(w.log.last().unwrap().urgent);
    w.pass(Duration::from_secs(7));
    assert_eq!(w.verdict(ask), None);
    w.commit();
    assert!(w.accepted(ask).is_some());
}

#[test]
fn without_log_sync_the_verdict_goes_ahead_of_the_commit() {
    let mut w = World::with(|limits| limits.log_sync = false);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    assert!(w.accepted(ask).is_some());
    assert!(!w.log.last().unwrap().urgent);
    w.commit();
    assert_eq!(w.stats().granted, 1);
}

#[test]
fn what_cannot_be_logged_is_dropped_and_leaves_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let asks = [w.ask(gw, tcp(WEB.0, WEB.1)), w.ask(gw, tcp(WEB.0, WEB.1))];
    w.claim(alice);
    w.fail();
    for ask in asks {
        assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    }
    assert_eq!(w.stats().live_connections, 0);
    assert_eq!(w.stats().refused_unlogged, 1);
    assert_eq!(
        w.dropped().len(),
        0,
        "a DROP row for each would not be written either"
    );
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
}

#[test]
fn without_ids_nothing_is_granted() {
    let mut w = World::without_ids(|_| {});
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!((w.opened().len(), w.dropped().len()), (0, 0));
    w.input(Input::Ids(7..8));
    assert_eq!(w.stats().ids_left, 1);
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    assert_eq!(row.get(), 7);
    assert_eq!(w.stats().ids_left, 0);
}

#[test]
fn ids_are_used_block_by_block_and_each_once() {
    let mut w = World::without_ids(|_| {});
    w.input(Input::Ids(5..7));
    w.input(Input::Ids(100..102));
    let gw = w.gateway();
    for port in 1..=4 {
        w.ask(gw, tcp("10.0.0.7:4000", &format!("192.0.2.1:{port}")));
    }
    let ids: Vec<i64> = w.dropped().iter().map(|row| row.id.get()).collect();
    assert_eq!(ids, [5, 6, 100, 101]);
}

#[test]
fn a_verdict_that_came_too_late_closes_its_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let asks = [w.ask(gw, tcp(WEB.0, WEB.1)), w.ask(gw, tcp(WEB.0, WEB.1))];
    w.claim(alice);
    w.commit();
    let row = w.accepted(asks[0]).unwrap();
    w.unused(gw, asks[0], row);
    assert_eq!(w.ends(), [], "the other packet may have gone on");
    w.unused(gw, asks[1], row);
    assert_eq!(w.ends(), [(row, CloseReason::NeverForwarded)]);
    assert_eq!(w.stats().live_connections, 0);
}

#[test]
fn a_verdict_that_came_too_late_closes_nothing_that_the_kernel_confirmed() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    w.commit();
    let row = w.accepted(ask).unwrap();
    let ct = entry(1, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    w.unused(gw, ask, row);
    assert_eq!(w.ends(), []);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::SYN_SENT));
    assert_eq!(w.closed()[0].counters, Some(counters()));
}

#[test]
fn a_gateway_cannot_end_the_rows_of_another_nor_one_that_has_no_verdict() {
    let mut w = World::new();
    let gw = w.gateway_as("gw1", |_| {});
    let other = w.gateway_as("gw2", |_| {});
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    let row = w.opened()[0].id;
    w.unused(gw, ask, row);
    w.commit();
    assert_eq!(w.accepted(ask), Some(row));
    w.unused(other, ask, row);
    assert_eq!(w.ends(), []);
}

#[test]
fn a_gateway_that_relays_no_events_ends_its_rows_at_once() {
    for log_sync in [true, false] {
        let mut w = World::with(|limits| limits.log_sync = log_sync);
        let gw = w.gateway_as("gw", |hello| hello.relays_events = false);
        let alice = w.login("alice", "10.0.0.7");
        let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
        assert_eq!(w.ends(), [(row, CloseReason::Untracked)]);
        assert_eq!(w.stats().live_connections, 0);
        assert_eq!(w.requested(), None);
    }
}
