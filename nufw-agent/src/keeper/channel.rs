//! The pair of sockets between supervisor and worker: whole messages, and descriptors with them.
//!
//! Knows no message. Whatever does not fit is an error, never cut.

use super::wire::{MAX_MESSAGE, MAX_QUEUES};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Most descriptors of one message: the queues, the event socket, the memory, and two places at which the agent is watched.
const MAX_DESCRIPTORS: usize = MAX_QUEUES + 4;

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message.
#[derive(Debug)]
pub struct Received {
    /// Its bytes.
    pub message: Vec<u8>,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Two ends; the other is a descriptor, to be given to a process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(ours), theirs))
    }

    /// The end that a descriptor is; refuses what is not one.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_type(&descriptor)? == SocketType::SEQPACKET {
            Ok(Self(descriptor))
        } else {
            Err(io::Error::from(io::ErrorKind::InvalidInput))
        }
    }

    /// Sends a message. Without `wait` it fails when there is no room.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let flags = SendFlags::NOSIGNAL
            | if wait {
                SendFlags::empty()
            } else {
                SendFlags::DONTWAIT
            };
        loop {
            match sendmsg(&self.0, &[IoSlice::new(message)], &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.map(drop).map_err(Into::into),
            }
        }
    }

    /// Receives a message; `None` when the other end is closed. Without `wait` it fails when none is there.
    pub fn receive(&self, wait: bool) -> io::Result<Option<Received>> {
        let mut message = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC
            | if wait {
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut message)], &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                // A peer that ends with messages unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                got => break got?,
            }
        };
        let mut descriptors = Vec::new();
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
                descriptors.extend(rights);
            }
        }
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message is too long",
            ));
        }
        message.truncate(got.bytes);
        // An empty message cannot be told from the end; nobody sends one.
        Ok((!message.is_empty()).then_some(Received { message, descriptors }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_message_comes_whole_and_with_its_descriptor() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_descriptor(theirs).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        ours.send(b"take this", &[reader.as_fd()], true).unwrap();
        ours.send(&vec![7; MAX_MESSAGE], &[], true).unwrap();
        let got = theirs.receive(true).unwrap().unwrap();
        assert_eq!(got.message, b"take this");
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(got.descriptors.into_iter().next().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x");
        assert_eq!(theirs.receive(true).unwrap().unwrap().message.len(), MAX_MESSAGE);
        assert_eq!(
            theirs.receive(false).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(ours);
        assert!(theirs.receive(true).unwrap().is_none());
    }

    #[test]
    fn a_message_too_long_is_an_error_and_no_part_of_it_is_used() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_descriptor(theirs).unwrap();
        ours.send(&vec![7; MAX_MESSAGE + 1], &[], true).unwrap();
        assert_eq!(
            theirs.receive(true).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn what_is_no_channel_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(Channel::from_descriptor(reader.into()).is_err());
    }
}
