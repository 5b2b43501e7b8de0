//! A hundred datagrams that nobody answers are one connection: one question and one row.

use lab::{Options, State, UdpService, addr, udp_probe, wait_for, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn after_the_first_has_passed_nothing_is_asked() {
    with_lab(Options::default(), |lab| {
        let silent = UdpService::silent(&lab.net.server, 5001)?;
        let target = SocketAddr::new(addr::SERVER4, 5001);
        let before = lab.queued()?;
        let (socket, _) = udp_probe(&lab.net.client, addr::CLIENT4, target, 1, Duration::ZERO)?;
        wait_for("the first datagram", Duration::from_secs(10), || {
            Ok(silent.received() == 1)
        })?;
        for _ in 1..100 {
            socket.send_to(b"probe", target)?;
        }
        wait_for("every datagram", Duration::from_secs(10), || {
            Ok(silent.received() == 100)
        })?;
        assert_eq!(lab.queued()? - before, 1);
        let row = lab.wait_row(
            &format!("udp_sport = {}", socket.local_addr()?.port()),
            State::Close,
        )?;
        assert_eq!(row.text("close_reason"), Some("unanswered"));
        assert_eq!(
            (row.int("packets_in"), row.int("packets_out")),
            (Some(100), Some(0))
        );
        assert_eq!(lab.rows("1")?.len(), 1);
        Ok(())
    });
}

#[test]
fn in_one_burst_before_the_verdict() {
    with_lab(Options::default(), |lab| {
        let silent = UdpService::silent(&lab.net.server, 5001)?;
        let target = SocketAddr::new(addr::SERVER4, 5001);
        let (socket, _) = udp_probe(&lab.net.client, addr::CLIENT4, target, 100, Duration::ZERO)?;
        let row = lab.wait_row(
            &format!("udp_sport = {}", socket.local_addr()?.port()),
            State::Close,
        )?;
        assert_eq!(row.text("close_reason"), Some("unanswered"));
        // Copies beyond limits.packets-per-ask are dropped, as any network may do.
        assert!(silent.received() >= 16, "{} datagrams arrived", silent.received());
        assert_eq!(
            row.int("packets_in").map(i64::unsigned_abs),
            Some(silent.received())
        );
        assert_eq!(lab.rows("1")?.len(), 1);
        Ok(())
    });
}
