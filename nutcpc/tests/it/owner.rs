//! The owner of a socket is found on real sockets of the real kernel, in a network namespace.

use crate::support::in_namespace;
use nufw_proto::client::{Finding, Mine};
use nufw_proto::{IcmpKey, Ports, Transport, Tuple};
use nutcpc::owner::SocketOwner;
use rustix::process::geteuid;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// Nobody answers there: connections stay in `SYN_SENT`.
const BLACK_HOLE: &str = "10.9.9.9:443";
const BLACK_HOLE_V6: &str = "[fd09::9]:443";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn tuple(transport: fn(Ports) -> Transport, local: SocketAddr, remote: SocketAddr) -> Tuple {
    let ports = Ports {
        src: local.port(),
        dst: remote.port(),
    };
    Tuple::new(local.ip().into(), remote.ip().into(), transport(ports)).unwrap()
}

fn owner() -> SocketOwner {
    SocketOwner::open(geteuid().as_raw()).unwrap()
}

fn find(owner: &mut SocketOwner, tuple: Tuple) -> Finding {
    owner.findings(&[tuple]).remove(0)
}

#[track_caller]
fn assert_mine(finding: Finding, seen: Tuple) {
    let program = std::env::current_exe().unwrap();
    match finding {
        Finding::Mine(mine) => {
            assert_eq!(mine.seen, seen);
            assert_eq!(mine.program.as_deref(), Some(program.to_str().unwrap()));
        }
        Finding::NotMine => panic!("{seen} was not found"),
    }
}

/// A TCP socket that tries to reach `remote` from `local`, if given.
fn connecting(domain: Domain, local: Option<SocketAddr>, remote: SocketAddr) -> (Socket, SocketAddr) {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if let Some(local) = local {
        socket.bind(&local.into()).unwrap();
    }
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&remote.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, local)
}

#[test]
fn a_connection_that_is_being_opened_is_found() {
    if !in_namespace(module_path!(), "a_connection_that_is_being_opened_is_found") {
        return;
    }
    let mut owner = owner();
    for (domain, remote) in [(Domain::IPV4, BLACK_HOLE), (Domain::IPV6, BLACK_HOLE_V6)] {
        let (socket, local) = connecting(domain, None, at(remote));
        let asked = tuple(Transport::Tcp, local, at(remote));
        assert_mine(find(&mut owner, asked), asked);
        drop(socket);
        assert_eq!(find(&mut owner, asked), Finding::NotMine, "after it was closed");
    }
}

#[test]
fn an_ipv6_socket_that_speaks_ipv4_is_found() {
    if !in_namespace(module_path!(), "an_ipv6_socket_that_speaks_ipv4_is_found") {
        return;
    }
    let mut owner = owner();
    let mapped = SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(0xffff_0a09_0909)), 443);
    let (_socket, local) = connecting(Domain::IPV6, None, mapped);
    assert!(local.is_ipv6());
    let asked = tuple(Transport::Tcp, local, mapped);
    assert!(asked.src().is_ipv4());
    assert_mine(find(&mut owner, asked), asked);
    let translated = asked
        .with_destination("10.7.7.7".parse().unwrap(), Some(80))
        .unwrap();
    assert_mine(find(&mut owner, translated), asked);
}

#[test]
fn an_established_connection_is_found_at_both_ends() {
    if !in_namespace(module_path!(), "an_established_connection_is_found_at_both_ends") {
        return;
    }
    let mut owner = owner();
    for address in ["127.0.0.1:0", "[::1]:0", "10.0.0.5:0", "[fd00::5]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let server = listener.local_addr().unwrap();
        let stream = TcpStream::connect(server).unwrap();
        let (_accepted, client) = listener.accept().unwrap();
        let asked = tuple(Transport::Tcp, client, server);
        assert_mine(find(&mut owner, asked), asked);
        let reverse = tuple(Transport::Tcp, server, client);
        assert_mine(find(&mut owner, reverse), reverse);
        drop(stream);
    }
}

#[test]
fn a_listening_socket_is_not_claimed() {
    if !in_namespace(module_path!(), "a_listening_socket_is_not_claimed") {
        return;
    }
    let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
    let asked = tuple(Transport::Tcp, at("10.0.0.5:8080"), at(BLACK_HOLE));
    assert_eq!(find(&mut owner(), asked), Finding::NotMine);
    drop(listener);
}

