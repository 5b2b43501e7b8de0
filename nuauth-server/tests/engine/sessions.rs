//! Who is logged in where, and what gateways hear of it.

use crate::world::{World, addr, tcp, user};
use nuauth_server::engine::{Effect, Identity, Input};
use nufw_proto::client::Refusal;
use nufw_proto::gateway::{KnownAddresses, ToAgent};
use nufw_proto::{Addr, Mark, SessionId};
use nulog::{Change, EndReason};
use std::sync::Arc;
use std::time::Duration;

fn known(w: &World) -> Vec<(bool, Vec<Addr>, Vec<Addr>)> {
    w.agent
        .iter()
        .filter_map(|(_, message)| match message {
            ToAgent::KnownAddresses(KnownAddresses {
                reset,
                added,
                removed,
                ..
            }) => Some((*reset, added.to_vec(), removed.to_vec())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_login_is_admitted_and_logged() {
    let mut w = World::new();
    let alice = w.login("alice", "10.0.0.7");
    assert_eq!(w.others, [Effect::Admitted { session: alice }]);
    let Change::SessionStart(row) = &w.log[0].change else {
        panic!("the login was not logged first")
    };
    assert_eq!((row.address, &row.user), (addr("10.0.0.7"), &user("alice").user));
    let id = row.id;
    w.logout(alice);
    w.logout(alice);
    let ends = w.log.iter().filter_map(|e| match e.change {
        Change::SessionEnd { id: of, reason, .. } if of == id => Some(reason),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [EndReason::Logout]);
    assert_eq!(w.stats().sessions, 0);
}

#[test]
fn gateways_hear_which_addresses_have_a_session() {
    let mut w = World::new();
    w.login("zoe", "10.0.0.9");
    w.login("alice", "10.0.0.7");
    w.gateway();
    assert_eq!(
        known(&w),
        [(true, vec![addr("10.0.0.7"), addr("10.0.0.9")], vec![])]
    );
    w.agent.clear();
    let bob = w.login("bob", "10.0.0.8");
    let carol = w.login("carol", "10.0.0.8");
    w.logout(bob);
    assert_eq!(known(&w).len(), 1, "only the first and the last matter");
    w.logout(carol);
    assert_eq!(
        known(&w),
        [
            (false, vec![addr("10.0.0.8")], vec![]),
            (false, vec![], vec![addr("10.0.0.8")])
        ]
    );
}

#[test]
fn a_proven_address_is_forgotten_without_renewal() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.1");
    w.prove(alice, "2001:db8::7").unwrap();
    w.pass(Duration::from_mins(4));
    w.prove(alice, "2001:db8::7").unwrap();
    w.pass(Duration::from_mins(4));
    w.granted(gw, alice, tcp("[2001:db8::7]:4000", "[2001:db8::1]:443"));
    w.pass(Duration::from_mins(1));
    let ask = w.ask(gw, tcp("[2001:db8::7]:4001", "[2001:db8::1]:443"));
    assert!(w.verdict(ask).is_some(), "nobody is there any more");
    w.granted(gw, alice, tcp("10.0.0.1:4000", "192.0.2.1:443"));
}

#[test]
fn the_address_of_the_login_cannot_be_withdrawn() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.prove(alice, "10.0.0.7").unwrap();
    w.withdraw(alice, "10.0.0.7");
    w.withdraw(alice, "10.0.0.99");
    w.granted(gw, alice, tcp("10.0.0.7:4000", "192.0.2.1:443"));
}

#[test]
fn a_proof_for_a_session_that_is_gone_is_refused() {
    let mut w = World::new();
    assert_eq!(w.prove(SessionId(7), "10.0.0.7"), Err(Refusal::Token));
}

#[test]
fn a_reload_ends_the_sessions_of_users_that_are_gone() {
    let mut w = World::new();
    let alice = w.login("alice", "10.0.0.7");
    let bob = w.login("bob", "10.0.0.8");
    let carol = w.login("carol", "10.0.0.9");
    let same_name = Identity {
        user: nulog::User {
            id: 1,
            name: Arc::from("carol"),
        },
        mark: Mark(1),
        groups: Arc::from([]),
    };
    let users = [
        (Arc::from("alice"), user("alice")),
        (Arc::from("carol"), Arc::new(same_name)),
    ];
    w.others.clear();
    w.input(Input::Users(users.into()));
    let ended: Vec<SessionId> = w
        .others
        .iter()
        .filter_map(|effect| match effect {
            Effect::EndSession { session, .. } => Some(*session),
            _ => None,
        })
        .collect();
    assert_eq!(
        ended,
        [bob, carol],
        "a name that another got is not the same user"
    );
    assert_eq!(w.stats().sessions, 1);
    let gw = w.gateway();
    w.granted(gw, alice, tcp("10.0.0.7:4000", "192.0.2.1:443"));
}

#[test]
fn a_reload_gives_sessions_their_new_mark() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let marked = Identity {
        mark: Mark(77),
        ..(*user("alice")).clone()
    };
    w.input(Input::Users([(Arc::from("alice"), Arc::new(marked))].into()));
    w.granted(gw, alice, tcp("10.0.0.7:4000", "192.0.2.1:443"));
    assert_eq!(w.opened()[0].mark, Mark(77));
}
