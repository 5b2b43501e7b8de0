//! A `connect()` that the access list drops sends its packet again and again; the log has one DROP row.

use lab::{Attempt, Options, Outcome, State, addr, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let before = lab.queued()?;
        let tried = Attempt::to(addr::SERVER4, 25)
            .within(Duration::from_secs(4))
            .run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        let packets = lab.queued()? - before;
        assert!(packets >= 3, "the packet was queued {packets} times");
        lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
        assert_eq!(lab.rows("1")?.len(), 1);
        Ok(())
    });
}
