//! Decides whether a socket is the one that a packet came from.
//!
//! Pure: rows in, an answer out. Where more than one socket could have sent the packet and they are not all of one
//! owner, the answer is none: a wrong claim is worse than a packet that is dropped.

use super::diag::{CLOSE, ESTABLISHED, End, LISTEN, SocketRow, TIME_WAIT, is_any};
use nufw_proto::{Transport, Tuple};

/// `ICMP_ECHO`.
const ECHO_REQUEST: u8 = 8;
/// `ICMPV6_ECHO_REQUEST`.
const ECHO_REQUEST_V6: u8 = 128;
/// `IPPROTO_RAW`: a raw socket that sends any protocol.
const PROTOCOL_ANY: u16 = 255;

/// How well the socket that the kernel named fits the tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is connected exactly so.
    Exact,
    /// It is not connected, and could have sent this packet as well as another that is bound to the same port.
    Bound,
    /// It is another connection, or nobody's.
    No,
}

/// A socket, and the connection as it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// Owner of the socket.
    pub(super) uid: u32,
    /// Inode of the socket.
    pub(super) inode: u32,
    /// The connection as the socket sees it.
    pub(super) seen: Tuple,
}

/// Compares the socket that the kernel named with the tuple it was asked for.
pub(super) fn fit(tuple: &Tuple, row: &SocketRow) -> Fit {
    let Some((local, remote)) = ends(tuple) else {
        return Fit::No;
    };
    if is_connected(tuple, row.state) {
        if row.local == local && row.remote == remote {
            Fit::Exact
        } else {
            Fit::No
        }
    } else if is_datagram(tuple) && row.state == CLOSE && is_bound_to(row, local) {
        Fit::Bound
    } else {
        Fit::No
    }
}

/// Chooses among the sockets that have the tuple's local port: the one connected exactly so, else the only one there
/// is. `None` when there is none, or when several are left that are not of one owner or not of one destination.
pub(super) fn choose<'a>(tuple: &Tuple, rows: impl IntoIterator<Item = &'a SocketRow>) -> Option<Owner> {
    let (local, remote) = ends(tuple)?;
    let mut choice: Option<Owner> = None;
    let mut is_ambiguous = false;
    for row in rows {
        let owner = |seen| Owner {
            uid: row.uid,
            inode: row.inode,
            seen,
        };
        let candidate = if is_connected(tuple, row.state) {
            if !is_bound_to(row, local) {
                continue;
            }
            if row.remote == remote {
                return Some(owner(*tuple));
            }
            // A socket that is connected to the other family has another packet in mind.
            match tuple.with_destination(row.remote.addr, Some(row.remote.port)) {
                Ok(seen) => owner(seen),
                Err(_) => continue,
            }
        } else if is_datagram(tuple) && row.state == CLOSE && is_bound_to(row, local) {
            owner(*tuple)
        } else {
            continue;
        };
        match choice {
            Some(first) if first.uid != candidate.uid || first.seen != candidate.seen => is_ambiguous = true,
            Some(_) => {}
            None => choice = Some(candidate),
        }
    }
    choice.filter(|_| !is_ambiguous)
}

/// Chooses the socket that an ICMP echo request came from: the echo socket with its identifier, else the only raw
/// socket that could have sent it. Other ICMP messages can come from raw sockets only.
pub(super) fn choose_icmp(tuple: &Tuple, echo: &[SocketRow], raw: &[SocketRow]) -> Option<Owner> {
    let key = tuple.transport().icmp()?;
    let owner = |row: &SocketRow| Owner {
        uid: row.uid,
        inode: row.inode,
        seen: *tuple,
    };
    let is_at = |row: &SocketRow| {
        let peer_fits = is_any(row.remote.addr) || row.remote.addr == tuple.dst();
        (is_any(row.local.addr) || row.local.addr == tuple.src()) && peer_fits
    };
    if key.kind == ECHO_REQUEST || key.kind == ECHO_REQUEST_V6 {
        let mut echoes = echo.iter().filter(|row| row.local.port == key.id && is_at(row));
        if let Some(first) = echoes.next() {
            return echoes.all(|row| row.uid == first.uid).then(|| owner(first));
        }
    }
    let protocol = u16::from(tuple.protocol());
    let mut raws = raw
        .iter()
        .filter(|row| (row.local.port == protocol || row.local.port == PROTOCOL_ANY) && is_at(row));
    let first = raws.next()?;
    raws.all(|row| row.uid == first.uid).then(|| owner(first))
}

/// The local and the remote end that the tuple shows.
fn ends(tuple: &Tuple) -> Option<(End, End)> {
    let ports = tuple.transport().ports()?;
    let local = End {
        addr: tuple.src(),
        port: ports.src,
    };
    let remote = End {
        addr: tuple.dst(),
        port: ports.dst,
    };
    Some((local, remote))
}

fn is_datagram(tuple: &Tuple) -> bool {
    matches!(tuple.transport(), Transport::Udp(_) | Transport::UdpLite(_))
}

/// Tells whether a socket in this state has a peer and an owner.
fn is_connected(tuple: &Tuple, state: u8) -> bool {
    if is_datagram(tuple) {
        state == ESTABLISHED
    } else {
        !matches!(state, LISTEN | TIME_WAIT | CLOSE)
    }
}

fn is_bound_to(row: &SocketRow, local: End) -> bool {
    // An IPv6 socket bound to no address may send IPv4 too; an IPv4 socket never sends IPv6.
    let serves_family = if row.local.addr.is_ipv4() {
        local.addr.is_ipv4()
    } else {
        !(row.is_v6_only && local.addr.is_ipv4())
    };
    row.local.port == local.port
        && (row.local.addr == local.addr || (is_any(row.local.addr) && serves_family))
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
