//! The row of a live connection says what it has carried so far; when the gateway's agent dies and the end is not seen, that
//! is what remains, with a bound for the end.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, wait_for, wait_some, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default().nuauth("limits.counters-every", "1s"), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let condition = format!("tcp_sport = {}", tried.port);
        let mut last = 0;
        for words in ["one", "two", "three"] {
            tried.talk(words)?;
            let row = wait_some("more packets in the live row", Duration::from_mins(1), || {
                let row = lab.wait_row(&condition, State::Established)?;
                Ok((row.int("packets_in") > Some(last)).then_some(row))
            })?;
            assert!(
                row.is_null("end_timestamp") && row.is_null("close_reason"),
                "{row:?}"
            );
            assert!(
                row.int("bytes_in") > Some(0) && row.int("packets_out") > Some(0),
                "{row:?}"
            );
            last = row.int("packets_in").unwrap_or(0);
        }

        lab.agent.kill()?;
        tried.reset()?;
        let entry = format!("sport={} ", tried.port);
        wait_for("the entry to be gone", Duration::from_secs(30), || {
            Ok(!lab.net.conntrack()?.iter().any(|line| line.contains(&entry)))
        })?;
        lab.start_agent()?;
        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.text("close_reason"), Some("resync"));
        assert!(row.int("packets_in") >= Some(last), "{row:?}");
        assert!(row.int("end_timestamp") > row.int("start_timestamp"), "{row:?}");
        assert_eq!(
            lab.count("select count(*) from log_gap where cause = 'agent-restart' and from_timestamp <= to_timestamp")?,
            1
        );
        Ok(())
    });
}
