//! The supervisor and its worker: what the worker may, and what becomes of packets when it dies, hangs or is replaced.

use super::{datagrams, lab, linked, runtime, waiting};
use crate::support::netns::Lab;
use crate::support::peer::{PATIENCE, Peer, Session};
use crate::support::process::{Agent, directory, send, status};
use nufw_proto::gateway::{Ask, ToServer};
use nufw_proto::{CtEvent, Transport};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

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

/// The file of a process's program, as device and inode.
fn program(pid: u32) -> (u64, u64) {
    let meta = std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
    (meta.dev(), meta.ino())
}

#[test]
fn usr2_replaces_supervisor_and_worker_by_the_installed_program_and_no_packet_is_lost() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1003);
    runtime().block_on(async {
        let dir = directory("");
        let installed = dir.path().join("nufw-agent");
        let upgrade = dir.path().join("nufw-agent.upgrade");
        for copy in [&installed, &upgrade] {
            std::fs::copy(env!("CARGO_BIN_EXE_nufw-agent"), copy).unwrap();
        }
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start_command(&lab.gateway, dir, Command::new(&installed));
        let mut link = linked(&peer, &mut agent).await;
        let boot = link.hello().boot;
        datagrams(&lab, "10.2.0.2", 1000..1002);
        asks(&mut link, 2).await;
        let (supervisor, worker) = (agent.pid(), agent.worker(None));
        let before = program(supervisor);
        std::fs::rename(upgrade, &installed).unwrap();
        agent.signal("USR2");
        datagrams(&lab, "10.2.0.2", 1002..1003);
        let mut link = peer.welcome(0).await;
        assert_eq!(link.hello().boot, boot, "it knows the events of before");
        accept_all(&mut link, 1000..1003).await;
        all_arrive(&sockets);
        let meta = std::fs::metadata(&installed).unwrap();
        let after = (meta.dev(), meta.ino());
        let worker = agent.worker(Some(worker));
        assert_eq!((program(supervisor), program(worker)), (after, after));
        assert_ne!(before, after);
        agent.signal("TERM");
        assert!(agent.wait().success());
    });
}

#[test]
fn events_that_the_server_had_not_acknowledged_are_told_again_by_the_next_worker() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1003);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        let boot = link.hello().boot;
        datagrams(&lab, "10.2.0.2", 1000..1002);
        accept_all(&mut link, 1000..1002).await;
        all_arrive(&sockets[..2]);
        let told = events_about(&mut link, 1000..1002).await;
        agent.kill_worker();
        let mut link = peer.welcome(0).await;
        assert_eq!((link.hello().boot, link.hello().first_held.0), (boot, 1));
        let again = events_about(&mut link, 1000..1002).await;
        assert!(
            again.starts_with(&told),
            "with their numbers: {told:?}, {again:?}"
        );
        // What comes afterwards follows without a hole.
        datagrams(&lab, "10.2.0.2", 1002..1003);
        accept_all(&mut link, 1002..1003).await;
        events_about(&mut link, 1002..1003).await;
        let numbers: Vec<u64> = link.events.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    });
}

/// Waits for the NEW event of each of these ports; gives all events up to the last of them.
async fn events_about(link: &mut Session, ports: Range<u16>) -> Vec<(u64, CtEvent)> {
    let about = |event: &CtEvent| match event.entry.original.transport() {
        Transport::Udp(ports) => ports.dst,
        _ => 0,
    };
    for wanted in ports {
        while !link.events.iter().any(|(_, event)| about(event) == wanted) {
            link.expect("an event", |message| {
                matches!(message, ToServer::Events(_)).then_some(())
            })
            .await;
        }
    }
    link.events.clone()
}

/// What a service manager's socket gets, as texts, and the descriptors to keep by their names. A child that another test starts
/// meanwhile must not inherit them: they would stay open in it.
fn notified(socket: &UnixDatagram) -> (Vec<String>, Vec<(String, OwnedFd)>) {
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let (mut texts, mut kept) = (Vec::new(), Vec::new());
    loop {
        let mut text = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [std::io::IoSliceMut::new(&mut text)];
        let Ok(got) = recvmsg(socket, &mut into, &mut control, flags) else {
            return (texts, kept);
        };
        text.truncate(got.bytes);
        let text = String::from_utf8(text).unwrap();
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
                let name = text
                    .lines()
                    .find_map(|line| line.strip_prefix("FDNAME="))
                    .unwrap();
                assert!(text.contains("FDSTORE=1") && text.contains("FDPOLL=0"), "{text}");
                kept.extend(rights.map(|right| (name.to_owned(), right)));
            }
        }
        texts.push(text);
    }
}

