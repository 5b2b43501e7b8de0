//! A user of an LDAP server passes by her groups there, and goes on when it dies and when the server reads everything again
//! meanwhile; logins hear that they cannot be checked. When the directory is back and does not know her any more, she is
//! thrown out. A user of the file logs in without sending her password.

use lab::{
    Attempt, Lab, Options, Outcome, Signal, Slapd, TcpService, addr, alice_has_scram_keys, asking_slapd,
    binary, checked, dora, wait_for, with_lab,
};
use std::process::Command;
use std::time::Duration;

const POLICY: &str = "[[rule]]\nname = \"pupils\"\ngroups = [\"pupils\"]\nprotocol = \"tcp\"\nports = [\"80\"]\ndecision = \"accept\"\n";

/// The lab's own.
const PASSWORD: &str = "correct horse battery staple";

fn options() -> Options {
    let mut options = asking_slapd();
    options.policy = POLICY.to_owned();
    options
}

#[test]
fn claim() {
    with_lab(options(), |lab| {
        alice_has_scram_keys(lab)?;
        let slapd = Slapd::start(lab, "one", &dora(PASSWORD))?;
        lab.start_all()?;

        let mut alice = lab.client("alice")?.env("NUFW_LOG", "debug").start()?;
        alice.wait_log("mechanism=SCRAM-SHA-256-PLUS")?;
        alice.wait_log("logged in as alice")?;
        alice.terminate()?;

        let plain = |lab: &Lab| Ok::<_, anyhow::Error>(lab.client("dora")?.args(["--mechanism", "PLAIN"]));
        let mut dora = plain(lab)?.start()?;
        dora.wait_log("logged in as dora")?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let connects = |lab: &Lab| -> anyhow::Result<bool> {
            let attempt = Attempt::to(addr::SERVER4, 80).within(Duration::from_secs(2));
            Ok(attempt.run(&lab.net.client)?.outcome == Outcome::Connected)
        };
        assert!(connects(lab)?, "dora is a pupil");
        assert_eq!(
            lab.count("select count(*) from conntrack_ulog where username = 'dora' and user_id = 1100")?,
            1
        );

        drop(slapd);
        let mut late = plain(lab)?.args(["--once"]).start()?;
        let status = late.wait_exit(Duration::from_mins(1))?;
        assert_eq!(status.code(), Some(75), "{}", late.log()?);
        let log = late.log()?;
        assert!(log.contains("cannot check logins at the moment"), "{log}");
        lab.server.signal(Signal::HUP)?;
        lab.server.wait_log("directories could not say")?;
        assert!(
            connects(lab)?,
            "a dead directory took away a session or its groups"
        );

        let refresh = || {
            checked(
                Command::new(binary("nuauth-ctl")?)
                    .arg("--socket")
                    .arg(lab.dir().join("nuauth.sock"))
                    .args(["cache", "refresh"]),
            )
        };
        let said = refresh()?;
        // Alice is remembered for her connections; her groups are the directory's to say, too.
        assert!(said.contains("0 are gone, of 2 they cannot say"), "{said}");
        assert!(connects(lab)?, "a refresh took away a session");

        let _slapd = Slapd::start(lab, "two", "")?;
        wait_for("the directory to answer", Duration::from_secs(20), || {
            Ok(refresh()?.contains("1 are gone"))
        })?;
        dora.wait_log("the user is not known here any more")?;
        wait_for(
            "dora's connections to be dropped",
            Duration::from_secs(20),
            || Ok(!connects(lab)?),
        )
    });
}
