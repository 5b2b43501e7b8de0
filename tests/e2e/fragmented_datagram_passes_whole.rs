//! A datagram that comes in fragments is asked for once, passes whole, and is one row.

use lab::{Options, State, UdpService, addr, with_lab};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// More than two frames of 1500 bytes.
const BYTES: usize = 4000;

#[test]
fn ipv4() {
    passes(addr::CLIENT4, addr::SERVER4);
}

#[test]
fn ipv6() {
    passes(addr::CLIENT6, addr::SERVER6);
}

fn passes(from: IpAddr, to: IpAddr) {
    with_lab(Options::default(), |lab| {
        let _tickets = UdpService::echo(&lab.net.server, 5000)?;
        let socket = lab
            .net
            .client
            .enter(|| UdpSocket::bind(SocketAddr::new(from, 0)))??;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.send_to(&[7; BYTES], SocketAddr::new(to, 5000))?;
        let mut buffer = [0; BYTES + 1];
        assert_eq!(socket.recv(&mut buffer)?, BYTES);
        let row = lab.wait_row(
            &format!("udp_sport = {}", socket.local_addr()?.port()),
            State::Close,
        )?;
        assert_eq!(row.text("username"), Some("alice"));
        assert!(row.int("bytes_in") > Some(4000), "{row:?}");
        Ok(())
    });
}
