//! Services on one host and attempts from another: TCP and UDP, with explicit addresses, ports and users.
//!
//! What they saw is returned; whether it is right is the test's matter.

use crate::netns::NetNs;
use crate::wait::now;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often a service looks whether it should end.
const SERVICE_POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A TCP service that echoes. Dropping it ends it.
#[derive(Debug)]
pub struct TcpService {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
}

impl TcpService {
    /// Echoes on a port, IPv4 and IPv6.
    pub fn echo(ns: &NetNs, port: u16) -> Result<Self> {
        Self::start(ns, port, |stream| {
            std::thread::spawn(move || echo_stream(stream));
        })
    }

    /// Keeps the last `keep` connections and closes the older ones; reads nothing.
    pub fn keep(ns: &NetNs, port: u16, keep: usize) -> Result<Self> {
        let mut kept = VecDeque::with_capacity(keep + 1);
        Self::start(ns, port, move |stream| {
            kept.push_back(stream);
            if kept.len() > keep {
                kept.pop_front();
            }
        })
    }

    fn start(ns: &NetNs, port: u16, mut serve: impl FnMut(TcpStream) + Send + 'static) -> Result<Self> {
        let listener = ns
            .enter(|| listen(port))?
            .with_context(|| format!("cannot listen on TCP port {port}"))?;
        let service = Self {
            stop: Arc::default(),
            accepted: Arc::default(),
        };
        let (stop, accepted) = (Arc::clone(&service.stop), Arc::clone(&service.accepted));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        stream.set_nonblocking(false).ok();
                        serve(stream);
                    }
                    Err(_) => readable(&listener),
                }
            }
        });
        Ok(service)
    }

    /// How many connections it accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for TcpService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([0u16; 8], port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn readable(socket: &impl std::os::fd::AsFd) {
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&SERVICE_POLL)).ok();
}

fn echo_stream(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A sink for load, in the namespace of the calling thread: accepts on the port until the process ends.
pub fn sink(port: u16, keep: usize, out: &mut impl Write) -> Result<()> {
    let listener = listen(port).with_context(|| format!("cannot listen on TCP port {port}"))?;
    listener.set_nonblocking(false)?;
    writeln!(out, "ready")?;
    out.flush()?;
    let mut kept = VecDeque::with_capacity(keep + 1);
    loop {
        // An accept that fails concerns one connection, which its client reports.
        if let Ok((stream, _)) = listener.accept() {
            kept.push_back(stream);
            if kept.len() > keep {
                kept.pop_front();
            }
        }
    }
}

/// A UDP service. Dropping it ends it.
#[derive(Debug)]
pub struct UdpService {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
}

impl UdpService {
    /// Echoes every datagram.
    pub fn echo(ns: &NetNs, port: u16) -> Result<Self> {
        Self::start(ns, port, true)
    }

    /// Counts datagrams and never answers.
    pub fn silent(ns: &NetNs, port: u16) -> Result<Self> {
        Self::start(ns, port, false)
    }

    fn start(ns: &NetNs, port: u16, answer: bool) -> Result<Self> {
        let socket = ns
            .enter(|| -> std::io::Result<UdpSocket> {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking(), None)?;
                socket.set_only_v6(false)?;
                socket.bind(&SocketAddr::from(([0u16; 8], port)).into())?;
                Ok(socket.into())
            })?
            .with_context(|| format!("cannot bind UDP port {port}"))?;
        let service = Self {
            stop: Arc::default(),
            received: Arc::default(),
        };
        let (stop, received) = (Arc::clone(&service.stop), Arc::clone(&service.received));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) {
                match socket.recv_from(&mut buffer) {
                    Ok((length, peer)) => {
                        received.fetch_add(1, Ordering::Relaxed);
                        if answer {
                            socket.send_to(&buffer[..length], peer).ok();
                        }
                    }
                    Err(_) => readable(&socket),
                }
            }
        });
        Ok(service)
    }

    /// How many datagrams came.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for UdpService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is open.
    Connected,
    /// A reset or a port-unreachable came back.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// Something else.
    Failed(ErrorKind),
}

/// One TCP connection to be tried.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    to: SocketAddr,
    from: Option<SocketAddr>,
    uid: Option<u32>,
    within: Duration,
}

/// A tried connection.
#[derive(Debug)]
pub struct Tried {
    /// What became of it.
    pub outcome: Outcome,
    /// The stream, if it is open.
    pub stream: Option<TcpStream>,
    /// Its source port.
    pub port: u16,
    /// How long it took.
    pub took: Duration,
}

impl Attempt {
    /// To an address and port, with 10 seconds' patience.
    pub fn to(address: IpAddr, port: u16) -> Self {
        Self {
            to: SocketAddr::new(address, port),
            from: None,
            uid: None,
            within: Duration::from_secs(10),
        }
    }

    /// From an address and port; port 0 lets the kernel choose.
    #[must_use]
    pub fn from(mut self, address: IpAddr, port: u16) -> Self {
        self.from = Some(SocketAddr::new(address, port));
        self
    }

    /// With a socket of this user.
    #[must_use]
    pub fn as_user(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Gives up after so long.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Tries it on a host.
    pub fn run(self, ns: &NetNs) -> Result<Tried> {
        ns.enter_as(self.uid, move || self.connect())?
    }

    fn connect(self) -> Result<Tried> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        let any = if self.to.is_ipv4() {
            SocketAddr::from(([0; 4], 0))
        } else {
            SocketAddr::from(([0u16; 8], 0))
        };
        socket.bind(&self.from.unwrap_or(any).into())?;
        let port = socket
            .local_addr()?
            .as_socket()
            .map_or(0, |address| address.port());
        let began = now();
        let result = socket.connect_timeout(&self.to.into(), self.within);
        let took = began.elapsed();
        let outcome = match &result {
            Ok(()) => Outcome::Connected,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => Outcome::Refused,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::TimedOut,
                other => Outcome::Failed(other),
            },
        };
        let stream = result.is_ok().then(|| TcpStream::from(socket));
        Ok(Tried {
            outcome,
            stream,
            port,
            took,
        })
    }
}

impl Tried {
    /// Sends a text over an echo service and reads it back.
    pub fn talk(&mut self, text: &str) -> Result<()> {
        let stream = self.stream.as_mut().context("the connection is not open")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(text.as_bytes())?;
        let mut back = vec![0; text.len()];
        stream
            .read_exact(&mut back)
            .context("the echo did not come back")?;
        anyhow::ensure!(back == text.as_bytes(), "the echo differs");
        Ok(())
    }

    /// Resets the connection.
    pub fn reset(&mut self) -> Result<()> {
        if let Some(stream) = self.stream.take() {
            Socket::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

/// Sends datagrams from one socket and counts the answers until as many came as were sent, or the time is over.
/// Gives the socket's port and the count.
pub fn udp_probe(
    ns: &NetNs,
    from: IpAddr,
    to: SocketAddr,
    datagrams: u32,
    within: Duration,
) -> Result<(UdpSocket, u32)> {
    ns.enter(move || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        for _ in 0..datagrams {
            socket.send_to(b"probe", to)?;
        }
        let (began, mut answers, mut buffer) = (now(), 0, [0; 64]);
        while answers < datagrams {
            let left = within.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv_from(&mut buffer) {
                Ok(_) => answers += 1,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // An ICMP error about an earlier datagram.
                Err(_) => {}
            }
        }
        Ok((socket, answers))
    })?
}
