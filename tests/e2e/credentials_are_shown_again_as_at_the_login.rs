//! A session that grows old goes on when the client shows its credentials again, by the mechanism of its login: whoever keeps the
//! password to herself does so then, too. A directory that is away at that moment ends nobody's session.

use anyhow::Context;
use lab::{Slapd, alice_has_scram_keys, asking_slapd, dora, with_lab};

#[test]
fn claim() {
    let options = asking_slapd().nuauth("sessions.max-age", toml::Value::from("60s"));
    with_lab(options, |lab| {
        alice_has_scram_keys(lab)?;
        let mut slapd = Slapd::start(lab, "one", &dora("correct horse battery staple"))?;
        lab.start_all()?;
        let alice = lab.client("alice")?.env("NUFW_LOG", "debug");
        lab.log_in_with("alice", alice)?;
        let by_password = lab.client("dora")?.args(["--mechanism", "PLAIN"]);
        lab.log_in_with("dora", by_password.env("NUFW_LOG", "debug"))?;
        slapd.stop()?;

        // Asked for a quarter of that time before their sessions would end.
        let alice = lab.clients.get_mut("alice").context("alice")?;
        alice.wait_log("mechanism=SCRAM-SHA-256-PLUS")?;
        alice.wait_log("the server has seen the credentials again")?;
        lab.server
            .wait_log("login of \"dora\" cannot be checked: ldap: ")?;
        let _slapd = Slapd::start(lab, "one", "")?;
        let dora = lab.clients.get_mut("dora").context("dora")?;
        dora.wait_log("the server has seen the credentials again")?;
        assert_eq!(dora.count("logged in as dora")?, 1, "her session was another one");
        assert_eq!(lab.server.count("client gone")?, 0);
        Ok(())
    });
}
