//! What is logged, and what waits for it: the modes of rules, the levels of the log, and rows that find no room.

use crate::world::{World, ended, entry, tcp};
use nuauth_server::engine::{Levels, OnOverload};
use nufw_proto::gateway::Verdict;
use nufw_proto::{AskId, ConnId, CtEventKind, Mark, TcpState};
use nulog::CloseReason;
use std::time::Duration;

const SOURCE: &str = "10.0.0.7:40000";
const SYNC: &str = "192.0.2.1:2001";
const ASYNC: &str = "192.0.2.1:2002";
const NONE: &str = "192.0.2.1:2003";
const DROPPED_WITHOUT_ROW: &str = "192.0.2.1:2023";
const DROPPED: &str = "192.0.2.1:23";
const WEB: &str = "192.0.2.1:443";

#[test]
fn a_rule_decides_whether_its_packets_wait_whatever_the_default_is() {
    for log_sync in [true, false] {
        let mut w = World::with(|limits| limits.log_sync = log_sync);
        let gw = w.gateway();
        let alice = w.login("alice", "10.0.0.7");
        for (to, waits) in [(SYNC, true), (ASYNC, false), (WEB, log_sync)] {
            let ask = w.ask(gw, tcp(SOURCE, to));
            w.claim(alice);
            assert_eq!(w.log.last().unwrap().urgent, waits, "{to}");
            assert_eq!(w.verdict(ask).is_none(), waits, "{to}");
            w.commit();
            assert!(w.accepted(ask).is_some(), "{to}");
        }
        assert_eq!(w.opened().len(), 3);
    }
}

#[test]
fn a_rule_without_log_accepts_with_the_mark_and_leaves_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let logged = w.log.len();
    let ask = w.ask(gw, tcp(SOURCE, NONE));
    w.claim(alice);
    let row = ConnId::UNLOGGED;
    let mark = Mark("alice".bytes().map(u32::from).sum());
    assert_eq!(w.verdict(ask), Some(Verdict::Accept { row, mark }));
    let ct = entry(1, tcp(SOURCE, NONE));
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Update, crate::world::answered(ct));
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::TIME_WAIT));
    w.unused(gw, ask, row);
    assert_eq!(w.log.len(), logged, "{:?}", w.log.last());
    assert_eq!((w.stats().granted, w.stats().granted_unlogged), (1, 1));
    assert_eq!((w.stats().live_connections, w.stats().unrelated_events), (0, 3));
    assert_eq!(w.acks().last(), Some(&3), "the agent need not keep such events");
}

#[test]
fn a_rule_without_log_needs_neither_ids_nor_room() {
    let mut w = World::without_ids(|limits| limits.connections = 0);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(SOURCE, NONE));
    w.claim(alice);
    assert_eq!(w.accepted(ask), Some(ConnId::UNLOGGED));
}

#[test]
fn a_connection_that_has_a_row_keeps_it_when_its_rule_changes() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, tcp(SOURCE, WEB));
    // The rule is changed while the kernel has not confirmed the connection, and its packet comes again.
    w.input(nuauth_server::engine::Input::Judge(std::sync::Arc::new(
        crate::world::NoLog,
    )));
    let again = w.ask(gw, tcp(SOURCE, WEB));
    w.claim(alice);
    assert_eq!(w.accepted(again), Some(row), "else its events would have no row");
    let ct = entry(1, tcp(SOURCE, WEB));
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Update, crate::world::answered(ct));
    assert_eq!(w.established()[0].id, row);
    assert_eq!(w.stats().unrelated_events, 0);
}

#[test]
fn a_drop_without_log_leaves_no_row_and_is_remembered() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(SOURCE, DROPPED_WITHOUT_ROW));
    w.claim(alice);
    let again = w.ask(gw, tcp(SOURCE, DROPPED_WITHOUT_ROW));
    for ask in [ask, again] {
        assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    }
    assert_eq!(w.dropped().len(), 0);
    assert_eq!((w.stats().drops_unlogged, w.stats().repeated), (1, 1));
}

#[test]
fn a_level_that_is_off_writes_no_such_rows() {
    for off in Levels::WORDS {
        let mut levels = Levels::NONE;
        for word in Levels::WORDS.into_iter().filter(|word| *word != off) {
            assert!(levels.add(word));
        }
        let mut w = World::with(|limits| limits.levels = levels);
        let gw = w.gateway();
        let alice = w.login("alice", "10.0.0.7");
        assert_eq!(w.log.len(), usize::from(off != "sessions"));
        let dropped = w.ask(gw, tcp(SOURCE, DROPPED));
        w.claim(alice);
        assert_eq!(w.verdict(dropped), Some(Verdict::Drop));
        assert_eq!(w.dropped().len(), usize::from(off != "drops"), "without {off}");
        for to in [WEB, SYNC, ASYNC] {
            let ask = w.ask(gw, tcp(SOURCE, to));
            w.claim(alice);
            w.commit();
            assert!(w.accepted(ask).is_some(), "without {off}");
        }
        let rows = if off == "connections" { 0 } else { 3 };
        assert_eq!(w.opened().len(), rows, "without {off}");
        assert_eq!(w.stats().live_connections, rows as u64);
    }
}

#[test]
fn the_numbers_of_nufw_mean_these_levels() {
    let shown = |bits| Levels::from_nufw(bits).map(|levels| levels.to_string());
    assert_eq!(shown(0).as_deref(), Some("nothing"));
    assert_eq!(shown(1).as_deref(), Some("sessions"));
    assert_eq!(shown(2).as_deref(), Some("drops"));
    assert_eq!(shown(4).as_deref(), Some("connections"));
    assert_eq!(shown(8).as_deref(), Some("drops, connections"));
    assert_eq!(shown(9).as_deref(), Some("sessions, drops, connections"));
    assert_eq!(shown(16), None);
}

