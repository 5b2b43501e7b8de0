//! What the kernel's events make of a row.

use crate::world::{World, answered, counters, ended, entry, natted, ping, reversed, tcp, udp, user};
use nufw_proto::gateway::{Gap, GapCause, Hook, ToServer};
use nufw_proto::{CtEntry, CtEventKind, CtStatus, Mark, TcpState, Timestamp, Tuple};
use nulog::{Change, CloseReason};

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

#[test]
fn new_update_destroy_is_open_established_close() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = CtEntry {
        mark: user("alice").mark,
        ..entry(7, tcp(WEB.0, WEB.1))
    };
    w.event(gw, CtEventKind::New, ct);
    assert_eq!((w.established().len(), w.closed().len()), (0, 0));
    let before = w.wall();
    w.event(gw, CtEventKind::Update, answered(ct));
    w.event(gw, CtEventKind::Update, answered(ct));
    assert_eq!(w.established().len(), 1);
    let established = *w.established()[0];
    assert_eq!((established.id, established.at), (row, Some(before)));
    let binding = established.binding.unwrap();
    assert_eq!(binding.ct_id, 7);
    assert_eq!(binding.reply, reversed(&tcp(WEB.0, WEB.1)));
    assert_eq!(binding.ct_mark, user("alice").mark);
    let stop = Timestamp::from_micros(w.wall().micros() - 500);
    let gone = CtEntry {
        stop: Some(stop),
        ..ended(answered(ct), TcpState::TIME_WAIT)
    };
    w.event(gw, CtEventKind::Destroy, gone);
    let close = w.closed()[0];
    assert_eq!(
        (close.id, close.reason, close.at),
        (row, CloseReason::Finished, Some(stop))
    );
    assert_eq!(close.counters, Some(counters()));
    assert_eq!(close.binding, established.binding);
    assert_eq!(w.stats().live_connections, 0);
}

/// Grants what the packet in the queue shows and lets the kernel tell of `original` and `reply`.
fn bound_under_nat(hook: Hook, shown: Tuple, seen: Tuple, original: Tuple, reply: Tuple) {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask_at(gw, shown, hook);
    w.claim_as(alice, seen);
    w.commit();
    let row = w.accepted(ask).unwrap();
    let ct = natted(9, original, reply);
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Update, answered(ct));
    let binding = w.established()[0].binding.unwrap();
    assert_eq!((binding.original, binding.reply), (original, reply));
    w.event(gw, CtEventKind::Destroy, ended(answered(ct), TcpState::CLOSE));
    assert_eq!(w.ends(), [(row, CloseReason::Reset)]);
}

#[test]
fn a_connection_is_found_behind_destination_and_source_translation() {
    let original = tcp(WEB.0, "198.51.100.1:8080");
    let shown = tcp(WEB.0, "192.168.1.80:80");
    let reply = tcp("192.168.1.80:80", "192.168.1.1:61000");
    bound_under_nat(Hook::Forward, shown, original, original, reply);
    // The client could not see behind the translation either.
    bound_under_nat(Hook::Forward, shown, shown, original, reply);
}

#[test]
fn a_connection_is_found_behind_a_redirect_to_the_gateway() {
    let original = tcp(WEB.0, "198.51.100.1:80");
    let shown = tcp(WEB.0, "10.0.0.1:3128");
    bound_under_nat(Hook::Input, shown, original, original, reversed(&shown));
}

#[test]
fn a_connection_that_was_queued_before_its_translation_is_found_by_its_original_tuple() {
    let original = tcp(WEB.0, "198.51.100.1:8080");
    let reply = tcp("192.168.1.80:80", WEB.0);
    bound_under_nat(Hook::Prerouting, original, original, original, reply);
}

#[test]
fn a_connection_to_the_gateway_itself_is_found() {
    let original = udp(WEB.0, "10.0.0.1:53");
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask_at(gw, original, Hook::Input);
    w.claim(alice);
    w.commit();
    let row = w.accepted(ask).unwrap();
    let ct = entry(3, original);
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Destroy, ended(answered(ct), TcpState(0)));
    assert_eq!(w.ends(), [(row, CloseReason::IdleTimeout)]);
}

#[test]
fn a_ping_is_found_by_its_identifier() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let rows: Vec<_> = [1, 2]
        .map(|id| w.granted(gw, alice, ping("10.0.0.7", "192.0.2.1", id)))
        .into();
    let ct = entry(5, ping("10.0.0.7", "192.0.2.1", 2));
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Update, answered(ct));
    w.event(gw, CtEventKind::Destroy, ended(answered(ct), TcpState(0)));
    assert_eq!(w.ends(), [(rows[1], CloseReason::IdleTimeout)]);
}

#[test]
fn another_zone_is_another_connection() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let elsewhere = CtEntry {
        zone: 5,
        ..entry(1, tcp(WEB.0, WEB.1))
    };
    w.event(gw, CtEventKind::Destroy, elsewhere);
    assert_eq!(w.ends(), []);
    assert_eq!(w.stats().unrelated_events, 1);
}

