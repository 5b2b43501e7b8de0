//! What the server is told of connections: events, gaps and dumps.

use super::{SERVER, SOON, connecting, datagrams, lab, linked, runtime};
use crate::support::peer::{Peer, welcome};
use crate::support::process::{Agent, directory};
use nufw_proto::gateway::{DumpRequest, EventAck, GapCause, ToAgent, ToServer};
use nufw_proto::{CtEventKind, DumpId, EventSeq, Mark, TcpState};
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn events_that_are_not_durable_come_again_over_the_next_link() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        let boot = link.hello().boot;
        datagrams(&lab, "10.1.0.1", 1000..1010);
        link.events_until("ten connections", |events| events.len() >= 10)
            .await;
        let first = link.events.clone();
        link.say(ToAgent::EventAck(EventAck { through: EventSeq(4) }))
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(link);

        let mut link = peer.accept().await;
        assert_eq!((link.hello().boot, link.hello().first_held), (boot, EventSeq(5)));
        // The server made two more durable than its acknowledgement told.
        link.say(ToAgent::Welcome(welcome(6, 10_000))).await;
        link.events_until("the rest", |events| events.len() + 6 >= first.len())
            .await;
        assert_eq!(link.events[..first.len() - 6], first[6..]);
        link.say(ToAgent::EventAck(EventAck {
            through: EventSeq(1 << 40),
        }))
        .await;
        assert!(
            link.until_closed().await,
            "an impossible acknowledgement must end the link"
        );
        // A server that has forgotten the boot gets everything that is held.
        let mut link = peer.accept().await;
        assert_eq!(link.hello().first_held, EventSeq(7));
        link.say(ToAgent::Welcome(welcome(0, 10_000))).await;
        link.events_until("everything held", |events| {
            events.first().is_some_and(|(n, _)| *n == 7)
        })
        .await;
    });
}

#[test]
fn a_dump_follows_its_order_and_shows_what_is_open() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        let _listener = lab.listen(SERVER);
        let connecting = connecting(&lab, SOON);
        let ask = link.ask().await;
        link.accept(&ask, 1, 1001).await;
        let _stream = connecting.join().unwrap().unwrap();
        datagrams(&lab, "10.1.0.1", 1000..4000);
        for id in [7, 8] {
            link.say(ToAgent::DumpRequest(DumpRequest { dump: DumpId(id) }))
                .await;
        }
        let mut new = 0;
        for id in [7, 8] {
            let all = link.until("end", |m| matches!(m, ToServer::DumpEnd(_))).await;
            let of_dump: Vec<_> = all.iter().filter(|m| !matches!(m, ToServer::Events(_))).collect();
            assert!(matches!(of_dump[0], ToServer::DumpBegin(begin) if begin.dump == DumpId(id)));
            let Some(ToServer::DumpEnd(end)) = of_dump.last() else {
                unreachable!()
            };
            assert_eq!((end.dump, end.complete), (DumpId(id), true));
            let entries: Vec<_> = of_dump[1..of_dump.len() - 1]
                .iter()
                .flat_map(|part| match part {
                    ToServer::DumpPart(part) if part.dump == DumpId(id) => part.entries.to_vec(),
                    other => panic!("{other:?} in the dump"),
                })
                .collect();
            let open = entries.iter().find(|entry| entry.original == ask.tuple).unwrap();
            assert_eq!(
                (open.mark, open.tcp_state),
                (Mark(1001), Some(TcpState::ESTABLISHED))
            );
            assert!(entries.len() > 3000);
            // Everything that the dump could show was told by an event before its end.
            new += all
                .iter()
                .map(|m| {
                    if let ToServer::Events(e) = m {
                        e.events.len()
                    } else {
                        0
                    }
                })
                .sum::<usize>();
            assert!(new >= 3000, "{new}");
        }
    });
}

#[test]
fn with_m_only_marked_connections_are_told_of_and_dumped() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &["-M"]);
        let mut link = linked(&peer, &mut agent).await;
        assert!(link.hello().marked_only && link.hello().relays_events && link.hello().sets_marks);
        datagrams(&lab, "10.1.0.1", 1000..1010);
        datagrams(&lab, "10.2.0.2", 1000..1001);
        let ask = link.ask().await;
        link.accept(&ask, 1, 1001).await;
        link.events_until("the marked one", |events| !events.is_empty())
            .await;
        link.say(ToAgent::DumpRequest(DumpRequest { dump: DumpId(1) }))
            .await;
        let dump = link.until("end", |m| matches!(m, ToServer::DumpEnd(_))).await;
        let told = dump.iter().find_map(|m| {
            if let ToServer::DumpPart(part) = m {
                Some(part.entries.to_vec())
            } else {
                None
            }
        });
        let told = told.unwrap();
        assert!(told.len() == 1 && told[0].original == ask.tuple, "{told:?}");
        assert!(
            link.events.iter().all(|(_, e)| e.entry.original == ask.tuple),
            "{:?}",
            link.events
        );
    });
}

