//! With `--track-by-flags`, on a gateway whose conntrack makes no events: SYN/ACK, FIN and RST make the rows of forwarded TCP
//! connections whole but for their counters, what they say nothing of ends as untracked, and while no agent runs established
//! connections go on and end, whose rows are closed when their time is over.

use lab::{Attempt, Options, Outcome, State, TcpService, UdpService, addr, udp_probe, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn claim() {
    let options = Options::prepared()
        .agent("conntrack.relay", false)
        .agent("conntrack.track-by-flags", true)
        .nuauth("limits.flags-timeout", "10s");
    with_lab(options, |lab| {
        lab.net.gateway.sysctl("net.netfilter.nf_conntrack_events", 0)?;
        // What SNAT makes of it is not seen, and not claimed.
        lab.net.iptables("-t nat -A POSTROUTING -o wan -j MASQUERADE")?;
        lab.start_all()?;
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _udp = UdpService::echo(&lab.net.server, 5000)?;
        for (from, to) in [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)] {
            let mut tried = Attempt::to(to, 80).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected, "{to}");
            tried.talk("hello")?;
            let condition = format!("tcp_sport = {} AND ip_daddr = '{to}'", tried.port);
            let row = lab.wait_row(&condition, State::Established)?;
            assert!(row.int("start_timestamp").is_some(), "{row:?}");
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            assert!(row.ended_in_order(), "{row:?}");
            assert!(row.int("end_timestamp").is_some(), "{row:?}");
            for unknown in ["packets_in", "bytes_out", "ct_id", "reply_daddr", "reply_dport"] {
                assert!(row.is_null(unknown), "{unknown}: {row:?}");
            }
        }

        // Nobody listens there.
        let refused = Attempt::to(addr::SERVER4, 8001).run(&lab.net.client)?;
        assert_eq!(refused.outcome, Outcome::Refused);
        let row = lab.wait_row(&format!("tcp_sport = {}", refused.port), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("refused"), "{row:?}");

        let mut reset = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        reset.talk("hello")?;
        reset.reset()?;
        let row = lab.wait_row(&format!("tcp_sport = {}", reset.port), State::Close)?;
        assert_eq!(row.text("close_reason"), Some("reset"), "{row:?}");

        let to = SocketAddr::new(addr::SERVER4, 5000);
        let (_, answers) = udp_probe(&lab.net.client, addr::CLIENT4, to, 1, Duration::from_secs(10))?;
        assert_eq!(answers, 1);
        let row = lab.wait_row("udp_dport = 5000", State::Close)?;
        assert_eq!(row.text("close_reason"), Some("untracked"), "{row:?}");

        let mut unseen = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        unseen.talk("hello")?;
        let condition = format!("tcp_sport = {}", unseen.port);
        lab.wait_row(&condition, State::Established)?;
        lab.agent.kill()?;
        unseen.talk("nobody holds this up")?;
        // The echo ends its side when it sees the end of the other: both pass.
        let mut stream = unseen.stream.take().expect("it is open");
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        assert_eq!(std::io::Read::read(&mut stream, &mut [0; 8])?, 0);
        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.text("close_reason"), Some("idle-timeout"), "{row:?}");
        assert!(row.is_null("end_timestamp"), "nobody saw it: {row:?}");
        let new = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_secs(1))
            .run(&lab.net.client)?;
        assert_eq!(new.outcome, Outcome::TimedOut, "only what was established passes");
        Ok(())
    });
}
