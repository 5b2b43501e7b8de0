//! Only a valid certificate of the right authority, with a name that is configured, makes a gateway: one that is not in
//! the list, one that is revoked and one that has expired are turned away, and nothing passes.

use crate::expired::expire_certificate;
use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, TcpService, addr, checked, with_lab};
use std::time::Duration;

#[test]
fn not_in_the_list() {
    let options = Options::prepared()
        .agent("tls.certificate", "pki/gw2.crt")
        .agent("tls.key", "pki/gw2.key");
    with_lab(options, |lab| {
        checked(&mut lab.pki(&["gateway", "gw2"])?)?;
        refused(lab, "gw2")
    });
}

#[test]
fn revoked() {
    with_lab(Options::prepared(), |lab| {
        checked(&mut lab.pki(&["revoke", "gw1"])?)?;
        refused(lab, "evoked")
    });
}

#[test]
fn expired() {
    with_lab(Options::prepared(), |lab| {
        expire_certificate(lab, "gateway", "gw1")?;
        // The agent may notice by itself, or be told by the server.
        lab.start_server()?;
        lab.agent.start()?;
        lab::wait_for("somebody to say that it expired", Duration::from_secs(30), || {
            Ok(lab.server.log()?.to_lowercase().contains("expired")
                || lab.agent.log()?.to_lowercase().contains("expired"))
        })?;
        nothing_passes(lab)
    });
}

fn refused(lab: &mut Lab, said: &str) -> Result<()> {
    lab.start_server()?;
    lab.agent.start()?;
    lab.server.wait_log(said)?;
    nothing_passes(lab)
}

fn nothing_passes(lab: &mut Lab) -> Result<()> {
    let web = TcpService::echo(&lab.net.server, 80)?;
    lab.apply_rules(&[])?;
    lab.log_in("alice")?;
    let tried = Attempt::to(addr::SERVER4, 80)
        .within(Duration::from_secs(2))
        .run(&lab.net.client)?;
    assert_eq!(tried.outcome, Outcome::TimedOut);
    assert_eq!(web.accepted(), 0);
    assert_eq!(lab.rows("state > 0")?.len(), 0);
    Ok(())
}