#[test]
fn under_destination_translation_the_only_socket_answers_with_what_it_sees() {
    if !in_namespace(
        module_path!(),
        "under_destination_translation_the_only_socket_answers_with_what_it_sees",
    ) {
        return;
    }
    let mut owner = owner();
    let elsewhere = "10.7.7.7".parse().unwrap();
    let (_socket, local) = connecting(Domain::IPV4, None, at(BLACK_HOLE));
    let seen = tuple(Transport::Tcp, local, at(BLACK_HOLE));
    assert_mine(
        find(&mut owner, seen.with_destination(elsewhere, Some(80)).unwrap()),
        seen,
    );

    let udp = UdpSocket::bind("10.0.0.5:0").unwrap();
    udp.connect(BLACK_HOLE).unwrap();
    let seen = tuple(Transport::Udp, udp.local_addr().unwrap(), at(BLACK_HOLE));
    assert_mine(
        find(&mut owner, seen.with_destination(elsewhere, Some(80)).unwrap()),
        seen,
    );

    // An established one counts too: the gateway may have lost its tables.
    let listener = TcpListener::bind("10.0.0.5:0").unwrap();
    let server = listener.local_addr().unwrap();
    let stream = TcpStream::connect(server).unwrap();
    let seen = tuple(Transport::Tcp, stream.local_addr().unwrap(), server);
    assert_mine(
        find(&mut owner, seen.with_destination(elsewhere, Some(80)).unwrap()),
        seen,
    );
}

#[test]
fn two_destinations_from_one_port_are_not_guessed_between() {
    if !in_namespace(
        module_path!(),
        "two_destinations_from_one_port_are_not_guessed_between",
    ) {
        return;
    }
    let mut owner = owner();
    let from = Some(at("10.0.0.5:4000"));
    let (_one, local) = connecting(Domain::IPV4, from, at("10.9.9.9:443"));
    let (_two, _) = connecting(Domain::IPV4, from, at("10.9.9.8:443"));
    let asked = tuple(Transport::Tcp, local, at("10.7.7.7:80"));
    assert_eq!(find(&mut owner, asked), Finding::NotMine);
    let exact = tuple(Transport::Tcp, local, at("10.9.9.8:443"));
    assert_mine(find(&mut owner, exact), exact);
}

#[test]
fn udp_sockets_are_found_connected_or_not() {
    if !in_namespace(module_path!(), "udp_sockets_are_found_connected_or_not") {
        return;
    }
    let mut owner = owner();
    let cases = [
        ("10.0.0.5:0", "10.0.0.5", BLACK_HOLE),
        ("0.0.0.0:0", "10.0.0.5", BLACK_HOLE),
        ("[::]:0", "fd00::5", BLACK_HOLE_V6),
        // A dual-stack socket that sends IPv4.
        ("[::]:0", "10.0.0.5", BLACK_HOLE),
    ];
    for (bind, source, remote) in cases {
        let remote = at(remote);
        let socket = UdpSocket::bind(bind).unwrap();
        let to = if bind.starts_with('[') && remote.is_ipv4() {
            at("[::ffff:10.9.9.9]:443")
        } else {
            remote
        };
        socket.send_to(b"x", to).unwrap();
        let local = SocketAddr::new(source.parse().unwrap(), socket.local_addr().unwrap().port());
        let asked = tuple(Transport::Udp, local, remote);
        assert_mine(find(&mut owner, asked), asked);
        socket.connect(to).unwrap();
        assert_mine(find(&mut owner, asked), asked);
        drop(socket);
        assert_eq!(find(&mut owner, asked), Finding::NotMine);
    }
}

#[test]
fn udplite_sockets_are_found() {
    if !in_namespace(module_path!(), "udplite_sockets_are_found") {
        return;
    }
    let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::from(136))) else {
        eprintln!("SKIPPED udplite_sockets_are_found: this kernel has no UDP-Lite");
        return;
    };
    socket.connect(&at(BLACK_HOLE).into()).unwrap();
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    let asked = tuple(Transport::UdpLite, local, at(BLACK_HOLE));
    assert_mine(find(&mut owner(), asked), asked);
}

