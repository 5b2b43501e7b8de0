//! The queue against the kernel, and against the `nfq` crate as an oracle.

use crate::support::{Netns, PATIENCE, SILENCE, permitted, received, receiver, runtime, sh};
use nufw_agent::conntrack::Tracking;
use nufw_agent::packet;
use nufw_agent::queue::{
    Disposition, InterfaceNames, Queue, QueueError, QueueOptions, QueuedPacket, kernel_counters,
};
use nufw_common::clock;
use nufw_proto::gateway::Hook;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Runtime;

fn options(number: u16) -> QueueOptions {
    QueueOptions {
        number,
        count: 1,
        length: 1024,
        copy_range: 256,
        receive_buffer: 1 << 20,
        fail_open: false,
        passing: false,
    }
}

fn open(runtime: &Runtime, number: u16) -> Queue {
    let _inside = runtime.enter();
    let end = clock::mono() + PATIENCE;
    loop {
        match Queue::open(&options(number)) {
            // A program that another test is just starting has copies of all descriptors until it runs.
            Err(QueueError::Taken { .. }) if clock::mono() < end => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Waits for `count` packets.
fn read(runtime: &Runtime, queue: &mut Queue, count: usize) -> Vec<QueuedPacket> {
    let mut packets = Vec::new();
    runtime.block_on(async {
        while packets.len() < count {
            tokio::time::timeout(PATIENCE, queue.readable())
                .await
                .unwrap()
                .unwrap();
            let wanted = count - packets.len();
            queue.recv_batch(&mut packets, wanted).unwrap();
        }
    });
    packets
}

/// One packet out of the oracle.
fn read_oracle(oracle: &mut nfq::Queue) -> nfq::Message {
    let end = clock::mono() + PATIENCE;
    loop {
        match oracle.recv() {
            Ok(message) => return message,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && clock::mono() < end => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn compare(ours: &QueuedPacket, oracle: &nfq::Message) {
    assert_eq!(ours.packet_id, oracle.get_packet_id());
    assert_eq!(ours.hw_protocol, oracle.get_hw_protocol());
    assert_eq!(
        (ours.in_dev, ours.out_dev),
        (oracle.get_indev(), oracle.get_outdev())
    );
    assert_eq!(
        (ours.phys_in_dev, ours.phys_out_dev),
        (oracle.get_physindev(), oracle.get_physoutdev())
    );
    assert_eq!(ours.length, u32::try_from(oracle.get_original_len()).unwrap());
    assert_eq!(ours.payload, oracle.get_payload());
    let hook = match ours.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    assert_eq!(hook, oracle.get_hook());
}

/// The same packet passes both readers, ours in the earlier table on its way out and in the later on its way in.
#[test]
fn it_reads_what_the_nfq_crate_reads() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        for command in ["iptables", "ip6tables"] {
            let icmp = if command == "iptables" { "icmp" } else { "icmpv6" };
            for matching in [
                "-p udp --dport 5000",
                "-p tcp --dport 5000 --syn",
                &format!("-p {icmp}"),
            ] {
                sh(&format!(
                    "{command} -t mangle -A OUTPUT {matching} -j MARK --set-mark 0x11\n\
                     {command} -t mangle -A OUTPUT {matching} -j NFQUEUE --queue-num 10\n\
                     {command} -t filter -A OUTPUT {matching} -j NFQUEUE --queue-num 20\n\
                     {command} -t mangle -A INPUT {matching} -j NFQUEUE --queue-num 21\n\
                     {command} -t filter -A INPUT {matching} -j NFQUEUE --queue-num 11\n"
                ));
            }
        }
        let runtime = runtime();
        let (mut ours_out, mut ours_in) = (open(&runtime, 10), open(&runtime, 11));
        let mut oracle = nfq::Queue::open().unwrap();
        oracle.set_nonblocking(true);
        for number in [20, 21] {
            oracle.bind(number).unwrap();
            oracle.set_copy_range(number, 256).unwrap();
            oracle.set_recv_gso(number, true).unwrap();
        }
        let mut round = 0;
        let mut pass = |what: &str| {
            round += 1;
            let out = read(&runtime, &mut ours_out, 1).remove(0);
            assert_eq!(
                (out.packet_id, out.mark, out.hook),
                (round, 0x11, Hook::Output),
                "{what}"
            );
            ours_out.verdict(
                out.packet_id,
                Disposition::Accept {
                    mark: Some(0x2200 + round),
                },
            );
            ours_out.flush().unwrap();
            let mut message = read_oracle(&mut oracle);
            compare(&out, &message);
            assert_eq!(message.get_nfmark(), 0x2200 + round, "the mark of our verdict");
            message.set_verdict(nfq::Verdict::Accept);
            oracle.verdict(message).unwrap();
            // Loopback keeps the mark: what comes in is the same packet.
            let mut message = read_oracle(&mut oracle);
            let (mark, id) = (message.get_nfmark(), message.get_packet_id());
            assert_eq!(id, round);
            message.set_nfmark(mark + 0x10000);
            let seen = (
                message.get_indev(),
                message.get_payload().to_vec(),
                message.get_original_len(),
            );
            message.set_verdict(nfq::Verdict::Accept);
            oracle.verdict(message).unwrap();
            let into = read(&runtime, &mut ours_in, 1).remove(0);
            assert_eq!((into.packet_id, into.hook), (round, Hook::Input), "{what}");
            assert_eq!((into.in_dev, into.payload.clone()), (seen.0, seen.1));
            assert_eq!(usize::try_from(into.length).unwrap(), seen.2);
            assert_eq!(into.mark, mark + 0x10000, "the mark of the oracle's verdict");
            ours_in.verdict(into.packet_id, Disposition::Accept { mark: None });
            ours_in.flush().unwrap();
            assert_eq!((out.out_dev, into.in_dev), (1, 1), "{what}");
        };
        for host in ["127.0.0.1", "[::1]"] {
            let receiver = receiver(&format!("{host}:5000"));
            let sender = UdpSocket::bind(format!("{host}:0")).unwrap();
            for length in [0, 1, 100, 1400] {
                let data = vec![0xa5; length];
                sender.send_to(&data, format!("{host}:5000")).unwrap();
                pass(&format!("udp {host} {length}"));
                assert_eq!(received(&receiver), [data]);
            }
            let listener = TcpListener::bind(format!("{host}:5000")).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || TcpStream::connect(address));
            pass(&format!("tcp {host}"));
            client.join().unwrap().unwrap();
        }
        let ping = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        // RFC 792: echo request, identifier 0x1234, with its checksum.
        let request = [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1];
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        ping.send_to(&request, &loopback.into()).unwrap();
        pass("echo request");
        pass("echo reply");
        assert_eq!(ours_out.stats().unreadable + ours_in.stats().unreadable, 0);
        assert_eq!(InterfaceNames::new().unwrap().name(1).as_str(), "lo");
    });
}

/// A namespace whose UDP port 5000 is queued, and what receives there.
fn udp_in_queue(number: u16) -> UdpSocket {
    sh(&format!(
        "iptables -A OUTPUT -p udp --dport 5000 -j NFQUEUE --queue-num {number}"
    ));
    receiver("127.0.0.1:5000")
}

fn send(count: u8) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..count {
        // A refusal is what a dropped packet is on loopback.
        let _ = sender.send_to(&[n], "127.0.0.1:5000");
    }
}

#[test]
fn verdicts_go_in_any_order_and_late_ones_are_told() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let mut queue = open(&runtime, 5);
        let socket = udp_in_queue(5);
        send(50);
        let packets = read(&runtime, &mut queue, 50);
        assert_eq!(
            packets.iter().map(|packet| packet.packet_id).collect::<Vec<_>>(),
            (1..=50).collect::<Vec<_>>()
        );
        for packet in packets.iter().rev() {
            let even = packet.packet_id % 2 == 0;
            queue.verdict(
                packet.packet_id,
                if even {
                    Disposition::Accept { mark: None }
                } else {
                    Disposition::Drop
                },
            );
        }
        queue.verdict(9999, Disposition::Accept { mark: Some(1) });
        queue.verdict(7, Disposition::Drop);
        assert!(received(&socket).is_empty(), "nothing goes before the flush");
        queue.flush().unwrap();
        // Packet n carries the byte n - 1; the last verdict came first.
        let expected: Vec<Vec<u8>> = (1..50).rev().step_by(2).map(|n| vec![n]).collect();
        assert_eq!(received(&socket), expected);
        let mut none = Vec::new();
        assert_eq!(queue.recv_batch(&mut none, 100).unwrap(), 0);
        let refused = queue.take_refused();
        assert_eq!(
            refused
                .iter()
                .map(|late| (late.packet_id, late.gone))
                .collect::<Vec<_>>(),
            [(9999, true), (7, true)]
        );
        assert_eq!(
            (queue.stats().late, queue.stats().verdicts, queue.stats().packets),
            (2, 52, 50)
        );
        assert!(queue.take_refused().is_empty());
    });
}

