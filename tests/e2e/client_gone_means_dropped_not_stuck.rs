//! When a user's client dies or hangs, new connections are dropped with a row, and the server goes on for others.

use anyhow::Context;
use lab::{Attempt, Options, Outcome, Signal, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn dead() {
    with_lab(Options::default(), |lab| {
        let web = TcpService::echo(&lab.net.server, 80)?;
        lab.clients.get_mut("alice").context("alice")?.kill()?;
        let tried = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
        assert_eq!(web.accepted(), 0);
        lab.log_in("alice")?;
        lab.wait_passes(80)
    });
}

#[test]
fn hanging() {
    with_lab(Options::default(), |lab| {
        let web = TcpService::echo(&lab.net.server, 80)?;
        lab.clients.get("alice").context("alice")?.signal(Signal::STOP)?;
        let tried = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
        assert!(row.is_null("username"));
        assert_eq!(web.accepted(), 0);
        assert_eq!(lab.rows("state in (1, 2)")?.len(), 0);
        // It wakes up, finds its session gone and logs in again.
        lab.clients.get("alice").context("alice")?.signal(Signal::CONT)?;
        lab.wait_passes(80)
    });
}
