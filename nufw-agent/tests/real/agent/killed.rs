//! Connections that the server ends: both ends are told, and nobody else's connection is touched.

use super::{SERVER, SOON, connecting, lab, runtime};
use crate::support::netns::Lab;
use crate::support::peer::{Peer, Session, welcome};
use crate::support::process::{Agent, directory};
use nufw_proto::gateway::{Capabilities, KillStep, Killed, Live, ToAgent, ToServer};
use nufw_proto::{Batch, ConnId, CtEntry, CtEventKind};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const WARNING: &str = "no rule surely refuses connections";

/// A lab in which no packet of an unknown connection passes.
fn strict() -> Result<Lab, String> {
    let lab = lab()?;
    lab.gateway.sh(
        "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0 net.netfilter.nf_conntrack_tcp_timeout_close=10",
    );
    Ok(lab)
}

/// Both ends of a connection that was accepted under a row, and its entry.
struct Open {
    client: TcpStream,
    server: TcpStream,
    live: Live,
}

fn row(number: u64) -> ConnId {
    ConnId::try_from(number).unwrap()
}

fn live(number: u64, entry: &CtEntry) -> Live {
    Live {
        row: row(number),
        id: entry.id,
        zone: entry.zone,
        original: entry.original,
    }
}

/// The entry that the last NEW event tells of.
async fn last_new(link: &mut Session, before: usize) -> CtEntry {
    let new = |events: &[(u64, nufw_proto::CtEvent)]| {
        let mut new = events
            .get(before..)
            .unwrap_or_default()
            .iter()
            .rev()
            .filter(|(_, event)| event.kind == CtEventKind::New && event.entry.mark.0 != 0);
        new.next().map(|(_, event)| event.entry)
    };
    link.events_until("NEW", |events| new(events).is_some()).await;
    new(&link.events).unwrap()
}

async fn open(lab: &Lab, link: &mut Session, listener: &TcpListener, number: u64) -> Open {
    let before = link.events.len();
    let connecting = connecting(lab, SOON);
    let ask = link.ask().await;
    link.accept(&ask, number, 1001).await;
    let client = connecting.join().unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(SOON)).unwrap();
    }
    let entry = last_new(link, before).await;
    let live = live(number, &entry);
    Open { client, server, live }
}

impl Open {
    fn talk(&mut self) {
        self.client.write_all(b"hello").unwrap();
        self.server.read_exact(&mut [0; 5]).unwrap();
        self.server.write_all(b"back").unwrap();
        self.client.read_exact(&mut [0; 4]).unwrap();
    }
}

async fn kill(link: &mut Session, live: Live) {
    link.say(ToAgent::Kill(Batch::try_from(vec![live]).unwrap()))
        .await;
}

async fn told(link: &mut Session) -> Killed {
    link.expect("killed", |message| match message {
        ToServer::Killed(killed) => {
            assert_eq!(killed.len(), 1, "{killed:?}");
            Some(killed[0])
        }
        _ => None,
    })
    .await
}

/// Sends, and says what comes of it.
fn fate(mut stream: &TcpStream) -> ErrorKind {
    let begun = nufw_common::clock::mono();
    stream.write_all(b"late").unwrap();
    let error = stream.read(&mut [0; 8]).unwrap_err().kind();
    let took = begun.elapsed();
    assert!(
        error != ErrorKind::ConnectionReset || took < Duration::from_secs(1),
        "{took:?}"
    );
    error
}

fn in_a_lab(rules: &'static str, story: impl AsyncFnOnce(Lab, Agent, Session)) {
    let lab = match strict() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    lab.gateway.sh(rules);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = peer.accept().await;
        // One of these stories takes longer than a silence usually may.
        link.say(ToAgent::Welcome(welcome(0, 120_000))).await;
        agent.wait_for_log("linked to the server");
        assert!(link.hello().capabilities.has(Capabilities::KILL));
        story(lab, agent, link).await;
    });
}

/// Both ends of the one are reset, those of another go on.
async fn both_ends(lab: Lab, agent: Agent, mut link: Session, client_first: bool) {
    let listener = lab.listen(SERVER);
    let ended = open(&lab, &mut link, &listener, 1).await;
    let mut other = open(&lab, &mut link, &listener, 2).await;
    kill(&mut link, ended.live).await;
    let step = KillStep::Refused;
    assert_eq!(told(&mut link).await, Killed { row: row(1), step });
    kill(&mut link, ended.live).await;
    assert_eq!(
        told(&mut link).await,
        Killed { row: row(1), step },
        "a second order begins nothing"
    );
    let mut ends = [&ended.client, &ended.server];
    if !client_first {
        ends.reverse();
    }
    for end in ends {
        assert_eq!(fate(end), ErrorKind::ConnectionReset);
    }
    let step = KillStep::Gone;
    assert_eq!(told(&mut link).await, Killed { row: row(1), step });
    link.events_until("DESTROY", |events| {
        events.iter().any(|(_, event)| {
            event.kind == CtEventKind::Destroy
                && event.entry.id == ended.live.id
                && event
                    .entry
                    .counters
                    .is_some_and(|counters| counters.reply.packets > 0)
        })
    })
    .await;
    other.talk();
    // What is gone cannot be ended again, and its tuple is nobody's.
    kill(&mut link, ended.live).await;
    assert_eq!(told(&mut link).await, Killed { row: row(1), step });
    assert!(!agent.log().contains(WARNING));
}

