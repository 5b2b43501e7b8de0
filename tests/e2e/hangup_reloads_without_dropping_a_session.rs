//! HUP makes the server read users, access list and revocations again: what changed counts at once, no session and no
//! connection is lost, and a mistake leaves the old list in force.

use lab::{Attempt, Options, Outcome, Signal, TcpService, addr, wait_for, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _mail = TcpService::echo(&lab.net.server, 25)?;
        let mut before = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(before.outcome, Outcome::Connected);

        let policy = lab.dir().join("policy.toml");
        std::fs::write(
            &policy,
            "[[rule]]\nname = \"mail\"\nprotocol = \"tcp\"\nports = [\"25\"]\ndecision = \"accept\"\n",
        )?;
        lab.server.signal(Signal::HUP)?;
        let connects = |port| -> anyhow::Result<bool> {
            let attempt = Attempt::to(addr::SERVER4, port).within(Duration::from_secs(1));
            Ok(attempt.run(&lab.net.client)?.outcome == Outcome::Connected)
        };
        wait_for("mail to pass", Duration::from_secs(20), || connects(25))?;
        assert!(!connects(80)?, "the old list is still in force");
        before.talk("still here")?;

        std::fs::write(&policy, "[[rule]]\nnonsense = 1\n")?;
        lab.server.signal(Signal::HUP)?;
        lab.server.wait_log("policy.toml:2")?;
        assert!(connects(25)?, "a bad file took the good list away");
        assert_eq!(lab.count("select count(*) from users")?, 1);
        Ok(())
    });
}
