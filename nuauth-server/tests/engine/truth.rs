//! What the rows say when something was missed: bounds for what was not seen, intervals in the log, counters on the way.

use crate::world::{World, answered, counters, ended, entry, natted, reversed, tcp, udp};
use nuauth_server::engine::{Input, LinkId};
use nufw_proto::gateway::{Gap, GapCause, LastRow, ToServer};
use nufw_proto::{
    BootId, ConnId, Count, Counters, CtEntry, CtEvent, CtEventKind, DumpId, Removal, SessionId, TcpState,
    Timestamp,
};
use nulog::{Change, CloseReason};
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");
const MINUTE: Duration = Duration::from_mins(1);

fn start() -> (World, LinkId, SessionId) {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    (w, gw, alice)
}

fn gap(w: &mut World, gw: LinkId) {
    let (from, to, cause) = (w.wall(), w.wall(), GapCause::NetlinkOverrun);
    w.said(gw, ToServer::Gap(Gap { from, to, cause }));
}

/// Answers the last request with these entries.
fn look(w: &mut World, gw: LinkId, entries: &[CtEntry]) {
    let dump = w.requested().unwrap();
    w.dump(gw, dump, entries, true);
}

fn carried(entry: CtEntry, packets: u64) -> CtEntry {
    let count = |packets| Count {
        packets,
        bytes: packets * 100,
    };
    CtEntry {
        counters: Some(Counters {
            original: count(packets),
            reply: count(packets),
        }),
        ..entry
    }
}

/// Rows and packets of the original direction that the log was told.
fn counted(w: &World) -> Vec<(ConnId, u64)> {
    let of = |change: &Change| match change {
        Change::Counted { id, counters } => Some((*id, counters.original.packets)),
        _ => None,
    };
    w.log.iter().filter_map(|entry| of(&entry.change)).collect()
}

fn ended_by(w: &World, entry: CtEntry, removal: Removal) -> CtEvent {
    CtEvent {
        removal,
        ..w.event_now(CtEventKind::Destroy, entry)
    }
}

// Ends that were not seen.

#[test]
fn the_end_of_what_is_missing_is_bounded_by_the_comparison() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    gap(&mut w, gw);
    w.pass(MINUTE);
    let before = w.wall();
    look(&mut w, gw, &[]);
    let close = w.closed()[0];
    assert_eq!((close.id, close.reason), (row, CloseReason::Resync));
    assert!(
        close.at.is_some_and(|at| at > before && at <= w.wall()),
        "{close:?}"
    );
    assert_eq!(close.counters, None, "nothing is invented");
    assert_eq!(w.stats().resynced_rows, 1);
}

#[test]
fn a_row_that_a_comparison_shows_replaced_says_that_it_was_learnt_so() {
    let (mut w, gw, alice) = start();
    let first = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.pass(Duration::from_secs(2));
    let second = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    gap(&mut w, gw);
    w.pass(MINUTE);
    let born = Timestamp::from_micros(w.wall().micros() - 1_000_000);
    let other = CtEntry {
        start: Some(born),
        ..answered(entry(1, tcp(WEB.0, WEB.1)))
    };
    look(&mut w, gw, &[other]);
    assert_eq!(w.ends(), [(first, CloseReason::Resync)]);
    assert_eq!(
        w.closed()[0].at,
        Some(born),
        "the other one was born after its end"
    );
    let established = w.established()[0];
    assert_eq!((established.id, established.at), (second, None), "adopted");
}

#[test]
fn an_end_that_comes_after_the_comparison_says_how_it_was() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = answered(entry(1, tcp(WEB.0, WEB.1)));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.event(gw, CtEventKind::Update, ct);
    look(&mut w, gw, &[]);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::TIME_WAIT));
    assert_eq!(
        w.ends(),
        [(row, CloseReason::Resync), (row, CloseReason::Finished)]
    );
    assert_eq!(w.closed()[1].counters, Some(counters()));
}

