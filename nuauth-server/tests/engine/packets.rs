//! From a packet to its verdict.

use crate::world::{PACKET_TIMEOUT, World, answered, ended, entry, tcp, udp, user};
use nuauth_server::engine::Input;
use nufw_proto::gateway::{Ask, BridgedAsk, Capabilities, Hook, ToAgent, ToServer, Verdict};
use nufw_proto::{AskId, Batch, CtEntry, CtEventKind, Mark, TcpState, Text};
use nulog::CloseReason;
use std::sync::Arc;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");

#[test]
fn the_ports_of_a_bridge_are_in_the_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let welcome = w.agent.iter().find_map(|(_, message)| match message {
        ToAgent::Welcome(welcome) => Some(welcome.capabilities),
        _ => None,
    });
    assert!(welcome.unwrap().has(Capabilities::BRIDGE_PORTS));
    let ask = Ask {
        id: AskId(77),
        hook: Hook::Forward,
        zone: 0,
        tuple: tcp("10.0.0.7:4000", "192.0.2.1:443"),
        in_dev: Text::lossy("br0"),
        out_dev: Text::lossy("br0"),
        mark: Mark(0),
        received: w.wall(),
        tracked: true,
    };
    let bridged = BridgedAsk {
        ask,
        phys_in: Text::lossy("port1"),
        phys_out: Text::lossy("port2"),
    };
    w.said(gw, ToServer::BridgedAsks(Batch::try_from(vec![bridged]).unwrap()));
    w.claim(alice);
    w.commit();
    assert!(w.accepted(AskId(77)).is_some());
    let row = w.opened()[0];
    assert_eq!(
        (&*row.in_dev, &*row.phys_in, &*row.phys_out),
        ("br0", "port1", "port2")
    );
}

#[test]
fn a_claimed_connection_is_accepted_with_row_and_mark() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    w.commit();
    let row = w.opened()[0];
    assert_eq!(
        w.verdict(ask),
        Some(Verdict::Accept {
            row: row.id,
            mark: user("alice").mark
        })
    );
    assert_eq!(row.user, Some(user("alice").user.clone()));
    assert_eq!(row.original, tcp(WEB.0, WEB.1));
    assert_eq!(row.client_app.as_deref(), Some("/usr/bin/curl"));
    assert_eq!((&*row.acl, &*row.prefix), ("rule", "prefix"));
    assert_eq!((&*row.in_dev, &*row.out_dev), ("eth0", "eth1"));
}

#[test]
fn no_mark_is_given_where_the_agent_sets_none() {
    let mut w = World::new();
    let gw = w.gateway_as("gw", |hello| hello.sets_marks = false);
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.claim(alice);
    w.commit();
    assert!(matches!(
        w.verdict(ask),
        Some(Verdict::Accept { mark: Mark(0), .. })
    ));
    assert_eq!(w.opened()[0].mark, Mark(0));
}

#[test]
fn retransmissions_join_and_get_one_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let before_claim = [w.ask(gw, tcp(WEB.0, WEB.1)), w.ask(gw, tcp(WEB.0, WEB.1))];
    w.claim(alice);
    let before_commit = w.ask(gw, tcp(WEB.0, WEB.1));
    w.commit();
    let row = w.opened()[0].id;
    for ask in before_claim.into_iter().chain([before_commit]) {
        assert_eq!(w.accepted(ask), Some(row));
    }
    assert_eq!(w.opened().len(), 1);
    assert_eq!(w.questions_to(alice), 1);
}

#[test]
fn a_packet_after_the_grant_gets_the_same_row_when_the_same_user_claims_it() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, udp(WEB.0, WEB.1));
    let again = w.ask(gw, udp(WEB.0, WEB.1));
    w.claim(alice);
    assert_eq!(w.accepted(again), Some(row), "at once: its row is durable");
    assert_eq!(w.opened().len(), 1);
    assert_eq!(w.stats().repeated, 1);
}

#[test]
fn a_packet_after_the_grant_that_another_user_claims_is_another_connection() {
    for first in [true, false] {
        let mut w = World::new();
        let gw = w.gateway();
        let alice = w.login("alice", "10.0.0.7");
        let bob = w.login("bob", "10.0.0.7");
        let row = w.granted(gw, alice, udp(WEB.0, WEB.1));
        let again = w.ask(gw, udp(WEB.0, WEB.1));
        w.claim(bob);
        w.commit();
        let other = w.accepted(again).unwrap();
        assert_ne!(other, row);
        assert_eq!(w.opened()[1].user, Some(user("bob").user.clone()));
        // Which of the two packets the kernel confirms is told by the mark that its verdict gave it.
        let (name, confirmed) = if first { ("alice", row) } else { ("bob", other) };
        let ct = CtEntry {
            mark: user(name).mark,
            ..answered(entry(1, udp(WEB.0, WEB.1)))
        };
        w.event(gw, CtEventKind::New, ct);
        assert_eq!(w.established()[0].id, confirmed);
    }
}

