//! When the log's disk is full nothing is accepted, and when there is room again it works by itself; a log that cannot be
//! written at all ends the server at its start, with the file's name. Without a spool, which would be on that disk, too.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, wait_for, with_lab};
use std::time::Duration;

const MIB: usize = 1024 * 1024;

#[test]
fn full_disk() {
    let options = Options::prepared().nuauth("log.on-database-loss", "drop");
    with_lab(options, |lab| {
        let web = TcpService::echo(&lab.net.server, 80)?;
        lab.log_on_small_disk("size=8m")?;
        lab.start_all()?;
        lab.wait_passes(80)?;
        let accepted = web.accepted();

        let ballast = lab.database().with_file_name("ballast");
        let mut chunk = MIB;
        let mut filled = Vec::new();
        // To the last byte: smaller and smaller pieces until nothing fits.
        while chunk >= 1 {
            filled.resize(filled.len() + chunk, 0);
            if std::fs::write(&ballast, &filled).is_err() {
                filled.truncate(filled.len() - chunk);
                chunk /= 2;
            }
        }
        // The log may have a little room inside its file; connections use it up until one is not accepted.
        wait_for(
            "a connection that is not accepted",
            Duration::from_mins(2),
            || {
                let attempt = Attempt::to(addr::SERVER4, 80).within(Duration::from_secs(1));
                Ok(attempt.run(&lab.net.client)?.outcome != Outcome::Connected)
            },
        )?;
        assert!(lab.server.exited()?.is_none(), "the server ended");
        let granted = web.accepted() - accepted;
        let refused = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(2))
            .run(&lab.net.client)?;
        assert_eq!(refused.outcome, Outcome::TimedOut);
        lab.server.wait_log("full")?;

        std::fs::remove_file(&ballast)?;
        lab.wait_passes(80)?;
        let rows = lab.count("select count(*) from conntrack_ulog where state > 0 and tcp_dport = 80")?;
        assert!(
            rows.unsigned_abs() >= web.accepted(),
            "{rows} rows for {} connections ({granted})",
            web.accepted()
        );
        assert_eq!(
            lab.rows(&format!("state > 0 and tcp_sport = {}", refused.port))?
                .len(),
            0
        );
        Ok(())
    });
}

#[test]
fn read_only() {
    with_lab(Options::prepared(), |lab| {
        lab.log_on_small_disk("size=8m")?;
        lab.start_server()?;
        lab.server.terminate()?;
        lab.log_on_small_disk("size=8m,ro")?;
        lab.server.start()?;
        let status = lab.server.wait_exit(Duration::from_secs(30))?;
        let log = lab.server.log()?;
        assert!(!status.success());
        assert!(
            log.contains("nulog.db") && (log.contains("read-only") || log.contains("readonly")),
            "{log}"
        );
        Ok(())
    });
}

#[test]
fn rows_before_it_are_still_closed() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        let condition = format!("tcp_sport = {}", tried.port);
        lab.wait_row(&condition, State::Established)?;
        // Another program holds the write lock for a while, as a backup does.
        let lock = lab.lock_database()?;
        drop(tried);
        std::thread::sleep(Duration::from_secs(1));
        drop(lock);
        let row = lab.wait_row(&condition, State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        Ok(())
    });
}