#[test]
fn what_may_have_lived_in_a_gap_is_not_said_never_to_have_been_confirmed() {
    let (mut w, gw, alice) = start();
    look(&mut w, gw, &[]);
    let before = w.granted(gw, alice, tcp(WEB.0, "192.0.2.1:1"));
    gap(&mut w, gw);
    let after = w.granted(gw, alice, tcp(WEB.0, "192.0.2.1:2"));
    w.pass(MINUTE);
    look(&mut w, gw, &[]);
    let mut ends = w.ends();
    ends.sort_by_key(|(row, _)| *row);
    assert_eq!(
        ends,
        [
            (before, CloseReason::Resync),
            (after, CloseReason::NeverConfirmed)
        ]
    );
}

// Intervals.

#[test]
fn another_run_of_the_agent_leaves_an_interval_and_the_same_run_none() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let unconfirmed = w.granted(gw, alice, tcp(WEB.0, "192.0.2.1:80"));
    w.down(gw);
    w.pass(MINUTE);
    let gw = w.gateway();
    let heard = w.wall();
    assert_eq!(w.gaps().len(), 0, "its events were kept");
    w.down(gw);
    w.pass(MINUTE);
    let gw = w.gateway_as("gw", |hello| hello.boot = BootId(2));
    let gap = w.gaps()[0];
    assert_eq!(
        (&*gap.cause, gap.gateway.as_deref()),
        ("agent-restart", Some("gw"))
    );
    assert!(
        gap.from.micros().abs_diff(heard.micros()) < 10 && gap.to > gap.from,
        "{gap:?}"
    );
    look(&mut w, gw, &[]);
    let mut ends = w.ends();
    ends.sort_by_key(|(row, _)| *row);
    assert_eq!(
        ends,
        [(row, CloseReason::Resync), (unconfirmed, CloseReason::Resync)]
    );
}

#[test]
fn a_first_hello_leaves_no_interval() {
    let (w, ..) = start();
    assert_eq!(w.gaps().len(), 0);
}

#[test]
fn a_clock_that_steps_back_makes_no_interval_that_ends_before_it_begins() {
    let (mut w, gw, _) = start();
    w.down(gw);
    w.step_wall(-3600);
    w.gateway_as("gw", |hello| hello.boot = BootId(2));
    let gap = w.gaps()[0];
    assert!(gap.to >= gap.from, "{gap:?}");
}

#[test]
fn clocks_that_step_hold_no_look_up() {
    let (mut w, gw, alice) = start();
    look(&mut w, gw, &[]);
    for step in [-86_400, 2 * 86_400] {
        let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
        w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
        w.step_wall(step);
        w.pass(MINUTE);
        look(&mut w, gw, &[]);
        assert_eq!(w.ends().last(), Some(&(row, CloseReason::Resync)));
    }
}

#[test]
fn what_a_program_deletes_says_so_and_leaves_one_interval_with_its_number() {
    let (mut w, gw, alice) = start();
    let mut events = Vec::new();
    for port in 1..=3 {
        let tuple = tcp(WEB.0, &format!("192.0.2.1:{port}"));
        w.granted(gw, alice, tuple);
        let ct = answered(entry(port, tuple));
        w.event(gw, CtEventKind::New, entry(port, tuple));
        events.push(ended_by(&w, ended(ct, TcpState::ESTABLISHED), Removal::ByProgram));
    }
    // One of nobody's row counts for nothing.
    let stranger = entry(9, tcp("10.0.0.9:1", WEB.1));
    events.push(ended_by(
        &w,
        ended(stranger, TcpState::ESTABLISHED),
        Removal::ByProgram,
    ));
    w.events(gw, 4, &events);
    let reasons: Vec<_> = w.ends().iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [CloseReason::Deleted; 3]);
    assert!(w.closed().iter().all(|close| close.counters == Some(counters())));
    assert_eq!(w.gaps().len(), 0);
    w.pass(Duration::from_secs(1));
    let gap = w.gaps()[0];
    assert_eq!((&*gap.cause, gap.count), ("entries-deleted", Some(3)));
    assert_eq!((gap.from, gap.to), (events[0].at, events[2].at));
    w.pass(MINUTE);
    assert_eq!(w.gaps().len(), 1, "once");
}

#[test]
fn deletions_are_told_when_the_server_stops() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let end = ended_by(&w, entry(1, tcp(WEB.0, WEB.1)), Removal::ByProgram);
    w.events(gw, 2, &[end]);
    w.input(Input::Stopping);
    assert_eq!(w.gaps()[0].count, Some(1));
}

