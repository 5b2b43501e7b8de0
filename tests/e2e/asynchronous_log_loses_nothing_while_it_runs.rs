//! With `log.sync = false` verdicts do not wait for the disk, and every connection still gets its whole row.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};

#[test]
fn claim() {
    with_lab(Options::default().nuauth("log.sync", false), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut ports = Vec::new();
        for _ in 0..50 {
            let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            ports.push(tried.port);
        }
        for port in ports {
            let row = lab.wait_row(&format!("tcp_sport = {port}"), State::Close)?;
            assert!(row.ended_in_order(), "{row:?}");
            assert_eq!(row.int("ct_mark"), Some(1001));
        }
        Ok(())
    });
}