#[test]
fn packets_of_several_queues_come_in_their_order_and_a_late_verdict_names_its_queue() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let _inside = runtime.enter();
        let four = QueueOptions {
            count: 4,
            ..options(60)
        };
        let mut queue = Queue::open(&four).unwrap();
        assert_eq!(queue.numbers(), 60..=63);
        sh("iptables -A OUTPUT -p udp --dport 5000 -j NFQUEUE --queue-balance 60:63");
        let socket = receiver("0.0.0.0:5000");
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        // The kernel chooses the queue by the addresses.
        for last in 1..=64u8 {
            sender
                .send_to(&[last], (std::net::Ipv4Addr::new(127, 0, 0, last), 5000))
                .unwrap();
        }
        let packets = read(&runtime, &mut queue, 64);
        let order: Vec<u8> = packets.iter().map(|packet| packet.payload[28]).collect();
        assert_eq!(order, (1..=64).collect::<Vec<_>>());
        let used: std::collections::BTreeSet<u16> = packets.iter().map(|packet| packet.queue).collect();
        assert!(
            used.len() > 1 && used.iter().all(|number| (60..=63).contains(number)),
            "{used:?}"
        );
        for packet in &packets {
            queue.verdict_in(packet.queue, packet.packet_id, Disposition::Accept { mark: None });
        }
        queue.verdict_in(62, 9999, Disposition::Accept { mark: None });
        queue.flush().unwrap();
        assert_eq!(received(&socket).len(), 64);
        assert_eq!(queue.recv_batch(&mut Vec::new(), 100).unwrap(), 0);
        let refused: Vec<_> = queue
            .take_refused()
            .iter()
            .map(|late| (late.queue, late.packet_id))
            .collect();
        assert_eq!(refused, [(62, 9999)]);
        assert_eq!(queue.kernel_counters().unwrap().waiting, 0);
        // One of them taken: none is read, and the error says which.
        drop(queue);
        let _other = open(&runtime, 62);
        match Queue::open(&four) {
            Err(QueueError::Taken { number: 62, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_repeated_packet_is_queued_again() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let mut queue = open(&runtime, 5);
        let socket = udp_in_queue(5);
        send(1);
        let first = read(&runtime, &mut queue, 1).remove(0);
        queue.verdict(first.packet_id, Disposition::Repeat { mark: Some(9) });
        queue.flush().unwrap();
        let again = read(&runtime, &mut queue, 1).remove(0);
        assert_eq!((again.packet_id, again.mark), (2, 9));
        assert_eq!(again.payload, first.payload);
        queue.verdict(2, Disposition::Accept { mark: None });
        queue.flush().unwrap();
        assert_eq!(received(&socket).len(), 1);
    });
}

