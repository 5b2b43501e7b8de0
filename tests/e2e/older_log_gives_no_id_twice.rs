//! A server that is started on an older copy of its log gives no row id twice, is not confused by the sequence numbers of its
//! agents, says in the log that something is missing, and adopts what is live.

use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, with_lab};
use std::path::PathBuf;

fn beside(lab: &Lab, suffix: &str) -> PathBuf {
    lab.database().with_file_name(format!("nulog.db{suffix}"))
}

/// Puts the copy in the place of the log.
fn restore(lab: &Lab) -> Result<()> {
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(beside(lab, suffix)).ok();
    }
    std::fs::copy(beside(lab, ".copy"), lab.database())?;
    Ok(())
}

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let in_the_copy = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        let old = format!("tcp_sport = {}", in_the_copy.port);
        lab.wait_row(&old, State::Established)?;
        lab.server.terminate()?;
        std::fs::copy(lab.database(), beside(lab, ".copy"))?;

        lab.start_server()?;
        lab.wait_passes(80)?;
        let mut unknown = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(unknown.outcome, Outcome::Connected);
        let forgotten = format!("tcp_sport = {}", unknown.port);
        let used = lab.wait_row(&forgotten, State::Established)?.int("id");
        lab.server.kill()?;
        restore(lab)?;

        lab.start_server()?;
        lab.wait_passes(80)?;
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let new = format!("tcp_sport = {}", tried.port);
        let row = lab.wait_row(&new, State::Established)?;
        assert!(row.int("id") > used, "{row:?} after {used:?}");
        assert_eq!(
            lab.count("select count(*) from log_gap where cause = 'older-log'")?,
            1
        );

        // Rows of the copy and of afterwards end as ever.
        drop(in_the_copy);
        drop(tried);
        for condition in [&old, &new] {
            let row = lab.wait_row(condition, State::Close)?;
            assert!(row.ended_in_order(), "{row:?}");
        }
        // The connection that the copy does not know goes on, under another row.
        unknown.talk("still here")?;
        let row = lab.wait_row(&forgotten, State::Established)?;
        assert_eq!(
            (row.text("acl"), row.text("username")),
            (Some("(adopted)"), Some("alice"))
        );
        assert!(row.int("id") > used && row.is_null("client_app"), "{row:?}");
        drop(unknown);
        let row = lab.wait_row(&forgotten, State::Close)?;
        assert!(
            row.ended_in_order() && row.int("packets_in") >= Some(5),
            "{row:?}"
        );
        Ok(())
    });
}