#[test]
fn what_the_kernel_removes_early_is_evicted_unless_tcp_ended_it() {
    for (state, reason) in [
        (TcpState::SYN_SENT, CloseReason::Evicted),
        (TcpState::ESTABLISHED, CloseReason::Evicted),
        (TcpState::TIME_WAIT, CloseReason::Finished),
        (TcpState::CLOSE, CloseReason::Reset),
    ] {
        let (mut w, gw, alice) = start();
        w.granted(gw, alice, tcp(WEB.0, WEB.1));
        let ct = answered(entry(1, tcp(WEB.0, WEB.1)));
        w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
        w.event(gw, CtEventKind::Update, ct);
        let end = ended_by(&w, ended(ct, state), Removal::Early);
        w.events(gw, 3, &[end]);
        assert_eq!(w.ends()[0].1, reason, "{state:?}");
        assert_eq!(w.stats().evicted_entries, 1);
    }
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, udp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, udp(WEB.0, WEB.1)));
    let end = ended_by(&w, entry(1, udp(WEB.0, WEB.1)), Removal::Early);
    w.events(gw, 2, &[end]);
    assert_eq!(w.ends()[0].1, CloseReason::Evicted);
}

// Counters.

#[test]
fn tables_are_looked_at_each_interval_and_only_rows_that_carried_more_are_told() {
    let (mut w, gw, alice) = start();
    let tuples = [1, 2].map(|port| tcp(WEB.0, &format!("192.0.2.1:{port}")));
    let rows = tuples.map(|tuple| w.granted(gw, alice, tuple));
    let entries = [entry(1, tuples[0]), entry(2, tuples[1])].map(answered);
    for ct in [entry(1, tuples[0]), entry(2, tuples[1])] {
        w.event(gw, CtEventKind::New, ct);
    }
    look(&mut w, gw, &[carried(entries[0], 5), carried(entries[1], 7)]);
    assert_eq!(counted(&w), [(rows[0], 5), (rows[1], 7)]);
    let first = w.requested();
    w.pass(Duration::from_secs(59));
    assert_eq!(w.requested(), first);
    w.pass(Duration::from_secs(1));
    assert_ne!(w.requested(), first, "it is time to count");
    look(&mut w, gw, &[carried(entries[0], 6), carried(entries[1], 7)]);
    w.pass(MINUTE);
    // As from another entry, or a kernel that was reset: nothing goes back.
    look(&mut w, gw, &[carried(entries[0], 2), carried(entries[1], 7)]);
    assert_eq!(counted(&w)[2..], [(rows[0], 6)]);
    assert_eq!(w.ends(), []);
    assert_eq!(w.stats().resyncs, 1, "that of the first hello alone");
}

#[test]
fn a_look_that_is_not_answered_is_not_asked_for_again_to_count() {
    let (mut w, ..) = start();
    let first = w.requested();
    w.pass(MINUTE * 5);
    assert_eq!(w.requested(), first);
}

#[test]
fn zero_looks_at_no_table_to_count() {
    let mut w = World::with(|limits| limits.counters_every = Duration::ZERO);
    let gw = w.gateway();
    look(&mut w, gw, &[]);
    let first = w.requested();
    w.pass(MINUTE * 60);
    assert_eq!(w.requested(), first);
}

#[test]
fn without_accounting_nothing_is_counted() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = answered(entry(1, tcp(WEB.0, WEB.1)));
    look(&mut w, gw, &[ct]);
    let end = CtEntry {
        counters: None,
        ..ended(ct, TcpState::CLOSE)
    };
    w.event(gw, CtEventKind::Destroy, end);
    assert_eq!(counted(&w), []);
    assert_eq!(w.closed()[0].counters, None);
}

// Ids.

#[test]
fn ids_that_an_older_log_would_give_again_are_passed_over() {
    let number = 3_u64 << 49;
    let mut w = World::without_ids(|_| {});
    w.input(Input::Ids(number + 1..number + 100));
    w.input(Input::Ids(number + 100..number + 200));
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let last = |row: u64| {
        ToServer::LastRow(LastRow {
            row: ConnId::try_from(row).unwrap(),
        })
    };
    // Those of another server, and those that the log knows of, change nothing.
    w.said(gw, last((4 << 49) + 150));
    w.said(gw, last(number));
    assert_eq!(w.gaps().len(), 0);
    w.said(gw, last(number + 150));
    w.said(gw, last(number + 120));
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    assert_eq!(u64::from(row), number + 151);
    let gaps = w.gaps();
    assert_eq!((gaps.len(), &*gaps[0].cause), (1, "older-log"));
    assert_eq!(w.stats().ids_left, 48);
}

