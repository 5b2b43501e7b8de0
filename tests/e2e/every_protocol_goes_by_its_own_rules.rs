//! Echo requests, UDP-Lite and ICMP errors, IPv4 and IPv6: what can be claimed is claimed, and an error about a connection
//! passes with it, unasked.

use anyhow::{Context, Result};
use lab::{Lab, Options, State, addr, checked, with_lab};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// RFC 3828.
const UDPLITE: i32 = 136;

const FAMILIES: [(IpAddr, IpAddr); 2] = [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)];

fn options() -> Options {
    let rule = |protocol: &str| {
        format!("[[rule]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\ndecision = \"accept\"\n")
    };
    let mut options = Options::default();
    options.policy.clear();
    options
        .policy
        .push_str(&["icmp", "icmpv6", "udplite", "udp"].map(rule).concat());
    options
}

fn socket(lab: &Lab, of: Type, protocol: Protocol, from: IpAddr) -> Result<Socket> {
    let made = lab.net.client.enter(move || -> std::io::Result<Socket> {
        let from = SocketAddr::new(from, 0);
        let socket = Socket::new(Domain::for_address(from), of, Some(protocol))?;
        socket.bind(&from.into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })?;
    made.context("the socket cannot be made")
}

#[test]
fn an_echo_request_is_claimed_by_its_identifier() {
    with_lab(options(), |lab| {
        checked(
            lab.net
                .client
                .command("sysctl")
                .args(["-qw", "net.ipv4.ping_group_range=0 2147483647"]),
        )?;
        for (from, to) in FAMILIES {
            let (protocol, kind) = if from.is_ipv4() {
                (Protocol::ICMPV4, 8)
            } else {
                (Protocol::ICMPV6, 128)
            };
            let mut ping = socket(lab, Type::DGRAM, protocol, from)?;
            let id = ping.local_addr()?.as_socket().context("no identifier")?.port();
            ping.connect(&SocketAddr::new(to, 0).into())?;
            ping.send(&[kind, 0, 0, 0, 0, 0, 0, 1])?;
            ping.read_exact(&mut [0; 8]).context("no echo")?;
            let row = lab.wait_row(&format!("icmp_id = {id}"), State::Close)?;
            assert_eq!(row.text("username"), Some("alice"));
            assert_eq!(row.int("icmp_type"), Some(kind.into()));
            assert_eq!(
                (row.int("packets_in"), row.int("packets_out")),
                (Some(1), Some(1)),
                "{row:?}"
            );
            assert!(row.is_null("tcp_sport") && row.is_null("udp_sport"), "{row:?}");
        }
        Ok(())
    });
}

#[test]
fn udplite_has_its_ports_and_its_owner() {
    with_lab(options(), |lab| {
        // Conntrack takes the checksums for wrong that it sees on a virtual Ethernet, and the packets for INVALID.
        lab.net.gateway.sysctl("net.netfilter.nf_conntrack_checksum", 0)?;
        for (from, to) in FAMILIES {
            let lite = Protocol::from(UDPLITE);
            let service = lab.net.server.enter(move || -> std::io::Result<Socket> {
                let socket = Socket::new(
                    Domain::for_address(SocketAddr::new(to, 0)),
                    Type::DGRAM,
                    Some(lite),
                )?;
                socket.bind(&SocketAddr::new(to, 7777).into())?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            })?;
            let mut service = service?;
            let client = socket(lab, Type::DGRAM, lite, from)?;
            let port = client.local_addr()?.as_socket().context("no port")?.port();
            client.send_to(b"probe", &SocketAddr::new(to, 7777).into())?;
            service.read_exact(&mut [0; 5]).context("it does not arrive")?;
            let row = lab.wait_row(&format!("ip_protocol = 136 AND udp_sport = {port}"), State::Close)?;
            assert_eq!(row.text("username"), Some("alice"));
            assert_eq!(row.int("udp_dport"), Some(7777));
            assert_eq!(row.int("packets_in"), Some(1), "{row:?}");
        }
        Ok(())
    });
}

#[test]
fn an_error_about_a_connection_passes_with_it() {
    with_lab(options(), |lab| {
        for (asked, (from, to)) in (1..).zip(FAMILIES) {
            let closed = SocketAddr::new(to, 5999);
            let error = lab
                .net
                .client
                .enter(move || -> std::io::Result<std::io::Error> {
                    let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
                    socket.set_read_timeout(Some(PATIENCE))?;
                    socket.connect(closed)?;
                    socket.send(b"probe")?;
                    Ok(socket.recv(&mut [0; 8]).expect_err("nobody answers there"))
                })??;
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
            assert_eq!(lab.queued()?, asked, "the error was asked for");
        }
        Ok(())
    });
}
