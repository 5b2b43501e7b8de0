//! One reading of the whole connection table, in parts, on a socket of its own.
//!
//! The kernel fills the next part when the last is read, so a dump costs nothing while nobody asks for more, and
//! the caller decides how much of each turn it may take. Nothing is concluded here from what a dump lacks.

use super::events::{Messages, read};
use super::{ConntrackError, Interest, READ_BUFFER, decode, open, watch};
use crate::keeper::Access;
use crate::socket;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::Socket;
use nufw_proto::CtEntry;
use std::io;
use tokio::io::unix::AsyncFd;

/// What one step of a dump brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpProgress {
    /// There is more.
    More,
    /// The kernel reached the end. Not `complete` if it says that the table changed under the dump or reports an error.
    Done {
        /// Whether every entry of the table was seen.
        complete: bool,
    },
}

/// A dump in progress.
#[derive(Debug)]
pub struct Dump {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    interest: Interest,
    complete: bool,
    unrepresentable: u64,
}

/// A socket on which the kernel was asked for the whole table. Asking needs `CAP_NET_ADMIN`, reading does not.
pub(crate) fn request() -> Result<Socket, ConntrackError> {
    let socket = open()?;
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::from(NetfilterMessage::new(
            NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
            ConntrackMessage::Get(Vec::new()),
        )),
    );
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.header.sequence_number = 1;
    message.finalize();
    let mut request = vec![0; message.buffer_len()];
    message.serialize(&mut request);
    socket.send(&request, 0).map_err(ConntrackError::Request)?;
    Ok(socket)
}

impl Dump {
    /// Asks the kernel for the table, both address families. Needs `CAP_NET_ADMIN`, or whoever has it, and a tokio
    /// runtime.
    ///
    /// Entries without interest are left out here rather than in the kernel, whose filter can only compare a mark
    /// under a mask with one value.
    pub fn start(access: &Access, interest: Interest) -> Result<Self, ConntrackError> {
        let socket = match access {
            Access::Own => request()?,
            Access::Keeper(keeper) => socket::netlink(keeper.dump().map_err(ConntrackError::Request)?),
        };
        Ok(Self {
            socket: watch(socket)?,
            buffer: Vec::with_capacity(READ_BUFFER),
            interest,
            complete: true,
            unrepresentable: 0,
        })
    }

    /// Entries that the wire has no form for.
    pub fn unrepresentable(&self) -> u64 {
        self.unrepresentable
    }

    /// Waits until there may be something to read. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// Appends the entries of at most `reads` messages of the kernel (about 150 entries each) to `out`, without
    /// waiting. An error of the kernel ends the dump as incomplete.
    pub fn step(&mut self, reads: usize, out: &mut Vec<CtEntry>) -> DumpProgress {
        for _ in 0..reads {
            self.buffer.clear();
            match read(&self.socket, &mut self.buffer) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return DumpProgress::More,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "the dump of the connection table broke off; nothing is concluded from it");
                    return DumpProgress::Done { complete: false };
                }
            }
            if let Some(done) = self.take_datagram(out) {
                return done;
            }
        }
        DumpProgress::More
    }

    fn take_datagram(&mut self, out: &mut Vec<CtEntry>) -> Option<DumpProgress> {
        for message in Messages::new(&self.buffer) {
            let Ok(message) = message else {
                self.unrepresentable += 1;
                continue;
            };
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                self.complete = false;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => match decode(&attributes) {
                    Ok(decoded) if self.interest.includes(&decoded.entry) => out.push(decoded.entry),
                    Ok(_) => {}
                    Err(_) => self.unrepresentable += 1,
                },
                NetlinkPayload::Done(done) => {
                    return Some(DumpProgress::Done {
                        complete: self.complete && done.code == 0,
                    });
                }
                NetlinkPayload::Error(error) => {
                    tracing::warn!(error = %error.to_io(), "the kernel refused to dump its connection table");
                    return Some(DumpProgress::Done { complete: false });
                }
                _ => {}
            }
        }
        None
    }
}
