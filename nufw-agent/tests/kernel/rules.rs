//! The generated rules on a real kernel: loaded, loaded again, removed, and doing what they say.

use crate::support::{Netns, PATIENCE, SILENCE, permitted, runtime};
use nufw_agent::conntrack::Tracking;
use nufw_agent::packet;
use nufw_agent::queue::{Disposition, InterfaceNames, Queue, QueueOptions};
use nufw_agent::rules::{Format, QueueHook, RulesOptions, render, render_removal};
use nufw_proto::Transport;
use nufw_proto::gateway::Hook;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const USER: u32 = 1001;
const REJECT: u32 = 0x0100_0000;
const ACCEPTED: u16 = 8001;
const REJECTED: u16 = 8002;
const DROPPED: u16 = 8003;

fn both() -> RulesOptions {
    RulesOptions {
        queues: 3.into(),
        hooks: vec![QueueHook::Forward, QueueHook::Input],
        servers: vec![
            ("10.9.2.2".parse().unwrap(), 4128),
            ("fd09:2::2".parse().unwrap(), 4128),
        ],
        ..RulesOptions::default()
    }
}

/// What is loaded, without counters and comments.
fn loaded(netns: &Netns) -> String {
    let text = netns.sh("iptables-save; ip6tables-save");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n")
        .collect()
}

#[test]
fn loading_twice_is_loading_once_and_removing_leaves_the_rest() {
    if !permitted() {
        return;
    }
    let netns = Netns::new();
    let mine = "iptables -t mangle -A FORWARD -p tcp -j MARK --set-mark 0x2000000\n\
                iptables -A INPUT -s 192.0.2.1 -j ACCEPT\n\
                ip6tables -t raw -A PREROUTING -p udp --dport 53 -j CT --notrack";
    netns.sh(mine);
    let script = render(Format::Iptables, &both());
    netns.sh(&script);
    let once = loaded(&netns);
    netns.sh(&script);
    assert_eq!(loaded(&netns), once);
    assert_eq!(
        once.matches("-A FORWARD -j NUFW_FORWARD\n").count(),
        4,
        "mangle and filter, twice"
    );
    let own = once.find("-A FORWARD -p tcp -j MARK").unwrap();
    assert!(
        once.find("-A FORWARD -j NUFW_FORWARD").unwrap() < own,
        "nothing passes before the queue"
    );
    assert_eq!(netns.sh("sysctl -n net.netfilter.nf_conntrack_acct").trim(), "1");

    let fewer = RulesOptions {
        hooks: vec![QueueHook::Forward],
        set_marks: false,
        event_mask: false,
        ..both()
    };
    netns.sh(&render(Format::Iptables, &fewer));
    let fewer = loaded(&netns);
    for gone in ["NUFW_INPUT", "NUFW_SAVE", "NUFW_RESTORE", "NUFW_EVENTS"] {
        assert!(!fewer.contains(gone), "{gone} in {fewer}");
    }
    assert!(fewer.contains("--queue-num 3"));

    netns.sh(&render_removal(Format::Iptables));
    netns.sh(&render_removal(Format::Iptables));
    let rest = loaded(&netns);
    assert!(!rest.contains("NUFW"), "{rest}");
    for rule in ["--set-xmark 0x2000000", "-s 192.0.2.1/32 -j ACCEPT", "--notrack"] {
        assert!(rest.contains(rule), "{rule} in {rest}");
    }
}

#[test]
fn the_nft_ruleset_loads_but_for_the_queue_statement() {
    if !permitted() {
        return;
    }
    let netns = Netns::new();
    let by_flags = RulesOptions {
        flags_queue: Some(4),
        ..both()
    };
    let text = render(Format::Nft, &by_flags);
    assert_eq!(text.matches("queue num 3\n").count(), 2);
    assert_eq!(text.matches("queue num 4 bypass\n").count(), 3);
    // Kernels without CONFIG_NFT_QUEUE refuse the statement even when it is only checked.
    let text = text
        .replace("queue num 3\n", "accept\n")
        .replace("queue num 4 bypass\n", "accept\n");
    let load = format!("nft -f - <<'END'\n{text}END\nnft list ruleset\n");
    let once = netns.sh(&load);
    assert_eq!(netns.sh(&load), once);
    for rule in [
        "ct event set",
        "ct mark set",
        "reject with tcp reset",
        "tcp dport { 4128, 4129 } return",
    ] {
        assert!(once.contains(rule), "{rule} in {once}");
    }
    let remove = render_removal(Format::Nft);
    let rest = netns.sh(&format!("nft -f - <<'END'\n{remove}END\nnft list ruleset\n"));
    assert_eq!(rest.trim(), "");
}

