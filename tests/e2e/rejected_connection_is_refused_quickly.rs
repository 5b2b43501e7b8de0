//! A rule that rejects makes the client's `connect()` fail at once instead of after its patience.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let teapot = TcpService::echo(&lab.net.server, 6666)?;
        for (from, to) in [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)] {
            let tried = Attempt::to(to, 6666).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Refused, "to {to}");
            // Before the first retransmission, so it was the answer to the first packet.
            assert!(tried.took < Duration::from_secs(1), "took {:?}", tried.took);
            let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
            assert_eq!(row.text("acl"), Some("teapot"));
            assert_eq!(row.text("oob_prefix"), Some("teapot"));
        }
        assert_eq!(teapot.accepted(), 0);
        Ok(())
    });
}
