//! A client claims its own user's sockets only: what another user of the same host opens is dropped.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, two_users_possible, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    if !two_users_possible() {
        return;
    }
    with_lab(Options::default(), |lab| {
        let web = TcpService::echo(&lab.net.server, 80)?;
        let other = Attempt::to(addr::SERVER4, 80)
            .as_user(31_337)
            .within(Duration::from_secs(2));
        let other = other.run(&lab.net.client)?;
        assert_eq!(other.outcome, Outcome::TimedOut);
        assert_eq!(web.accepted(), 0);
        let row = lab.wait_row(&format!("tcp_sport = {}", other.port), State::Drop)?;
        assert!(row.is_null("username"));

        let own = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(own.outcome, Outcome::Connected);
        Ok(())
    });
}

#[test]
fn nor_is_root_alone_enough() {
    if !two_users_possible() {
        return;
    }
    // The client runs as an ordinary user and root opens the connection.
    with_lab(Options::nobody(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let spec = lab.client_as("alice", 31_337)?;
        lab.log_in_with("alice", spec)?;
        let of_root = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(of_root.outcome, Outcome::TimedOut);
        let own = Attempt::to(addr::SERVER4, 80)
            .as_user(31_337)
            .run(&lab.net.client)?;
        assert_eq!(own.outcome, Outcome::Connected);
        Ok(())
    });
}
