//! What the server rejects never passes, whatever the rules: refused where a rule does so, else dropped.

use super::{SERVER, connecting, lab, linked, runtime};
use crate::support::netns::Lab;
use crate::support::peer::{Peer, Session};
use crate::support::process::{Agent, directory};
use nufw_agent::rules::{Format, RulesOptions, render};
use nufw_proto::gateway::Verdict;
use std::io::ErrorKind;
use std::time::Duration;

const WARNING: &str = "no rule surely refuses packets";
const MENDED: &str = "a rule refuses rejected packets again";

/// Without the jump to the rules that refuse, for both families.
const NO_REJECT: &str = "iptables -D FORWARD -j NUFW_FORWARD; ip6tables -D FORWARD -j NUFW_FORWARD";

/// Tries to connect, has it rejected, and says what the client was told and how soon.
async fn rejected(lab: &Lab, link: &mut Session) -> (ErrorKind, Duration) {
    let begun = nufw_common::clock::mono();
    let connecting = connecting(lab, Duration::from_millis(800));
    let ask = link.ask().await;
    link.answer(&ask, Verdict::Reject).await;
    let error = connecting.join().unwrap().unwrap_err();
    (error.kind(), begun.elapsed())
}

async fn dropped_and_then_refused(lab: Lab, start: impl FnOnce(&Lab, tempfile::TempDir) -> Agent) {
    lab.gateway.sh(NO_REJECT);
    let dir = directory("");
    let peer = Peer::listen(&lab.gateway, dir.path());
    let mut agent = start(&lab, dir);
    assert_eq!(
        agent.log().matches(WARNING).count(),
        2,
        "one a family, at the start"
    );
    assert!(agent.log().contains("nufw-agent rules --hook forward --apply"));
    let mut link = linked(&peer, &mut agent).await;
    let listener = lab.listen(SERVER);
    listener.set_nonblocking(true).unwrap();

    for _ in 0..2 {
        assert_eq!(rejected(&lab, &mut link).await.0, ErrorKind::TimedOut);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert_eq!(lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null"), "");
    assert_eq!(agent.log().matches(WARNING).count(), 2, "said once");

    lab.gateway
        .sh(&render(Format::Iptables, &RulesOptions::default()));
    agent.signal("HUP");
    agent.wait_for_logs(MENDED, 2);
    let (error, time) = rejected(&lab, &mut link).await;
    assert_eq!(error, ErrorKind::ConnectionRefused);
    assert!(time < Duration::from_millis(500), "{time:?}");

    // Rules that are gone again.
    lab.gateway.sh("iptables -F NUFW_FORWARD");
    agent.signal("HUP");
    agent.wait_for_logs(WARNING, 3);
    assert_eq!(rejected(&lab, &mut link).await.0, ErrorKind::TimedOut);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn without_a_rule_that_refuses_it_is_dropped_and_with_one_refused_at_once() {
    match lab() {
        Ok(lab) => runtime().block_on(dropped_and_then_refused(lab, |lab, dir| {
            Agent::start(&lab.gateway, dir, &[])
        })),
        Err(why) => crate::skip!("{why}"),
    }
}

#[test]
fn an_agent_that_is_not_root_sees_the_rules_too() {
    match lab() {
        Ok(lab) => runtime().block_on(dropped_and_then_refused(lab, |lab, dir| {
            Agent::start_as_nobody(&lab.gateway, dir)
        })),
        Err(why) => crate::skip!("{why}"),
    }
}

#[test]
fn rules_that_are_loaded_later_are_noticed_without_a_signal() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        lab.gateway.sh(NO_REJECT);
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        lab.gateway
            .sh(&render(Format::Iptables, &RulesOptions::default()));
        assert_eq!(rejected(&lab, &mut link).await.0, ErrorKind::TimedOut);
        // The next look may be half a minute away; the link is kept meanwhile.
        let end = nufw_common::clock::mono() + Duration::from_secs(40);
        while !agent.log().contains(MENDED) {
            assert!(nufw_common::clock::mono() < end, "{}", agent.log());
            link.heartbeat().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(rejected(&lab, &mut link).await.0, ErrorKind::ConnectionRefused);
    });
}
