//! A user of an LDAP server is back by a ticket after a restart of the server, but not before the directory says that nothing about
//! her has changed; another password there makes the ticket worthless.

use anyhow::Context;
use lab::{Slapd, asking_slapd, dora, make_private, wait_for, with_lab};
use std::time::Duration;

#[test]
fn claim() {
    with_lab(asking_slapd(), |lab| {
        let mut slapd = Slapd::start(lab, "one", &dora("correct horse battery staple"))?;
        lab.start_all()?;
        let ticket = lab.dir().join("ticket");
        let spec = lab
            .client("dora")?
            .args(["--mechanism", "PLAIN"])
            .args(["--ticket-file".into(), ticket.clone()]);
        lab.log_in_with("dora", spec)?;
        wait_for("a ticket", Duration::from_secs(20), || Ok(ticket.exists()))?;

        // Nobody can say: the ticket is kept, and tried again.
        slapd.stop()?;
        lab.server.kill()?;
        lab.start_server()?;
        lab.server.wait_log("a ticket cannot be checked: ldap: ")?;
        slapd = Slapd::start(lab, "one", "")?;
        lab.server.wait_log("by=\"ticket\"")?;
        assert_eq!(lab.server.count("by=\"password\"")?, 0);

        slapd.stop()?;
        let _slapd = Slapd::start(lab, "two", &dora("another"))?;
        let password = lab.dir().join("password");
        std::fs::write(&password, "another")?;
        make_private(&password)?;
        lab.server.kill()?;
        lab.start_server()?;
        let client = lab.clients.get_mut("dora").context("dora")?;
        client.kill()?;
        client.start()?;
        lab.server
            .wait_log("not logged in by ticket: the user is gone or has another password")?;
        lab.server.wait_log("by=\"password\"").map(drop)
    });
}
