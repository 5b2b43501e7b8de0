//! Packets that somebody read and did not answer, because he died: they pass their chain once more, or are dropped.
//!
//! Nobody may read the queue's socket meanwhile. Packets that wait unread stay as they are.

use super::codec::{self, Disposition};
use super::{MESSAGE_OVERHEAD, QueueError, send_all, system};
use crate::nfnl::{Messages, Writer};
use netlink_sys::Socket;
use std::io;

/// Half of half of the ids, so that whatever waits is before it in the kernel's order of ids, which wraps around.
const FAR_AHEAD: u32 = 1 << 30;
/// Messages that are no packets and come before the first one; there are never more than refusals of one batch.
const STRAY: usize = 100_000;

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// They pass their chain from its top and are queued again, with other ids and their payload (`NF_REPEAT`).
    Repeat,
    /// They are dropped.
    Drop,
}

/// Does it. `near` is any id of the queue that was seen lately, 0 if none was.
///
/// Ids are consecutive within a queue, so that what was read ends before the first unread packet. When nothing is unread
/// everything that waits was read, save what comes in this moment: such a packet is queued again and its first message
/// is of a packet that is gone.
pub fn put_back(socket: &Socket, queue: u16, near: u32, how: PutBack) -> Result<(), QueueError> {
    let last = match first_unread(socket)? {
        Some(first) => first.wrapping_sub(1),
        None => near.wrapping_add(FAR_AHEAD),
    };
    let disposition = match how {
        PutBack::Repeat => Disposition::Repeat { mark: None },
        PutBack::Drop => Disposition::Drop,
    };
    let mut writer = Writer::default();
    codec::verdict_up_to(&mut writer, queue, last, disposition);
    send_all(socket, &writer).map_err(system("put packets back"))
}

/// The id of the first packet in the socket; what is there before it and is no packet is read away.
fn first_unread(socket: &Socket) -> Result<Option<u32>, QueueError> {
    let mut buffer = vec![0; usize::from(u16::MAX) + MESSAGE_OVERHEAD];
    for _ in 0..STRAY {
        let read = |buffer: &mut [u8], flags| socket.recv(&mut &mut *buffer, flags | libc::MSG_DONTWAIT);
        let length = match read(&mut buffer, libc::MSG_PEEK) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
            Err(error) => return Err(system("read the queue")(error)),
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        for message in Messages::new(datagram).flatten() {
            if message.kind == codec::PACKET {
                return Ok(codec::packet_id(&message));
            }
        }
        // It is there, and this reads it away.
        let _ = read(&mut buffer, 0);
    }
    Ok(None)
}