#[test]
fn reasons() {
    use CloseReason::{Finished, IdleTimeout, Refused, Reset, Unanswered};
    let t = tcp(WEB.0, WEB.1);
    let u = udp(WEB.0, WEB.1);
    for (tuple, answer, state, reason) in [
        (t, true, TcpState::TIME_WAIT, Finished),
        (t, true, TcpState::LAST_ACK, Finished),
        (t, true, TcpState::FIN_WAIT, IdleTimeout),
        (t, true, TcpState::CLOSE_WAIT, IdleTimeout),
        (t, true, TcpState::ESTABLISHED, IdleTimeout),
        (t, true, TcpState::SYN_RECV, IdleTimeout),
        (t, true, TcpState::CLOSE, Reset),
        (t, false, TcpState::CLOSE, Refused),
        (t, false, TcpState::SYN_SENT, Unanswered),
        (u, true, TcpState(0), IdleTimeout),
        (u, false, TcpState(0), Unanswered),
    ] {
        // Whether the answer is told by an event of its own or only by the last one makes no difference.
        for update in [true, false] {
            let mut w = World::new();
            let gw = w.gateway();
            let alice = w.login("alice", "10.0.0.7");
            let row = w.granted(gw, alice, tuple);
            let mut ct = entry(1, tuple);
            w.event(gw, CtEventKind::New, ct);
            if answer {
                ct = answered(ct);
                if update {
                    w.event(gw, CtEventKind::Update, ct);
                }
            }
            w.event(gw, CtEventKind::Destroy, ended(ct, state));
            assert_eq!(w.ends(), [(row, reason)], "{state:?} {answer} {update}");
        }
    }
}

#[test]
fn events_that_are_sent_again_change_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    let new = w.event_now(CtEventKind::New, ct);
    let destroy = w.event_now(CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    w.events(gw, 1, &[new, destroy]);
    // The same tuple and id live again.
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let second = w.event_now(CtEventKind::New, ct);
    w.events(gw, 3, &[second]);
    let logged = w.log.len();
    w.events(gw, 1, &[new, destroy, second]);
    w.events(gw, 2, &[destroy]);
    assert_eq!(w.log.len(), logged);
    assert_eq!(w.stats().repeated_events, 4);
    assert_eq!(w.stats().live_connections, 1);
}

#[test]
fn the_answer_binds_where_the_first_event_was_lost() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::Update, answered(entry(4, tcp(WEB.0, WEB.1))));
    assert_eq!(w.established()[0].id, row);
    assert_eq!(w.established()[0].binding.unwrap().ct_id, 4);
}

#[test]
fn the_end_binds_where_everything_else_was_lost() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = CtEntry {
        start: Some(w.wall()),
        ..ended(answered(entry(4, tcp(WEB.0, WEB.1))), TcpState::CLOSE)
    };
    w.event(gw, CtEventKind::Destroy, ct);
    assert_eq!(w.ends(), [(row, CloseReason::Reset)]);
    assert_eq!(w.closed()[0].binding.unwrap().ct_id, 4);
}

#[test]
fn a_first_event_that_already_shows_the_answer_establishes() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, answered(entry(4, tcp(WEB.0, WEB.1))));
    assert_eq!(w.established()[0].at, None, "when it came is not known");
}

#[test]
fn an_update_without_answer_establishes_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(4, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    let marked = CtEntry {
        mark: Mark(9),
        status: CtStatus(1 << 3),
        ..ct
    };
    w.event(gw, CtEventKind::Update, marked);
    assert_eq!(w.established().len(), 0);
}

#[test]
fn events_of_connections_without_row_are_counted() {
    let mut w = World::new();
    let gw = w.gateway();
    let ct = entry(4, tcp(WEB.0, WEB.1));
    for kind in [CtEventKind::New, CtEventKind::Update, CtEventKind::Destroy] {
        w.event(gw, kind, answered(ct));
    }
    assert_eq!(w.stats().unrelated_events, 3);
    assert_eq!(w.log.len(), 0);
}

#[test]
fn an_event_cannot_be_of_a_connection_that_has_no_verdict() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    let ct = entry(4, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    assert_eq!(w.ends(), []);
    w.commit();
    assert!(w.accepted(ask).is_some());
    assert_eq!(w.stats().live_connections, 1);
}

#[test]
fn a_gap_is_logged() {
    let mut w = World::new();
    let gw = w.gateway();
    let (from, to) = (Timestamp::from_micros(1), Timestamp::from_micros(2));
    let cause = GapCause::NetlinkOverrun;
    w.said(gw, ToServer::Gap(Gap { from, to, cause }));
    let Change::Gap(row) = &w.log[0].change else {
        panic!("no gap was logged")
    };
    assert_eq!((row.from, row.to, &*row.cause), (from, to, "netlink-overrun"));
    assert_eq!(row.gateway.as_deref(), Some("gw"));
}

#[test]
fn impossible_sequence_numbers_do_no_harm() {
    let mut w = World::new();
    let gw = w.gateway();
    let ct = w.event_now(CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.events(gw, 0, &[ct, ct]);
    w.events(gw, u64::MAX, &[ct, ct]);
}
