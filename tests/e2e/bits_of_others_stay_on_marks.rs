//! Bits of marks outside of the mask are somebody else's: on the connection and on every packet of it they stay as they were,
//! from the first packet to the last.

use lab::{Attempt, Options, Outcome, State, TcpService, addr, checked, with_lab};

const PACKETS: &str = "0x40000000/0x40000000";

#[test]
fn claim() {
    let options = Options::default()
        .agent("marks.mask", "0x0000ffff")
        .nuauth("mark-mask", "0x0000ffff");
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        // A program that marks packets before us, one that marks connections after us, and two that look.
        for rule in [
            "-I PREROUTING -j MARK --set-xmark 0x40000000/0x40000000",
            "-I POSTROUTING -p tcp --dport 80 -j CONNMARK --set-xmark 0x00a50000/0x00ff0000",
            &format!("-A POSTROUTING -p tcp --dport 80 -m mark --mark {PACKETS}"),
            &format!("-A POSTROUTING -p tcp --dport 80 -m mark ! --mark {PACKETS}"),
            "-A POSTROUTING -p tcp --dport 80 -m mark --mark 0x3e9/0xffff",
            "-A POSTROUTING -p tcp --dport 80 -m mark ! --mark 0x3e9/0xffff",
        ] {
            lab.net.iptables(&format!("-t mangle {rule}"))?;
        }
        let mut tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
        assert_eq!(tried.outcome, Outcome::Connected);
        for _ in 0..5 {
            tried.talk("hello")?;
        }
        let condition = format!("tcp_sport = {}", tried.port);
        let row = lab.wait_row(&condition, State::Established)?;
        assert_eq!(row.int("ct_mark"), Some(0x00a5_03e9), "{row:?}");
        drop(tried);
        let row = lab.wait_row(&condition, State::Close)?;
        assert_eq!(row.int("ct_mark"), Some(0x00a5_03e9), "{row:?}");

        let listed =
            checked(
                lab.net
                    .gateway
                    .command("iptables")
                    .args(["-t", "mangle", "-S", "POSTROUTING", "-v"]),
            )?;
        let count = |part: &str| {
            let line = listed.lines().find(|line| line.contains(part));
            let counted = line.and_then(|line| line.split("-c ").nth(1));
            let packets = counted.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            assert!(packets.is_some(), "{part} in {listed}");
            packets.unwrap_or_default()
        };
        assert!(count("-m mark --mark 0x40000000/") >= 7, "{listed}");
        assert_eq!(count("-m mark ! --mark 0x40000000/"), 0, "{listed}");
        assert!(count("-m mark --mark 0x3e9/") >= 7, "{listed}");
        assert_eq!(count("-m mark ! --mark 0x3e9/"), 0, "{listed}");
        Ok(())
    });
}
