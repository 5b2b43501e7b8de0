//! A connection that was there before the system is not in the log, and its end invents nothing.

use lab::{Attempt, Options, Outcome, TcpService, addr, wait_for, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::prepared(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net
            .iptables("-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")?;
        let mut old = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(old.outcome, Outcome::Connected);
        lab.start_all()?;
        old.talk("still here")?;
        let entry = format!("sport={} ", old.port);
        drop(old);
        wait_for("its entry to be gone", Duration::from_secs(30), || {
            Ok(!lab.net.conntrack()?.iter().any(|line| line.contains(&entry)))
        })?;
        lab.wait_passes(80)?;
        assert_eq!(lab.count("select count(*) from conntrack_ulog")?, 1);
        Ok(())
    });
}
