//! A connection of a user who is logged in passes, and its row tells its whole life.

use anyhow::{Context, Result};
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, UdpService, addr, udp_probe, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn tcp() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        tried.talk("hello")?;
        let condition = format!("tcp_sport = {}", tried.port);
        lab.wait_row(&condition, State::Established)?;
        drop(tried);

        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.text("username"), Some("alice"));
        assert_eq!(row.int("user_id"), Some(1001));
        assert_eq!(row.int("oob_mark"), Some(1001));
        assert_eq!(row.int("ct_mark"), Some(1001));
        assert_eq!(row.int("ip_protocol"), Some(6));
        assert_eq!(row.text("ip_saddr"), Some("10.81.0.2"));
        assert_eq!(row.text("ip_daddr"), Some("10.82.0.2"));
        assert_eq!(row.int("tcp_dport"), Some(80));
        assert_eq!(row.text("oob_in"), Some("lan"));
        assert_eq!(row.text("oob_out"), Some("wan"));
        assert_eq!(row.text("oob_prefix"), Some("web"));
        assert_eq!(row.text("acl"), Some("web"));
        assert_eq!(row.text("gateway"), Some("gw1"));
        assert!(row.ended_in_order(), "{row:?}");
        assert_eq!(
            row.text("client_os").map(|os| os.starts_with("Linux")),
            Some(true)
        );
        let program = std::env::current_exe()?;
        assert_eq!(row.text("client_app"), program.to_str());
        times_in_order(&row)?;
        for (packets, bytes) in [("packets_in", "bytes_in"), ("packets_out", "bytes_out")] {
            let (packets, bytes) = (row.int(packets).context(packets)?, row.int(bytes).context(bytes)?);
            assert!(
                packets >= 4 && bytes > packets * 40,
                "{packets} packets with {bytes} bytes"
            );
        }
        Ok(())
    });
}

#[test]
fn udp() {
    with_lab(Options::default(), |lab| {
        let _tickets = UdpService::echo(&lab.net.server, 5000)?;
        let target = SocketAddr::new(addr::SERVER4, 5000);
        let (socket, answers) =
            udp_probe(&lab.net.client, addr::CLIENT4, target, 1, Duration::from_secs(10))?;
        assert_eq!(answers, 1);
        let row = lab.wait_row(
            &format!("udp_sport = {}", socket.local_addr()?.port()),
            State::Close,
        )?;
        assert_eq!(row.text("username"), Some("alice"));
        assert_eq!(
            (row.int("packets_in"), row.int("packets_out")),
            (Some(1), Some(1))
        );
        // 20 bytes of IPv4, 8 of UDP, 5 of "probe".
        assert_eq!((row.int("bytes_in"), row.int("bytes_out")), (Some(33), Some(33)));
        assert_eq!(row.text("close_reason"), Some("idle-timeout"));
        times_in_order(&row)
    });
}

#[test]
fn sessions_are_logged() {
    with_lab(Options::default(), |lab: &mut Lab| {
        let sessions = |lab: &Lab, end: &str| -> Result<bool> {
            let sql = format!("select count(*) from users where username = 'alice' and end_time {end}");
            Ok(lab.count(&sql)? == 1)
        };
        let patience = Duration::from_secs(20);
        lab::wait_for("the session", patience, || sessions(lab, "is null"))?;
        lab.clients.get_mut("alice").context("alice")?.terminate()?;
        lab::wait_for("the session's end", patience, || sessions(lab, ">= start_time"))
    });
}

fn times_in_order(row: &lab::Row) -> Result<()> {
    let packet = row.int("oob_time_sec").context("oob_time_sec")? * 1_000_000
        + row.int("oob_time_usec").context("oob_time_usec")?;
    let (start, end) = (
        row.int("start_timestamp").context("start")?,
        row.int("end_timestamp").context("end")?,
    );
    assert!(
        packet <= start && start < end,
        "packet {packet}, answer {start}, end {end}"
    );
    Ok(())
}
