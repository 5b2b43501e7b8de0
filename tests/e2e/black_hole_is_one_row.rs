//! One `connect()` that tries for 7 seconds to reach a host that never answers is one row, and not an established one.

use lab::{Attempt, Options, Outcome, State, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        lab.net
            .gateway
            .sysctl("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", 8)?;
        lab.drop_at_server("tcp", 8100)?;
        let before = lab.queued()?;
        let tried = Attempt::to(addr::SERVER4, 8100)
            .within(Duration::from_secs(7))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("unanswered"));
        assert!(row.is_null("start_timestamp"));
        // Retransmissions passed without a question; whether conntrack counts them is the kernel's choice.
        assert_eq!(lab.queued()? - before, 1);
        assert!(row.int("packets_in") >= Some(1), "{row:?}");
        assert_eq!(row.int("packets_out"), Some(0));
        assert_eq!(lab.rows("1")?.len(), 1);
        Ok(())
    });
}
