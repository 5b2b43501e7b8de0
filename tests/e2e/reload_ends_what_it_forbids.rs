//! With `policy.on-reload = "kill"` connections end that the access lists do not allow any more, and others go on; with
//! `sessions.on-removal = "kill"` those of a user end who is taken out of the users' file, or whose certificate is revoked; a rule's `expire-after` ends
//! what it accepted when the time is over.

use crate::ended::{ALICE, BOB, connect, listen, log_in, users, wait_refused};
use lab::{Options, Signal, State, addr, checked, two_users_possible, with_lab};

const STRICTER: &str =
    "[[rule]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [\"80\"]\ndecision = \"accept\"\n";

#[test]
fn what_the_lists_forbid() {
    if !two_users_possible() {
        return;
    }
    let options = Options::default().nuauth("policy.on-reload", "kill");
    with_lab(users(options), |lab| {
        let (web, shell) = (listen(&lab.net.server, 80)?, listen(&lab.net.server, 8022)?);
        log_in(lab, ALICE)?;
        let mut kept = connect(lab, ALICE, (addr::SERVER4, 80), &web)?;
        let ended = connect(lab, ALICE, (addr::SERVER4, 8022), &shell)?;
        lab.wait_row(&ended.condition(), State::Established)?;
        std::fs::write(lab.dir().join("policy.toml"), STRICTER)?;
        lab.server.signal(Signal::HUP)?;
        wait_refused(lab, 1)?;
        ended.both_are_reset()?;
        let row = lab.wait_row(&ended.condition(), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("killed-policy"), "{row:?}");
        kept.talk()?;
        Ok(())
    });
}

#[test]
fn whom_it_removes() {
    if !two_users_possible() {
        return;
    }
    let options = Options::default().nuauth("sessions.on-removal", "kill");
    with_lab(users(options), |lab| {
        let shell = listen(&lab.net.server, 8022)?;
        log_in(lab, ALICE)?;
        log_in(lab, BOB)?;
        let hers = connect(lab, ALICE, (addr::SERVER4, 8022), &shell)?;
        let mut his = connect(lab, BOB, (addr::SERVER4, 8022), &shell)?;
        lab.wait_row(&hers.condition(), State::Established)?;
        let file = lab.dir().join("users.toml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(
            &file,
            text.replace("\"alice\"", "\"carol\"").replace("1001", "1003"),
        )?;
        lab.server.signal(Signal::HUP)?;
        wait_refused(lab, 1)?;
        hers.both_are_reset()?;
        let row = lab.wait_row(&hers.condition(), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("killed-removed"), "{row:?}");
        his.talk()?;
        Ok(())
    });
}

#[test]
fn whose_certificate_is_revoked() {
    let options = Options::default().nuauth("sessions.on-removal", "kill");
    with_lab(users(options), |lab| {
        let shell = listen(&lab.net.server, 8022)?;
        let spec = lab.client_with_certificate("alice")?;
        lab.log_in_with("alice", spec)?;
        let hers = connect(lab, ("alice", 0), (addr::SERVER4, 8022), &shell)?;
        lab.wait_row(&hers.condition(), State::Established)?;
        checked(&mut lab.pki(&["revoke", "alice"])?)?;
        lab.server.signal(Signal::HUP)?;
        wait_refused(lab, 1)?;
        hers.both_are_reset()?;
        let row = lab.wait_row(&hers.condition(), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("killed-removed"), "{row:?}");
        assert_eq!(
            lab.count("select count(*) from users where end_time is null")?,
            0,
            "her session is over, too"
        );
        Ok(())
    });
}

#[test]
fn whose_time_is_over() {
    if !two_users_possible() {
        return;
    }
    let mut options = Options::default();
    options.policy = STRICTER.replace("\"80\"", "\"8022\"")
        + "expire-after = \"5s\"\n"
        + &STRICTER.replace("\"web\"", "\"free\"");
    with_lab(users(options), |lab| {
        let (web, shell) = (listen(&lab.net.server, 80)?, listen(&lab.net.server, 8022)?);
        log_in(lab, ALICE)?;
        let mut kept = connect(lab, ALICE, (addr::SERVER4, 80), &web)?;
        let ended = connect(lab, ALICE, (addr::SERVER4, 8022), &shell)?;
        wait_refused(lab, 1)?;
        ended.both_are_reset()?;
        let row = lab.wait_row(&ended.condition(), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("killed-expired"), "{row:?}");
        kept.talk()?;
        Ok(())
    });
}
