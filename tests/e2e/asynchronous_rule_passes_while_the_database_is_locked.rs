//! A rule with `log = "async"` accepts while the database cannot be written, and its row follows.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};

const POLICY: &str = r#"
[[rule]]
name = "quick"
protocol = "tcp"
ports = [81]
decision = "accept"
log = "async"
"#;

#[test]
fn claim() {
    let mut options = Options::default();
    options.policy = POLICY.to_owned();
    with_lab(options, |lab| {
        let _quick = TcpService::echo(&lab.net.server, 81)?;
        lab.wait_passes(81)?;
        let lock = lab.lock_database()?;
        let quick = Attempt::to(addr::SERVER4, 81).run(&lab.net.client)?;
        assert_eq!(quick.outcome, Outcome::Connected);
        let row = format!("tcp_sport = {} and tcp_dport = 81", quick.port);
        assert_eq!(lab.rows(&row)?.len(), 0, "the verdict came before the row");
        drop(lock);
        drop(quick);
        let row = lab.wait_row(&row, State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        Ok(())
    });
}
