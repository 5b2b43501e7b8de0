//! A rule with `log = "none"`: what it accepts passes, marked with its user's number, and leaves no row; what such a rule drops
//! leaves none either.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::time::Duration;

const POLICY: &str = r#"
[[rule]]
name = "web"
protocol = "tcp"
ports = [80]
decision = "accept"

[[rule]]
name = "unlogged"
protocol = "tcp"
ports = [81]
decision = "accept"
log = "none"

[[rule]]
name = "noise"
protocol = "tcp"
ports = [82]
decision = "drop"
log = "none"
"#;

#[test]
fn claim() {
    let mut options = Options::default();
    options.policy = POLICY.to_owned();
    with_lab(options, |lab| {
        let _logged = TcpService::echo(&lab.net.server, 80)?;
        let _unlogged = TcpService::echo(&lab.net.server, 81)?;
        lab.server.wait_log("leaves no row")?;
        for _ in 0..5 {
            let mut tried = Attempt::to(addr::SERVER4, 81).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let port = format!("sport={} ", tried.port);
            let entries = lab.net.conntrack()?;
            let entry = entries.iter().find(|entry| entry.contains(&port));
            assert!(
                entry.is_some_and(|entry| entry.contains(" mark=1001 ")),
                "{entry:?}"
            );
        }
        let dropped = Attempt::to(addr::SERVER4, 82)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(dropped.outcome, Outcome::TimedOut);
        // Whatever came before it would have been committed with or before this one's end.
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        let port = tried.port;
        drop(tried);
        let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        assert_eq!(
            lab.rows("1")?.len(),
            1,
            "the row of the rule that is logged is the only one"
        );
        Ok(())
    });
}