/// Gives the child, and no other that is started meanwhile, descriptors from number 3 on.
fn hand_down(command: &mut Command, descriptors: Vec<(String, OwnedFd)>) {
    #[expect(unsafe_code, reason = "what happens between fork and exec has no safe form")]
    // SAFETY: the closure makes system calls only, and what it overwrites would be closed by exec.
    unsafe {
        command.pre_exec(move || {
            let mut high = [-1; 8];
            for (place, (_, descriptor)) in high.iter_mut().zip(&descriptors) {
                *place = libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
            }
            for (number, place) in (3..).zip(high.iter().take(descriptors.len())) {
                if libc::dup2(*place, number) != number {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

#[test]
fn what_the_service_manager_keeps_outlives_the_supervisor() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1003);
    runtime().block_on(async {
        let dir = directory("");
        let socket = dir.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut command = Command::new(env!("CARGO_BIN_EXE_nufw-agent"));
        command.env("NOTIFY_SOCKET", &socket);
        let mut agent = Agent::start_command(&lab.gateway, dir, command);
        let mut link = linked(&peer, &mut agent).await;
        let boot = link.hello().boot;
        let (mut texts, kept) = notified(&manager);
        let ready = async {
            while !texts.iter().any(|text| text == "READY=1") {
                tokio::time::sleep(Duration::from_millis(10)).await;
                texts.extend(notified(&manager).0);
            }
        };
        assert!(tokio::time::timeout(PATIENCE, ready).await.is_ok());
        let names: Vec<String> = kept.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, ["queue-0", "events-all", "memory"]);

        datagrams(&lab, "10.2.0.2", 1000..1001);
        asks(&mut link, 1).await;
        let dir = agent.kill();
        datagrams(&lab, "10.2.0.2", 1001..1002);
        assert_eq!(waiting(&lab), 2, "the queue is still there");

        // As systemd starts it again: the descriptors from 3 on, for this process alone.
        let script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES={}; exec \"$0\" \"$@\"",
            names.join(":")
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_nufw-agent")])
            .env("NOTIFY_SOCKET", &socket);
        hand_down(&mut command, kept);
        let mut agent = Agent::start_command(&lab.gateway, dir, command);
        let mut link = peer.welcome(0).await;
        assert_eq!(link.hello().boot, boot);
        datagrams(&lab, "10.2.0.2", 1002..1003);
        accept_all(&mut link, 1000..1003).await;
        all_arrive(&sockets);
        agent.signal("TERM");
        assert!(agent.wait().success());
        // The manager was given them again.
        drop(notified(&manager));
        assert_eq!(
            lab.gateway
                .sh("cat /proc/thread-self/net/netfilter/nfnetlink_queue"),
            "",
            "and nothing is kept open beside it"
        );
    });
}

#[test]
fn a_killed_supervisor_takes_its_worker_with_it_nothing_passes_and_another_start_works() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1002);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let _link = linked(&peer, &mut agent).await;
        let worker = agent.worker(None);
        let dir = agent.kill();
        let gone = async {
            while std::fs::exists(format!("/proc/{worker}")).unwrap() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, gone).await.is_ok());
        let queues = "cat /proc/thread-self/net/netfilter/nfnetlink_queue";
        assert_eq!(lab.gateway.sh(queues), "", "nobody has the queue");
        datagrams(&lab, "10.2.0.2", 1000..1001);

        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1001..1002);
        accept_all(&mut link, 1001..1002).await;
        all_arrive(&sockets[1..]);
        sockets[0].set_nonblocking(true).unwrap();
        assert!(
            sockets[0].recv(&mut [0; 16]).is_err(),
            "it passed without an agent"
        );
    });
}

#[test]
fn workers_that_cannot_start_are_tried_again_and_packets_wait_for_one_that_can() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1002);
    runtime().block_on(async {
        let dir = directory("");
        let file = dir.path().join("nufw-agent.toml");
        let (right, wrong) = (file.with_extension("right"), file.with_extension("wrong"));
        std::fs::copy(&file, &right).unwrap();
        std::fs::write(&wrong, "[queue]\nlength = \"many\"\n").unwrap();
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1001);
        asks(&mut link, 1).await;
        std::fs::rename(wrong, &file).unwrap();
        send("KILL", agent.worker(None));
        // More than three that fail in a row: they had read nothing that could be why.
        agent.wait_for_logs("exit status: 78", 5);
        datagrams(&lab, "10.2.0.2", 1001..1002);
        std::fs::rename(right, &file).unwrap();
        let mut link = peer.welcome(0).await;
        accept_all(&mut link, 1000..1002).await;
        all_arrive(&sockets);
        let log = agent.log();
        assert!(!log.contains("are dropped, one of them may be why"), "{log}");
    });
}

#[test]
fn nobody_but_a_supervisor_can_start_a_worker() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let dir = directory("");
    let config = dir.path().join("nufw-agent.toml").display().to_string();
    let program = env!("CARGO_BIN_EXE_nufw-agent");
    let output = lab
        .gateway
        .try_sh(&format!("{program} -f {config} --as-worker < /dev/null"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("run it without"), "{said}");
}

#[test]
fn one_process_does_it_all_when_it_is_told_to() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let sockets = receivers(&lab, 1000..1001);
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &["--single-process"]);
        let mut link = linked(&peer, &mut agent).await;
        datagrams(&lab, "10.2.0.2", 1000..1001);
        accept_all(&mut link, 1000..1001).await;
        all_arrive(&sockets);
        assert!(!agent.has_worker());
        agent.signal("USR2");
        agent.wait_for_log("without a supervisor");
        agent.signal("TERM");
        assert!(agent.wait().success());
    });
}
