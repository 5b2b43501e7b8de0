//! Every bound, driven to its end.

use crate::world::{World, addr, tcp, udp};
use nuauth_server::engine::{Effect, LinkId};
use nufw_proto::AskId;
use nufw_proto::client::Refusal;
use nufw_proto::gateway::Verdict;
use std::time::Duration;

const SOURCE: &str = "10.0.0.7:40000";

fn ask(w: &mut World, gw: LinkId, port: u16) -> AskId {
    w.ask(gw, tcp(SOURCE, &format!("192.0.2.1:{port}")))
}

#[test]
fn packets_that_wait() {
    let mut w = World::with(|limits| limits.pending_asks = 2);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let asks = [ask(&mut w, gw, 1), ask(&mut w, gw, 2), ask(&mut w, gw, 3)];
    assert_eq!(w.verdict(asks[2]), Some(Verdict::Drop));
    assert_eq!((w.stats().pending_asks, w.stats().refused_full), (2, 1));
    assert_eq!(w.dropped().len(), 0, "a full table is not filled further by rows");
    w.claim(alice);
    w.commit();
    let again = ask(&mut w, gw, 3);
    assert_eq!(w.verdict(again), None, "there is room again");
}

#[test]
fn packets_of_one_connection() {
    let mut w = World::with(|limits| limits.packets_per_ask = 2);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let asks = [ask(&mut w, gw, 1), ask(&mut w, gw, 1), ask(&mut w, gw, 1)];
    assert_eq!(w.verdict(asks[2]), Some(Verdict::Drop));
    w.claim(alice);
    w.commit();
    assert!(w.accepted(asks[0]).is_some() && w.accepted(asks[1]).is_some());
}

#[test]
fn live_connections() {
    let mut w = World::with(|limits| limits.connections = 2);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let mut asks = Vec::new();
    for port in 1..=3 {
        asks.push(ask(&mut w, gw, port));
    }
    // All three were asked for while there was room.
    for port in 1..=3 {
        w.announce(alice, tcp(SOURCE, &format!("192.0.2.1:{port}")));
    }
    w.commit();
    assert_eq!(w.verdict(asks[2]), Some(Verdict::Drop));
    assert_eq!((w.stats().live_connections, w.stats().refused_full), (2, 1));
}

#[test]
fn rows_whose_commit_is_awaited() {
    let mut w = World::with(|limits| limits.waiting_commits = 1);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let first = ask(&mut w, gw, 1);
    w.claim(alice);
    let second = ask(&mut w, gw, 2);
    w.claim(alice);
    assert_eq!(w.verdict(second), Some(Verdict::Drop));
    assert_eq!(w.stats().refused_unlogged, 1);
    w.commit();
    assert!(w.accepted(first).is_some());
    let again = ask(&mut w, gw, 2);
    w.claim(alice);
    w.commit();
    assert!(w.accepted(again).is_some());
}

fn refused_for(w: &World) -> Option<Refusal> {
    w.others.iter().rev().find_map(|effect| match effect {
        Effect::NotAdmitted { cause, .. } => Some(*cause),
        _ => None,
    })
}

#[test]
fn sessions() {
    let mut w = World::with(|limits| limits.sessions = 2);
    w.login("alice", "10.0.0.1");
    w.login("bob", "10.0.0.2");
    assert_eq!(refused_for(&w), None);
    w.login("carol", "10.0.0.3");
    assert_eq!(refused_for(&w), Some(Refusal::Full));
    assert_eq!(w.stats().sessions, 2);
}

#[test]
fn sessions_at_one_address() {
    let mut w = World::with(|limits| limits.sessions_per_address = 1);
    w.login("alice", "10.0.0.1");
    w.login("bob", "10.0.0.1");
    assert_eq!(refused_for(&w), Some(Refusal::AddressFull));
    let carol = w.login("carol", "10.0.0.2");
    assert_eq!(w.prove(carol, "10.0.0.1"), Err(Refusal::Address));
}

#[test]
fn addresses_of_one_session() {
    let mut w = World::with(|limits| limits.addresses_per_session = 2);
    let alice = w.login("alice", "10.0.0.1");
    assert_eq!(w.prove(alice, "10.0.0.2"), Ok(addr("10.0.0.2")));
    assert_eq!(w.prove(alice, "10.0.0.3"), Err(Refusal::Address));
    assert_eq!(
        w.prove(alice, "10.0.0.2"),
        Ok(addr("10.0.0.2")),
        "renewed, not added"
    );
    w.withdraw(alice, "10.0.0.2");
    assert_eq!(w.prove(alice, "10.0.0.3"), Ok(addr("10.0.0.3")));
}

#[test]
fn drops_that_are_remembered() {
    let mut w = World::with(|limits| limits.recent_drops = 2);
    let gw = w.gateway();
    for port in [1, 2, 3] {
        ask(&mut w, gw, port);
    }
    for port in [3, 2] {
        ask(&mut w, gw, port);
    }
    assert_eq!(w.dropped().len(), 3, "the younger ones are remembered");
    ask(&mut w, gw, 1);
    assert_eq!(w.dropped().len(), 4, "the oldest was forgotten");
}

#[test]
fn early_claims() {
    let mut w = World::with(|limits| limits.early_claims = 1);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.announce(alice, tcp(SOURCE, "192.0.2.1:1"));
    w.announce(alice, tcp(SOURCE, "192.0.2.1:2"));
    ask(&mut w, gw, 1);
    assert_eq!(
        w.questions_to(alice),
        1,
        "the oldest was forgotten, its client is asked"
    );
    ask(&mut w, gw, 2);
    assert_eq!(w.questions_to(alice), 1);
}

#[test]
fn rows_that_wait_for_a_late_end() {
    use crate::world::{ended, entry};
    use nufw_proto::{CtEventKind, TcpState};
    let mut w = World::with(|limits| limits.ended_unseen = 1);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let tuples = [udp(SOURCE, "192.0.2.1:1"), udp(SOURCE, "192.0.2.1:2")];
    let entries: Vec<_> = (1..).zip(tuples).map(|(id, tuple)| entry(id, tuple)).collect();
    for ct in &entries {
        w.granted(gw, alice, ct.original);
        w.event(gw, CtEventKind::New, *ct);
    }
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    assert_eq!(w.closed().len(), 2);
    for ct in &entries {
        w.event(gw, CtEventKind::Destroy, ended(*ct, TcpState(0)));
    }
    assert_eq!(w.closed().len(), 3, "only one was remembered");
    assert_eq!(w.stats().unrelated_events, 1);
}

#[test]
fn a_storm_of_short_questions_leaves_nothing_behind() {
    let mut w = World::with(|limits| limits.recent_drops = 16);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    for port in 1..=5000 {
        ask(&mut w, gw, port);
        w.disclaim(alice);
    }
    assert_eq!(w.stats().pending_asks, 0);
    w.pass(Duration::from_mins(2));
    assert_eq!(w.stats().refused_timeout, 0);
}