#[test]
fn both_ends_are_reset_and_another_connection_goes_on() {
    in_a_lab("", async |lab, agent, link| {
        both_ends(lab, agent, link, true).await;
    });
    in_a_lab("", async |lab, agent, link| {
        both_ends(lab, agent, link, false).await;
    });
}

#[test]
fn both_ends_of_a_translated_connection_are_reset() {
    let masquerade = "iptables -t nat -A POSTROUTING -o gs -j MASQUERADE";
    in_a_lab(masquerade, async |lab, agent, link| {
        both_ends(lab, agent, link, true).await;
    });
    let both = "iptables -t nat -A POSTROUTING -o gs -j MASQUERADE
                iptables -t nat -A PREROUTING -i gc -p tcp -d 10.2.0.2 --dport 80 -j DNAT --to-destination 10.2.0.2:80";
    in_a_lab(both, async |lab, agent, link| {
        both_ends(lab, agent, link, false).await;
    });
}

#[test]
fn an_entry_with_another_id_is_not_touched() {
    in_a_lab("", async |lab, _agent, mut link| {
        let listener = lab.listen(SERVER);
        let mut open = open(&lab, &mut link, &listener, 1).await;
        let id = open.live.id.wrapping_add(1);
        kill(&mut link, Live { id, ..open.live }).await;
        let step = KillStep::Gone;
        assert_eq!(told(&mut link).await, Killed { row: row(1), step });
        open.talk();
        let entry = lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null");
        assert!(entry.contains("mark=1001 "), "{entry}");
    });
}

#[test]
fn without_a_rule_that_refuses_the_entry_is_deleted_at_once() {
    in_a_lab(
        "iptables -F NUFW_ENDED_FORWARD",
        async |lab, mut agent, mut link| {
            let listener = lab.listen(SERVER);
            let mut open = open(&lab, &mut link, &listener, 1).await;
            open.client
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            kill(&mut link, open.live).await;
            let step = KillStep::Gone;
            assert_eq!(told(&mut link).await, Killed { row: row(1), step });
            assert_eq!(lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null"), "");
            assert_eq!(
                fate(&open.client),
                ErrorKind::WouldBlock,
                "nothing passes, nobody is told"
            );
            open.server
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            assert!(open.server.read(&mut [0; 4]).is_err());
            agent.wait_for_log(WARNING);
        },
    );
}

#[test]
fn a_flow_of_datagrams_is_refused_and_then_asked_about_again() {
    in_a_lab("", async |lab, _agent, mut link| {
        let bind = |host: &crate::support::netns::Netns, on: &'static str| {
            host.run(move || {
                let socket = UdpSocket::bind(on).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket
            })
        };
        let server = bind(&lab.server, "10.2.0.2:5000");
        let client = bind(&lab.client, "10.1.0.2:0");
        client.connect("10.2.0.2:5000").unwrap();
        client.send(b"one").unwrap();
        let ask = link.ask().await;
        link.accept(&ask, 1, 1001).await;
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.connect(from).unwrap();
        let entry = last_new(&mut link, 0).await;
        kill(&mut link, live(1, &entry)).await;
        let step = KillStep::Refused;
        assert_eq!(told(&mut link).await, Killed { row: row(1), step });
        for end in [&client, &server] {
            end.send(b"late").unwrap();
            assert_eq!(
                end.recv(&mut [0; 8]).unwrap_err().kind(),
                ErrorKind::HostUnreachable
            );
        }
        let step = KillStep::Gone;
        assert_eq!(told(&mut link).await, Killed { row: row(1), step });
        client.send(b"again").unwrap();
        assert_eq!(link.ask().await.tuple, ask.tuple);
    });
}

#[test]
fn an_idle_connection_is_forgotten_when_its_time_is_over() {
    in_a_lab("", async |lab, _agent, mut link| {
        let listener = lab.listen(SERVER);
        let open = open(&lab, &mut link, &listener, 1).await;
        let begun = nufw_common::clock::mono();
        kill(&mut link, open.live).await;
        let step = KillStep::Refused;
        assert_eq!(told(&mut link).await, Killed { row: row(1), step });
        let all = link
            .until_within(Duration::from_mins(1), "gone", |message| {
                matches!(message, ToServer::Killed(_))
            })
            .await;
        let killed = all.last().unwrap();
        let gone = Killed {
            row: row(1),
            step: KillStep::Gone,
        };
        assert!(
            matches!(killed, ToServer::Killed(batch) if batch.to_vec() == [gone]),
            "{killed:?}"
        );
        assert!(begun.elapsed() >= Duration::from_secs(29));
        assert_eq!(lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null"), "");
    });
}
