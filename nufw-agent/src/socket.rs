//! Netlink sockets that another process opened, and descriptors that are watched.
//!
//! What is read from them or written to them is the business of [`crate::queue`] and [`crate::conntrack`].

use netlink_sys::Socket;
use std::os::fd::{AsRawFd, FromRawFd as _, IntoRawFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The netlink socket that a descriptor is.
pub(crate) fn netlink(descriptor: OwnedFd) -> Socket {
    #[expect(
        unsafe_code,
        reason = "the crate has no safe way from a descriptor to its socket"
    )]
    // SAFETY: the descriptor is owned and handed over whole; a socket of another kind only makes its calls fail.
    unsafe {
        Socket::from_raw_fd(descriptor.into_raw_fd())
    }
}

/// The descriptor that a netlink socket is.
pub(crate) fn descriptor(socket: Socket) -> OwnedFd {
    #[expect(
        unsafe_code,
        reason = "the crate has no safe way from a socket to its descriptor"
    )]
    // SAFETY: the socket gives its descriptor away and does not close it.
    unsafe {
        OwnedFd::from_raw_fd(socket.into_raw_fd())
    }
}

/// Watches a descriptor for something to read; within a tokio runtime.
pub(crate) fn watch<T: AsRawFd>(owner: T) -> std::io::Result<AsyncFd<T>> {
    #[expect(
        unsafe_code,
        reason = "tokio wants a promise about the descriptor that no type makes"
    )]
    // SAFETY: every caller gives a value that owns its descriptor, always answers with that one, and closes it only when
    // it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) };
    watched.map_err(std::io::Error::from)
}