// Which row.

#[test]
fn a_and_aaaa_from_one_port_are_one_row_with_one_life() {
    let (mut w, gw, alice) = start();
    let dns = udp("10.0.0.7:40001", "192.0.2.53:53");
    let first = w.ask(gw, dns);
    let second = w.ask(gw, dns);
    w.claim(alice);
    w.commit();
    let row = w.accepted(first).unwrap();
    assert_eq!(w.accepted(second), Some(row));
    // The kernel merges the second packet into the entry of the first: one NEW.
    let ct = entry(1, dns);
    w.event(gw, CtEventKind::New, ct);
    w.event(gw, CtEventKind::Update, answered(ct));
    w.event(gw, CtEventKind::Destroy, ended(answered(ct), TcpState::CLOSE));
    assert_eq!(w.ends(), [(row, CloseReason::IdleTimeout)]);
    assert_eq!(w.opened().len(), 1);
    assert_eq!(w.stats().live_connections, 0);
}

#[test]
fn two_resolvers_asked_from_one_port_are_two_rows() {
    let (mut w, gw, alice) = start();
    let tuples = ["192.0.2.53:53", "192.0.2.54:53"].map(|to| udp("10.0.0.7:40001", to));
    let rows = tuples.map(|tuple| w.granted(gw, alice, tuple));
    // Their ids are hashes that may be equal.
    for tuple in tuples.iter().rev() {
        w.event(gw, CtEventKind::New, entry(7, *tuple));
    }
    for (tuple, row) in tuples.iter().zip(rows) {
        w.event(gw, CtEventKind::Destroy, entry(7, *tuple));
        assert_eq!(w.ends().last(), Some(&(row, CloseReason::Unanswered)));
    }
}

#[test]
fn a_simultaneous_open_is_one_row() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    // The other side's SYN crosses: TCP_CONNTRACK_SYN_SENT2, and a packet of the reply direction was seen.
    let crossed = CtEntry {
        tcp_state: Some(TcpState(9)),
        ..answered(ct)
    };
    w.event(gw, CtEventKind::Update, crossed);
    assert_eq!(w.established()[0].id, row);
    w.event(gw, CtEventKind::Destroy, ended(crossed, TcpState::TIME_WAIT));
    assert_eq!(w.ends(), [(row, CloseReason::Finished)]);
}

#[test]
fn a_port_that_clashes_behind_masquerade_makes_two_rows_that_keep_apart() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let bob = w.login("bob", "10.0.0.8");
    let (of_alice, of_bob) = (tcp("10.0.0.7:40000", WEB.1), tcp("10.0.0.8:40000", WEB.1));
    let rows = [w.granted(gw, alice, of_alice), w.granted(gw, bob, of_bob)];
    // The second gets another port outside, since the first has its own.
    let outside = ["203.0.113.5:40000", "203.0.113.5:40001"].map(|seen| tcp(seen, WEB.1));
    let entries = [
        natted(1, of_alice, reversed(&outside[0])),
        natted(2, of_bob, reversed(&outside[1])),
    ];
    for ct in entries.iter().rev() {
        w.event(gw, CtEventKind::New, *ct);
        w.event(gw, CtEventKind::Update, answered(*ct));
    }
    for (seen, row) in outside.iter().zip(rows) {
        assert_eq!(w.find(seen).map(|conn| conn.id), Some(row));
    }
    for (ct, row) in entries.iter().zip(rows) {
        w.event(gw, CtEventKind::Destroy, ended(answered(*ct), TcpState::CLOSE));
        assert_eq!(w.ends().last(), Some(&(row, CloseReason::Reset)));
    }
}

#[test]
fn an_unasked_comparison_counts_too() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = carried(answered(entry(1, tcp(WEB.0, WEB.1))), 3);
    w.dump(gw, DumpId(0), &[ct], true);
    assert_eq!(counted(&w), [(row, 3)]);
}