#[test]
fn a_taken_queue_names_its_reader() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let _first = open(&runtime, 5);
        let _inside = runtime.enter();
        let error = Queue::open(&options(5)).unwrap_err();
        let QueueError::Taken { number, holder } = &error else {
            panic!("{error}");
        };
        assert_eq!((*number, holder.pid), (5, Some(std::process::id())));
        let told = error.to_string();
        assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
        assert!(told.contains("queue.number"), "{told}");
        Queue::open(&options(6)).unwrap();
    });
}

#[test]
fn without_the_capability_the_error_names_it() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let admin = caps::Capability::CAP_NET_ADMIN;
        let runtime = runtime();
        let _inside = runtime.enter();
        caps::drop(None, caps::CapSet::Effective, admin).unwrap();
        let error = Queue::open(&options(5)).unwrap_err();
        caps::raise(None, caps::CapSet::Effective, admin).unwrap();
        assert!(matches!(error, QueueError::NotPermitted { number: 5 }), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
    });
}

#[test]
fn packets_that_come_before_an_answer_are_kept() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let mut queue = open(&runtime, 5);
        let _socket = udp_in_queue(5);
        send(3);
        queue.set_length(2).unwrap();
        let packets = read(&runtime, &mut queue, 3);
        assert_eq!(
            packets.iter().map(|packet| packet.packet_id).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        drop(queue);

        // And when the queue is opened in the middle of traffic.
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let traffic = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                send(10);
            }
        });
        for _ in 0..200 {
            let mut queue = open(&runtime, 5);
            let packets = read(&runtime, &mut queue, 5);
            let ids: Vec<u32> = packets.iter().map(|packet| packet.packet_id).collect();
            // One that the kernel was about to put into the queue before may come first, where that had the same netlink port.
            let late = usize::from(ids[0] != 1);
            assert!(
                ids[late..]
                    .iter()
                    .copied()
                    .eq(1..=5 - u32::try_from(late).unwrap()),
                "{ids:?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
    });
}

