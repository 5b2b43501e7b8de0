//! A refused connection is shown on its user's desktop where server and client both want it, and nowhere else; another user of
//! the same host hears nothing.

use crate::nutcpc::{FIRST, Home, PATIENCE};
use anyhow::{Context, Result};
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, two_users_possible, wait_some, with_lab};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const ALICE: u32 = 31_031;
const BOB: u32 = 31_032;
/// No rule allows it.
const FORBIDDEN: u16 = 7000;

/// A home whose configuration has this line, and names a program that writes down what it is given.
fn home(lab: &Lab, user: &'static str, uid: u32, line: &str) -> Result<Home> {
    let dir = lab.dir().join(format!("home-{uid}"));
    std::fs::create_dir_all(&dir)?;
    let (script, shown) = (dir.join("show"), dir.join("shown"));
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >{0}.next && mv {0}.next {0}\n",
            shown.display()
        ),
    )?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let more = format!("notify-command = \"{}\"\n{line}\n", script.display());
    Home::new(lab, user, Some(uid), &[FIRST], &more)
}

/// Opens a forbidden connection of alice's, then one that passes: with its question the client has heard all that was said before.
/// Gives the port of the forbidden one.
fn be_refused(lab: &Lab) -> Result<u16> {
    let attempt = |port| {
        let attempt = Attempt::to(addr::SERVER4, port)
            .as_user(ALICE)
            .within(Duration::from_secs(3));
        attempt.run(&lab.net.client)
    };
    let tried = attempt(FORBIDDEN)?;
    assert_eq!(tried.outcome, Outcome::TimedOut);
    let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
    assert_eq!(row.text("username"), Some("alice"));
    assert_eq!(attempt(80)?.outcome, Outcome::Connected);
    Ok(tried.port)
}

fn refused(home: &Home, lab: &Lab) -> Result<u64> {
    home.wait_status(lab, 0)?[0]["refused"]
        .as_u64()
        .context("no number")
}

fn shown_where(server_tells: bool, client_wants: bool) {
    if !two_users_possible() {
        return;
    }
    let options = Options::nobody().nuauth("clients.tell-refusals", server_tells);
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let line = if client_wants { "notify = true" } else { "" };
        let alice = home(lab, "alice", ALICE, line)?;
        let bob = home(lab, "bob", BOB, "notify = true")?;
        let _clients = [alice.start(lab)?, bob.start(lab)?];
        let port = be_refused(lab)?;
        let shown = |home: &Home| std::fs::read_to_string(home.dir.join("shown")).ok();
        if server_tells && client_wants {
            let text = wait_some("the refusal to be shown", PATIENCE, || Ok(shown(&alice)))?;
            let from = format!(":{port} to {}:{FORBIDDEN}", addr::SERVER4);
            assert!(
                text.starts_with("Connection refused by the firewall\ntcp ") && text.contains(&from),
                "{text}"
            );
            assert_eq!(refused(&alice, lab)?, 1);
        } else {
            assert_eq!((refused(&alice, lab)?, shown(&alice)), (0, None));
        }
        assert_eq!(
            (refused(&bob, lab)?, shown(&bob)),
            (0, None),
            "it is none of his business"
        );
        Ok(())
    });
}

#[test]
fn both_want_it() {
    shown_where(true, true);
}

#[test]
fn the_server_does_not_tell() {
    shown_where(false, true);
}

#[test]
fn the_client_does_not_want_to_hear() {
    shown_where(true, false);
}
