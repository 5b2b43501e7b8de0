//! With `-M` the kernel itself keeps events of unmarked connections from the agent; those of marked ones arrive.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};

#[test]
fn claim() {
    with_lab(Options::default().agent("conntrack.marked-only", true), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _unasked = TcpService::echo(&lab.net.client, 9999)?;
        // What the server host begins passes without a user and without a mark.
        lab.net
            .iptables("-t mangle -I FORWARD -i wan -p tcp --dport 9999 -j ACCEPT")?;
        let trace = lab.trace(&lab.agent, "recvfrom,recvmsg,read")?;
        let mut unmarked = Attempt::to(addr::CLIENT4, 9999).run(&lab.net.server)?;
        assert_eq!(unmarked.outcome, Outcome::Connected);
        unmarked.talk("nobody knows me")?;
        let mut marked = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(marked.outcome, Outcome::Connected);
        marked.talk("hello")?;
        let condition = format!("tcp_sport = {}", marked.port);
        let ports = (unmarked.port, marked.port);
        drop((unmarked, marked));
        let row = lab.wait_row(&condition, State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        let entry = format!("sport={} ", ports.0);
        lab::wait_for(
            "the unmarked entry to be gone",
            std::time::Duration::from_secs(30),
            || Ok(!lab.net.conntrack()?.iter().any(|line| line.contains(&entry))),
        )?;
        // The bytes of each port, as they stand in a conntrack message.
        let events = trace.finish()?;
        let of = |port| {
            let pattern = hex(port);
            events
                .lines()
                .filter(|line| line.contains("CTNETLINK") && line.contains(&pattern))
                .count()
        };
        assert!(of(ports.1) >= 3, "the marked connection's events were not traced");
        assert_eq!(
            of(ports.0),
            0,
            "events of an unmarked connection reached the agent"
        );
        assert_eq!(lab.rows(&format!("tcp_sport = {}", ports.0))?.len(), 0);
        Ok(())
    });
}

/// `CTA_PROTO_SRC_PORT` (type 2, length 6) with the port, as `strace -x` shows it.
fn hex(port: u16) -> String {
    let [high, low] = port.to_be_bytes();
    format!("\\x06\\x00\\x02\\x00\\x{high:02x}\\x{low:02x}")
}