#[test]
fn a_packet_waits_for_its_row_as_long_as_the_limit_says_and_is_dropped_then() {
    let mut w = World::with(|limits| limits.commit_timeout = Duration::from_secs(3));
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let asks = [w.ask(gw, tcp(SOURCE, WEB)), w.ask(gw, tcp(SOURCE, WEB))];
    w.claim(alice);
    w.pass(Duration::from_millis(2900));
    assert_eq!(w.verdict(asks[0]), None);
    w.pass(Duration::from_millis(200));
    for ask in asks {
        assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    }
    let row = w.opened()[0].id;
    assert_eq!(
        w.ends(),
        [(row, CloseReason::LogFailed)],
        "it may still reach the disk"
    );
    assert_eq!((w.stats().live_connections, w.stats().late_commits), (0, 1));
    assert_eq!(
        w.stats().waiting_commits,
        1,
        "it waits in the journal all the same"
    );
    w.commit();
    assert_eq!(w.stats().waiting_commits, 0);
    assert_eq!((w.stats().granted, w.dropped().len()), (0, 0));
    assert_ne!(w.granted(gw, alice, tcp(SOURCE, WEB)), row);
}

#[test]
fn a_row_that_failed_after_its_time_was_over_changes_nothing() {
    let mut w = World::with(|limits| limits.commit_timeout = Duration::from_secs(3));
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(SOURCE, WEB));
    w.claim(alice);
    w.pass(Duration::from_secs(4));
    w.fail();
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!((w.stats().waiting_commits, w.stats().refused_unlogged), (0, 1));
}

#[test]
fn no_packet_waits_longer_than_its_agent_holds_it() {
    let mut w = World::with(|limits| limits.commit_timeout = Duration::from_mins(1));
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(SOURCE, WEB));
    // The agent holds it for 15 s, the client takes 12 of them.
    w.pass(Duration::from_secs(12));
    w.claim(alice);
    w.pass(Duration::from_millis(1500));
    assert_eq!(w.verdict(ask), None);
    w.pass(Duration::from_secs(1));
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
}

/// Three connections of an asynchronous rule where two rows may be on their way.
fn overloaded(on_overload: OnOverload, waiting_commits: usize) -> (World, [AskId; 3]) {
    let mut w = World::with(|limits| {
        limits.waiting_async = 2;
        limits.waiting_commits = waiting_commits;
        limits.on_overload = on_overload;
    });
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let asks = [1, 2, 3].map(|port| {
        let ask = w.ask(gw, tcp(&format!("10.0.0.7:{port}"), ASYNC));
        w.claim(alice);
        ask
    });
    assert!(w.accepted(asks[0]).is_some() && w.accepted(asks[1]).is_some());
    assert_eq!(w.stats().waiting_async, 2);
    (w, asks)
}

#[test]
fn rows_that_nobody_waits_for_beyond_their_limit_are_waited_for() {
    let (mut w, asks) = overloaded(OnOverload::Wait, 1);
    assert_eq!(w.verdict(asks[2]), None);
    assert!(w.log.last().unwrap().urgent);
    w.commit();
    assert!(w.accepted(asks[2]).is_some());
    assert_eq!((w.stats().waiting_async, w.stats().waiting_commits), (0, 0));
}

#[test]
fn rows_that_nobody_waits_for_are_dropped_where_none_may_wait() {
    for (on_overload, waiting_commits) in [(OnOverload::Drop, 1), (OnOverload::Wait, 0)] {
        let (mut w, asks) = overloaded(on_overload, waiting_commits);
        assert_eq!(w.verdict(asks[2]), Some(Verdict::Drop));
        assert_eq!((w.opened().len(), w.stats().refused_unlogged), (2, 1));
        w.commit();
        assert_eq!(w.stats().waiting_async, 0);
    }
}

#[test]
fn a_row_that_can_never_be_stored_is_forgotten_though_its_packet_went_on() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(SOURCE, ASYNC));
    w.claim(alice);
    w.fail();
    assert!(w.accepted(ask).is_some());
    assert_eq!((w.stats().live_connections, w.stats().waiting_async), (0, 0));
}

/// A row whose packet the kernel never confirmed, and the entry of another packet of its tuple.
fn unconfirmed(mark: &str, later: Duration) -> World {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, tcp(SOURCE, WEB));
    w.pass(Duration::from_secs(31));
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::NeverConfirmed)]);
    let mut ct = entry(1, tcp(SOURCE, WEB));
    ct.mark = Mark(mark.bytes().map(u32::from).sum());
    ct.start = Some(nufw_proto::Timestamp::from_micros(
        w.opened()[0].received.micros() + i64::try_from(later.as_micros()).unwrap(),
    ));
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::TIME_WAIT));
    w
}

#[test]
fn a_row_that_never_had_an_entry_is_not_given_that_of_another_user_or_of_a_later_packet() {
    let soon = Duration::from_secs(1);
    assert_eq!(
        unconfirmed("alice", soon).closed().len(),
        2,
        "a late end of its own"
    );
    for (mark, later) in [("bob", soon), ("alice", Duration::from_secs(20))] {
        let w = unconfirmed(mark, later);
        assert_eq!((w.closed().len(), w.stats().unrelated_events), (1, 1), "{mark}");
    }
}
