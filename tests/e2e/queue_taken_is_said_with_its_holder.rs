//! A second agent on the same queue ends at once and says who has the queue; the first goes on.

use lab::{Attempt, Options, Outcome, TcpService, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut second = lab.second_agent(&[])?.start()?;
        let status = second.wait_exit(Duration::from_secs(30))?;
        let log = second.log()?;
        assert_eq!(status.code(), Some(69), "{log}");
        assert!(log.contains("queue 0 is taken by"), "{log}");
        assert!(
            log.contains(&lab.agent.pid()?.to_string()),
            "the holder is not named: {log}"
        );
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        Ok(())
    });
}
