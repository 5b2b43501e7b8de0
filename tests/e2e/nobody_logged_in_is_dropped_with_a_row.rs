//! A packet from an address where nobody is logged in is dropped, and a DROP row says so.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::nobody(), |lab| {
        let web = TcpService::echo(&lab.net.server, 80)?;
        let tried = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        assert_eq!(web.accepted(), 0);
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
        assert!(row.is_null("username") && row.is_null("user_id"));
        assert_eq!(row.int("oob_mark"), Some(0));
        assert_eq!(row.text("ip_daddr"), Some("10.82.0.2"));
        Ok(())
    });
}
