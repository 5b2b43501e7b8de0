//! When another program empties the connection table, every row of it is closed as `deleted` with its counters, the log has
//! the interval with their number, and a connection that goes on does so under a row of its own.

use lab::{Attempt, Options, Outcome, State, TcpService, UdpService, addr, udp_probe, wait_for, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        lab.net
            .gateway
            .sysctl("net.netfilter.nf_conntrack_udp_timeout", 600)?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _echo = UdpService::echo(&lab.net.server, 5001)?;
        let mut goes_on = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(goes_on.outcome, Outcome::Connected);
        goes_on.talk("before")?;
        let tcp = format!("tcp_sport = {}", goes_on.port);
        lab.wait_row(&tcp, State::Established)?;
        let target = SocketAddr::new(addr::SERVER4, 5001);
        let mut sockets = Vec::new();
        for _ in 0..5 {
            let (socket, answers) =
                udp_probe(&lab.net.client, addr::CLIENT4, target, 1, Duration::from_secs(10))?;
            assert_eq!(answers, 1);
            sockets.push(socket);
        }
        wait_for("six live rows", Duration::from_secs(30), || {
            Ok(lab.count("select count(*) from conntrack_ulog where state = 2")? == 6)
        })?;

        lab.net.gateway.command("conntrack").arg("-F").output()?;
        wait_for("six closed rows", Duration::from_secs(30), || {
            Ok(lab.count("select count(*) from conntrack_ulog where state = 3")? == 6)
        })?;
        let complete = "select count(*) from conntrack_ulog where close_reason = 'deleted' and packets_in >= 1 \
            and packets_out >= 1 and end_timestamp is not null";
        assert_eq!(lab.count(complete)?, 6);
        wait_for("the interval", Duration::from_secs(30), || {
            Ok(lab.count("select count(*) from log_gap where cause = 'entries-deleted' and count = 6")? == 1)
        })?;

        goes_on.talk("after")?;
        let row = lab.wait_row(&format!("{tcp} and state <> 3"), State::Established)?;
        assert_eq!(row.text("username"), Some("alice"));
        drop(goes_on);
        lab.wait_row(&format!("{tcp} and close_reason <> 'deleted'"), State::Close)?;
        assert_eq!(lab.rows(&tcp)?.len(), 2);
        Ok(())
    });
}
