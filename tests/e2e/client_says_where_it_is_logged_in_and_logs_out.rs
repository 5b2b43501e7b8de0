//! `nutcpc status` tells the user where their client is logged in, and `nutcpc logout` ends it: after that nothing of theirs passes.
//! Nobody else's client is asked or ended by it.

use crate::nutcpc::{FIRST, Home};
use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, two_users_possible, with_lab};
use std::time::Duration;

const ALICE: u32 = 31_021;
const BOB: u32 = 31_022;

fn connects(lab: &Lab, uid: u32) -> Result<lab::Tried> {
    let attempt = Attempt::to(addr::SERVER4, 80)
        .as_user(uid)
        .within(Duration::from_secs(3));
    attempt.run(&lab.net.client)
}

#[test]
fn claim() {
    if !two_users_possible() {
        return;
    }
    with_lab(Options::nobody(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let alice = Home::new(lab, "alice", Some(ALICE), &[FIRST], "")?;
        let bob = Home::new(lab, "bob", Some(BOB), &[FIRST], "")?;
        assert_eq!(alice.ask(lab, &["status"])?.0, 69, "none runs");
        let mut hers = alice.start(lab)?;
        let _his = bob.start(lab)?;
        let (code, table) = alice.ask(lab, &["status"])?;
        assert_eq!(code, 0);
        for word in [FIRST, "logged in", "alice", "10.81.0.2"] {
            assert!(table.contains(word), "{word} is missing from:\n{table}");
        }
        assert_eq!(connects(lab, ALICE)?.outcome, Outcome::Connected);

        let (code, said) = alice.ask(lab, &["logout"])?;
        assert_eq!((code, said), (0, format!("logged out at {FIRST}\n")));
        assert_eq!(hers.wait_exit(Duration::from_secs(20))?.code(), Some(0));
        assert_eq!(alice.ask(lab, &["status"])?.0, 69);
        let tried = connects(lab, ALICE)?;
        assert_eq!(tried.outcome, Outcome::TimedOut);
        let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Drop)?;
        assert_eq!(
            row.text("acl"),
            Some("(disclaimed)"),
            "bob's client was asked and said no"
        );
        bob.wait_status(lab, 0)?;
        assert_eq!(connects(lab, BOB)?.outcome, Outcome::Connected);
        Ok(())
    });
}