#[test]
fn a_full_queue_drops_and_counts() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        assert_eq!(kernel_counters(5), None);
        let mut queue = {
            let _inside = runtime.enter();
            Queue::open(&QueueOptions {
                length: 4,
                ..options(5)
            })
            .unwrap()
        };
        let socket = udp_in_queue(5);
        send(10);
        let counters = kernel_counters(5).unwrap();
        assert_eq!(
            (counters.waiting, counters.queue_dropped, counters.user_dropped),
            (4, 6, 0)
        );
        queue.set_length(8).unwrap();
        send(10);
        assert_eq!(kernel_counters(5).unwrap().waiting, 8);
        let packets = read(&runtime, &mut queue, 8);
        for packet in packets {
            queue.verdict(packet.packet_id, Disposition::Accept { mark: None });
        }
        queue.flush().unwrap();
        assert_eq!(received(&socket).len(), 8);
    });
}

#[test]
fn a_full_socket_drops_counts_and_recovers() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let mut queue = {
            let _inside = runtime.enter();
            Queue::open(&QueueOptions {
                receive_buffer: 1,
                ..options(5)
            })
            .unwrap()
        };
        let _socket = udp_in_queue(5);
        send(100);
        let lost = kernel_counters(5).unwrap().user_dropped;
        assert!(lost > 0 && lost < 100, "{lost}");
        let mut packets = Vec::new();
        queue.recv_batch(&mut packets, 1000).unwrap();
        assert_eq!(u64::try_from(packets.len()).unwrap(), 100 - lost);
        send(1);
        assert_eq!(read(&runtime, &mut queue, 1).len(), 1, "it is not stuck");
    });
}

#[expect(unsafe_code, reason = "no safe wrapper knows UDP_SEGMENT")]
fn segment(socket: &UdpSocket, size: i32) {
    // SAFETY: the option's value is an int, which lives through the call, and its length is that of an int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            4,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn a_super_packet_has_one_verdict() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let mut queue = open(&runtime, 5);
        let socket = udp_in_queue(5);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        segment(&sender, 1000);
        sender.send_to(&[7; 10_000], "127.0.0.1:5000").unwrap();
        let packet = read(&runtime, &mut queue, 1).remove(0);
        assert_eq!((packet.length, packet.payload.len()), (10_028, 256));
        let parsed = packet::parse(&packet.payload, packet.hw_protocol, Tracking::ALL).unwrap();
        assert_eq!(parsed.tuple.transport().ports().unwrap().dst, 5000);
        queue.verdict(packet.packet_id, Disposition::Accept { mark: None });
        queue.flush().unwrap();
        assert_eq!(received(&socket).len(), 10);
        assert_eq!(kernel_counters(5).unwrap().last_id, 1);
    });
}

#[test]
fn a_queue_without_reader_drops() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let socket = udp_in_queue(5);
        send(1);
        let queue = open(&runtime, 5);
        send(1);
        drop(queue);
        std::thread::sleep(SILENCE);
        assert!(received(&socket).is_empty());
    });
}

#[test]
fn the_receive_buffer_that_was_granted_is_told() {
    if !permitted() {
        return;
    }
    Netns::new().run(|| {
        let runtime = runtime();
        let queue = open(&runtime, 5);
        // The kernel doubles what is asked for; an ordinary user gets at least the usual size.
        assert!(
            queue.granted_receive_buffer() >= 212_992,
            "{}",
            queue.granted_receive_buffer()
        );
    });
}
