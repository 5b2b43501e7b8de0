//! What becomes of packets: accepted, dropped, rejected, late, without a link, from strangers.

use super::{SERVER, SOON, connecting, datagrams, lab, linked, runtime, waiting};
use crate::support::peer::{Peer, welcome};
use crate::support::process::{Agent, directory};
use nufw_agent::rules::{Format, RulesOptions, render};
use nufw_proto::gateway::{Answer, Hook, KnownAddresses, ToAgent, ToServer, Verdict};
use nufw_proto::{Addr, Batch, ConnId, CtEventKind, Mark};
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::time::Duration;

/// Connections of the race between packets and events.
const FLOWS: u16 = 3000;

#[test]
fn an_accepted_connection_passes_with_its_mark_and_its_events_are_told() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        let hello = link.hello().clone();
        assert!(hello.relays_events && hello.sets_marks && !hello.marked_only);
        assert_eq!((hello.packet_timeout_ms, hello.first_held.0), (15_000, 1));

        let listener = lab.listen(SERVER);
        let connecting = lab.client.run(|| {
            std::thread::spawn(|| std::net::TcpStream::connect_timeout(&SERVER.parse().unwrap(), SOON))
        });
        let ask = link.ask().await;
        assert_eq!(ask.hook, Hook::Forward);
        assert_eq!((ask.in_dev.as_str(), ask.out_dev.as_str()), ("gc", "gs"));
        assert_eq!(ask.tuple.src().to_string(), "10.1.0.2");
        assert_eq!(ask.tuple.transport().ports().unwrap().dst, 80);
        link.accept(&ask, 1, 1001).await;
        let mut stream = connecting.join().unwrap().unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        let table = lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null");
        assert!(table.contains("mark=1001"), "{table}");
        drop((stream, accepted));
        std::thread::sleep(Duration::from_millis(1200));
        lab.reap();
        link.events_until("end", |events| {
            events
                .iter()
                .any(|(_, e)| e.kind == CtEventKind::Destroy && e.entry.original == ask.tuple)
        })
        .await;
        let life: Vec<_> = link
            .events
            .iter()
            .filter(|(_, e)| e.entry.original == ask.tuple)
            .collect();
        let kinds: Vec<_> = life.iter().map(|(_, e)| e.kind).collect();
        assert_eq!(
            kinds,
            [CtEventKind::New, CtEventKind::Update, CtEventKind::Destroy]
        );
        assert!(life.iter().all(|(_, e)| e.entry.mark == Mark(1001)), "{life:#?}");
        let numbers: Vec<u64> = link.events.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    });
}

#[test]
fn a_dropped_packet_vanishes_and_a_rejected_one_is_refused() {
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
        for (verdict, expected) in [
            (Verdict::Drop, std::io::ErrorKind::TimedOut),
            (Verdict::Reject, std::io::ErrorKind::ConnectionRefused),
        ] {
            let connecting = lab.client.run(|| {
                std::thread::spawn(|| {
                    std::net::TcpStream::connect_timeout(&SERVER.parse().unwrap(), Duration::from_millis(800))
                })
            });
            let ask = link.ask().await;
            link.answer(&ask, verdict).await;
            let error = connecting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), expected, "{verdict:?}");
        }
        let table = lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null");
        assert_eq!(table, "");
    });
}

#[test]
fn without_a_server_packets_are_dropped_at_once_and_with_the_next_link_they_pass() {
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
        let listener = lab.listen(SERVER);
        let first = connecting(&lab, Duration::from_millis(700));
        link.ask().await;
        assert_eq!(waiting(&lab), 1);
        drop((peer, link));
        // Every server has been tried in vain; the packet's time, 15 s, is far from over.
        agent.wait_for_log("Connection refused");
        let end = nufw_common::clock::mono() + Duration::from_secs(5);
        while waiting(&lab) > 0 {
            assert!(
                nufw_common::clock::mono() < end,
                "a packet of a lost link waits on"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(first.join().unwrap().is_err());
        assert!(
            connecting(&lab, Duration::from_millis(300))
                .join()
                .unwrap()
                .is_err()
        );
        assert_eq!(waiting(&lab), 0);

        let peer = Peer::listen(&lab.gateway, &pki);
        let mut link = linked(&peer, &mut agent).await;
        let connecting = connecting(&lab, SOON);
        let ask = link.ask().await;
        link.accept(&ask, 2, 1001).await;
        connecting.join().unwrap().unwrap();
        listener.accept().unwrap();
        agent.signal("USR1");
        agent.wait_for_log("statistics");
        let log = agent.log();
        let counters = log.lines().find(|line| line.contains("statistics")).unwrap();
        let without: u32 = counters
            .split("without_link=")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(without >= 2, "{counters}");
        assert!(
            log.matches("WARN nufw_agent::link").count() <= 2,
            "one reason, one warning:\n{log}"
        );
    });
}

#[test]
fn a_packet_that_waits_when_its_link_is_lost_is_asked_about_again_over_the_next() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        let listener = lab.listen(SERVER);
        let connecting = connecting(&lab, SOON);
        let asked = link.ask().await;
        drop(link);
        let mut link = peer.accept().await;
        link.say(ToAgent::Welcome(welcome(0, 10_000))).await;
        let again = link.ask().await;
        assert_eq!(again, asked, "the same packet under the same name");
        link.accept(&again, 1, 1001).await;
        connecting.join().unwrap().unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn without_a_server_packets_pass_marked_as_blind_if_that_was_chosen() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("[queue]\non-server-loss = \"accept\"\npacket-timeout = \"3s\"\n");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let blind = RulesOptions {
            blind_bit: 0x0400_0000,
            ..RulesOptions::default()
        };
        lab.gateway.sh(&render(Format::Iptables, &blind));
        let mut link = linked(&peer, &mut agent).await;
        let listener = lab.listen(SERVER);
        let marked = || lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null");
        // A server that is there and does not answer in the packet's time.
        let unanswered = connecting(&lab, SOON);
        link.ask().await;
        let open = unanswered.join().unwrap().unwrap();
        listener.accept().unwrap();
        assert!(marked().contains("mark=67108864 "), "{}", marked());
        // What it says afterwards is too late, and harmless.
        drop((open, peer, link));
        agent.wait_for_log("Connection refused");
        lab.gateway.sh("conntrack -F 2>/dev/null");
        let _blind = connecting(&lab, SOON).join().unwrap().unwrap();
        listener.accept().unwrap();
        assert!(marked().contains("mark=67108864 "), "{}", marked());
    });
}