#[test]
fn a_socket_bound_to_a_device_is_found() {
    if !in_namespace(module_path!(), "a_socket_bound_to_a_device_is_found") {
        return;
    }
    let mut owner = owner();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind_device(Some(b"d0")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&at(BLACK_HOLE).into());
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    let asked = tuple(Transport::Tcp, local, at(BLACK_HOLE));
    assert_mine(find(&mut owner, asked), asked);

    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.bind_device(Some(b"d0")).unwrap();
    socket.send_to(b"x", &at(BLACK_HOLE).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let asked = tuple(
        Transport::Udp,
        SocketAddr::new("10.0.0.5".parse().unwrap(), port),
        at(BLACK_HOLE),
    );
    assert_mine(find(&mut owner, asked), asked);
}

#[test]
fn echo_requests_are_found_by_their_identifier() {
    if !in_namespace(module_path!(), "echo_requests_are_found_by_their_identifier") {
        return;
    }
    let mut owner = owner();
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let echo = |v4: bool, id| {
        let (src, dst) = if v4 {
            ("10.0.0.5", "10.9.9.9")
        } else {
            ("fd00::5", "fd09::9")
        };
        let key = IcmpKey {
            kind: if v4 { 8 } else { 128 },
            code: 0,
            id,
        };
        let transport = if v4 {
            Transport::Icmp(key)
        } else {
            Transport::Icmpv6(key)
        };
        Tuple::new(src.parse().unwrap(), dst.parse().unwrap(), transport).unwrap()
    };
    for (v4, domain, protocol, any) in [
        (true, Domain::IPV4, Protocol::ICMPV4, "0.0.0.0:0"),
        (false, Domain::IPV6, Protocol::ICMPV6, "[::]:0"),
    ] {
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
        socket.bind(&SockAddr::from(at(any))).unwrap();
        let id = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert_mine(find(&mut owner, echo(v4, id)), echo(v4, id));
        assert_eq!(find(&mut owner, echo(v4, id.wrapping_add(1))), Finding::NotMine);

        let raw = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        let asked = echo(v4, id.wrapping_add(1));
        assert_mine(find(&mut owner, asked), asked);
        drop(raw);
    }
}

#[test]
fn protocols_without_a_way_to_ask_are_not_claimed() {
    let (src, dst) = ("10.0.0.5".parse().unwrap(), "10.9.9.9".parse().unwrap());
    let ports = Ports { src: 1, dst: 2 };
    for transport in [
        Transport::Sctp(ports),
        Transport::Dccp(ports),
        Transport::Gre(Ports { src: 0, dst: 7 }),
        Transport::Other(50),
    ] {
        let asked = Tuple::new(src, dst, transport).unwrap();
        assert_eq!(find(&mut owner(), asked), Finding::NotMine);
    }
}

#[test]
fn a_large_batch_keeps_its_order() {
    if !in_namespace(module_path!(), "a_large_batch_keeps_its_order") {
        return;
    }
    let sockets: Vec<UdpSocket> = (0..700)
        .map(|_| {
            let socket = UdpSocket::bind("10.0.0.5:0").unwrap();
            socket.connect(BLACK_HOLE).unwrap();
            socket
        })
        .collect();
    let mut asked = Vec::new();
    for socket in &sockets {
        let local = socket.local_addr().unwrap();
        asked.push(tuple(Transport::Udp, local, at(BLACK_HOLE)));
        // Nobody's.
        asked.push(tuple(Transport::Tcp, local, at(BLACK_HOLE)));
    }
    let findings = owner().findings(&asked);
    assert_eq!(findings.len(), asked.len());
    for (finding, asked) in findings.into_iter().zip(asked) {
        if asked.protocol() == 17 {
            assert_mine(finding, asked);
        } else {
            assert_eq!(finding, Finding::NotMine);
        }
    }
}

#[test]
fn connections_being_opened_are_listed() {
    if !in_namespace(module_path!(), "connections_being_opened_are_listed") {
        return;
    }
    let mut owner = owner();
    assert_eq!(owner.opening(), []);
    let (_v4, v4) = connecting(Domain::IPV4, None, at(BLACK_HOLE));
    let (_v6, v6) = connecting(Domain::IPV6, None, at(BLACK_HOLE_V6));
    let mut opening: Vec<Mine> = owner.opening();
    opening.sort_by_key(|mine| mine.seen.src());
    let mut opening = opening.into_iter();
    assert_mine(
        Finding::Mine(opening.next().unwrap()),
        tuple(Transport::Tcp, v4, at(BLACK_HOLE)),
    );
    assert_mine(
        Finding::Mine(opening.next().unwrap()),
        tuple(Transport::Tcp, v6, at(BLACK_HOLE_V6)),
    );
    assert_eq!(opening.next(), None);
}

/// A child of another user, with a TCP socket that is being connected and a bound UDP socket.
pub(crate) struct OtherUser {
    child: Child,
    tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
}

const CHILD: &str = "NUTCPC_TEST_CHILD";

impl OtherUser {
    pub(crate) fn start(uid: u32, udp: &str, tcp_to: &str) -> Self {
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", "owner::the_other_user", "--nocapture"])
            .env(CHILD, format!("{udp} {tcp_to}"))
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let tcp = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, address)) = line.split_once("ready ") {
                break at(address);
            }
        };
        Self {
            child,
            tcp,
            udp: at(udp),
        }
    }
}

