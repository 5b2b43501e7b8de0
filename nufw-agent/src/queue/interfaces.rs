//! Names of network interfaces by index, asked for once and forgotten when the kernel says that something changed.
//!
//! A packet names its interface by index only. A name is what the administrator reads in a row; nothing is decided by it.
//! Needs no privilege, and sends nothing but the question for a name.

use crate::nfnl::Messages;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nufw_proto::Text;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

/// Most names remembered. Those of further interfaces are asked for at every packet: right, and about a microsecond slower.
pub const MAX_NAMES: usize = 4096;
/// Changes looked at in one go; more wait for the next packets. A name can be old for so long.
const MAX_CHANGES: usize = 16_384;
/// `RTNLGRP_LINK`: interfaces come, go and change.
const GROUP_LINK: u32 = 1;
/// `RTM_NEWLINK`: an interface came or changed.
const RTM_NEWLINK: u16 = 16;
/// `RTM_DELLINK`.
const RTM_DELLINK: u16 = 17;
/// Bytes of one read. A change takes one or two thousand; what is cut off is not needed.
const READ_BUFFER: usize = 16 * 1024;

/// A cache of interface names.
#[derive(Debug)]
pub struct InterfaceNames {
    socket: OwnedFd,
    changes: Socket,
    buffer: Vec<u8>,
    names: HashMap<u32, Text<15>>,
}

impl InterfaceNames {
    /// Prepares to ask the kernel, in the network namespace of the calling thread.
    pub fn new() -> io::Result<Self> {
        let mut changes = Socket::new(NETLINK_ROUTE)?;
        changes.bind_auto()?;
        changes.set_non_blocking(true)?;
        changes.add_membership(GROUP_LINK)?;
        Ok(Self {
            socket: socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?,
            changes,
            buffer: vec![0; READ_BUFFER],
            names: HashMap::new(),
        })
    }

    /// How many are remembered.
    pub fn known(&self) -> usize {
        self.names.len()
    }

    /// Takes note of what changed since the last call: a renamed interface, one that went, an index that another one has.
    /// Once for the packets of a turn.
    pub fn refresh(&mut self) {
        for _ in 0..MAX_CHANGES {
            match self
                .changes
                .recv_from(&mut self.buffer.as_mut_slice(), libc::MSG_DONTWAIT)
            {
                Ok((length, _)) => self.forget_changed(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Changes were lost (ENOBUFS), or cannot be read: nothing that was known is sure.
                Err(error) => {
                    tracing::debug!(%error, "changes of interfaces were missed; their names are asked for again");
                    self.names.clear();
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        return;
                    }
                }
            }
        }
        self.names.clear();
    }

    fn forget_changed(&mut self, length: usize) {
        let datagram = self.buffer.get(..length).unwrap_or(&self.buffer);
        for message in Messages::new(datagram) {
            let Ok(message) = message else {
                return self.names.clear();
            };
            // `struct ifinfomsg`: family, padding, type (2 bytes), index (a native int), …
            match (message.kind, message.body) {
                (RTM_NEWLINK | RTM_DELLINK, [_, _, _, _, a, b, c, d, ..]) => {
                    self.names.remove(&u32::from_ne_bytes([*a, *b, *c, *d]));
                }
                (RTM_NEWLINK | RTM_DELLINK, _) => self.names.clear(),
                _ => {}
            }
        }
    }

    /// The interface's name; empty for index 0 and for an interface that is gone.
    pub fn name(&mut self, index: u32) -> Text<15> {
        if index == 0 {
            return Text::default();
        }
        if let Some(name) = self.names.get(&index) {
            return name.clone();
        }
        let Ok(name) = netdevice::index_to_name_inlined(&self.socket, index) else {
            return Text::default();
        };
        let name = Text::lossy(name.as_str());
        if self.names.len() < MAX_NAMES {
            self.names.insert(index, name.clone());
        }
        name
    }

    /// How many names are remembered.
    pub fn remembered(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_nothing_is_not() {
        let mut names = InterfaceNames::new().unwrap();
        assert_eq!(names.name(1).as_str(), "lo");
        assert_eq!(names.name(0).as_str(), "");
        assert_eq!(names.name(u32::MAX).as_str(), "");
        assert_eq!(names.remembered(), 1);
    }

    #[test]
    fn a_change_that_cannot_be_read_forgets_everything() {
        let mut names = InterfaceNames::new().unwrap();
        let changed = |kind: u16, body: &[u8]| {
            let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
            message.extend_from_slice(&kind.to_ne_bytes());
            message.extend_from_slice(&[0; 10]);
            message.extend_from_slice(body);
            message
        };
        let mut told = |message: &[u8]| {
            names.name(1);
            names.buffer[..message.len()].copy_from_slice(message);
            names.forget_changed(message.len());
            names.remembered()
        };
        let [a, b, c, d] = 1u32.to_ne_bytes();
        assert_eq!(told(&changed(RTM_DELLINK, &[0, 0, 1, 0, a, b, c, d])), 0);
        assert_eq!(told(&changed(RTM_NEWLINK, &[0, 0, 1, 0, a + 1, b, c, d])), 1);
        assert_eq!(told(&changed(20, &[0; 16])), 1, "an address");
        assert_eq!(told(&changed(RTM_NEWLINK, &[0; 3])), 0);
        assert_eq!(told(&[1, 2, 3]), 0);
    }
}
