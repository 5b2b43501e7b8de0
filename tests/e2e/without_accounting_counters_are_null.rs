//! Where the kernel counts nothing and keeps no times, rows have no counters rather than zeros and the times of receipt, and
//! the agent says so once.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};

#[test]
fn claim() {
    with_lab(Options::default().nuauth("limits.counters-every", "1s"), |lab| {
        // Starting applies the generated rules, which turn both on.
        for name in ["nf_conntrack_acct", "nf_conntrack_timestamp"] {
            lab.net.gateway.sysctl(&format!("net.netfilter.{name}"), 0)?;
        }
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for _ in 0..3 {
            let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let condition = format!("tcp_sport = {}", tried.port);
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            for column in ["packets_in", "packets_out", "bytes_in", "bytes_out"] {
                assert!(row.is_null(column), "{column}: {row:?}");
            }
            assert!(row.ended_in_order(), "{row:?}");
            assert!(row.int("start_timestamp") <= row.int("end_timestamp"), "{row:?}");
            assert!(!row.is_null("start_timestamp"), "{row:?}");
        }
        assert_eq!(lab.agent.count("rows have no counters")?, 1);
        assert_eq!(lab.agent.count("times are those of receipt")?, 1);
        Ok(())
    });
}
