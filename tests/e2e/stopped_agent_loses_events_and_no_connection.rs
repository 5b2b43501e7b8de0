//! An agent that is stopped while its kernel buffer overruns loses events and no connection: every row is closed, those whose
//! end was lost as `resync` with what was last counted and a bound for their end, and the log says when that was.

use lab::{
    Attempt, Options, Outcome, Signal, State, TcpService, UdpService, addr, now, udp_probe, wait_for,
    with_lab,
};
use std::net::SocketAddr;
use std::time::Duration;

/// More than three events each that the smallest buffer holds: about two hundred.
const FLOWS: usize = 700;

#[test]
fn claim() {
    let options = Options::default()
        .agent("conntrack.receive-buffer", "128KiB")
        // It is to stand still, not to be replaced.
        .agent("worker.hung-after", "5m")
        .nuauth("limits.counters-every", "1s")
        .nuauth("limits.dump-interval", "1s");
    with_lab(options, |lab| {
        lab.net
            .gateway
            .sysctl("net.netfilter.nf_conntrack_udp_timeout", 600)?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _silent = UdpService::silent(&lab.net.server, 5001)?;
        let target = SocketAddr::new(addr::SERVER4, 5001);
        let mut outlives = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(outlives.outcome, Outcome::Connected);
        let mut flows = Vec::new();
        for _ in 0..FLOWS {
            flows.push(udp_probe(&lab.net.client, addr::CLIENT4, target, 1, Duration::ZERO)?.0);
        }
        let counted = "select count(*) from conntrack_ulog where state in (1, 2) and packets_in >= 1";
        wait_for("every live row to be counted", Duration::from_mins(2), || {
            Ok(lab.count(counted)? == 1 + i64::try_from(FLOWS)?)
        })?;

        lab.agent.signal_worker(Signal::STOP)?;
        let ended = now();
        lab.net
            .gateway
            .command("conntrack")
            .args(["-D", "-p", "udp"])
            .output()?;
        lab.agent.signal_worker(Signal::CONT)?;

        let open = "select count(*) from conntrack_ulog where udp_dport = 5001 and state <> 3";
        wait_for("every row to be closed", Duration::from_mins(2), || {
            Ok(lab.count(open)? == 0)
        })?;
        let rows = lab.rows("udp_dport = 5001")?;
        assert_eq!(rows.len(), FLOWS, "one row for each");
        let of = |reason| {
            rows.iter()
                .filter(move |row| row.text("close_reason") == Some(reason))
        };
        let lost = of("resync").count();
        assert!(lost > 0, "nothing was lost after all");
        assert_eq!(
            lost + of("deleted").count(),
            FLOWS,
            "every end says how it was learnt"
        );
        let within = i64::try_from(ended.elapsed().as_micros())? + 60_000_000;
        for row in &rows {
            assert_eq!(row.int("packets_in"), Some(1), "{row:?}");
            let (first, end) = (row.int("oob_time_sec"), row.int("end_timestamp"));
            let after = end.zip(first).map(|(end, first)| end - first * 1_000_000);
            assert!(
                after.is_some_and(|after| after > 0 && after < within * 4),
                "{row:?}"
            );
        }
        assert!(lab.count("select count(*) from log_gap where cause = 'netlink-overrun'")? >= 1);

        // What lived on lives on, under its own row.
        outlives.talk("still here")?;
        let condition = format!("tcp_sport = {}", outlives.port);
        lab.wait_row(&condition, State::Established)?;
        drop(outlives);
        let row = lab.wait_row(&condition, State::Close)?;
        assert!(row.ended_in_order(), "{row:?}");
        Ok(())
    });
}
