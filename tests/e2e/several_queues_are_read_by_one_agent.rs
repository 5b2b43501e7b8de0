//! With `queue.count` the rules spread connections over several queues, and one agent reads them all: every row is whole.

use anyhow::Context;
use lab::{Attempt, Options, Outcome, State, TcpService, addr, with_lab};

const ADDRESSES: u8 = 12;

#[test]
fn claim() {
    let mut options = Options::default()
        .agent("queue.number", 20)
        .agent("queue.count", 4);
    options.client_addresses = ADDRESSES;
    with_lab(options, |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        for index in 0..ADDRESSES {
            let mut tried = Attempt::to(addr::SERVER4, 80)
                .from(addr::client4(index), 0)
                .run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Connected);
            tried.talk("hello")?;
            let condition = format!(
                "tcp_sport = {} AND ip_saddr = '{}'",
                tried.port,
                addr::client4(index)
            );
            drop(tried);
            let row = lab.wait_row(&condition, State::Close)?;
            assert_eq!(row.text("username"), Some("alice"));
            assert!(row.ended_in_order(), "{row:?}");
        }
        // Number, port, waiting, mode, range, dropped twice, last id.
        let table = lab
            .net
            .gateway
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"))??;
        let mut seen = Vec::new();
        for line in table.lines() {
            let fields: Vec<u64> = line
                .split_ascii_whitespace()
                .map(|field| field.parse().context("not a number"))
                .collect::<Result<_, _>>()?;
            seen.push((fields[0], fields[7]));
        }
        let numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [20, 21, 22, 23], "{table}");
        assert!(
            seen.iter().filter(|(_, packets)| *packets > 0).count() > 1,
            "{table}"
        );
        assert_eq!(
            seen.iter().map(|(_, packets)| packets).sum::<u64>(),
            u64::from(ADDRESSES)
        );
        Ok(())
    });
}
