//! What both ports share: listening, the bounds on strangers, and how a bad peer is told to the log.
//!
//! Knows nothing of either protocol.

use crate::paced::paced;
use anyhow::Context as _;
use nufw_common::clock;
use nufw_common::lifecycle::Shutdown;
use nufw_proto::Addr;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections waiting in the kernel's queue of one listener, if net.core.somaxconn lets it be so long: after a restart everybody
/// comes back at once, and whoever finds no room is late by a second or more.
const LISTEN_QUEUE: i32 = 4096;
/// A peer address is named in the log at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Peer addresses whose complaints are counted; the table is emptied when it is full.
const MAX_COMPLAINTS: usize = 1024;

/// Opens the listening sockets of a port, which needs no runtime: what only root may open is opened before root is left. An IPv6 one takes IPv6 alone, so that both families can be named.
pub(crate) fn listen(addresses: &[SocketAddr]) -> anyhow::Result<Vec<std::net::TcpListener>> {
    addresses
        .iter()
        .map(|&address| open(address).with_context(|| format!("cannot listen on {address}")))
        .collect()
}

fn open(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_QUEUE)?;
    Ok(socket.into())
}

/// Hands listening sockets to the runtime, within it.
pub(crate) fn into_tokio(listeners: Vec<std::net::TcpListener>) -> std::io::Result<Vec<TcpListener>> {
    listeners.into_iter().map(TcpListener::from_std).collect()
}

/// Takes connections until the shutdown; each gets a task and one of the port's places for strangers, which the task
/// gives back when its peer is known. While there is no place, connections wait in the kernel's queue.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    strangers: Arc<Semaphore>,
    steps: Arc<Semaphore>,
    mut shutdown: Shutdown,
    serve: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(permit) = Arc::clone(&strangers).acquire_owned().await else {
            return;
        };
        tokio::select! {
            () = shutdown.wait() => return,
            // No faster than handshakes come to their end: what is accepted is ready to run, all of it at once.
            accepted = paced(&steps, listener.accept()) => match accepted {
                Ok((stream, peer)) => {
                    // Verdicts and questions are small and wait for nobody.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(serve(stream, peer, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of descriptors, most likely: trying again at once would only spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Of what kind a peer's misdeed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The handshake failed, or the certificate is not one of ours.
    Tls,
    /// It did not log in or say hello in time.
    Late,
    /// Its credentials are wrong.
    Login,
    /// Too many others waited for their turn to be checked.
    Busy,
    /// It broke the protocol.
    Protocol,
}

/// Why a peer was not greeted, for the log.
#[derive(Debug)]
pub(crate) struct Blame {
    pub(crate) cause: Cause,
    pub(crate) why: String,
}

impl Blame {
    pub(crate) fn tls(why: impl Into<String>) -> Self {
        Self {
            cause: Cause::Tls,
            why: why.into(),
        }
    }
}

impl From<String> for Blame {
    fn from(why: String) -> Self {
        Self {
            cause: Cause::Protocol,
            why,
        }
    }
}

/// What a port has met since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortState {
    /// Connections accepted.
    pub connections: u64,
    /// Handshakes and certificates that failed.
    pub tls: u64,
    /// Peers that did not log in or say hello in time.
    pub late: u64,
    /// Logins that failed.
    pub login: u64,
    /// Peers that were sent away because too many others waited to be checked.
    pub busy: u64,
    /// Peers that broke the protocol.
    pub protocol: u64,
}

/// Counts peers and what they do wrong, and tells the log of it without letting them fill it.
#[derive(Default)]
pub(crate) struct Complaints {
    told: Mutex<Told<Addr>>,
    told_of_all: Mutex<Told<()>>,
    counts: Mutex<PortState>,
}

impl Complaints {
    /// What was counted.
    pub(crate) fn state(&self) -> PortState {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was accepted.
    pub(crate) fn connected(&self) {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connections += 1;
    }

    /// A peer did something wrong that is told elsewhere.
    pub(crate) fn count(&self, cause: Cause) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *match cause {
            Cause::Tls => &mut counts.tls,
            Cause::Late => &mut counts.late,
            Cause::Login => &mut counts.login,
            Cause::Busy => &mut counts.busy,
            Cause::Protocol => &mut counts.protocol,
        } += 1;
    }

    /// Counts what a peer did, and logs it at most once in ten seconds for its address.
    pub(crate) fn tell(&self, port: &'static str, peer: SocketAddr, cause: Cause, what: &str) {
        self.count(cause);
        if let Some(held_back) = due(&self.told, Addr::from(peer.ip())) {
            tracing::warn!(port, %peer, held_back, "{what}");
        }
    }

    /// Counts what happened to a peer through no fault of its own, and logs it at most once in ten seconds for all of them.
    pub(crate) fn tell_of_all(&self, port: &'static str, cause: Cause, what: &str) {
        self.count(cause);
        if let Some(others) = due(&self.told_of_all, ()) {
            tracing::warn!(port, others, "{what}");
        }
    }
}

/// When each was named last, and how often it was not since.
type Told<K> = HashMap<K, (Instant, u64)>;

/// Whether it may be named; if so, how often it was not since the last time.
fn due<K: Eq + std::hash::Hash>(told: &Mutex<Told<K>>, key: K) -> Option<u64> {
    let now = clock::mono();
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() >= MAX_COMPLAINTS {
        told.clear();
    }
    match told.entry(key) {
        Entry::Occupied(mut entry) => {
            let (at, held_back) = entry.get_mut();
            if now < *at + COMPLAINT_INTERVAL {
                *held_back += 1;
                return None;
            }
            *at = now;
            Some(std::mem::take(held_back))
        }
        Entry::Vacant(entry) => {
            entry.insert((now, 0));
            Some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_from_the_log_is_counted_all_the_same() {
        let complaints = Complaints::default();
        let peer = SocketAddr::from(([192, 0, 2, 1], 4));
        complaints.connected();
        for cause in [
            Cause::Tls,
            Cause::Login,
            Cause::Login,
            Cause::Late,
            Cause::Protocol,
        ] {
            complaints.tell("clients", peer, cause, "something");
        }
        complaints.tell_of_all("clients", Cause::Busy, "something");
        let expected = PortState {
            connections: 1,
            tls: 1,
            late: 1,
            login: 2,
            busy: 1,
            protocol: 1,
        };
        assert_eq!(complaints.state(), expected);
    }

    /// Counts what is logged.
    #[derive(Default, Clone)]
    struct Lines(Arc<std::sync::atomic::AtomicU64>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn ten_thousand_failures_of_one_address_are_one_line_in_each_interval() {
        let (complaints, lines) = (Complaints::default(), Lines::default());
        let began = clock::mono();
        tracing::subscriber::with_default(lines.clone(), || {
            for port in 0..10_000 {
                let peer = SocketAddr::from(([192, 0, 2, 1], port));
                complaints.tell("clients", peer, Cause::Login, "login failed");
            }
            let other = SocketAddr::from(([192, 0, 2, 2], 1));
            complaints.tell("clients", other, Cause::Login, "login failed");
        });
        assert_eq!(complaints.state().login, 10_001, "all are counted");
        let intervals = 1 + (clock::mono() - began).as_secs() / COMPLAINT_INTERVAL.as_secs();
        let told = lines.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!((2..=1 + intervals).contains(&told), "{told} lines");
    }
}
