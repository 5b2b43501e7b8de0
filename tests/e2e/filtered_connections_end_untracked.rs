//! Events of connections that `conntrack.accept-*` leaves out never come to the agent, and their rows do not wait for them:
//! they end as `untracked` when they are accepted. The others live to their end.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};
use std::net::IpAddr;

fn only(key: &str, values: &[&str], whole: IpAddr, left_out: IpAddr) {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    with_lab(Options::default().agent(key, values), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for (to, reason) in [(whole, None), (left_out, Some("untracked"))] {
            let mut tried = Attempt::to(to, 80).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let condition = format!("tcp_sport = {} AND ip_daddr = '{to}'", tried.port);
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            assert_eq!(row.text("username"), Some("alice"));
            match reason {
                None => assert!(
                    row.ended_in_order() && row.int("packets_in") >= Some(4),
                    "{row:?}"
                ),
                Some(reason) => {
                    assert_eq!(row.text("close_reason"), Some(reason));
                    assert!(row.is_null("packets_in") && row.is_null("ct_id"), "{row:?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn by_destination() {
    only(
        "conntrack.accept-dst",
        &["192.0.2.0/24", "10.82.0.0/16"],
        addr::SERVER4,
        addr::SERVER6,
    );
}

#[test]
fn by_source() {
    only(
        "conntrack.accept-src",
        &["fd81::/64"],
        addr::SERVER6,
        addr::SERVER4,
    );
}

#[test]
fn the_destination_is_the_one_behind_translation() {
    let options = Options::default().agent("conntrack.accept-dst", vec!["10.82.0.2".to_owned()]);
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        lab.net.iptables(
            "-t nat -A PREROUTING -i lan -p tcp --dport 8080 -j DNAT --to-destination 10.82.0.2:80",
        )?;
        let mut tried = Attempt::to(addr::GATEWAY4, 8080).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        tried.talk("hello")?;
        let condition = format!("tcp_sport = {}", tried.port);
        drop(tried);
        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.text("ip_daddr"), Some("10.81.0.1"));
        assert!(row.ended_in_order(), "{row:?}");
        Ok(())
    });
}
