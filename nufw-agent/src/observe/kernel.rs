//! What the kernel shows of the agent's sockets and of its connection table, to whoever asks.
//!
//! Reads `/proc` of the calling thread's network namespace when somebody asks, never for a packet. What an agent that is not
//! root may not read is absent.

use crate::queue::{KernelCounters, kernel_counters};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

const NETLINK: &str = "/proc/thread-self/net/netlink";
const ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX_ENTRIES: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// The kernel's side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kernel {
    /// The queue, as `/proc/net/netfilter/nfnetlink_queue` has it, which only root may read.
    pub queue: Option<KernelCounters>,
    /// The socket of the queue.
    pub queue_socket: Option<SocketUse>,
    /// The socket of the events.
    pub event_socket: Option<SocketUse>,
    /// Entries of the connection table, of all programs.
    pub entries: Option<u64>,
    /// How many it may have.
    pub max_entries: Option<u64>,
}

/// A receive buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketUse {
    /// Bytes that wait in it.
    pub used: u64,
    /// Messages that found no room.
    pub drops: u64,
}

impl Kernel {
    /// Looks at a queue and at the sockets with these inodes.
    pub fn look(queue: u16, queue_inode: Option<u64>, event_inode: Option<u64>) -> Self {
        let sockets = std::fs::read_to_string(NETLINK).unwrap_or_default();
        let find = |inode: Option<u64>| inode.and_then(|inode| socket(&sockets, inode));
        Self {
            queue: kernel_counters(queue),
            queue_socket: find(queue_inode),
            event_socket: find(event_inode),
            entries: number(ENTRIES),
            max_entries: number(MAX_ENTRIES),
        }
    }
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The socket with this inode in the table of netlink sockets: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`
/// (`netlink_seq_show` of the kernel).
fn socket(table: &str, inode: u64) -> Option<SocketUse> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, _, used, _, _, _, drops, found] = fields.as_slice() else {
            return None;
        };
        (found.parse() == Ok(inode)).then_some(SocketUse {
            used: used.parse().ok()?,
            drops: drops.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_inode() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                     00000000b 12  0          00000000 0        0        0     2        0        12\n\
                     00000000c 12  3001234567 00000007 2304     0        0     2        9        13\n";
        assert_eq!(socket(table, 13), Some(SocketUse { used: 2304, drops: 9 }));
        assert_eq!(socket(table, 14), None);
        assert_eq!(socket("garbage", 13), None);
    }

    #[test]
    fn a_socket_of_this_process_is_found_in_the_kernels_table() {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_NETFILTER).unwrap();
        // The table has those that have a port.
        socket.bind_auto().unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        assert_eq!(
            Kernel::look(65_000, Some(inode), None).queue_socket,
            Some(SocketUse::default())
        );
    }
}
