//! Who hears of a refusal: the session that claimed the connection, if it wants to and the server does, so often and no more.

use crate::world::{World, tcp};
use nuauth_server::engine::{Effect, Limits};
use nufw_proto::SessionId;
use nufw_proto::client::Denied;
use std::time::Duration;

fn telling(limits: &mut Limits) {
    limits.refusals_told = 3;
}

/// Takes what was told.
fn told(w: &mut World) -> Vec<(SessionId, Denied)> {
    let others = std::mem::take(&mut w.others);
    others
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Denied { session, denied } => Some((session, *denied)),
            _ => None,
        })
        .collect()
}

#[test]
fn only_the_session_that_claimed_it_hears_of_a_refusal() {
    let mut w = World::with(telling);
    let gw = w.gateway();
    let alice = w.login_that_hears("alice", "10.0.0.7");
    let _mallory = w.login_that_hears("mallory", "10.0.0.7");
    for (port, rejected) in [("23", false), ("25", true)] {
        let seen = tcp("10.0.0.7:40000", &format!("192.0.2.1:{port}"));
        w.ask(gw, seen);
        w.claim(alice);
        let told = told(&mut w);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (told[0].0, told[0].1.rejected, told[0].1.untold),
            (alice, rejected, 0)
        );
        assert_eq!(told[0].1.mine.seen, seen);
    }
    w.ask(gw, tcp("10.0.0.7:40001", "192.0.2.1:443"));
    w.claim(alice);
    assert_eq!(told(&mut w), [], "it was accepted");
}

#[test]
fn a_retransmission_is_not_told_again() {
    let mut w = World::with(telling);
    let gw = w.gateway();
    let alice = w.login_that_hears("alice", "10.0.0.7");
    let seen = tcp("10.0.0.7:40000", "192.0.2.1:23");
    w.ask(gw, seen);
    w.claim(alice);
    w.ask(gw, seen);
    assert_eq!(told(&mut w).len(), 1);
}

#[test]
fn it_takes_both_sides_to_tell() {
    for (most, hears) in [(0, true), (3, false)] {
        let mut w = World::with(|limits| limits.refusals_told = most);
        let gw = w.gateway();
        let alice = if hears {
            w.login_that_hears("alice", "10.0.0.7")
        } else {
            w.login("alice", "10.0.0.7")
        };
        w.ask(gw, tcp("10.0.0.7:40000", "192.0.2.1:23"));
        w.claim(alice);
        assert_eq!(told(&mut w), [], "{most} {hears}");
    }
}

#[test]
fn a_flood_is_told_three_times_and_then_as_a_number() {
    let mut w = World::with(telling);
    let gw = w.gateway();
    let alice = w.login_that_hears("alice", "10.0.0.7");
    let refuse = |w: &mut World, port: u16| {
        w.ask(gw, tcp(&format!("10.0.0.7:{port}"), "192.0.2.1:23"));
        w.claim(alice);
    };
    for port in 40_000..40_010 {
        refuse(&mut w, port);
    }
    assert_eq!(told(&mut w).len(), 3);
    w.pass(Duration::from_mins(1));
    refuse(&mut w, 41_000);
    refuse(&mut w, 41_001);
    let untold: Vec<u32> = told(&mut w).iter().map(|(_, denied)| denied.untold).collect();
    assert_eq!(untold, [7, 0]);
}