#[test]
fn an_answer_that_comes_too_late_is_reported_unused() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &["-t", "3"]);
        let mut link = linked(&peer, &mut agent).await;
        assert_eq!(link.hello().packet_timeout_ms, 3000);
        datagrams(&lab, "10.2.0.2", 1000..1001);
        let ask = link.ask().await;
        tokio::time::sleep(Duration::from_millis(3300)).await;
        assert_eq!(waiting(&lab), 0, "the packet outlived its time");
        link.accept(&ask, 77, 1001).await;
        let unused = link.unused().await;
        assert_eq!((unused.id, u64::from(unused.row)), (ask.id, 77));
        agent.wait_for_log("did not answer in time");

        // The kernel itself drops what waits for an interface that goes down.
        datagrams(&lab, "10.2.0.2", 1001..1002);
        let ask = link.ask().await;
        lab.gateway.sh("ip link set gs down");
        assert_eq!(waiting(&lab), 0);
        link.accept(&ask, 78, 1001).await;
        let unused = link.unused().await;
        assert_eq!((unused.id, u64::from(unused.row)), (ask.id, 78));
    });
}

#[test]
fn strangers_are_asked_for_at_a_bounded_rate() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        let known = |added: Vec<Addr>| {
            ToAgent::KnownAddresses(KnownAddresses {
                reset: true,
                added: Batch::try_from(added).unwrap(),
                removed: Batch::default(),
                others_can_pass: false,
            })
        };
        for (added, expected) in [(vec![], 20..60), (vec!["10.1.0.2".parse().unwrap()], 500..501)] {
            link.say(known(added)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            datagrams(&lab, "10.2.0.2", 1000..1500);
            let mut asked = 0;
            let counting = tokio::time::timeout(Duration::from_millis(500), async {
                loop {
                    if let ToServer::Asks(asks) = link.next().await.unwrap() {
                        asked += asks.len();
                    }
                }
            });
            assert!(counting.await.is_err());
            assert!(
                expected.contains(&asked),
                "{asked} asked, {expected:?} expected\n{}",
                agent.log()
            );
        }
    });
}

#[test]
fn a_packet_queued_before_an_event_is_asked_for_before_it_is_told() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;

        // Two packets of each connection, back to back: the second often finds the first still waiting.
        let sender = lab.client.run(|| {
            std::thread::spawn(|| {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                for port in 0..FLOWS {
                    for _ in 0..2 {
                        let _ = socket.send_to(b"x", ("10.2.0.2", 10_000 + port));
                    }
                    if port % 16 == 0 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        });
        let (mut confirmed, mut asked, mut row) = (HashSet::new(), 0_usize, 0);
        while confirmed.len() < usize::from(FLOWS) {
            match tokio::time::timeout(SOON, link.next())
                .await
                .expect("events stay away")
                .unwrap()
            {
                ToServer::Asks(asks) => {
                    let answers = asks
                        .iter()
                        .map(|ask| {
                            assert!(!confirmed.contains(&ask.tuple), "{ask:?} after its NEW event");
                            row += 1;
                            let verdict = Verdict::Accept {
                                row: ConnId::try_from(row).unwrap(),
                                mark: Mark(1),
                            };
                            Answer { id: ask.id, verdict }
                        })
                        .collect::<Vec<_>>();
                    asked += answers.len();
                    link.say(ToAgent::Answers(Batch::try_from(answers).unwrap()))
                        .await;
                }
                ToServer::Events(events) => {
                    let new = events.events.iter().filter(|e| e.kind == CtEventKind::New);
                    confirmed.extend(new.map(|e| e.entry.original).filter(|t| {
                        t.transport()
                            .ports()
                            .is_some_and(|p| (10_000..10_000 + FLOWS).contains(&p.dst))
                    }));
                }
                _ => {}
            }
        }
        sender.join().unwrap();
        eprintln!("{asked} packets of {FLOWS} connections were asked for");
        assert!(asked > usize::from(FLOWS), "the race was never run");
    });
}

#[test]
fn a_second_packet_is_asked_for_even_if_the_first_is_accepted_in_the_same_moment() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        for round in 0..10 {
            let socket = lab.client.run(move || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(("10.2.0.2", 1000 + round)).unwrap();
                socket
            });
            socket.send(b"first").unwrap();
            let first = link.ask().await;
            // Both wait for the agent when it wakes: the answer, and a packet that was queued before it could act on it.
            agent.signal("STOP");
            socket.send(b"second").unwrap();
            link.accept(&first, u64::from(round) + 1, 1001).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            agent.signal("CONT");
            let told = link
                .until("the second ask and the NEW event", |m| {
                    matches!(m, ToServer::Events(e) if e.events.iter().any(|e| e.entry.original == first.tuple))
                })
                .await;
            let asked = told.iter().any(|m| matches!(m, ToServer::Asks(a) if a[0].tuple == first.tuple));
            assert!(asked, "round {round}: {told:#?}");
        }
    });
}
