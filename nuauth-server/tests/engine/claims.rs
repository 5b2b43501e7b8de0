//! Whose claim counts, and when.

use crate::world::{World, addr, tcp, udp, user};
use nufw_proto::client::{Claim, Finding, Mine};
use nufw_proto::gateway::{Hook, Verdict};
use nufw_proto::{ClaimId, SessionId};

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

#[test]
fn a_claim_for_another_source_is_refused_and_counted() {
    for seen in [
        tcp("10.0.0.8:40000", WEB.1),
        tcp("10.0.0.7:40001", WEB.1),
        udp(WEB.0, WEB.1),
    ] {
        let mut w = World::new();
        let gw = w.gateway();
        let alice = w.login("alice", "10.0.0.7");
        let ask = w.ask(gw, tcp(WEB.0, WEB.1));
        w.claim_as(alice, seen);
        assert_eq!(w.verdict(ask), Some(Verdict::Drop));
        assert_eq!(w.stats().foreign_claims, 1);
        assert_eq!(w.opened().len(), 0);
    }
}

#[test]
fn a_false_claim_leaves_the_other_clients_their_say() {
    let mut w = World::new();
    let gw = w.gateway();
    let mallory = w.login("mallory", "10.0.0.7");
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim_as(mallory, tcp("10.0.0.7:1", WEB.1));
    assert_eq!(w.verdict(ask), None);
    w.claim(alice);
    w.commit();
    assert!(w.accepted(ask).is_some());
    assert_eq!(w.opened()[0].user, Some(user("alice").user.clone()));
}

#[test]
fn who_was_not_asked_has_no_say() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let mallory = w.login("mallory", "10.0.0.9");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    let id = w.question(alice).id;
    let seen = tcp(WEB.0, WEB.1);
    let finding = Finding::Mine(Mine { seen, program: None });
    for session in [mallory, SessionId(999)] {
        w.answer_to(
            session,
            Claim {
                id,
                finding: finding.clone(),
            },
        );
        w.answer_to(
            session,
            Claim {
                id,
                finding: Finding::NotMine,
            },
        );
    }
    assert_eq!(w.verdict(ask), None);
    assert_eq!(w.stats().foreign_claims, 4);
    w.answer_to(
        alice,
        Claim {
            id: ClaimId(999),
            finding,
        },
    );
    assert_eq!(w.stats().late_claims, 1);
}

#[test]
fn the_policy_sees_what_the_packet_shows_and_the_row_what_the_socket_sees() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let forbidden = w.ask(gw, tcp(WEB.0, "192.0.2.1:23"));
    w.claim_as(alice, tcp(WEB.0, "198.51.100.1:80"));
    assert_eq!(w.verdict(forbidden), Some(Verdict::Drop));
    let translated = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim_as(alice, tcp(WEB.0, "198.51.100.1:80"));
    w.commit();
    assert!(w.accepted(translated).is_some());
    assert_eq!(w.opened()[0].original, tcp(WEB.0, "198.51.100.1:80"));
    assert_eq!(w.opened()[0].shown, tcp(WEB.0, WEB.1));
}

#[test]
fn the_claim_of_a_session_that_lost_the_address_is_worth_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.1");
    w.prove(alice, "10.0.0.7").unwrap();
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.withdraw(alice, "10.0.0.7");
    w.claim(alice);
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!(w.stats().foreign_claims, 1);
}

#[test]
fn an_early_claim_meets_its_packet() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.announce(alice, tcp(WEB.0, WEB.1));
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.commit();
    assert!(w.accepted(ask).is_some());
    assert_eq!(w.questions_to(alice), 0);
}

#[test]
fn a_packet_that_waits_meets_the_claim_that_nobody_asked_for() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.announce(alice, tcp(WEB.0, WEB.1));
    w.commit();
    assert!(w.accepted(ask).is_some());
}

#[test]
fn an_early_claim_overrules_a_remembered_drop() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.ask(gw, tcp(WEB.0, WEB.1));
    w.disclaim(alice);
    w.announce(alice, tcp(WEB.0, WEB.1));
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.commit();
    assert!(w.accepted(ask).is_some());
}

#[test]
fn an_early_claim_lives_a_moment_and_counts_once() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.announce(alice, tcp(WEB.0, WEB.1));
    w.pass(std::time::Duration::from_secs(5));
    w.ask(gw, tcp(WEB.0, WEB.1));
    assert_eq!(w.questions_to(alice), 1);
    w.announce(alice, udp(WEB.0, WEB.1));
    w.ask(gw, udp(WEB.0, WEB.1));
    w.fail();
    w.ask(gw, udp(WEB.0, WEB.1));
    assert_eq!(w.questions_to(alice), 2);
}

#[test]
fn an_early_claim_for_an_address_of_others_is_refused() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let mallory = w.login("mallory", "10.0.0.9");
    w.announce(mallory, tcp(WEB.0, WEB.1));
    assert_eq!(w.stats().foreign_claims, 1);
    w.ask(gw, tcp(WEB.0, WEB.1));
    assert_eq!(w.questions_to(alice), 1);
}

#[test]
fn an_early_claim_of_a_session_that_is_gone_leaves_the_others_asked() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let bob = w.login("bob", "10.0.0.7");
    w.announce(alice, tcp(WEB.0, WEB.1));
    w.logout(alice);
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    assert_eq!(w.questions_to(bob), 1);
    w.claim(bob);
    w.commit();
    assert!(w.accepted(ask).is_some());
    assert_eq!(w.opened()[0].user, Some(user("bob").user.clone()));
}

#[test]
fn who_logs_in_while_a_packet_waits_is_asked_too() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask_at(gw, tcp(WEB.0, WEB.1), Hook::Input);
    let bob = w.login("bob", "10.0.0.7");
    assert_eq!(w.question(bob).hook, Hook::Input);
    let carol = w.login("carol", "10.0.0.1");
    assert_eq!(w.questions_to(carol), 0);
    assert_eq!(w.prove(carol, "10.0.0.7"), Ok(addr("10.0.0.7")));
    assert_eq!(w.questions_to(carol), 1);
    w.disclaim(alice);
    w.disclaim(bob);
    assert_eq!(w.verdict(ask), None, "carol has not answered");
    w.claim(carol);
    w.commit();
    assert!(w.accepted(ask).is_some());
}

#[test]
fn the_end_of_a_session_disclaims_for_it() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let bob = w.login("bob", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.disclaim(bob);
    w.logout(alice);
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!(&*w.dropped()[0].acl, "(disclaimed)");
}

#[test]
fn a_second_claim_is_counted_and_changes_nothing() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let bob = w.login("bob", "10.0.0.7");
    w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    w.claim(alice);
    assert_eq!(w.stats().double_claims, 0, "the same session may say it twice");
    w.claim(bob);
    assert_eq!(w.stats().double_claims, 1);
    w.commit();
    w.claim(bob);
    assert_eq!(w.stats().late_claims, 1);
    assert_eq!(w.opened().len(), 1);
    assert_eq!(w.opened()[0].user, Some(user("alice").user.clone()));
}
