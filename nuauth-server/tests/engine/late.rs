//! A server that starts without its log: what agents tell is kept until it is known which rows were live.

use crate::world::{World, answered, ended, entry, tcp};
use nuauth_server::engine::{Effect, Input};
use nufw_proto::{BootId, ConnId, CtEventKind, EventSeq, Mark, TcpState, Timestamp, Tuple};
use nulog::{ActiveRow, Binding, CloseReason, State, Translated, User};
use std::sync::Arc;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

fn id(raw: u64) -> ConnId {
    ConnId::try_from(raw).unwrap()
}

fn bound(row: u64, tuple: Tuple, ct_id: u32, received: Timestamp) -> ActiveRow {
    ActiveRow {
        id: id(row),
        gateway: Arc::from("gw"),
        state: State::Established,
        received,
        zone: 0,
        original: tuple,
        translated: Translated::Bound(Binding {
            ct_id,
            ct_mark: Mark(1),
            original: tuple,
            reply: crate::world::reversed(&tuple),
        }),
        mark: Mark(1),
        user_id: Some(
            User {
                id: 1,
                name: Arc::from("x"),
            }
            .id,
        ),
        username: None,
        client_os: None,
        client_app: None,
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        auth: None,
    }
}

fn without_its_log() -> World {
    let mut w = World::without_ids(|_| {});
    w.input(Input::LoadedLater);
    w.input(Input::Ids(1000..2000));
    w
}

fn load(w: &mut World, rows: Vec<ActiveRow>, through: u64) {
    let acknowledged = vec![(Arc::from("gw"), BootId(1), EventSeq(through))];
    w.input(Input::Loaded { rows, acknowledged });
}

#[test]
fn packets_are_answered_and_events_wait_for_the_rows_of_before() {
    let mut w = without_its_log();
    let long_ago = w.wall();
    let gw = w.gateway();
    assert_eq!(w.requested(), None, "a dump would prove nothing");
    let alice = w.login("alice", "10.0.0.7");
    let (old, new) = (tcp(WEB.0, "192.0.2.1:80"), tcp(WEB.0, WEB.1));
    let logged = w.log.len();
    // Nobody knows the row of this one yet.
    w.event(
        gw,
        CtEventKind::Destroy,
        ended(answered(entry(22, old)), TcpState::TIME_WAIT),
    );
    w.granted(gw, alice, new);
    w.event(gw, CtEventKind::New, entry(33, new));
    w.event(gw, CtEventKind::Update, answered(entry(33, new)));
    assert_eq!((w.ends(), w.established().len(), w.acks()), (vec![], 0, vec![]));
    assert_eq!(w.log.len(), logged + 1, "the new row alone");
    load(&mut w, vec![bound(2, old, 22, long_ago)], 0);
    assert_eq!(w.ends(), [(id(2), CloseReason::Finished)]);
    let granted = w.opened()[0].id;
    assert_eq!(w.established()[0].id, granted);
    w.commit();
    assert_eq!(w.acks().last(), Some(&3));
    assert!(w.requested().is_some(), "what was missed is asked for now");
}

#[test]
fn rows_of_this_run_that_the_log_has_are_not_taken_for_those_of_before() {
    let mut w = without_its_log();
    let gw = w.gateway_as("gw", |hello| hello.relays_events = false);
    let alice = w.login("alice", "10.0.0.7");
    // It is over at once, since this gateway tells nothing of it; the log was read before that was in it.
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let now = w.wall();
    let (own, ends) = (w.opened()[0].id, w.ends());
    load(
        &mut w,
        vec![bound(own.get().unsigned_abs(), tcp(WEB.0, WEB.1), 5, now)],
        0,
    );
    assert_eq!(w.stats().live_connections, 0);
    assert_eq!(w.ends(), ends);
}

#[test]
fn events_that_were_durable_before_are_not_taken_again() {
    let mut w = without_its_log();
    let now = w.wall();
    let gw = w.gateway();
    let old = tcp(WEB.0, WEB.1);
    let end = w.event_now(
        CtEventKind::Destroy,
        ended(answered(entry(22, old)), TcpState::TIME_WAIT),
    );
    w.events(gw, 10, &[end]);
    load(&mut w, vec![bound(2, old, 22, now)], 10);
    assert_eq!(w.ends(), []);
}

#[test]
fn what_an_agent_told_on_a_link_that_is_over_is_forgotten_since_it_tells_it_again() {
    let mut w = without_its_log();
    let now = w.wall();
    let old = tcp(WEB.0, WEB.1);
    let first = w.gateway();
    let end = ended(answered(entry(22, old)), TcpState::TIME_WAIT);
    w.event(first, CtEventKind::Destroy, end);
    w.input(Input::GatewayDown { link: first });
    let second = w.gateway();
    assert_eq!(w.welcomed_at(second), 0);
    load(&mut w, vec![bound(2, old, 22, now)], 0);
    assert_eq!(w.ends(), []);
    w.event(second, CtEventKind::Destroy, end);
    assert_eq!(w.ends(), [(id(2), CloseReason::Finished)]);
}

#[test]
fn a_flood_of_events_is_not_kept_but_asked_for_again() {
    let mut w = without_its_log();
    let gw = w.gateway();
    let other = w.gateway_as("gw2", |_| {});
    let event = w.event_now(CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    for first in (0..80_000).step_by(100) {
        w.events(gw, first + 1, &vec![event; 100]);
    }
    w.pass(Duration::from_secs(1));
    load(&mut w, Vec::new(), 0);
    let ended: Vec<_> = w
        .others
        .iter()
        .filter_map(|effect| match effect {
            Effect::EndLink { link, .. } => Some(*link),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [gw]);
    w.event(other, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    assert_eq!(w.acks().last(), Some(&1), "the other gateway's link lives");
}