#[test]
fn without_c_no_event_is_listened_to() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("[conntrack]\nrelay = false\n");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let link = linked(&peer, &mut agent).await;
        assert!(!link.hello().relays_events);
        let listeners = lab
            .gateway
            .sh("awk '$2 == 12 && $4 != \"00000000\"' /proc/thread-self/net/netlink");
        assert_eq!(listeners, "");
    });
}

#[test]
fn lost_events_are_told_of_and_the_table_is_sent_unasked() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("[conntrack]\nreceive-buffer = \"128KiB\"\nmax-unacknowledged = 1024\n");
        let pki = dir.path().to_owned();
        let peer = Peer::listen(&lab.gateway, &pki);
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        agent.signal("STOP");
        datagrams(&lab, "10.1.0.1", 1000..2000);
        agent.signal("CONT");
        let all = link.until("end", |m| matches!(m, ToServer::DumpEnd(_))).await;
        let place = |what: &dyn Fn(&ToServer) -> bool| all.iter().position(what);
        let gap = place(&|m| matches!(m, ToServer::Gap(gap) if gap.cause == GapCause::NetlinkOverrun && gap.from < gap.to));
        let begin = place(&|m| matches!(m, ToServer::DumpBegin(begin) if begin.dump == DumpId(0)));
        assert!(gap.unwrap() < begin.unwrap(), "{all:#?}");
        assert!(matches!(all.last(), Some(ToServer::DumpEnd(end)) if end.dump == DumpId(0) && end.complete));
        let shown: usize =
            all.iter().map(|m| if let ToServer::DumpPart(part) = m { part.entries.len() } else { 0 }).sum();
        assert!(shown >= 1000, "{shown}");
        drop((peer, link));
        agent.wait_for_log("no link to the server");

        // While the server is away the store overflows. Slowly, so that the buffer does not.
        for start in 0..30 {
            datagrams(&lab, "10.1.0.1", 3000 + start * 100..3100 + start * 100);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let peer = Peer::listen(&lab.gateway, &pki);
        let mut link = linked(&peer, &mut agent).await;
        let first_held = link.hello().first_held;
        assert!(first_held > EventSeq(1000), "{first_held}");
        let all = link.until("events", |m| matches!(m, ToServer::Events(_))).await;
        assert!(all.iter().any(|m| matches!(m, ToServer::Gap(gap) if gap.cause == GapCause::StoreFull)), "{all:#?}");
        let Some(ToServer::Events(events)) = all.last() else { unreachable!() };
        assert!(events.first >= first_held);
        // Not before ten seconds after the last.
        let all = link.until_within(Duration::from_secs(15), "end", |m| matches!(m, ToServer::DumpEnd(_))).await;
        assert!(all.iter().any(|m| matches!(m, ToServer::DumpBegin(begin) if begin.dump == DumpId(0))));
    });
}

#[test]
fn a_dump_shows_nothing_before_its_birth_or_after_its_end_was_told() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        lab.gateway
            .sh("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1");
        // Connections come and go all the time; each dump makes the kernel end those that have timed out.
        let sender = lab.client.run(|| {
            std::thread::spawn(|| {
                for _ in 0..8 {
                    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                    for port in 1000..4000_u16 {
                        let _ = socket.send_to(b"x", ("10.1.0.1", port));
                        if port % 8 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                }
            })
        });
        let mut alive = HashSet::new();
        let (mut shown, mut ended) = (0, 0);
        for id in 1..=8 {
            link.say(ToAgent::DumpRequest(DumpRequest { dump: DumpId(id) }))
                .await;
            let all = link.until("end", |m| matches!(m, ToServer::DumpEnd(_))).await;
            for message in all {
                match message {
                    ToServer::Events(events) => {
                        for event in events.events {
                            let key = (event.entry.id, event.entry.original);
                            match event.kind {
                                CtEventKind::New => {
                                    alive.insert(key);
                                }
                                CtEventKind::Destroy => ended += usize::from(alive.remove(&key)),
                                CtEventKind::Update => {}
                            }
                        }
                    }
                    ToServer::DumpPart(part) => {
                        for entry in part.entries.iter().filter(|e| e.original.protocol() == 17) {
                            shown += 1;
                            assert!(alive.contains(&(entry.id, entry.original)), "{entry:?}");
                        }
                    }
                    ToServer::DumpEnd(end) => assert!(end.complete),
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        sender.join().unwrap();
        assert!(shown > 2000 && ended > 2000, "{shown} shown, {ended} ended");
    });
}
