//! Measures how fast claims are answered: `cargo run --release -p nutcpc --example claim_rate [SOCKETS] [CHILDREN]`.
//!
//! Opens that many UDP and TCP sockets in this process (and in children, each a process of its own) and asks for
//! them: one by one, and in batches. Prints one line a case. Only loopback is used.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring tool: it prints, and what fails ends it"
)]

use nufw_proto::client::Finding;
use nufw_proto::{Ports, Transport, Tuple};
use nutcpc::owner::SocketOwner;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some("--child") {
        let number = args.next().and_then(|n| n.parse().ok()).unwrap_or(63);
        let sockets: Vec<_> = (0..number).map(|_| udp()).collect();
        let mut out = std::io::stdout().lock();
        for (_, tuple) in &sockets {
            let ports = tuple.transport().ports().unwrap();
            writeln!(out, "{} {}", ports.src, ports.dst).unwrap();
        }
        drop(out);
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    let sockets: usize = first.and_then(|n| n.parse().ok()).unwrap_or(500);
    let children: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(8);
    let mut owner = SocketOwner::open(rustix::process::geteuid().as_raw()).unwrap();

    let (listener, tcp) = tcp(sockets);
    let udp: Vec<_> = (0..sockets).map(|_| udp()).collect();
    let tcp_tuples: Vec<Tuple> = tcp.iter().map(|(_, tuple)| *tuple).collect();
    let udp_tuples: Vec<Tuple> = udp.iter().map(|(_, tuple)| *tuple).collect();
    println!(
        "{sockets} TCP and {sockets} UDP sockets in this process, {children} children with 63 sockets each"
    );

    single("tcp, same process", &mut owner, &tcp_tuples);
    single("udp connected, same process", &mut owner, &udp_tuples);
    for size in [10, 100, 500] {
        batches("tcp, same process", &mut owner, &tcp_tuples, size.min(sockets));
    }
    fresh(&mut owner);

    let unconnected: Vec<_> = (0..sockets).map(|_| udp_unconnected()).collect();
    let bound: Vec<Tuple> = unconnected.iter().map(|(_, tuple)| *tuple).collect();
    single("udp unconnected, same process", &mut owner, &bound);
    batches(
        "udp unconnected, same process",
        &mut owner,
        &bound,
        100.min(sockets),
    );

    let mut processes = Vec::new();
    let mut spread = Vec::new();
    for _ in 0..children {
        let (process, tuples) = child();
        processes.push(process);
        spread.push(tuples);
    }
    if children > 0 {
        let mixed: Vec<Tuple> = (0..63)
            .flat_map(|i| spread.iter().map(move |tuples| tuples[i]))
            .collect();
        single("udp, children in turn", &mut owner, &mixed);
        batches("udp, children in turn", &mut owner, &mixed, 100.min(mixed.len()));
        let mut newcomers = Vec::new();
        for _ in 0..50 {
            let (mut process, tuples) = child();
            newcomers.push(timed(&mut owner, &tuples[..1]));
            process.kill().unwrap();
            process.wait().unwrap();
        }
        report("udp, a program just started", newcomers, 50);
    }

    translated(&mut owner, &tcp_tuples);
    for mut process in processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    drop(listener);
}

fn udp() -> (UdpSocket, Tuple) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    let tuple = tuple(
        Transport::Udp,
        socket.local_addr().unwrap(),
        socket.peer_addr().unwrap(),
    );
    (socket, tuple)
}

fn udp_unconnected() -> (UdpSocket, Tuple) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let tuple = tuple(
        Transport::Udp,
        ([127, 0, 0, 1], port).into(),
        ([127, 0, 0, 1], 9).into(),
    );
    (socket, tuple)
}

fn tcp(number: usize) -> (TcpListener, Vec<(TcpStream, Tuple)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut streams = Vec::new();
    for _ in 0..number {
        let stream = TcpStream::connect(to).unwrap();
        let tuple = tuple(Transport::Tcp, stream.local_addr().unwrap(), to);
        streams.push((stream, tuple));
        // Closed at once: only our end shall be among this process's descriptors.
        drop(listener.accept().unwrap());
    }
    (listener, streams)
}

fn tuple(transport: fn(Ports) -> Transport, local: SocketAddr, remote: SocketAddr) -> Tuple {
    let ports = Ports {
        src: local.port(),
        dst: remote.port(),
    };
    Tuple::new(local.ip().into(), remote.ip().into(), transport(ports)).unwrap()
}

fn child() -> (std::process::Child, Vec<Tuple>) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--child", "63"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let tuples = lines
        .take(63)
        .map(|line| {
            let line = line.unwrap();
            let (src, dst) = line.split_once(' ').unwrap();
            let local = SocketAddr::from(([127, 0, 0, 1], src.parse().unwrap()));
            let remote = SocketAddr::from(([127, 0, 0, 1], dst.parse().unwrap()));
            tuple(Transport::Udp, local, remote)
        })
        .collect();
    (process, tuples)
}

#[expect(clippy::disallowed_methods, reason = "a stop-watch")]
fn timed(owner: &mut SocketOwner, tuples: &[Tuple]) -> Duration {
    let start = Instant::now();
    let findings = owner.findings(tuples);
    let took = start.elapsed();
    for (finding, tuple) in findings.iter().zip(tuples) {
        assert!(
            matches!(finding, Finding::Mine(mine) if mine.program.is_some()),
            "{tuple}: {finding:?}"
        );
    }
    took
}

fn single(name: &str, owner: &mut SocketOwner, tuples: &[Tuple]) {
    timed(owner, &tuples[..1]);
    let times = tuples.iter().map(|tuple| timed(owner, &[*tuple])).collect();
    report(&format!("{name}, one by one"), times, tuples.len());
}

fn batches(name: &str, owner: &mut SocketOwner, tuples: &[Tuple], size: usize) {
    let times = (0..20)
        .flat_map(|_| tuples.chunks_exact(size))
        .map(|chunk| timed(owner, chunk))
        .collect();
    report(
        &format!("{name}, batches of {size}"),
        times,
        tuples.len() / size * size * 20,
    );
}

/// A process that opens one socket after another, as a browser does.
fn fresh(owner: &mut SocketOwner) {
    let times = (0..200)
        .map(|_| {
            let (_socket, tuple) = udp();
            timed(owner, &[tuple])
        })
        .collect();
    report("udp, a new socket each time, one by one", times, 200);
}

/// The packet shows another destination than the socket has.
fn translated(owner: &mut SocketOwner, tuples: &[Tuple]) {
    let elsewhere = "127.9.9.9".parse().unwrap();
    let asked: Vec<Tuple> = tuples
        .iter()
        .map(|tuple| tuple.with_destination(elsewhere, Some(80)).unwrap())
        .collect();
    let times = asked
        .iter()
        .take(200)
        .map(|tuple| timed(owner, &[*tuple]))
        .collect();
    report(
        "tcp, translated destination, one by one",
        times,
        asked.len().min(200),
    );
    batches("tcp, translated destination", owner, &asked, 100.min(asked.len()));
}

fn report(name: &str, mut times: Vec<Duration>, claims: usize) {
    times.sort_unstable();
    let total: Duration = times.iter().sum();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{name:45} {:>9.0} claims/s   p50 {:>9.1?}  p99 {:>9.1?}",
        claims as f64 / total.as_secs_f64(),
        at(50),
        at(99)
    );
}
