//! Where a queue's packets are of a conntrack zone, their rows are found by it and reach their end; where the agent is told
//! another zone, they are not.

use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, with_lab};

/// Everything through the gateway is in zone 7.
fn in_zone_7(zones: Vec<i64>, test: impl FnOnce(&mut Lab) -> Result<()>) {
    let options = Options::prepared().agent("queue.zones", zones);
    with_lab(options, |lab| {
        for tool in ["iptables", "ip6tables"] {
            let rule = "-t raw -A PREROUTING -j CT --zone 7 --ctevents new,related,reply,destroy";
            lab::checked(
                lab.net
                    .gateway
                    .command(tool)
                    .arg("-w")
                    .args(rule.split_whitespace()),
            )?;
        }
        lab.start_all()?;
        test(lab)
    });
}

#[test]
fn claim() {
    in_zone_7(vec![7], |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for (from, to) in [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)] {
            let mut tried = Attempt::to(to, 80).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let condition = format!("tcp_sport = {}", tried.port);
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            assert_eq!(row.int("ct_zone"), Some(7));
            assert!(
                row.ended_in_order() && row.int("packets_in") >= Some(4),
                "{row:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn the_wrong_zone_never_shows_an_end() {
    in_zone_7(vec![8], |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        tried.talk("hello")?;
        let condition = format!("tcp_sport = {}", tried.port);
        drop(tried);
        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.int("ct_zone"), Some(8));
        assert_eq!(row.text("close_reason"), Some("never-confirmed"), "{row:?}");
        Ok(())
    });
}
