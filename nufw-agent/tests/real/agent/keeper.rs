//! The supervisor and its worker: what the worker may, and what becomes of packets when it dies, hangs or is replaced.

use super::{datagrams, lab, linked, runtime, waiting};
use crate::support::netns::Lab;
use crate::support::peer::{PATIENCE, Peer, Session};
use crate::support::process::{Agent, directory, send, status};
use nufw_proto::Transport;
use nufw_proto::gateway::{Ask, ToServer};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::ops::Range;

/// Listens on the server for datagrams to these ports.
fn receivers(lab: &Lab, ports: Range<u16>) -> Vec<UdpSocket> {
    lab.server.run(move || {
        ports
            .map(|port| {
                let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            })
            .collect()
    })
}

fn port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp(ports) => ports.dst,
        other => panic!("{other:?}"),
    }
}

/// Reads asks until there were so many.
async fn asks(link: &mut Session, count: usize) {
    let mut seen = 0;
    while seen < count {
        seen += some_asks(link).await.len();
    }
}

async fn some_asks(link: &mut Session) -> Vec<Ask> {
    let asks = |message: &ToServer| match message {
        ToServer::Asks(asks) => Some(asks.iter().cloned().collect()),
        _ => None,
    };
    link.expect("asks", asks).await
}

/// Accepts what is asked until each of these ports was asked about on this link.
async fn accept_all(link: &mut Session, ports: Range<u16>) {
    let mut missing: BTreeSet<u16> = ports.collect();
    while !missing.is_empty() {
        for ask in some_asks(link).await {
            missing.remove(&port(ask.tuple.transport()));
            link.accept(&ask, 1, 1).await;
        }
    }
}

fn all_arrive(sockets: &[UdpSocket]) {
    for socket in sockets {
        socket.recv(&mut [0; 16]).expect("a datagram was lost");
    }
}

#[test]
fn the_worker_holds_no_capability_and_can_gain_none() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let mut agent = Agent::start(&lab.gateway, directory(""), &[]);
    let worker = agent.worker(None);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status(worker, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(worker, "NoNewPrivs"), "1");
    assert_eq!(
        status(agent.pid(), "CapEff"),
        "0000000000001000",
        "CAP_NET_ADMIN alone"
    );
}

#[test]
fn what_a_killed_worker_had_read_and_what_it_had_not_is_asked_about_again_and_passes() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1006);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1003);
        asks(&mut link, 3).await;
        // Stopped, so that it does not read the others before it dies.
        let worker = agent.worker(None);
        send("STOP", worker);
        datagrams(&lab, "10.2.0.2", 1003..1006);
        assert_eq!(waiting(&lab), 6);
        agent.kill_worker();
        let mut link = peer.welcome(0).await;
        accept_all(&mut link, 1000..1006).await;
        all_arrive(&sockets);
        assert_eq!(waiting(&lab), 0);
    });
}

#[test]
fn a_worker_that_is_killed_again_and_again_loses_no_packet() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1002);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1002);
        for _ in 0..6 {
            asks(&mut link, 2).await;
            agent.kill_worker();
            link = peer.welcome(0).await;
        }
        accept_all(&mut link, 1000..1002).await;
        all_arrive(&sockets);
    });
}

#[test]
fn a_stopped_worker_is_ended_and_its_packets_go_to_the_next() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1002);
    runtime().block_on(async {
        let dir = directory("[worker]\nhung-after = \"2s\"\n");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1001);
        link.ask().await;
        let worker = agent.worker(None);
        send("STOP", worker);
        datagrams(&lab, "10.2.0.2", 1001..1002);
        agent.wait_for_log("the worker does nothing any more");
        let mut link = peer.welcome(0).await;
        assert_ne!(agent.worker(Some(worker)), worker);
        accept_all(&mut link, 1000..1002).await;
        all_arrive(&sockets);
    });
}

#[test]
fn usr2_replaces_the_worker_and_no_packet_is_lost() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1002);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1002);
        asks(&mut link, 2).await;
        let worker = agent.worker(None);
        agent.signal("USR2");
        let mut link = peer.welcome(0).await;
        agent.wait_for_log("replaced");
        assert_ne!(agent.worker(Some(worker)), worker);
        accept_all(&mut link, 1000..1002).await;
        all_arrive(&sockets);
        agent.signal("TERM");
        assert!(agent.wait().success());
    });
}

#[test]
fn a_wrong_configuration_does_not_end_the_worker_that_runs() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1001);
    runtime().block_on(async {
        let dir = directory("");
        let file = dir.path().join("nufw-agent.toml");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        std::fs::write(file, "[queue]\nlength = \"many\"\n").unwrap();
        agent.signal("USR2");
        agent.wait_for_log("the worker that should take over does not start");
        datagrams(&lab, "10.2.0.2", 1000..1001);
        accept_all(&mut link, 1000..1001).await;
        all_arrive(&sockets);
    });
}
