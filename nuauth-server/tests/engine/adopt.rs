//! Live connections that the log does not know: adopted where their mark says whose they are, left alone where it does not.

use crate::world::{NoLog, World, answered, counters, ended, entry, natted, reversed, tcp, user};
use nuauth_server::engine::{Engine, Input, Limits, LinkId};
use nufw_proto::gateway::Hello;
use nufw_proto::{CtEntry, CtEventKind, DumpId, Mark, TcpState};
use nulog::CloseReason;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

fn start_with(change: impl FnOnce(&mut Limits)) -> (World, LinkId) {
    let mut w = World::with(change);
    know(&mut w, &["alice"]);
    let gw = w.gateway();
    (w, gw)
}

fn start() -> (World, LinkId) {
    start_with(|_| {})
}

fn know(w: &mut World, names: &[&str]) {
    let users = names.iter().map(|name| (Arc::from(*name), user(name)));
    w.input(Input::Users(users.collect()));
}

/// An entry with a user's mark, and somebody else's bits beside it.
fn marked(name: &str, entry: CtEntry) -> CtEntry {
    CtEntry {
        mark: Mark(user(name).mark.0 | 0x0100_0000),
        ..entry
    }
}

fn look(w: &mut World, gw: LinkId, entries: &[CtEntry]) {
    let dump = w.requested().unwrap();
    w.dump(gw, dump, entries, true);
}

#[test]
fn an_unknown_connection_of_a_user_is_adopted_and_lives_like_any_other() {
    let (mut w, gw) = start();
    let born = w.wall();
    w.pass(Duration::from_secs(9));
    let original = tcp(WEB.0, "198.51.100.1:443");
    let reply = reversed(&tcp("203.0.113.5:61000", WEB.1));
    let ct = CtEntry {
        start: Some(born),
        counters: Some(counters()),
        ..marked("alice", answered(natted(5, original, reply)))
    };
    look(&mut w, gw, &[ct]);
    let row = w.opened()[0].clone();
    assert_eq!((&*row.acl, row.received), ("(adopted)", born));
    assert_eq!(row.user.as_ref().map(|user| &*user.name), Some("alice"));
    assert_eq!((row.client_os, row.client_app), (None, None), "nobody said that");
    assert_eq!((row.original, row.shown), (original, tcp(WEB.0, WEB.1)));
    let established = w.established()[0];
    assert_eq!(
        (established.id, established.at, established.binding.unwrap().reply),
        (row.id, None, reply)
    );
    assert!(!w.log.iter().any(|entry| entry.urgent), "nobody waits for it");
    assert_eq!((w.stats().adopted, w.stats().waiting_async), (1, 1));
    w.commit();
    assert_eq!(w.stats().waiting_async, 0);
    assert_eq!(w.find(&original).map(|conn| conn.id), Some(row.id));
    w.pass(Duration::from_mins(1));
    look(&mut w, gw, &[ct]);
    assert_eq!(w.opened().len(), 1, "once");
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::TIME_WAIT));
    assert_eq!(w.ends(), [(row.id, CloseReason::Finished)]);
}

#[test]
fn without_a_time_it_began_when_it_was_found() {
    let (mut w, gw) = start();
    let before = w.wall();
    look(&mut w, gw, &[marked("alice", entry(5, tcp(WEB.0, WEB.1)))]);
    assert!(w.opened()[0].received > before);
}

#[test]
fn what_is_nobodys_is_left_alone() {
    let (mut w, gw) = start();
    let ct = entry(5, tcp(WEB.0, WEB.1));
    look(
        &mut w,
        gw,
        &[ct, marked("mallory", entry(6, tcp(WEB.0, "192.0.2.1:80")))],
    );
    assert_eq!((w.opened().len(), w.stats().adopted), (0, 0));
    // Somebody who is made known later is somebody from then on.
    know(&mut w, &["alice", "mallory"]);
    w.pass(Duration::from_mins(1));
    look(
        &mut w,
        gw,
        &[ct, marked("mallory", entry(6, tcp(WEB.0, "192.0.2.1:80")))],
    );
    assert_eq!(w.opened().len(), 1);
}

#[test]
fn what_needs_no_row_gets_none() {
    let ct = marked("alice", entry(5, tcp(WEB.0, WEB.1)));
    let off: [fn(&mut Limits); 2] = [
        |limits| limits.adopt = false,
        |limits| limits.levels.connections = false,
    ];
    for change in off {
        let (mut w, gw) = start_with(change);
        look(&mut w, gw, &[ct]);
        assert_eq!(w.opened().len(), 0);
    }
    // Under a rule without log it may well have been granted without a row.
    let (mut w, gw) = start();
    look(
        &mut w,
        gw,
        &[marked("alice", entry(6, tcp(WEB.0, "192.0.2.1:2003")))],
    );
    assert_eq!(w.opened().len(), 0);
    w.input(Input::Judge(Arc::new(NoLog)));
    w.pass(Duration::from_mins(1));
    look(&mut w, gw, &[ct]);
    assert_eq!(w.opened().len(), 0);
    // An agent that sets no marks has them from somebody else; one that relays no events would never tell the end.
    let less: [fn(&mut Hello); 2] = [
        |hello| hello.sets_marks = false,
        |hello| hello.relays_events = false,
    ];
    for less in less {
        let mut w = World::new();
        know(&mut w, &["alice"]);
        let gw = w.gateway_as("gw", less);
        w.dump(gw, DumpId(0), &[ct], true);
        assert_eq!(w.opened().len(), 0);
    }
}

#[test]
fn a_row_that_waits_for_its_entry_is_bound_and_one_whose_end_was_missed_is_not_doubled() {
    let (mut w, gw) = start();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = marked("alice", entry(5, tcp(WEB.0, WEB.1)));
    look(&mut w, gw, &[ct]);
    assert_eq!((w.opened().len(), w.stats().adopted), (1, 0));
    w.pass(Duration::from_mins(1));
    look(&mut w, gw, &[]);
    assert_eq!(w.ends().len(), 1);
    // The kernel's dump had passed it over.
    w.pass(Duration::from_mins(1));
    look(&mut w, gw, &[ct]);
    assert_eq!((w.opened().len(), w.stats().adopted), (1, 0));
}

#[test]
fn what_finds_no_room_waits_for_the_next_look() {
    let (mut w, gw) = start_with(|limits| limits.waiting_async = 1);
    let entries = [1, 2].map(|id| marked("alice", entry(id, tcp(WEB.0, &format!("192.0.2.1:{id}")))));
    look(&mut w, gw, &entries);
    assert_eq!(w.stats().adopted, 1);
    w.commit();
    w.pass(Duration::from_secs(30));
    look(&mut w, gw, &entries);
    assert_eq!(w.stats().adopted, 2, "the doubt asked for it");
}

#[test]
fn users_are_known_from_the_start() {
    let users = HashMap::from([(Arc::from("alice"), user("alice"))]);
    let engine = Engine::new(Limits::default(), crate::world::rules()).with_users(&users);
    let mut w = World::new();
    w.engine = engine;
    w.input(Input::Ids(1..10));
    let gw = w.gateway();
    look(&mut w, gw, &[marked("alice", entry(5, tcp(WEB.0, WEB.1)))]);
    assert_eq!(w.stats().adopted, 1);
}
