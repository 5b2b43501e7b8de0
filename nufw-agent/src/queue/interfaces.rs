//! Names of network interfaces by index, remembered for a short while.
//!
//! A name is what the administrator reads in a row; nothing is decided by it. The kernel is asked by ioctl, because a
//! packet names its interface by index only.

use nufw_proto::Text;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long a name is believed: an interface that is renamed shows its new name after that.
const BELIEVED: Duration = Duration::from_secs(2);
/// Most names remembered; beyond that all are forgotten and asked for again.
const MAX_NAMES: usize = 4096;

/// A cache of interface names.
#[derive(Debug)]
pub struct InterfaceNames {
    socket: OwnedFd,
    names: HashMap<u32, (Text<15>, Instant)>,
}

impl InterfaceNames {
    /// Prepares to ask the kernel, in the network namespace of the calling thread.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            socket: socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?,
            names: HashMap::new(),
        })
    }

    /// How many are remembered.
    pub fn known(&self) -> usize {
        self.names.len()
    }

    /// The interface's name; empty for index 0 and for an interface that is gone.
    pub fn name(&mut self, index: u32, now: Instant) -> Text<15> {
        if index == 0 {
            return Text::default();
        }
        if let Some((name, asked)) = self.names.get(&index)
            && now.saturating_duration_since(*asked) < BELIEVED
        {
            return name.clone();
        }
        let name = netdevice::index_to_name_inlined(&self.socket, index)
            .map(|name| Text::lossy(name.as_str()))
            .unwrap_or_default();
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        self.names.insert(index, (name.clone(), now));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_common::clock;

    #[test]
    fn loopback_is_found_and_nothing_is_not() {
        let mut names = InterfaceNames::new().unwrap();
        let now = clock::mono();
        assert_eq!(names.name(1, now).as_str(), "lo");
        assert_eq!(names.name(0, now).as_str(), "");
        assert_eq!(names.name(u32::MAX, now).as_str(), "");
    }

    #[test]
    fn a_name_is_asked_for_again_after_a_while_and_never_too_many_are_kept() {
        let mut names = InterfaceNames::new().unwrap();
        let now = clock::mono();
        names.names.insert(1, (Text::lossy("old"), now));
        assert_eq!(names.name(1, now).as_str(), "old");
        assert_eq!(names.name(1, now + BELIEVED).as_str(), "lo");
        for index in 1_000_000..1_000_000 + 2 * u32::try_from(MAX_NAMES).unwrap() {
            names.name(index, now);
        }
        assert!(names.names.len() <= MAX_NAMES);
    }
}
