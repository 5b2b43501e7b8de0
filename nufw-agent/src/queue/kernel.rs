//! What the kernel shows of its queues and netlink sockets under /proc.
//!
//! Reads only, of the calling thread's network namespace. Whatever cannot be read or understood is absent from the
//! answer.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;

const QUEUES: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";
const NETLINK_SOCKETS: &str = "/proc/thread-self/net/netlink";
const NETLINK_NETFILTER: u32 = 12;
/// Multicast groups 1 to 3: conntrack entries new, changed and destroyed (`NFNLGRP_CONNTRACK_*`).
const CONNTRACK_GROUPS: u32 = 0b111;

/// The kernel's own account of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelCounters {
    /// Netlink port of the socket that reads the queue.
    pub port: u32,
    /// Packets that wait for their verdict.
    pub waiting: u64,
    /// Packets dropped because `queue.length` were waiting.
    pub queue_dropped: u64,
    /// Packets dropped because the socket's receive buffer was full.
    pub user_dropped: u64,
    /// The id given to the last packet.
    pub last_id: u64,
}

/// Who reads a queue or listens on a netlink socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Netlink port of its socket.
    pub port: u32,
    /// Its process, when it can be seen.
    pub pid: Option<u32>,
    /// The process's name.
    pub program: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => write!(f, "{program} (pid {pid})"),
            (None, Some(pid)) => write!(f, "process {pid}"),
            (_, None) => write!(
                f,
                "a process that cannot be seen from here (netlink port {})",
                self.port
            ),
        }
    }
}

/// The counters of a queue; `None` when nobody reads it.
pub fn kernel_counters(number: u16) -> Option<KernelCounters> {
    find_queue(&fs::read_to_string(QUEUES).ok()?, number)
}

/// Who reads a queue; `None` when nobody does.
pub fn holder(number: u16) -> Option<Holder> {
    let port = kernel_counters(number)?.port;
    let sockets = fs::read_to_string(NETLINK_SOCKETS).unwrap_or_default();
    let inode = netfilter_sockets(&sockets).find(|socket| socket.port == port);
    Some(identify(port, inode.map(|socket| socket.inode)))
}

/// Who else listens to conntrack events, for which an event mask would be a loss.
pub fn other_event_listeners() -> Vec<Holder> {
    let sockets = fs::read_to_string(NETLINK_SOCKETS).unwrap_or_default();
    netfilter_sockets(&sockets)
        .filter(|socket| socket.groups & CONNTRACK_GROUPS != 0)
        .map(|socket| identify(socket.port, Some(socket.inode)))
        .filter(|holder| holder.pid != Some(std::process::id()))
        .collect()
}

fn find_queue(table: &str, number: u16) -> Option<KernelCounters> {
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || fields.next()?.ok();
        if next()? != u64::from(number) {
            return None;
        }
        let (port, waiting, _mode, _range) = (next()?, next()?, next()?, next()?);
        Some(KernelCounters {
            port: u32::try_from(port).ok()?,
            waiting,
            queue_dropped: next()?,
            user_dropped: next()?,
            last_id: next()?,
        })
    })
}

#[derive(Debug, PartialEq, Eq)]
struct NetlinkSocket {
    port: u32,
    groups: u32,
    inode: u64,
}

/// The sockets of protocol `NETLINK_NETFILTER` in the kernel's table, whose port 0 is the kernel's own.
fn netfilter_sockets(table: &str) -> impl Iterator<Item = NetlinkSocket> + '_ {
    table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, protocol, port, groups, .., inode] = fields.as_slice() else {
            return None;
        };
        let socket = NetlinkSocket {
            port: port.parse().ok()?,
            groups: u32::from_str_radix(groups, 16).ok()?,
            inode: inode.parse().ok()?,
        };
        (protocol.parse() == Ok(NETLINK_NETFILTER) && socket.port != 0).then_some(socket)
    })
}

fn identify(port: u32, inode: Option<u64>) -> Holder {
    let pid = inode.and_then(|inode| process_with(port, inode));
    Holder {
        port,
        pid,
        program: pid
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .map(|name| name.trim_end().to_owned()),
    }
}

/// The process that has the socket open. The port is usually the pid of its maker, so that one is looked at first.
fn process_with(port: u32, inode: u64) -> Option<u32> {
    let target = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(&target)))
    };
    let all = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    std::iter::once(port).chain(all).find(has_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_found_by_its_number() {
        let table = "    0   4242     3 2   256     7     9      128  1\n   12   4243     0 2 65531     0     0        0  1\n";
        assert_eq!(
            find_queue(table, 0),
            Some(KernelCounters {
                port: 4242,
                waiting: 3,
                queue_dropped: 7,
                user_dropped: 9,
                last_id: 128
            })
        );
        assert_eq!(find_queue(table, 12).map(|queue| queue.port), Some(4243));
        assert_eq!(find_queue(table, 1), None);
        assert_eq!(find_queue("garbage\n0 x\n", 0), None);
    }

    #[test]
    fn netlink_sockets_are_told_apart() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                     00000000a 0   912        00000111 0        0        0     2        0        11\n\
                     00000000b 12  0          00000000 0        0        0     2        0        12\n\
                     00000000c 12  3001234567 00000007 0        0        0     2        0        13\n";
        let found: Vec<_> = netfilter_sockets(table).collect();
        assert_eq!(
            found,
            [NetlinkSocket {
                port: 3_001_234_567,
                groups: 7,
                inode: 13
            }]
        );
    }

    #[test]
    fn an_unseen_holder_is_still_described() {
        let holder = Holder {
            port: 77,
            pid: None,
            program: None,
        };
        assert_eq!(
            holder.to_string(),
            "a process that cannot be seen from here (netlink port 77)"
        );
    }
}
