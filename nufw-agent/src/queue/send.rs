//! Verdicts on their way to the kernel, and how much room there is on the way back.
//!
//! What they say is decided elsewhere.

use super::codec::{self, Disposition};
use crate::nfnl::Writer;
use netlink_sys::Socket;
use rustix::net::sockopt;
use std::io;

/// How often a send that the kernel has no memory for is tried again at once.
const SEND_TRIES: u32 = 8;

/// Sends verdicts, each a queue, a packet id and what becomes of it, in one system call; they are with the kernel when it
/// returns.
pub(crate) fn send_verdicts(
    socket: &Socket,
    verdicts: &[(u16, u32, Disposition)],
    writer: &mut Writer,
) -> io::Result<()> {
    writer.clear();
    for (queue, packet_id, disposition) in verdicts {
        codec::verdict(writer, *queue, *packet_id, *disposition);
    }
    send_all(socket, writer)
}

pub(super) fn send_all(socket: &Socket, writer: &Writer) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match socket.send(writer.bytes(), 0) {
            Ok(_) => return Ok(()),
            Err(error) if is_transient(&error) && tries < SEND_TRIES => {
                tries += 1;
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
}

/// Asks for `wanted` bytes, beyond the host's limit if permitted; returns what was granted.
pub(super) fn grow_receive_buffer(socket: &Socket, wanted: usize) -> io::Result<usize> {
    // The kernel reads an int and doubles it.
    let wanted = wanted.min(0x3fff_ffff);
    if sockopt::set_socket_recv_buffer_size_force(socket, wanted).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, wanted)?;
    }
    Ok(sockopt::socket_recv_buffer_size(socket)?)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR | libc::ENOMEM)
    )
}
