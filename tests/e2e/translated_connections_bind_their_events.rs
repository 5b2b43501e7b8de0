//! Under DNAT, masquerade and REDIRECT the row has the connection as the client sees it, the translated side beside it,
//! and reaches its end.

use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, Row, State, TcpService, addr, with_lab};
use std::net::IpAddr;

#[test]
fn dnat() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 10.82.0.2:80",
        )?;
        let row = visit(lab, addr::GATEWAY4, 8080)?;
        assert_eq!(seen(&row), ("10.81.0.2", "10.81.0.1", 8080));
        assert_eq!(translated(&row), ("10.82.0.2", 80, "10.81.0.2"));
        Ok(())
    });
}

#[test]
fn masquerade() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net
            .iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE --to-ports 40000-40100")
            .or_else(|_| lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE"))?;
        let row = visit(lab, addr::SERVER4, 80)?;
        assert_eq!(seen(&row), ("10.81.0.2", "10.82.0.2", 80));
        assert_eq!(translated(&row), ("10.82.0.2", 80, "10.82.0.1"));
        Ok(())
    });
}

#[test]
fn dnat_with_masquerade() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 10.82.0.2:80",
        )?;
        lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        let row = visit(lab, addr::GATEWAY4, 8080)?;
        assert_eq!(seen(&row), ("10.81.0.2", "10.81.0.1", 8080));
        assert_eq!(translated(&row), ("10.82.0.2", 80, "10.82.0.1"));
        Ok(())
    });
}

#[test]
fn redirect() {
    with_lab(Options::default(), |lab| {
        let _proxy = TcpService::echo(&lab.net.gateway, 8086)?;
        lab.apply_input_rules()?;
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -d 10.82.0.2 -p tcp --dport 8085 -j REDIRECT --to-ports 8086",
        )?;
        let row = visit(lab, addr::SERVER4, 8085)?;
        assert_eq!(seen(&row), ("10.81.0.2", "10.82.0.2", 8085));
        assert_eq!(translated(&row), ("10.81.0.1", 8086, "10.81.0.2"));
        Ok(())
    });
}

fn visit(lab: &Lab, to: IpAddr, port: u16) -> Result<Row> {
    let mut tried = Attempt::to(to, port).run(&lab.net.client)?;
    assert_eq!(tried.outcome, Outcome::Connected);
    tried.talk("hello")?;
    let condition = format!("tcp_sport = {}", tried.port);
    // With ESTABLISHED at the latest, since single sign-on asks by it while the connection lives.
    let live = lab.wait_row(&condition, State::Established)?;
    assert!(
        !live.is_null("reply_daddr") && !live.is_null("reply_dport"),
        "{live:?}"
    );
    drop(tried);
    let row = lab.wait_row(&condition, State::Close)?;
    assert_eq!(row.text("username"), Some("alice"));
    assert!(row.ended_in_order(), "{row:?}");
    assert!(
        row.int("packets_in") >= Some(4) && row.int("packets_out") >= Some(3),
        "{row:?}"
    );
    assert_eq!(lab.rows("1")?.len(), 1);
    Ok(row)
}

fn seen(row: &Row) -> (&str, &str, i64) {
    let text = |column| row.text(column).unwrap_or("NULL");
    (
        text("ip_saddr"),
        text("ip_daddr"),
        row.int("tcp_dport").unwrap_or(-1),
    )
}

fn translated(row: &Row) -> (&str, i64, &str) {
    let text = |column| row.text(column).unwrap_or("NULL");
    (
        text("reply_saddr"),
        row.int("reply_sport").unwrap_or(-1),
        text("reply_daddr"),
    )
}
