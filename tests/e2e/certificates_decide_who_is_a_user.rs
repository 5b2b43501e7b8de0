//! A client certificate logs its user in without a password; a revoked one, an expired one, a gateway's and the server's
//! own do not.

use crate::expired::expire_certificate;
use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, TcpService, addr, checked, with_lab};
use std::time::Duration;

/// sysexits: `EX_NOPERM`.
const NO_PERMISSION: i32 = 77;
/// sysexits: `EX_CONFIG`.
const CONFIG: i32 = 78;

#[test]
fn valid_certificate_logs_in() {
    with_lab(Options::nobody(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let spec = lab.client_with_certificate("alice")?;
        lab.log_in_with("alice", spec)?;
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        Ok(())
    });
}

#[test]
fn revoked() {
    with_lab(Options::prepared(), |lab| {
        checked(&mut lab.pki(&["revoke", "alice"])?)?;
        lab.start_server()?;
        does_not_log_in(lab, "alice", NO_PERMISSION)
    });
}

#[test]
fn expired() {
    with_lab(Options::prepared(), |lab| {
        expire_certificate(lab, "client", "alice")?;
        lab.start_server()?;
        // The client sees it by itself.
        does_not_log_in(lab, "alice", CONFIG)
    });
}

#[test]
fn of_a_gateway() {
    with_lab(Options::prepared(), |lab| {
        lab.start_server()?;
        does_not_log_in(lab, "gw1", NO_PERMISSION)
    });
}

#[test]
fn of_the_server() {
    with_lab(Options::prepared(), |lab| {
        lab.start_server()?;
        does_not_log_in(lab, "nuauth.lab", NO_PERMISSION)
    });
}

fn does_not_log_in(lab: &Lab, name: &str, code: i32) -> Result<()> {
    let mut client = lab.client_with_certificate(name)?.args(["--once"]).start()?;
    let status = client.wait_exit(Duration::from_secs(30))?;
    assert!(!client.log()?.contains("logged in as"), "{}", client.tail(20));
    assert_eq!(status.code(), Some(code), "{}", client.tail(20));
    Ok(())
}
