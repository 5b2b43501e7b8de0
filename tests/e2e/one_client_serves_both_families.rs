//! One client, logged in once, answers for IPv4, IPv6 and every further address of its host.

use lab::{Attempt, Options, Outcome, State, TcpService, UdpService, addr, udp_probe, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn claim() {
    let mut options = Options::default();
    options.client_addresses = 3;
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let _tickets = UdpService::echo(&lab.net.server, 5000)?;
        let ways = [
            (addr::CLIENT4, addr::SERVER4),
            (addr::CLIENT6, addr::SERVER6),
            (addr::client4(2), addr::SERVER4),
        ];
        for (from, to) in ways {
            let mut tried = Attempt::to(to, 80).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected, "from {from}");
            tried.talk("hello")?;
            let target = SocketAddr::new(to, 5000);
            let (socket, answers) = udp_probe(&lab.net.client, from, target, 1, Duration::from_secs(10))?;
            assert_eq!(answers, 1, "from {from}");
            let conditions = [
                format!("tcp_sport = {}", tried.port),
                format!("udp_sport = {}", socket.local_addr()?.port()),
            ];
            drop(tried);
            for condition in conditions {
                let row = lab.wait_row(&condition, State::Close)?;
                assert_eq!(row.text("username"), Some("alice"));
                assert_eq!(row.text("ip_saddr"), Some(from.to_string().as_str()));
                assert_eq!(row.text("ip_daddr"), Some(to.to_string().as_str()));
            }
        }
        assert_eq!(lab.count("select count(*) from users")?, 1);
        Ok(())
    });
}

#[test]
fn address_that_comes_later_is_proven() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net.add_client_address(77)?;
        lab::wait_for("the new address to pass", Duration::from_secs(30), || {
            let attempt = Attempt::to(addr::SERVER4, 80)
                .from(addr::client4(77), 0)
                .within(Duration::from_secs(1));
            Ok(attempt.run(&lab.net.client)?.outcome == Outcome::Connected)
        })
    });
}
