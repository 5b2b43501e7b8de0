//! While the server is dead nothing new passes and what was open goes on; when it is back, new connections work and the
//! rows of the old ones are closed with their counters.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut ends_meanwhile = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        let mut outlives = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        for tried in [&ends_meanwhile, &outlives] {
            assert_eq!(tried.outcome, Outcome::Connected);
            lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Established)?;
        }

        lab.server.kill()?;
        let refused = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(refused.outcome, Outcome::TimedOut, "passed without a server");
        outlives.talk("still here")?;
        ends_meanwhile.talk("bye")?;
        let ended = ends_meanwhile.port;
        drop(ends_meanwhile);

        lab.start_server()?;
        lab.wait_passes(80)?;
        assert_eq!(
            lab.rows(&format!("state > 0 and tcp_sport = {}", refused.port))?
                .len(),
            0
        );

        let row = lab.wait_row(&format!("tcp_sport = {ended}"), State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        assert!(
            row.int("packets_in") >= Some(4) && row.int("bytes_out") > Some(0),
            "{row:?}"
        );

        outlives.talk("and here")?;
        let port = outlives.port;
        assert_eq!(
            lab.wait_row(&format!("tcp_sport = {port}"), State::Established)?
                .text("username"),
            Some("alice")
        );
        drop(outlives);
        let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        assert!(row.int("packets_in") >= Some(6), "{row:?}");
        Ok(())
    });
}
