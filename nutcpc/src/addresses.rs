//! The addresses of this host, and word when they change, by rtnetlink.
//!
//! An event is only a reason to look again: the set is always what a fresh dump shows, so that a lost event costs
//! nothing. Whether an address can be proven is not known here.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nufw_common::clock;
use nufw_proto::Addr;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `RTNLGRP_IPV4_IFADDR`.
const GROUP_IPV4_IFADDR: u32 = 5;
/// `RTNLGRP_IPV6_IFADDR`.
const GROUP_IPV6_IFADDR: u32 = 9;
/// Changes come in bursts (an interface comes up with several addresses); they are looked at together.
const SETTLE: Duration = Duration::from_millis(100);
/// The kernel fills at most 32 KiB of a dump at once.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Watches the host's addresses.
pub(crate) struct AddressWatch {
    events: AsyncFd<Socket>,
    /// Something changed; it is told when it has settled.
    settled: Option<Instant>,
}

impl AddressWatch {
    /// Begins to watch; within a tokio runtime. Needs no privilege.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(GROUP_IPV4_IFADDR)?;
        socket.add_membership(GROUP_IPV6_IFADDR)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            events: watch(socket)?,
            settled: None,
        })
    }

    /// Waits until addresses have changed. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let settled = if let Some(settled) = self.settled {
            settled
        } else {
            self.drain().await?;
            clock::mono() + SETTLE
        };
        self.settled = Some(settled);
        tokio::time::sleep_until(settled.into()).await;
        self.settled = None;
        Ok(())
    }

    /// Takes every event away. Whatever they say, and even if some were lost (ENOBUFS): a dump tells.
    async fn drain(&mut self) -> io::Result<()> {
        let mut guard = self.events.readable().await?;
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            buffer.clear();
            match guard.get_inner().recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor and never changes it; it is closed only when it is dropped, which the
    // `AsyncFd` that owns it does after it has deregistered it.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

/// The host's usable global addresses at this moment, in a stable order.
pub(crate) fn usable_addresses() -> io::Result<BTreeSet<Addr>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Unspec;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetAddress(request));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut out = vec![0; message.buffer_len()];
    message.serialize(&mut out);
    socket.send(&out, 0)?;

    let mut addresses = BTreeSet::new();
    let mut input = Vec::with_capacity(RECEIVE_BUFFER);
    loop {
        input.clear();
        socket.recv(&mut input, libc::MSG_DONTWAIT)?;
        let mut rest = &input[..];
        while !rest.is_empty() {
            let malformed = |e: netlink_packet_core::DecodeError| {
                io::Error::new(io::ErrorKind::InvalidData, e.to_string())
            };
            let length = NetlinkBuffer::new_checked(rest).map_err(malformed)?.length() as usize;
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(malformed)?
                .payload
            {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    addresses.extend(usable(&address));
                }
                NetlinkPayload::Done(_) => return Ok(addresses),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// The address, if other hosts can know this host by it and the kernel lets it be used.
fn usable(message: &AddressMessage) -> Option<Addr> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut own, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end's.
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // An optimistic address may be used while it is still being checked for duplicates.
    let is_unchecked = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if is_unchecked || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    let is_wide = !matches!(
        message.header.scope,
        AddressScope::Link | AddressScope::Host | AddressScope::Nowhere
    );
    own.or(peer)
        .filter(|ip| is_wide && is_global(*ip))
        .map(Addr::from)
}

fn is_global(ip: IpAddr) -> bool {
    let is_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !is_local && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::address::AddressHeaderFlags;

    fn message(ip: &str, flags: AddressFlags, scope: AddressScope) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.scope = scope;
        message.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits().to_le_bytes()[0]);
        message.attributes = vec![
            AddressAttribute::Address(ip.parse().unwrap()),
            AddressAttribute::Flags(flags),
        ];
        message
    }

    fn is_usable(ip: &str, flags: AddressFlags) -> bool {
        usable(&message(ip, flags, AddressScope::Universe)).is_some()
    }

    #[test]
    fn only_what_others_can_know_and_the_kernel_lets_be_used() {
        let none = AddressFlags::Permanent;
        assert!(is_usable("10.0.0.5", none));
        assert!(is_usable("fd00::5", none));
        assert!(is_usable("fd00::5", AddressFlags::Deprecated));
        assert!(is_usable(
            "fd00::5",
            AddressFlags::Tentative | AddressFlags::Optimistic
        ));
        for ip in [
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(!is_usable(ip, none), "{ip}");
        }
        assert!(!is_usable("fd00::5", AddressFlags::Tentative));
        assert!(!is_usable(
            "fd00::5",
            AddressFlags::Tentative | AddressFlags::Dadfailed
        ));
        assert!(usable(&message("10.0.0.5", none, AddressScope::Host)).is_none());
    }

    #[test]
    fn of_a_point_to_point_link_our_own_end_counts() {
        let mut both = message("10.0.0.1", AddressFlags::Permanent, AddressScope::Universe);
        both.attributes
            .push(AddressAttribute::Local("10.0.0.2".parse().unwrap()));
        assert_eq!(usable(&both), Some("10.0.0.2".parse().unwrap()));
    }
}
