//! An agent that relays no events says so, and its rows end as `untracked` instead of staying open for ever.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};

#[test]
fn claim() {
    with_lab(Options::default().agent("conntrack.relay", false), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        tried.talk("hello")?;
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("untracked"));
        assert_eq!(row.text("username"), Some("alice"));
        assert!(
            row.is_null("packets_in") && row.is_null("end_timestamp"),
            "{row:?}"
        );
        Ok(())
    });
}
