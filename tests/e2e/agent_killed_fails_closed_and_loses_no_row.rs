//! While the agent is dead nothing new passes; when it is back, new connections work, the row of a connection that ended
//! meanwhile is closed as found missing, and one that lives on is closed by its end.

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

        lab.agent.kill()?;
        let refused = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(refused.outcome, Outcome::TimedOut, "passed without an agent");
        outlives.talk("still here")?;
        ends_meanwhile.reset()?;
        let entry = format!("sport={} ", ends_meanwhile.port);
        lab::wait_for("the entry to be gone", Duration::from_secs(30), || {
            Ok(!lab.net.conntrack()?.iter().any(|line| line.contains(&entry)))
        })?;

        lab.start_agent()?;
        lab.wait_passes(80)?;
        let row = lab.wait_row(&format!("tcp_sport = {}", ends_meanwhile.port), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("resync"));
        assert!(
            row.is_null("packets_in") && row.is_null("bytes_out"),
            "counters were invented: {row:?}"
        );

        let port = outlives.port;
        outlives.talk("and here")?;
        drop(outlives);
        let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        assert!(row.int("packets_in") >= Some(6), "{row:?}");
        Ok(())
    });
}
