//! A connection for the gateway itself, queued in INPUT, is decided, marked and closed like any other.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _service = TcpService::echo(&lab.net.gateway, 8022)?;
        let forbidden = TcpService::echo(&lab.net.gateway, 7022)?;
        lab.apply_input_rules()?;
        for (from, to) in [(addr::CLIENT4, addr::GATEWAY4), (addr::CLIENT6, addr::GATEWAY6)] {
            let mut tried = Attempt::to(to, 8022).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let port = format!("sport={} ", tried.port);
            let entry = lab
                .net
                .conntrack()?
                .into_iter()
                .find(|entry| entry.contains(&port));
            assert!(
                entry.as_ref().is_some_and(|entry| entry.contains(" mark=1001 ")),
                "{entry:?}"
            );
            let condition = format!("tcp_sport = {}", tried.port);
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            assert_eq!(row.text("username"), Some("alice"));
            assert_eq!(row.int("ct_mark"), Some(1001));
            assert!(row.ended_in_order(), "{row:?}");
            assert_eq!(row.text("oob_in"), Some("lan"));
        }
        let tried = Attempt::to(addr::GATEWAY4, 7022)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        assert_eq!(forbidden.accepted(), 0);
        Ok(())
    });
}
