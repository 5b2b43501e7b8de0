//! Two queries at once from one port (A and AAAA) are one row with one life, also behind masquerade; two hosts whose ports
//! clash outside are two rows, each with its own translation.

use lab::{Attempt, Lab, Options, Outcome, State, TcpService, UdpService, addr, udp_probe, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

fn query(lab: &Lab) -> anyhow::Result<()> {
    let target = SocketAddr::new(addr::SERVER4, 5001);
    let (socket, answers) = udp_probe(&lab.net.client, addr::CLIENT4, target, 2, Duration::from_secs(10))?;
    assert_eq!(answers, 2, "both are answered");
    let row = lab.wait_row(
        &format!("udp_sport = {}", socket.local_addr()?.port()),
        State::Close,
    )?;
    assert_eq!(row.text("close_reason"), Some("idle-timeout"));
    assert_eq!(
        (row.int("packets_in"), row.int("packets_out")),
        (Some(2), Some(2)),
        "{row:?}"
    );
    Ok(())
}

#[test]
fn plain() {
    with_lab(Options::default(), |lab| {
        let _echo = UdpService::echo(&lab.net.server, 5001)?;
        for _ in 0..5 {
            query(lab)?;
        }
        assert_eq!(lab.count("select count(*) from conntrack_ulog")?, 5);
        Ok(())
    });
}

#[test]
fn behind_masquerade() {
    with_lab(Options::default(), |lab| {
        lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        let _echo = UdpService::echo(&lab.net.server, 5001)?;
        for _ in 0..5 {
            query(lab)?;
        }
        assert_eq!(lab.count("select count(*) from conntrack_ulog")?, 5);
        Ok(())
    });
}

#[test]
fn ports_that_clash() {
    let mut options = Options::default();
    options.client_addresses = 1;
    with_lab(options, |lab| {
        lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut both = Vec::new();
        for source in [addr::CLIENT4, addr::client4(0)] {
            let mut tried = Attempt::to(addr::SERVER4, 80)
                .from(source, 40_000)
                .run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            both.push((source, tried));
        }
        let mut outside = Vec::new();
        for (source, tried) in both.drain(..).rev() {
            let condition = format!("ip_saddr = '{source}'");
            let row = lab.wait_row(&condition, State::Established)?;
            assert_eq!(row.text("reply_daddr"), Some("10.82.0.1"));
            outside.push(row.int("reply_dport"));
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            assert!(
                row.ended_in_order() && row.int("packets_in") >= Some(4),
                "{row:?}"
            );
        }
        assert_ne!(outside[0], outside[1]);
        assert_eq!(lab.rows("1")?.len(), 2);
        Ok(())
    });
}