#[test]
fn one_tuple_in_two_zones_or_gateways_is_two_connections() {
    let mut w = World::new();
    let gw1 = w.gateway_as("gw1", |_| {});
    let gw2 = w.gateway_as("gw2", |_| {});
    let alice = w.login("alice", "10.0.0.7");
    let asks = [w.ask(gw1, tcp(WEB.0, WEB.1)), w.ask(gw2, tcp(WEB.0, WEB.1))];
    assert_eq!(w.questions_to(alice), 2);
    w.claim(alice);
    w.commit();
    assert_eq!(w.accepted(asks[0]), None);
    assert!(w.accepted(asks[1]).is_some());
}

#[test]
fn nobody_at_the_source_drops_at_once() {
    let mut w = World::new();
    let gw = w.gateway();
    w.login("alice", "10.0.0.8");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!(&*w.dropped()[0].acl, "(nobody)");
    assert_eq!(w.dropped()[0].user, None);
    assert_eq!(w.stats().refused_nobody, 1);
}

#[test]
fn all_disclaimed_drops_at_once() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let bob = w.login("bob", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.disclaim(alice);
    assert_eq!(w.verdict(ask), None);
    w.disclaim(alice);
    assert_eq!(
        w.verdict(ask),
        None,
        "the same client cannot disclaim for the other"
    );
    w.disclaim(bob);
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!(&*w.dropped()[0].acl, "(disclaimed)");
}

#[test]
fn a_rule_drops_or_rejects_with_the_user_in_the_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    for (port, verdict) in [(23, Verdict::Drop), (25, Verdict::Reject)] {
        let ask = w.ask(gw, tcp(WEB.0, &format!("192.0.2.1:{port}")));
        w.claim(alice);
        assert_eq!(w.verdict(ask), Some(verdict), "a drop need not wait for the log");
    }
    assert_eq!(w.dropped().len(), 2);
    assert_eq!(w.dropped()[1].user, Some(user("alice").user.clone()));
    assert_eq!(&*w.dropped()[1].acl, "rule");
}

#[test]
fn silence_ends_two_seconds_before_the_agent_does() {
    let mut w = World::new();
    let gw = w.gateway();
    w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.pass(Duration::from_millis(12_999));
    assert_eq!(w.verdict(ask), None);
    w.pass(Duration::from_millis(1));
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    assert_eq!(&*w.dropped()[0].acl, "(timeout)");
}

#[test]
fn an_impatient_agent_still_gives_clients_half_its_time() {
    let mut w = World::new();
    let gw = w.gateway_as("gw", |hello| hello.packet_timeout_ms = 1000);
    w.login("alice", "10.0.0.7");
    let ask = w.ask(gw, tcp(WEB.0, WEB.1));
    w.pass(Duration::from_millis(499));
    assert_eq!(w.verdict(ask), None);
    w.pass(Duration::from_millis(1));
    assert_eq!(w.verdict(ask), Some(Verdict::Drop));
}

/// Asks again and again, as a `connect()` that is refused silently does.
fn retransmit(w: &mut World, gw: nuauth_server::engine::LinkId) -> Vec<AskId> {
    [1, 2, 4, 8, 16, 32]
        .into_iter()
        .map(|gap| {
            w.pass(Duration::from_secs(gap));
            w.ask(gw, tcp(WEB.0, WEB.1))
        })
        .collect()
}

#[test]
fn a_refused_connect_has_one_drop_row_however_often_it_is_sent() {
    let mut w = World::new();
    let gw = w.gateway();
    w.ask(gw, tcp(WEB.0, WEB.1));
    for ask in retransmit(&mut w, gw) {
        assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    }
    assert_eq!(w.dropped().len(), 1);
    w.pass(Duration::from_mins(1));
    w.ask(gw, tcp(WEB.0, WEB.1));
    assert_eq!(w.dropped().len(), 2, "a minute of silence makes it another");
}

#[test]
fn a_rejected_connect_is_rejected_again_without_asking() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.ask(gw, tcp(WEB.0, "192.0.2.1:25"));
    w.claim(alice);
    let again = w.ask(gw, tcp(WEB.0, "192.0.2.1:25"));
    assert_eq!(w.verdict(again), Some(Verdict::Reject));
    assert_eq!((w.questions_to(alice), w.dropped().len()), (1, 1));
}

#[test]
fn a_drop_is_forgotten_when_somebody_logs_in_there() {
    let mut w = World::new();
    let gw = w.gateway();
    w.ask(gw, tcp(WEB.0, WEB.1));
    w.login("bob", "10.0.0.8");
    assert_eq!(w.verdict(AskId(0)), None);
    let still = w.ask(gw, tcp(WEB.0, WEB.1));
    assert_eq!(w.verdict(still), Some(Verdict::Drop));
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
}

