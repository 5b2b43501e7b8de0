//! What a server that starts again knows from the log.

use crate::world::{World, answered, ended, entry, reversed, tcp, udp, user};
use nuauth_server::engine::Input;
use nufw_proto::{BootId, ConnId, CtEntry, CtEventKind, EventSeq, Mark, TcpState, Timestamp, Tuple};
use nulog::{ActiveRow, Binding, CloseReason, State, Translated};
use std::sync::Arc;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

fn id(raw: u64) -> ConnId {
    ConnId::try_from(raw).unwrap()
}

fn open(row: u64, tuple: Tuple, received: Timestamp) -> ActiveRow {
    ActiveRow {
        id: id(row),
        gateway: Arc::from("gw"),
        state: State::Open,
        received,
        zone: 0,
        original: tuple,
        translated: Translated::Shown(tuple),
        mark: Mark(1),
        user_id: Some(user("alice").user.id),
        username: Some(Arc::from("alice")),
        client_os: None,
        client_app: None,
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        auth: None,
    }
}

fn bound(row: u64, tuple: Tuple, ct_id: u32, received: Timestamp) -> ActiveRow {
    ActiveRow {
        state: State::Established,
        translated: Translated::Bound(Binding {
            ct_id,
            ct_mark: Mark(1),
            original: tuple,
            reply: reversed(&tuple),
        }),
        ..open(row, tuple, received)
    }
}

/// A server that starts with these rows, and with events durable up to 10.
fn restarted(rows: impl FnOnce(Timestamp) -> Vec<ActiveRow>) -> World {
    let mut w = World::without_ids(|_| {});
    w.input(Input::Ids(1000..2000));
    let rows = rows(w.wall());
    let acknowledged = vec![(Arc::from("gw"), BootId(1), EventSeq(10))];
    w.input(Input::Loaded { rows, acknowledged });
    w
}

#[test]
fn rows_go_on_with_their_events() {
    let (first, second) = (tcp(WEB.0, WEB.1), tcp(WEB.0, "192.0.2.1:80"));
    let mut w = restarted(|now| vec![open(1, first, now), bound(2, second, 22, now)]);
    let gw = w.gateway();
    assert_eq!(w.welcomed_at(gw), 10);
    let update = w.event_now(CtEventKind::Update, answered(entry(11, first)));
    let end = w.event_now(
        CtEventKind::Destroy,
        ended(answered(entry(22, second)), TcpState::TIME_WAIT),
    );
    w.events(gw, 11, &[update, end]);
    assert_eq!(w.established()[0].id, id(1));
    assert_eq!(w.ends(), [(id(2), CloseReason::Finished)]);
}

#[test]
fn events_that_were_durable_are_not_taken_again() {
    let mut w = restarted(|now| vec![open(1, tcp(WEB.0, WEB.1), now)]);
    let gw = w.gateway();
    let end = w.event_now(CtEventKind::Destroy, entry(1, tcp(WEB.0, WEB.1)));
    w.events(gw, 10, &[end]);
    assert_eq!(w.ends(), []);
}

#[test]
fn the_first_dump_settles_what_happened_meanwhile() {
    let tuples = [1, 2, 3].map(|port| tcp(WEB.0, &format!("192.0.2.1:{port}")));
    let mut w = restarted(|now| {
        vec![
            open(1, tuples[0], now),
            bound(2, tuples[1], 2, now),
            bound(3, tuples[2], 3, now),
        ]
    });
    let gw = w.gateway();
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[answered(entry(3, tuples[2]))], true);
    let mut ends = w.ends();
    ends.sort_by_key(|(row, _)| *row);
    assert_eq!(
        ends,
        [(id(1), CloseReason::NeverConfirmed), (id(2), CloseReason::Resync)]
    );
}

#[test]
fn a_packet_of_a_loaded_row_gets_a_row_that_this_server_granted() {
    let mut w = restarted(|now| vec![open(1, udp(WEB.0, WEB.1), now)]);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, udp(WEB.0, WEB.1));
    assert_ne!(row, id(1));
    assert_eq!(w.ends(), [(id(1), CloseReason::Superseded)]);
}

#[test]
fn an_unused_verdict_of_before_the_restart_ends_nothing() {
    let mut w = restarted(|now| vec![open(1, tcp(WEB.0, WEB.1), now)]);
    let gw = w.gateway();
    w.unused(gw, nufw_proto::AskId(1), id(1));
    assert_eq!(w.ends(), [], "another packet of the connection may have gone on");
}

#[test]
fn of_two_rows_for_one_packet_each_gets_its_own_events() {
    let t = tcp(WEB.0, WEB.1);
    let later = |now: Timestamp| Timestamp::from_micros(now.micros() + 1_000);
    let mut w = restarted(|now| vec![open(2, t, later(now)), open(1, t, now)]);
    let gw = w.gateway();
    let update = w.event_now(CtEventKind::Update, answered(entry(5, t)));
    w.pass(std::time::Duration::from_millis(2));
    let later_update = w.event_now(CtEventKind::Update, answered(entry(6, t)));
    w.events(gw, 11, &[update, later_update]);
    assert_eq!(
        w.established()[0].id,
        id(1),
        "told before the younger one was asked for"
    );
    assert_eq!(w.established()[1].id, id(2));
    let mut w = restarted(|now| vec![bound(2, t, 5, later(now)), bound(1, t, 5, now)]);
    assert_eq!(w.ends(), [(id(1), CloseReason::Replaced)]);
    // The end of the older one is sent again.
    let gw = w.gateway();
    let born = Timestamp::from_micros(w.wall().micros() - 1);
    let old = CtEntry {
        start: Some(born),
        ..ended(entry(5, t), TcpState::CLOSE)
    };
    let end = w.event_now(CtEventKind::Destroy, old);
    w.events(gw, 11, &[end]);
    assert_eq!(w.closed()[1].id, id(1));
    assert!(w.closed()[1].counters.is_some());
    assert_eq!(w.stats().live_connections, 1);
}

#[test]
fn rows_of_a_gateway_that_stays_away_wait() {
    let mut w = restarted(|now| vec![open(1, tcp(WEB.0, WEB.1), now)]);
    w.gateway_as("other", |_| {});
    w.pass(std::time::Duration::from_hours(1));
    assert_eq!(w.ends(), []);
    assert_eq!(w.stats().live_connections, 1);
}