/// A packet as it came: its hook, its interfaces and its tuple.
type Seen = (Hook, String, String);

/// Reads the queue and decides by destination port, in the namespace of the thread that makes it.
struct Decider {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

impl Decider {
    fn new() -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (has_ended, noted) = (Arc::clone(&stop), Arc::clone(&seen));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut queue = Queue::open(&QueueOptions {
                    number: 3,
                    count: 1,
                    length: 1024,
                    copy_range: 256,
                    receive_buffer: 1 << 20,
                    fail_open: false,
                    passing: false,
                })
                .unwrap();
                ready.send(()).unwrap();
                let mut packets = Vec::new();
                let mut names = InterfaceNames::new().unwrap();
                while !has_ended.load(Ordering::Relaxed) {
                    if tokio::time::timeout(SILENCE, queue.readable()).await.is_err() {
                        continue;
                    }
                    queue.recv_batch(&mut packets, 64).unwrap();
                    for waiting in packets.drain(..) {
                        let tuple = packet::parse(&waiting.payload, waiting.hw_protocol, Tracking::ALL)
                            .unwrap()
                            .tuple;
                        let (into, out) = (names.name(waiting.in_dev), names.name(waiting.out_dev));
                        noted.lock().unwrap().push((
                            waiting.hook,
                            format!("{into}>{out}"),
                            tuple.to_string(),
                        ));
                        let port = match tuple.transport() {
                            Transport::Tcp(ports) | Transport::Udp(ports) | Transport::Sctp(ports) => {
                                ports.dst
                            }
                            Transport::Icmp(key) | Transport::Icmpv6(key) => key.id,
                            Transport::Gre(_) => REJECTED,
                            _ => ACCEPTED,
                        };
                        queue.verdict(
                            waiting.packet_id,
                            match port {
                                ACCEPTED => Disposition::Accept {
                                    mark: Some(waiting.mark | USER),
                                },
                                REJECTED => Disposition::Accept {
                                    mark: Some(waiting.mark | REJECT),
                                },
                                _ => Disposition::Drop,
                            },
                        );
                    }
                    queue.flush().unwrap();
                }
            });
        });
        is_ready.recv().unwrap();
        Self {
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// The packets seen since the last call.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Decider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `conntrack -E` in the namespace of the thread that starts it.
struct Events {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Events {
    fn start() -> Self {
        let output = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new("conntrack")
            .args(["-E", "-o", "id"])
            .stdout(output.reopen().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = nufw_common::clock::mono() + PATIENCE;
        while nufw_agent::queue::other_event_listeners().is_empty() {
            assert!(nufw_common::clock::mono() < end, "conntrack -E does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, output }
    }

    /// The events about a port so far.
    fn about(&self, port: u16) -> Vec<String> {
        let mut text = String::new();
        File::open(self.output.path())
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text.lines()
            .filter(|line| line.contains(&format!("dport={port} ")))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// client (10.9.1.2) – gateway – server (10.9.2.2), both families.
pub(crate) struct Lab {
    pub(crate) client: Netns,
    pub(crate) gateway: Netns,
    pub(crate) server: Netns,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            client: Netns::new(),
            gateway: Netns::new(),
            server: Netns::new(),
        };
        lab.gateway.link("c0", &lab.client, "e0");
        lab.gateway.link("s0", &lab.server, "e0");
        lab.gateway
            .sh("ip addr add 10.9.1.1/24 dev c0; ip addr add 10.9.2.1/24 dev s0\n\
             ip addr add fd09:1::1/64 dev c0 nodad; ip addr add fd09:2::1/64 dev s0 nodad\n\
             sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (host, net) in [(&lab.client, 1), (&lab.server, 2)] {
            host.sh(&format!(
                "ip addr add 10.9.{net}.2/24 dev e0; ip addr add fd09:{net}::2/64 dev e0 nodad\n\
                 ip route add default via 10.9.{net}.1; ip route add default via fd09:{net}::1"
            ));
        }
        lab
    }

    /// Listens on a port in a namespace, for as long as the test runs.
    fn listen(host: &Netns, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        host.run(move || {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || for _ in listener.incoming() {});
        });
    }

    /// Connects from the client; the error when that fails.
    fn connect(&self, address: &str) -> Result<(), ErrorKind> {
        self.connect_within(address, PATIENCE)
    }

    /// Tries to connect to what does not answer.
    fn connect_in_vain(&self, address: &str) {
        let result = self.connect_within(address, SILENCE * 4);
        assert_eq!(result, Err(ErrorKind::TimedOut), "{address}");
    }

    fn connect_within(&self, address: &str, patience: Duration) -> Result<(), ErrorKind> {
        let address: SocketAddr = address.parse().unwrap();
        self.client.run(move || {
            TcpStream::connect_timeout(&address, patience)
                .map(drop)
                .map_err(|error| error.kind())
        })
    }
}

/// Asks again until the answer will do.
fn wait_for<T: std::fmt::Debug>(mut ask: impl FnMut() -> T, mut will_do: impl FnMut(&T) -> bool) -> T {
    let end = nufw_common::clock::mono() + PATIENCE;
    loop {
        let answer = ask();
        if will_do(&answer) {
            return answer;
        }
        assert!(nufw_common::clock::mono() < end, "{answer:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn marked(event: &str) -> bool {
    event.contains(&format!("mark={USER} "))
}

/// One connection to an accepted port: asked once, three events, all with the mark.
fn accepted_once(lab: &Lab, decider: &Decider, events: &Events, address: &str, hook: Hook) {
    let port: u16 = address.parse::<SocketAddr>().unwrap().port();
    lab.gateway.sh("conntrack -F 2>/dev/null");
    let before = events.about(port).len();
    decider.take();
    assert_eq!(lab.connect(address), Ok(()), "{address}");
    let list = format!(
        "conntrack -L -p tcp --dport {port} 2>/dev/null; conntrack -L -f ipv6 -p tcp --dport {port} 2>/dev/null"
    );
    let entries = wait_for(|| lab.gateway.sh(&list), |entries| entries.contains("TIME_WAIT"));
    assert!(marked(&entries), "{address}: {entries}");
    lab.gateway
        .sh("conntrack -F 2>/dev/null; conntrack -F -f ipv6 2>/dev/null || :");
    let about = wait_for(
        || events.about(port).split_off(before),
        |about| about.iter().any(|event| event.contains("[DESTROY]")),
    );
    let kinds: Vec<&str> = about
        .iter()
        .map(|event| event.split_whitespace().next().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["[NEW]", "[UPDATE]", "[DESTROY]"], "{address}: {about:#?}");
    for event in &about {
        assert!(marked(event), "{address}: {event}");
    }
    let seen = decider.take();
    assert_eq!(seen.len(), 1, "{address}: {seen:?}");
    let interfaces = if hook == Hook::Forward { "c0>s0" } else { "c0>" };
    assert_eq!((seen[0].0, seen[0].1.as_str()), (hook, interfaces), "{address}");
}

#[test]
fn connections_are_held_marked_rejected_and_counted_by_three_events() {
    if !permitted() {
        return;
    }
    let lab = Lab::new();
    lab.gateway.sh(&render(Format::Iptables, &both()));
    let decider = lab.gateway.run(Decider::new);
    let events = lab.gateway.run(Events::start);
    for port in [ACCEPTED, REJECTED, DROPPED, 4129] {
        for host in [&lab.server, &lab.gateway] {
            Lab::listen(host, &format!("[::]:{port}"));
        }
    }

    // Through the gateway and to the gateway itself, over both families.
    for (host, hook) in [
        ("10.9.2.2", Hook::Forward),
        ("[fd09:2::2]", Hook::Forward),
        ("10.9.1.1", Hook::Input),
        ("[fd09:1::1]", Hook::Input),
    ] {
        accepted_once(&lab, &decider, &events, &format!("{host}:{ACCEPTED}"), hook);
        assert_eq!(
            lab.connect(&format!("{host}:{REJECTED}")),
            Err(ErrorKind::ConnectionRefused),
            "{host}"
        );
        lab.connect_in_vain(&format!("{host}:{DROPPED}"));
        let about: Vec<_> = [REJECTED, DROPPED]
            .iter()
            .flat_map(|port| events.about(*port))
            .collect();
        assert!(about.is_empty(), "what is not accepted makes no event: {about:?}");
    }

    // A rejected datagram is answered.
    for (host, expected) in [
        ("10.9.2.2", ErrorKind::HostUnreachable),
        ("10.9.1.1", ErrorKind::HostUnreachable),
        ("[fd09:2::2]", ErrorKind::PermissionDenied),
        ("[fd09:1::1]", ErrorKind::PermissionDenied),
    ] {
        let address: SocketAddr = format!("{host}:{REJECTED}").parse().unwrap();
        let error = lab.client.run(move || {
            let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(local).unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err().kind()
        });
        assert_eq!(error, expected, "{host}");
    }

    // The server's own ports are reached without being asked about, another host's are not.
    decider.take();
    assert_eq!(lab.connect("10.9.2.2:4129"), Ok(()));
    assert_eq!(lab.connect("[fd09:2::2]:4129"), Ok(()));
    assert_eq!(decider.take(), []);
    lab.connect_in_vain("10.9.1.1:4129");
    assert!(!decider.take().is_empty());

    // One-way datagrams are asked about once.
    lab.client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..4 {
            socket.send_to(b"one way", ("10.9.2.2", ACCEPTED)).unwrap();
            std::thread::sleep(SILENCE);
        }
    });
    assert_eq!(decider.take().len(), 1);
}

/// What comes back to whoever sends this from a socket of that kind.
fn fate(host: &Netns, protocol: i32, kind: socket2::Type, to: &str, bytes: &[u8]) -> ErrorKind {
    let (to, bytes): (SocketAddr, Vec<u8>) = (to.parse().unwrap(), bytes.to_vec());
    host.run(move || {
        let domain = socket2::Domain::for_address(to);
        let socket = socket2::Socket::new(domain, kind, Some(socket2::Protocol::from(protocol))).unwrap();
        let local: SocketAddr = if to.is_ipv4() {
            ([0; 4], REJECTED).into()
        } else {
            ([0_u16; 8], REJECTED).into()
        };
        if kind == socket2::Type::DGRAM {
            // The identifier of an echo is the port that its socket is bound to.
            socket.bind(&local.into()).unwrap();
        }
        socket.connect(&SocketAddr::new(to.ip(), 0).into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send(&bytes).unwrap();
        (&socket).read(&mut [0; 64]).unwrap_err().kind()
    })
}

#[test]
fn what_is_rejected_is_answered_in_every_hook_and_protocol() {
    if !permitted() {
        return;
    }
    let lab = Lab::new();
    let options = RulesOptions {
        hooks: QueueHook::ALL.to_vec(),
        ..both()
    };
    lab.gateway.sh(&render(Format::Iptables, &options));
    let decider = lab.gateway.run(Decider::new);
    Lab::listen(&lab.server, &format!("[::]:{ACCEPTED}"));
    Lab::listen(&lab.server, &format!("[::]:{REJECTED}"));
    // Connections of the gateway itself.
    for (host, udp) in [
        ("10.9.2.2", ErrorKind::HostUnreachable),
        ("[fd09:2::2]", ErrorKind::PermissionDenied),
    ] {
        let connect = |port: u16| {
            let to: SocketAddr = format!("{host}:{port}").parse().unwrap();
            lab.gateway.run(move || {
                TcpStream::connect_timeout(&to, PATIENCE)
                    .map(drop)
                    .map_err(|error| error.kind())
            })
        };
        assert_eq!(connect(ACCEPTED), Ok(()), "{host}");
        assert_eq!(connect(REJECTED), Err(ErrorKind::ConnectionRefused), "{host}");
        let hooks: Vec<Hook> = decider.take().into_iter().map(|(hook, ..)| hook).collect();
        assert!(hooks.iter().all(|hook| *hook == Hook::Output), "{hooks:?}");
        let to: SocketAddr = format!("{host}:{REJECTED}").parse().unwrap();
        let said = lab.gateway.run(move || {
            let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(local).unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // The kernel may say it at once.
            socket
                .send(b"?")
                .and_then(|_| socket.recv(&mut [0; 8]))
                .unwrap_err()
                .kind()
        });
        assert_eq!(said, udp, "{host}");
    }
    // Echo, GRE and SCTP, through the gateway and to it: administratively prohibited.
    lab.client.sh("sysctl -qw net.ipv4.ping_group_range='0 0'");
    let echo = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 1, b'p', b'i', b'n', b'g'];
    let gre = [0, 0, 8, 0, 0x45, 0, 0, 20];
    for (host, icmp, echo, said) in [
        (
            "10.9.2.2",
            libc::IPPROTO_ICMP,
            echo(8),
            ErrorKind::HostUnreachable,
        ),
        (
            "10.9.1.1",
            libc::IPPROTO_ICMP,
            echo(8),
            ErrorKind::HostUnreachable,
        ),
        (
            "[fd09:2::2]",
            libc::IPPROTO_ICMPV6,
            echo(128),
            ErrorKind::PermissionDenied,
        ),
        (
            "[fd09:1::1]",
            libc::IPPROTO_ICMPV6,
            echo(128),
            ErrorKind::PermissionDenied,
        ),
    ] {
        let to = format!("{host}:0");
        let ping = fate(&lab.client, icmp, socket2::Type::DGRAM, &to, &echo);
        assert_eq!(ping, said, "echo to {host}");
        let raw = |protocol, bytes: &[u8]| fate(&lab.client, protocol, socket2::Type::RAW, &to, bytes);
        assert_eq!(raw(libc::IPPROTO_GRE, &gre), said, "GRE to {host}");
        // Conntrack takes an INIT alone for new (RFC 9260 §3.3.2), with its tag 0 and a checksum.
        assert_eq!(raw(libc::IPPROTO_SCTP, &init(REJECTED)), said, "SCTP to {host}");
    }
}

/// An SCTP packet with an INIT chunk.
fn init(port: u16) -> Vec<u8> {
    let mut packet = Vec::from([0x0b, 0x59]);
    packet.extend(port.to_be_bytes());
    packet.extend([0; 8]);
    // Type, flags, length, initiate tag, window, streams out and in, first sequence number.
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let mut crc = u32::MAX;
    for byte in &packet {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                crc >> 1 ^ 0x82f6_3b78
            };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
    packet
}

/// The kernel at hand may have no queue statement for nftables; so a rule plays the agent and marks the packets itself.
/// What comes after the verdict is the ruleset's own.
#[test]
fn the_nft_ruleset_saves_rejects_and_masks() {
    if !permitted() {
        return;
    }
    let lab = Lab::new();
    let text = render(Format::Nft, &both());
    let verdicts = format!(
        "ct state new th dport {ACCEPTED} meta mark set {USER} return\n\
         ct state new th dport {REJECTED} meta mark set {REJECT} return\n\
         ct state new drop\n"
    );
    let text = text.replace("ct state new queue num 3\n", &verdicts);
    lab.gateway.sh(&format!("nft -f - <<'END'\n{text}END\n"));
    let events = lab.gateway.run(Events::start);
    for port in [ACCEPTED, REJECTED, DROPPED, 4129] {
        for host in [&lab.server, &lab.gateway] {
            Lab::listen(host, &format!("[::]:{port}"));
        }
    }
    for host in ["10.9.2.2", "[fd09:2::2]", "10.9.1.1", "[fd09:1::1]"] {
        assert_eq!(lab.connect(&format!("{host}:{ACCEPTED}")), Ok(()), "{host}");
        assert_eq!(
            lab.connect(&format!("{host}:{REJECTED}")),
            Err(ErrorKind::ConnectionRefused),
            "{host}"
        );
        lab.connect_in_vain(&format!("{host}:{DROPPED}"));
    }
    assert_eq!(lab.connect("10.9.2.2:4129"), Ok(()));
    assert_eq!(lab.connect("[fd09:2::2]:4129"), Ok(()));
    wait_for(
        || {
            lab.gateway
                .sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
        },
        |entries| entries.matches("TIME_WAIT").count() >= 6,
    );
    lab.gateway
        .sh("conntrack -F 2>/dev/null; conntrack -F -f ipv6 2>/dev/null || :");
    let about = wait_for(
        || events.about(ACCEPTED),
        |about| about.iter().filter(|event| event.contains("[DESTROY]")).count() >= 4,
    );
    let count = |kind: &str| about.iter().filter(|event| event.contains(kind)).count();
    assert_eq!(
        (count("[NEW]"), count("[UPDATE]"), count("[DESTROY]")),
        (4, 4, 4),
        "{about:#?}"
    );
    assert!(about.iter().all(|event| marked(event)), "{about:#?}");
    assert!(events.about(REJECTED).is_empty() && events.about(DROPPED).is_empty());
}

#[test]
fn established_connections_carry_the_mark_on_every_packet() {
    if !permitted() {
        return;
    }
    let lab = Lab::new();
    lab.gateway.sh(&render(Format::Iptables, &both()));
    // The administrator's own classification, on both ways through the gateway.
    lab.gateway.sh(&format!(
        "iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN NONE -m mark --mark {USER}/0xffffff\n\
         iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN NONE -m mark ! --mark {USER}/0xffffff"
    ));
    let _decider = lab.gateway.run(Decider::new);
    Lab::listen(&lab.server, &format!("[::]:{ACCEPTED}"));
    assert_eq!(lab.connect(&format!("10.9.2.2:{ACCEPTED}")), Ok(()));
    std::thread::sleep(SILENCE);
    let counted = lab.gateway.sh("iptables -t mangle -S FORWARD -v");
    let count = |start: &str| -> u64 {
        let line = counted.lines().find(|line| line.contains(start)).unwrap();
        let at = line.find("-c ").unwrap();
        line[at + 3..].split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(count("-m mark --mark") >= 4, "{counted}");
    assert_eq!(count("-m mark ! --mark"), 0, "{counted}");
}