#[test]
fn drops_are_forgotten_when_the_policy_or_the_users_change() {
    for change in [
        Input::Judge(crate::world::rules()),
        Input::Users([(Arc::from("alice"), user("alice"))].into()),
    ] {
        let mut w = World::new();
        let gw = w.gateway();
        let alice = w.login("alice", "10.0.0.7");
        w.ask(gw, tcp(WEB.0, "192.0.2.1:23"));
        w.claim(alice);
        w.input(change);
        w.ask(gw, tcp(WEB.0, "192.0.2.1:23"));
        assert_eq!(w.questions_to(alice), 2);
    }
}

#[test]
fn who_did_not_answer_is_asked_again_without_a_second_row() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    for asked in 1..=3 {
        let ask = w.ask(gw, tcp(WEB.0, WEB.1));
        assert_eq!(w.questions_to(alice), asked);
        w.pass(PACKET_TIMEOUT);
        assert_eq!(w.verdict(ask), Some(Verdict::Drop));
    }
    assert_eq!(w.dropped().len(), 1);
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
}

#[test]
fn a_connection_that_was_granted_gets_no_drop_row_for_a_later_packet() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.granted(gw, alice, udp(WEB.0, WEB.1));
    let again = w.ask(gw, udp(WEB.0, WEB.1));
    w.disclaim(alice);
    assert_eq!(w.verdict(again), Some(Verdict::Drop));
    assert_eq!(w.dropped().len(), 0);
}

#[test]
fn refusals_are_told_where_the_limits_say_so_and_rows_stay_the_same() {
    use nuauth_server::engine::Rejects;
    let stories = |rejects: Rejects| {
        let mut w = World::with(|limits| limits.rejects = rejects);
        let gw = w.gateway();
        let nobody = w.ask(gw, tcp("10.0.0.9:1", WEB.1));
        let alice = w.login("alice", "10.0.0.7");
        let disclaimed = w.ask(gw, tcp("10.0.0.7:1", WEB.1));
        w.disclaim(alice);
        let forgotten = w.ask(gw, tcp("10.0.0.7:2", WEB.1));
        w.pass(PACKET_TIMEOUT);
        let again = w.ask(gw, tcp("10.0.0.9:1", WEB.1));
        let verdicts = [nobody, disclaimed, forgotten, again].map(|ask| w.verdict(ask).unwrap());
        let labels: Vec<_> = w.dropped().iter().map(|row| row.acl.to_string()).collect();
        assert_eq!(labels, ["(nobody)", "(disclaimed)", "(timeout)"]);
        verdicts
    };
    let (drop, reject) = (Verdict::Drop, Verdict::Reject);
    assert_eq!(stories(Rejects::default()), [drop; 4]);
    let only = |timeout, disclaimed, nobody| Rejects {
        timeout,
        disclaimed,
        nobody,
    };
    assert_eq!(stories(only(true, false, false)), [drop, drop, reject, drop]);
    assert_eq!(stories(only(false, true, false)), [drop, reject, drop, drop]);
    assert_eq!(stories(only(false, false, true)), [reject, drop, drop, reject]);
}

#[test]
fn what_the_gateway_will_not_tell_of_ends_when_it_is_accepted() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask_with(gw, tcp("10.0.0.7:40000", "192.0.2.1:443"), |ask| {
        ask.tracked = false;
    });
    w.claim(alice);
    w.commit();
    let row = w.accepted(ask).unwrap();
    assert_eq!(w.ends(), [(row, CloseReason::Untracked)]);
    assert_eq!(w.stats().live_connections, 0);
}

#[test]
fn one_tuple_in_two_zones_is_two_connections() {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let tuple = tcp("10.0.0.7:40000", "192.0.2.1:443");
    let rows = [3, 4].map(|zone| {
        let ask = w.ask_with(gw, tuple, |ask| ask.zone = zone);
        w.claim(alice);
        w.commit();
        w.accepted(ask).unwrap()
    });
    assert_ne!(rows[0], rows[1]);
    assert_eq!(w.opened().iter().map(|row| row.zone).collect::<Vec<_>>(), [3, 4]);
    // The kernel's ids may be the same, too.
    let ct = |zone| CtEntry {
        zone,
        ..entry(7, tuple)
    };
    w.event(gw, CtEventKind::New, ct(4));
    w.event(gw, CtEventKind::New, ct(3));
    w.event(gw, CtEventKind::New, ct(5));
    assert_eq!(w.stats().unrelated_events, 1);
    w.event(gw, CtEventKind::Update, answered(ct(3)));
    assert_eq!(w.established()[0].id, rows[0]);
    w.event(gw, CtEventKind::Destroy, ended(answered(ct(4)), TcpState::CLOSE));
    assert_eq!(w.ends(), [(rows[1], CloseReason::Reset)]);
    assert_eq!(w.stats().live_connections, 1);
}
