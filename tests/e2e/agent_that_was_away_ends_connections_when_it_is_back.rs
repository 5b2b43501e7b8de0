//! A user logs out while the gateway's agent is away: her connections go on until it is back, and end then.

use crate::ended::{ALICE, connect, listen, log_in, log_out, users, wait_refused};
use lab::{Options, State, addr, two_users_possible, with_lab};

#[test]
fn claim() {
    if !two_users_possible() {
        return;
    }
    let options = Options::default().nuauth("sessions.on-end", "kill");
    with_lab(users(options), |lab| {
        let listener = listen(&lab.net.server, 8022)?;
        log_in(lab, ALICE)?;
        let mut hers = connect(lab, ALICE, (addr::SERVER4, 8022), &listener)?;
        lab.wait_row(&hers.condition(), State::Established)?;
        lab.agent.kill()?;
        log_out(lab, ALICE)?;
        lab.server.wait_log("client gone")?;
        hers.talk()?;
        lab.start_agent()?;
        wait_refused(lab, 1)?;
        hers.both_are_reset()?;
        let row = lab.wait_row(&hers.condition(), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("killed-session"), "{row:?}");
        assert!(row.int("packets_in") >= Some(4), "{row:?}");
        Ok(())
    });
}
