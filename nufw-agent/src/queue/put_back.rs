//! Packets that somebody read and did not answer, because he died: they pass their chain once more, or are dropped.
//!
//! Nobody may read the queue's socket meanwhile. Packets that wait unread stay as they are.

use super::codec::{self, Disposition};
use super::send::send_all;
use super::{MESSAGE_OVERHEAD, QueueError, system};
use crate::nfnl::{Messages, Writer};
use netlink_sys::Socket;
use std::io;

/// Half of half of the ids, so that whatever waits is before it in the kernel's order of ids, which wraps around.
const FAR_AHEAD: u32 = 1 << 30;
/// Most messages that are read: refusals of a batch that come before the first packet, or what several queues hold. What is
/// beyond is queued again all the same, and its message is of a packet that is gone.
const MOST_READ: usize = 100_000;

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// They pass their chain from its top and are queued again, with other ids and their payload (`NF_REPEAT`).
    Repeat,
    /// They are dropped.
    Drop,
}

/// Does it for all queues of a socket. Each comes with an id that was seen lately, or one near it; 0 if none was.
///
/// Ids are consecutive within a queue, so that what was read ends before the first unread packet. When nothing is unread
/// everything that waits was read, save what comes in this moment: such a packet is queued again and its first message
/// is of a packet that is gone. Of several queues only the first packet of the socket can be seen where it lies; so what is
/// unread is read away, and queued again like what was read.
pub fn put_back(socket: &Socket, queues: &[(u16, u32)], how: PutBack) -> Result<(), QueueError> {
    let mut writer = Writer::default();
    let one_alone = queues.len() == 1;
    let firsts = if one_alone {
        first_unread(socket)?.into_iter().collect()
    } else {
        read_away(socket)?
    };
    for &(queue, near) in queues {
        let first = firsts.iter().find(|(of, _)| *of == queue);
        let far = first.map_or(near, |(_, first)| *first).wrapping_add(FAR_AHEAD);
        let before = first.map_or(far, |(_, first)| first.wrapping_sub(1));
        let disposition = match how {
            PutBack::Repeat => REPEAT,
            PutBack::Drop => Disposition::Drop,
        };
        match (one_alone, how, first) {
            // Twice would be once too often: what the first one has queued again the second one would find.
            (false, PutBack::Repeat, _) => codec::verdict_up_to(&mut writer, queue, far, REPEAT),
            (false, PutBack::Drop, Some(_)) => {
                codec::verdict_up_to(&mut writer, queue, before, disposition);
                codec::verdict_up_to(&mut writer, queue, far, REPEAT);
            }
            _ => codec::verdict_up_to(&mut writer, queue, before, disposition),
        }
    }
    send_all(socket, &writer).map_err(system("put packets back"))
}

const REPEAT: Disposition = Disposition::Repeat { mark: None };

/// The queue and id of the first packet in the socket; what is there before it and is no packet is read away.
fn first_unread(socket: &Socket) -> Result<Option<(u16, u32)>, QueueError> {
    let mut buffer = vec![0; usize::from(u16::MAX) + MESSAGE_OVERHEAD];
    for _ in 0..MOST_READ {
        let Some(length) = read(socket, &mut buffer, libc::MSG_PEEK)? else {
            return Ok(None);
        };
        if length == 0 {
            continue;
        }
        if let Some(first) = packets(&buffer, length).next() {
            return Ok(Some(first));
        }
        // It is there, and this reads it away.
        read(socket, &mut buffer, 0)?;
    }
    Ok(None)
}

/// Empties the socket; tells the first packet of each queue that was in it.
fn read_away(socket: &Socket) -> Result<Vec<(u16, u32)>, QueueError> {
    let mut buffer = vec![0; usize::from(u16::MAX) + MESSAGE_OVERHEAD];
    let mut firsts: Vec<(u16, u32)> = Vec::new();
    for _ in 0..MOST_READ {
        let Some(length) = read(socket, &mut buffer, 0)? else {
            break;
        };
        for (queue, id) in packets(&buffer, length) {
            if firsts.iter().all(|(of, _)| *of != queue) {
                firsts.push((queue, id));
            }
        }
    }
    Ok(firsts)
}

/// Reads a datagram, and tells its length; 0 when it is to be tried again, `None` when there is none.
fn read(socket: &Socket, buffer: &mut [u8], flags: libc::c_int) -> Result<Option<usize>, QueueError> {
    match socket.recv(&mut &mut *buffer, flags | libc::MSG_DONTWAIT) {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error)
            if error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == Some(libc::ENOBUFS) =>
        {
            Ok(Some(0))
        }
        Err(error) => Err(system("read the queue")(error)),
    }
}

/// The packets of a datagram: queue and id.
fn packets(buffer: &[u8], length: usize) -> impl Iterator<Item = (u16, u32)> {
    let datagram = buffer.get(..length).unwrap_or_default();
    Messages::new(datagram)
        .flatten()
        .filter(|message| message.kind == codec::PACKET)
        .filter_map(|message| {
            let (_, queue, _) = message.nfgen().ok()?;
            Some((queue, codec::packet_id(&message)?))
        })
}
