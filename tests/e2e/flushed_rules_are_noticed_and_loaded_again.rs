//! Another program flushes the rules while the agent works: it says so, the log has the interval, and the rules are loaded
//! again where the configuration wants it.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, wait_for, with_lab};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);
const GAPS: &str = "select count(*) from log_gap where cause = 'rules-missing'";

#[test]
fn loaded_again_if_configured() {
    let options = Options::default()
        .agent("rules.watch", "1s")
        .agent("rules.reapply", true);
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net.iptables("-t mangle -F")?;
        lab.agent
            .wait_log("the rule that sent packets to the queue is gone")?;
        lab.agent.wait_log("a rule sends packets to the queue again")?;
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Established)?;
        assert_eq!(row.text("username"), Some("alice"), "it was asked about");
        wait_for("the interval in the log", PATIENCE, || Ok(lab.count(GAPS)? >= 2))?;
        // The time without rules is inside of what the log says.
        let order = "select count(*) from log_gap where cause = 'rules-missing' and not from_timestamp < to_timestamp";
        assert_eq!(lab.count(order)?, 0);
        Ok(())
    });
}

#[test]
fn said_and_logged_if_not() {
    with_lab(Options::default().agent("rules.watch", "1s"), |lab| {
        lab.net.iptables("-t mangle -F")?;
        lab.agent
            .wait_log("the rule that sent packets to the queue is gone")?;
        wait_for("the interval in the log", PATIENCE, || Ok(lab.count(GAPS)? >= 1))?;
        assert_eq!(lab.agent.count("a rule sends packets to the queue again")?, 0);
        lab.apply_rules(&[])?;
        lab.agent.wait_log("a rule sends packets to the queue again")?;
        wait_for("its end in the log", PATIENCE, || Ok(lab.count(GAPS)? >= 2))?;
        Ok(())
    });
}
