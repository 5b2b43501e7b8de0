//! How the agent lives and ends: refusals, silence, signals, exit codes.

use super::{datagrams, lab, linked, runtime};
use crate::support::peer::{Peer, welcome};
use crate::support::process::{Agent, directory};
use nufw_proto::gateway::{ToAgent, ToServer};
use std::time::Duration;

#[test]
fn term_says_goodbye_drops_what_waits_and_closes_the_queue() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        for set in ["CapPrm", "CapEff"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            // CAP_NET_ADMIN is number 12.
            assert!(line.ends_with("0000000000001000"), "{line}");
        }
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1001);
        link.ask().await;
        agent.signal("TERM");
        let all = link.until("goodbye", |m| matches!(m, ToServer::Goodbye(_))).await;
        assert!(matches!(all.last(), Some(ToServer::Goodbye(bye)) if bye.reason.as_str() == "the agent is stopped"));
        assert!(agent.wait().success());
        assert!(agent.log().contains("stopped"));
        assert_eq!(lab.gateway.sh("cat /proc/thread-self/net/netfilter/nfnetlink_queue"), "");
    });
}

#[test]
fn a_refusal_is_logged_once_and_tried_again() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let agent = Agent::start(&lab.gateway, dir, &[]);
        for _ in 0..3 {
            peer.accept()
                .await
                .goodbye("gateway gw1 is not in the list")
                .await;
        }
        let _link = peer.welcome(0).await;
        let log = agent.log();
        let warnings: Vec<_> = log
            .lines()
            .filter(|line| line.contains("WARN nufw_agent::link"))
            .collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains("refuses this gateway: gateway gw1 is not in the list"));
    });
}

#[test]
fn a_silent_server_is_given_up_and_heartbeats_keep_a_quiet_one() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = peer.accept().await;
        link.say(ToAgent::Welcome(welcome(0, 900))).await;
        let mut beats = 0;
        let quiet = tokio::time::timeout(Duration::from_millis(2500), async {
            loop {
                tokio::time::timeout(Duration::from_millis(850), link.next())
                    .await
                    .expect("no heartbeat")
                    .unwrap();
                link.heartbeat().await;
                beats += 1;
            }
        });
        assert!(quiet.await.is_err());
        assert!((5..20).contains(&beats), "{beats}");
        assert!(!agent.log().contains("WARN nufw_agent::link"));
        agent.wait_for_log("nothing came from the server for 900ms");
        peer.welcome(0).await;
    });
}

#[test]
fn hup_reads_the_certificates_again_and_keeps_the_link() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let pki = dir.path().to_owned();
        let peer = Peer::listen(&lab.gateway, &pki);
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        std::fs::write(pki.join("agent.crt"), "not a certificate").unwrap();
        agent.signal("HUP");
        agent.wait_for_log("cannot be read again");
        crate::support::peer::write_pki(&pki);
        agent.signal("HUP");
        agent.wait_for_log("certificates are read again");
        datagrams(&lab, "10.2.0.2", 1000..1001);
        let ask = link.ask().await;
        link.accept(&ask, 1, 1).await;
        drop((peer, link));
        // Another authority signed these.
        let peer = Peer::listen(&lab.gateway, &pki);
        peer.welcome(0).await;
    });
}

#[test]
fn a_taken_queue_and_a_missing_right_end_with_their_codes() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let dir = directory("");
    let other = directory("");
    let config = other.path().join("nufw-agent.toml").display().to_string();
    let agent = Agent::start(&lab.gateway, dir, &["-q", "5"]);
    let program = env!("CARGO_BIN_EXE_nufw-agent");
    let output = lab.gateway.try_sh(&format!("{program} -f {config} -q 5"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains(&format!("queue 5 is taken by nufw-agent (pid {})", agent.pid())),
        "{said}"
    );
    let output = lab.gateway.try_sh(&format!("{program} -f {config} -q 70000"));
    assert_eq!(output.status.code(), Some(78));
    let output = lab.gateway.try_sh(&format!("{program} --no-such-option"));
    assert_eq!(output.status.code(), Some(64));
    let output = lab.gateway.try_sh(&format!(
        "setpriv --bounding-set=-net_admin --inh-caps=-net_admin {program} -f {config}"
    ));
    assert_eq!(
        output.status.code(),
        Some(77),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
