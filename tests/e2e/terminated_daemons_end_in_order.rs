//! TERM ends server, agent and client with status 0, and what the agent had queued does not pass.

use anyhow::Context;
use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let condition = format!("tcp_sport = {}", tried.port);
        lab.wait_row(&condition, State::Established)?;
        let client = lab.clients.get_mut("alice").context("alice")?;
        assert_eq!(client.terminate()?.code(), Some(0), "client");
        assert_eq!(lab.agent.terminate()?.code(), Some(0), "agent");
        assert_eq!(lab.server.terminate()?.code(), Some(0), "server");
        let late = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(1))
            .run(&lab.net.client)?;
        assert_eq!(late.outcome, Outcome::TimedOut);
        // The row waits for a server that can close it.
        assert_eq!(
            lab.rows(&condition)?.first().map(lab::Row::state),
            Some(State::Established)
        );
        Ok(())
    });
}
