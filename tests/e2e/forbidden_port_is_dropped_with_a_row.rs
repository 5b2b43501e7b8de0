//! A connection that no rule allows is dropped although its user is known, and a DROP row names the user and the rule.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let mail = TcpService::echo(&lab.net.server, 25)?;
        let tried = Attempt::to(addr::SERVER4, 25)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        assert_eq!(mail.accepted(), 0);
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
        assert_eq!(row.text("username"), Some("alice"));
        assert_eq!(row.text("acl"), Some("default"));
        assert_eq!(row.int("oob_mark"), Some(0));
        Ok(())
    });
}
