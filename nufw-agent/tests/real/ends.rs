//! How the kernel tells the ends of connections apart: what NEW, UPDATE and DESTROY say in each case.
//!
//! The server derives close reasons from exactly this. If another kernel says otherwise, this test shows it first.

use crate::support::netns::Lab;
use nufw_agent::conntrack::{EventOptions, Events, Interest};
use nufw_common::clock;
use nufw_proto::{CtEvent, CtEventKind, Removal};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(50);

/// What each kind of connection is known by: its server port, how far it was answered, its state in DESTROY, whether it
/// ends in the moment that something happens or by a timeout, and how the kernel says that it was removed.
const TABLE: &str = "
    8001 none     CLOSE       moment   early   TCP, refused by RST
    8002 assured  TIME_WAIT   timeout  unsaid  TCP, FIN from both
    8003 assured  CLOSE       timeout  unsaid  TCP, RST by the client
    8004 assured  CLOSE       timeout  unsaid  TCP, RST by the server
    8005 assured  CLOSE_WAIT  timeout  unsaid  TCP, FIN from one side only
    8006 assured  ESTABLISHED timeout  unsaid  TCP, idle
    8007 assured  ESTABLISHED moment   program TCP, deleted by conntrack -D
    8008 none     SYN_SENT    timeout  unsaid  TCP, never answered
    8009 none     SYN_SENT    timeout  unsaid  TCP, rejected by ICMP
    8010 answered SYN_RECV    timeout  unsaid  TCP, handshake never completed
    8011 answered -           timeout  unsaid  UDP, one answer
    8012 assured  -           timeout  unsaid  UDP, answers for more than two seconds
    8013 none     -           timeout  unsaid  UDP, never answered
    8014 none     -           timeout  unsaid  UDP, port unreachable
";

/// Timeouts of conntrack that are made short.
const TIMEOUTS: &str = "udp_timeout udp_timeout_stream tcp_timeout_syn_sent tcp_timeout_syn_recv tcp_timeout_time_wait \
    tcp_timeout_close tcp_timeout_established tcp_timeout_last_ack tcp_timeout_close_wait tcp_timeout_fin_wait \
    tcp_timeout_unacknowledged";

const STATES: [&str; 9] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
];

fn connect(lab: &Lab, port: u16, patience: Duration) -> std::io::Result<TcpStream> {
    lab.connect(&format!("10.2.0.2:{port}"), patience)
}

fn pair(lab: &Lab, port: u16) -> (TcpStream, TcpStream, TcpListener) {
    let listener = lab.listen(&format!("10.2.0.2:{port}"));
    let client = connect(lab, port, SOON).unwrap();
    let (server, _) = listener.accept().unwrap();
    // Let the handshake's last segment pass first.
    std::thread::sleep(MOMENT);
    (client, server, listener)
}

fn reset(stream: TcpStream) {
    let stream: socket2::Socket = stream.into();
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

fn query(lab: &Lab, port: u16, times: u32) {
    lab.client.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(("10.2.0.2", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        for _ in 0..times {
            let _ = socket.send(b"?");
            let _ = socket.recv(&mut [0; 8]);
            std::thread::sleep(Duration::from_millis(u64::from(times - 1) * 750));
        }
    });
}

fn answer_udp(lab: &Lab, ports: std::ops::RangeInclusive<u16>) {
    for port in ports {
        let socket = lab
            .server
            .run(move || UdpSocket::bind(("10.2.0.2", port)).unwrap());
        socket.set_read_timeout(Some(SOON)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 8];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..n], from);
            }
        });
    }
}

/// Makes one connection of each kind. What is returned must be kept until the end.
fn all_kinds(lab: &Lab) -> Vec<TcpStream> {
    let mut kept = Vec::new();

    assert!(connect(lab, 8001, SOON).is_err());

    let (mut client, mut server, _listener) = pair(lab, 8002);
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0; 1]).unwrap();
    drop(client);
    std::thread::sleep(MOMENT);
    drop(server);

    let (client, server, _listener) = pair(lab, 8003);
    reset(client);
    std::thread::sleep(MOMENT);
    drop(server);

    let (client, server, _listener) = pair(lab, 8004);
    reset(server);
    std::thread::sleep(MOMENT);
    drop(client);

    let (client, server, _listener) = pair(lab, 8005);
    client.shutdown(Shutdown::Write).unwrap();
    kept.extend([client, server]);

    let (client, server, _listener) = pair(lab, 8006);
    kept.extend([client, server]);

    let (client, server, _listener) = pair(lab, 8007);
    lab.gateway.sh("conntrack -D -p tcp --dport 8007 2>/dev/null");
    kept.extend([client, server]);

    let short = Duration::from_millis(300);
    assert!(connect(lab, 8008, short).is_err());
    assert!(connect(lab, 8009, short).is_err());
    let _listener = lab.listen("10.2.0.2:8010");
    assert!(connect(lab, 8010, short).is_err());

    answer_udp(lab, 8011..=8012);
    query(lab, 8011, 1);
    query(lab, 8012, 4);
    query(lab, 8013, 1);
    query(lab, 8014, 1);
    kept
}

