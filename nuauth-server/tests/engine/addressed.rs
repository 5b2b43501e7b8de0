//! Whose an address is where no client can be asked.

use crate::world::{World, addr, tcp, user};
use nuauth_server::engine::{Effect, Identity, Input, Quality};
use nufw_proto::gateway::{ToAgent, Verdict};
use nulog::Change;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

fn users(names: &[&str]) -> HashMap<Arc<str>, Arc<Identity>> {
    names.iter().map(|&name| (Arc::from(name), user(name))).collect()
}

fn world() -> World {
    let mut w = World::new();
    w.input(Input::Users(users(&["alice", "printer", "guest"])));
    w
}

impl World {
    fn networks(&mut self, networks: &[(&str, &str)]) {
        let networks = networks
            .iter()
            .map(|&(network, user)| (network.parse().unwrap(), Arc::from(user)))
            .collect();
        self.input(Input::Networks(networks));
    }

    fn identify(&mut self, address: &str, user: &str) {
        self.input(Input::Identified {
            address: addr(address),
            user: Arc::from(user),
        });
    }

    /// The user of the row that a packet gets without any question.
    fn decided(&mut self, from: &str) -> Option<String> {
        let gw = self.gateway();
        let ask = self.ask(gw, tcp(from, "192.0.2.1:443"));
        self.commit();
        self.accepted(ask)?;
        let row = self.opened().last().unwrap().user.clone();
        row.map(|user| user.name.to_string())
    }

    fn others_can_pass(&self) -> Option<bool> {
        self.agent.iter().rev().find_map(|(_, message)| match message {
            ToAgent::KnownAddresses(known) => Some(known.others_can_pass),
            _ => None,
        })
    }
}

#[test]
fn the_narrowest_network_says_who_it_is_and_nobody_is_asked() {
    let mut w = world();
    w.networks(&[
        ("10.0.0.0/8", "guest"),
        ("10.0.0.9/32", "printer"),
        ("2001:db8::/64", "guest"),
    ]);
    assert_eq!(w.decided("10.0.0.9:4000").as_deref(), Some("printer"));
    assert_eq!(w.decided("10.0.0.8:4000").as_deref(), Some("guest"));
    assert_eq!(w.opened()[0].client_os.as_deref(), Some("(address)"));
    assert_eq!(w.decided("192.168.0.1:4000"), None);
    let questions = w.others.iter().filter(|e| matches!(e, Effect::Question { .. }));
    assert_eq!(questions.count(), 0);
    let views = w.engine.sessions_after(0, 9, w.moment());
    assert_eq!(views.len(), 2);
    assert!(views.iter().all(|view| view.quality == Quality::Address));
}

#[test]
fn a_client_at_the_address_goes_before_it() {
    let mut w = world();
    w.networks(&[("10.0.0.0/8", "guest")]);
    assert_eq!(w.decided("10.0.0.7:4000").as_deref(), Some("guest"));
    let alice = w.login("alice", "10.0.0.7");
    let gw = w.gateway();
    let ask = w.ask(gw, tcp("10.0.0.7:4001", "192.0.2.1:443"));
    assert_eq!(w.verdict(ask), None, "alice's client is asked");
    w.disclaim(alice);
    assert_eq!(w.verdict(ask), Some(Verdict::Drop), "and its no is a no");
    w.granted(gw, alice, tcp("10.0.0.7:4002", "192.0.2.1:443"));
    w.logout(alice);
    assert_eq!(w.decided("10.0.0.7:4003").as_deref(), Some("guest"));
}

#[test]
fn what_is_told_of_an_address_begins_changes_and_ends_a_session() {
    let mut w = world();
    w.identify("10.0.0.7", "alice");
    w.identify("10.0.0.7", "alice");
    assert_eq!(w.decided("10.0.0.7:4000").as_deref(), Some("alice"));
    w.identify("10.0.0.7", "printer");
    assert_eq!(w.decided("10.0.0.7:4001").as_deref(), Some("printer"));
    w.input(Input::Unidentified {
        address: addr("10.0.0.7"),
    });
    assert_eq!(w.decided("10.0.0.7:4002"), None);
    w.identify("10.0.0.8", "nobody we know");
    assert_eq!((w.stats().unknown_identities, w.stats().sessions), (1, 0));
    let count = |wanted: fn(&Change) -> bool| w.log.iter().filter(|e| wanted(&e.change)).count();
    assert_eq!(count(|c| matches!(c, Change::SessionStart(_))), 2);
    assert_eq!(count(|c| matches!(c, Change::SessionEnd { .. })), 2);
}

#[test]
fn gateways_hear_that_addresses_without_a_session_may_pass() {
    let mut w = world();
    w.gateway();
    assert_eq!(w.others_can_pass(), Some(false));
    w.networks(&[("10.0.0.0/8", "guest")]);
    assert_eq!(w.others_can_pass(), Some(true));
    w.decided("10.0.0.7:4000");
    assert_eq!(w.stats().sessions, 1);
    w.networks(&[]);
    assert_eq!(w.others_can_pass(), Some(false));
    assert_eq!(w.stats().sessions, 0, "who was let in by it is let in no more");
}

#[test]
fn a_guest_that_was_not_seen_for_long_is_forgotten() {
    let mut w = world();
    w.networks(&[("10.0.0.0/8", "guest")]);
    w.decided("10.0.0.7:4000");
    w.pass(Duration::from_mins(4));
    w.decided("10.0.0.7:4001");
    w.pass(Duration::from_mins(4));
    assert_eq!(w.stats().sessions, 1);
    w.pass(Duration::from_mins(2));
    assert_eq!(w.stats().sessions, 0);
}

#[test]
fn guests_are_bounded_as_sessions_are() {
    let mut w = World::with(|limits| limits.sessions = 2);
    w.input(Input::Users(users(&["guest"])));
    w.networks(&[("10.0.0.0/8", "guest")]);
    assert!(w.decided("10.0.0.1:4000").is_some());
    assert!(w.decided("10.0.0.2:4000").is_some());
    assert_eq!(w.decided("10.0.0.3:4000"), None);
    assert_eq!(w.stats().logins_full, 1);
}

#[test]
fn a_user_who_is_taken_out_has_no_address_either() {
    let mut w = world();
    w.networks(&[("10.0.0.0/8", "guest")]);
    w.identify("10.0.0.7", "alice");
    w.decided("10.0.0.8:4000");
    w.input(Input::Users(users(&["printer"])));
    assert_eq!(w.stats().sessions, 0);
    assert_eq!(w.decided("10.0.0.8:4001"), None);
}
