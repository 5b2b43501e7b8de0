//! What the kernel counts of a netlink socket: how full its receive buffer is, and how many messages found no room in it.
//!
//! One small file of /proc is read; no netlink request is made.

use netlink_sys::protocols::NETLINK_NETFILTER;

/// `/proc/net/netlink` of the network namespace that this thread is in.
const SOCKETS: &str = "/proc/thread-self/net/netlink";

/// The kernel's account of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketCounters {
    /// Bytes that wait in the receive buffer, as the kernel charges them.
    pub waiting: u64,
    /// Messages that found no room since the socket was opened.
    pub drops: u64,
}

/// The kernel's account of the netfilter netlink socket with this port; `None` when there is none, or it cannot be read.
pub fn socket_counters(port: u32) -> Option<SocketCounters> {
    parse(&std::fs::read_to_string(SOCKETS).ok()?, port)
}

/// The columns are `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode` (`netlink_native_seq_show`); `Pid` is the port.
fn parse(table: &str, port: u32) -> Option<SocketCounters> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, protocol, pid, _, waiting, _, _, _, drops, ..] = fields[..] else {
            return None;
        };
        let ours = protocol.parse() == Ok(NETLINK_NETFILTER) && pid.parse() == Ok(port);
        ours.then(|| {
            Some(SocketCounters {
                waiting: waiting.parse().ok()?,
                drops: drops.parse().ok()?,
            })
        })
        .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_protocol_and_port_alone() {
        let table = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4242       00000011 0        0        0     2        9        17037
0000000000000000 12  4242       00000007 23296    0        0     2        131      17040
0000000000000000 12  3999999999 00000000 0        0        0     2        0        17041
";
        let counted = SocketCounters {
            waiting: 23_296,
            drops: 131,
        };
        assert_eq!(parse(table, 4242), Some(counted));
        assert_eq!(parse(table, 3_999_999_999), Some(SocketCounters::default()));
        assert_eq!(parse(table, 1), None);
        assert_eq!(parse("nonsense\n12 4242\n", 4242), None);
    }
}