/// Every event until each connection of the table has ended.
fn all_events(lab: &Lab) -> BTreeMap<u16, Vec<CtEvent>> {
    let (runtime, mut events) = lab.gateway.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let options = EventOptions {
            receive_buffer: 8 << 20,
            interest: Interest::All,
        };
        let events = runtime.block_on(async { Events::open(&options).unwrap() });
        (runtime, events)
    });
    let _kept = all_kinds(lab);
    let mut lives: BTreeMap<u16, Vec<CtEvent>> = BTreeMap::new();
    for _ in 0..200 {
        lab.reap();
        let mut fresh = Vec::new();
        runtime.block_on(async { events.receive(1 << 20, clock::wall(), &mut fresh).unwrap() });
        for event in fresh {
            if let Some(ports) = event.entry.original.transport().ports() {
                lives.entry(ports.dst).or_default().push(event);
            }
        }
        let ended = lives
            .values()
            .flatten()
            .filter(|e| e.kind == CtEventKind::Destroy)
            .count();
        if ended >= TABLE.trim().lines().count() {
            break;
        }
        std::thread::sleep(MOMENT);
    }
    lives
}

#[test]
fn the_ends_of_connections_are_told_apart() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    for timeout in TIMEOUTS.split_whitespace() {
        lab.gateway
            .sh(&format!("sysctl -qw net.netfilter.nf_conntrack_{timeout}=3"));
    }
    // A black hole, a rejection by ICMP, and an answer that is lost behind the gateway.
    lab.server.sh(
        "iptables -A INPUT -p tcp --dport 8008 -j DROP; iptables -A INPUT -p udp --dport 8013 -j DROP
         iptables -A INPUT -p tcp --dport 8009 -j REJECT --reject-with icmp-port-unreachable",
    );
    lab.client.sh("iptables -A INPUT -p tcp --sport 8010 -j DROP");
    let lives = all_events(&lab);
    for case in TABLE.trim().lines() {
        let mut columns = case.split_whitespace();
        let mut column = || columns.next().unwrap();
        let life = &lives[&column().parse().unwrap()];
        let (answered, assured) = match column() {
            "none" => (false, false),
            "answered" => (true, false),
            _ => (true, true),
        };
        let state = column();
        let in_a_moment = column() == "moment";
        let removal = match column() {
            "early" => Removal::Early,
            "program" => Removal::ByProgram,
            _ => Removal::Unsaid,
        };
        let (new, update, destroy) = (CtEventKind::New, CtEventKind::Update, CtEventKind::Destroy);
        let expected = if answered {
            vec![new, update, destroy]
        } else {
            vec![new, destroy]
        };
        assert_eq!(
            life.iter().map(|e| e.kind).collect::<Vec<_>>(),
            expected,
            "{case}"
        );
        let end = life.last().unwrap();
        assert_eq!(end.removal, removal, "{case}");
        let before = &life[..life.len() - 1];
        assert!(before.iter().all(|e| e.removal == Removal::Unsaid), "{case}");
        assert_eq!(
            end.entry.tcp_state.map_or("-", |s| STATES[usize::from(s.0)]),
            state,
            "{case}"
        );
        assert_eq!(
            (end.entry.status.seen_reply(), end.entry.status.assured()),
            (answered, assured),
            "{case}"
        );
        // A RST is counted as a packet of the reply, though it is no answer.
        let replies = end.entry.counters.unwrap().reply.packets;
        assert_eq!(replies > 0, answered || state == "CLOSE", "{case}");
        let (start, stop) = (
            end.entry.start.unwrap().micros(),
            end.entry.stop.unwrap().micros(),
        );
        let (lasted, late) = (stop - start, end.at.micros() - stop);
        assert_eq!(lasted < 1_000_000, in_a_moment, "{case}: lasted {lasted} µs");
        // Only what ends in a moment has its event in that moment: the others wait for somebody to look.
        assert!(
            late >= 0 && (!in_a_moment || late < 50_000),
            "{case}: the event is {late} µs after the end"
        );
    }
}
