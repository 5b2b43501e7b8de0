//! The kernel's connection table: its events ([`Events`]) and its contents ([`Dump`]), as the wire's `CtEvent` and `CtEntry`.
//!
//! Facts are passed on as the kernel tells them; what they mean for a row is the server's part. An entry that the
//! wire cannot represent is counted and left out, never an error.

mod control;
mod counters;
mod decode;
mod dump;
mod events;
mod filter;
mod interest;
mod tracking;

pub(crate) use control::request as request_control;
pub use control::{Answer, Control, IN_FLIGHT, Order, Target};
pub use counters::{SocketCounters, socket_counters};
pub use decode::{Decoded, Unrepresentable, decode};
pub(crate) use dump::request as request_dump;
pub use dump::{Dump, DumpProgress};
pub use events::{EventOptions, Events, Received};
pub use interest::{Chosen, Interest, MOST_CHOSEN};
pub use tracking::Tracking;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;
use tokio::io::unix::AsyncFd;

/// Bytes of one read. The kernel sizes the messages of a dump by it, up to 32 KiB; an event takes about 300 bytes.
const READ_BUFFER: usize = 32 * 1024;

/// What the kernel charges to the receive buffer for one event.
pub const BYTES_PER_EVENT: usize = 1280;

/// What can go wrong with a conntrack socket.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The socket could not be opened, bound or connected.
    #[error("the kernel's connection table cannot be reached over netlink: {0}")]
    Open(#[source] io::Error),
    /// A multicast group of events could not be joined.
    #[error(
        "conntrack events cannot be subscribed to (CAP_NET_ADMIN and the kernel's nf_conntrack_netlink are needed): {0}"
    )]
    Subscribe(#[source] io::Error),
    /// The in-kernel filter was refused.
    #[error(
        "the kernel refused the filter that lets only some connections through (-M, conntrack.accept-*): {0}"
    )]
    Filter(#[source] io::Error),
    /// The request for a dump could not be sent.
    #[error("the kernel refused to dump its connection table: {0}")]
    Request(#[source] io::Error),
    /// Reading failed.
    #[error("reading from the kernel's connection table failed: {0}")]
    Receive(#[source] io::Error),
}

fn open() -> Result<Socket, ConntrackError> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(ConntrackError::Open)?;
    socket.bind_auto().map_err(ConntrackError::Open)?;
    socket
        .connect(&SocketAddr::new(0, 0))
        .map_err(ConntrackError::Open)?;
    socket.set_non_blocking(true).map_err(ConntrackError::Open)?;
    Ok(socket)
}

fn watch(socket: Socket) -> Result<AsyncFd<Socket>, ConntrackError> {
    crate::socket::watch(socket).map_err(ConntrackError::Open)
}