impl Drop for OtherUser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_socket_is_found_where_it_is_and_not_where_it_was() {
    if !in_namespace(
        module_path!(),
        "a_socket_is_found_where_it_is_and_not_where_it_was",
    ) {
        return;
    }
    let mut owner = owner();
    let (socket, local) = connecting(Domain::IPV4, None, at(BLACK_HOLE));
    let asked = tuple(Transport::Tcp, local, at(BLACK_HOLE));
    assert_mine(find(&mut owner, asked), asked);
    // Another number, and somebody else's socket has its own.
    let moved = socket.try_clone().unwrap();
    drop(socket);
    let (other, local) = connecting(Domain::IPV4, None, at(BLACK_HOLE));
    let others = tuple(Transport::Tcp, local, at(BLACK_HOLE));
    for _ in 0..2 {
        assert_mine(find(&mut owner, asked), asked);
        assert_mine(find(&mut owner, others), others);
    }
    // Many more sockets, of which some go and others take their numbers.
    let mut many: Vec<_> = (0..300)
        .map(|_| connecting(Domain::IPV4, None, at(BLACK_HOLE)))
        .collect();
    for i in 0..300 {
        let at_random = i * 7 % many.len();
        many[at_random] = connecting(Domain::IPV4, None, at(BLACK_HOLE));
        let asked = tuple(Transport::Tcp, many[at_random].1, at(BLACK_HOLE));
        assert_mine(find(&mut owner, asked), asked);
    }
    drop((moved, other));
    assert_eq!(find(&mut owner, asked), Finding::NotMine);
}

/// Not a test of its own: what the other user's process does.
#[test]
fn a_socket_is_found_whatever_number_it_got() {
    if !in_namespace(module_path!(), "a_socket_is_found_whatever_number_it_got") {
        return;
    }
    let mut owner = owner();
    let open = || connecting(Domain::IPV4, None, at(BLACK_HOLE));
    let ask = |owner: &mut SocketOwner, local| {
        let asked = tuple(Transport::Tcp, local, at(BLACK_HOLE));
        assert_mine(find(owner, asked), asked);
    };
    let mut sockets: Vec<(Socket, SocketAddr)> = (0..200).map(|_| open()).collect();
    ask(&mut owner, sockets[199].1);
    // Numbers in the middle are given again, of which nothing tells the client.
    for place in [150, 20, 199, 0, 77, 150] {
        // The old one first, or the new one would get another number.
        let (old, _) = sockets.swap_remove(place);
        drop(old);
        sockets.push(open());
        ask(&mut owner, sockets[199].1);
    }
    // Some far above the others, with nothing below them.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let highest = limit.current.map_or(4000, |most| most.min(4000));
    let highest = i32::try_from(highest).unwrap() - 1;
    for number in [highest, highest - 700] {
        let (socket, local) = open();
        let high = rustix::io::fcntl_dupfd_cloexec(&socket, number).unwrap();
        drop(socket);
        ask(&mut owner, local);
        drop(high);
        ask(&mut owner, sockets[100].1);
    }
    sockets.truncate(3);
    sockets.push(open());
    ask(&mut owner, sockets[3].1);
    ask(&mut owner, sockets[0].1);
}

#[test]
fn the_other_user() {
    let Ok(wanted) = std::env::var(CHILD) else {
        return;
    };
    let (udp_at, tcp_to) = wanted.split_once(' ').unwrap();
    let (_tcp, local) = connecting(Domain::IPV4, None, at(tcp_to));
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    udp.set_reuse_address(true).unwrap();
    udp.bind(&at(udp_at).into()).unwrap();
    println!("ready {local}");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn another_users_socket_is_not_claimed() {
    if !in_namespace(module_path!(), "another_users_socket_is_not_claimed") {
        return;
    }
    if !crate::support::has_other_users() {
        eprintln!("SKIPPED another_users_socket_is_not_claimed: only root can start another user's process");
        return;
    }
    let other = OtherUser::start(54321, "0.0.0.0:5353", BLACK_HOLE);
    let asked = tuple(Transport::Tcp, other.tcp, at(BLACK_HOLE));
    let elsewhere = asked
        .with_destination("10.7.7.7".parse().unwrap(), Some(80))
        .unwrap();
    let udp = tuple(Transport::Udp, at("10.0.0.5:5353"), at(BLACK_HOLE));
    let mut mine = owner();
    for asked in [asked, elsewhere, udp] {
        assert_eq!(find(&mut mine, asked), Finding::NotMine);
    }
    assert_eq!(mine.opening(), []);

    // Whoever answers for that user finds all three, and the program.
    let mut theirs = SocketOwner::open(54321).unwrap();
    assert_mine(find(&mut theirs, asked), asked);
    assert_mine(find(&mut theirs, elsewhere), asked);
    assert_mine(find(&mut theirs, udp), udp);

    // A port that two users are bound to is nobody's to claim.
    let shared = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    shared.set_reuse_address(true).unwrap();
    shared.bind(&at("0.0.0.0:5353").into()).unwrap();
    assert_eq!(find(&mut mine, udp), Finding::NotMine);
    assert_eq!(find(&mut theirs, udp), Finding::NotMine);
}
