//! A server that does not get on for some seconds, and whose link holds: what it answers in time goes on, what it does not is
//! dropped by the agent without it, and neither makes a row that stays open.

use anyhow::Result;
use lab::{Attempt, Lab, Options, Outcome, Signal, State, TcpService, addr, wait_for, with_lab};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Packets that wait in the gateway's queue: the third column.
fn waiting(lab: &Lab) -> Result<u64> {
    let table = lab
        .net
        .gateway
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"))??;
    Ok(table.split_whitespace().nth(2).unwrap_or_default().parse()?)
}

#[test]
fn claim() {
    let options = Options::default()
        .nuauth("dead-after", "60s")
        .agent("queue.packet-timeout", "7s");
    with_lab(options, |lab| {
        let web = TcpService::echo(&lab.net.server, 80)?;
        lab.server.signal(Signal::STOP)?;
        let client = lab.net.client.clone();
        let connecting =
            std::thread::spawn(move || Attempt::to(addr::SERVER4, 80).within(PATIENCE).run(&client));
        // The second SYN is a second later, the third two more: with four waiting it is slow by seven seconds at most.
        wait_for("three packets to wait", PATIENCE, || Ok(waiting(lab)? >= 3))?;
        lab.server.signal(Signal::CONT)?;
        let tried = connecting.join().expect("it did not panic")?;
        assert_eq!(tried.outcome, Outcome::Connected, "a late answer is an answer");
        let condition = format!("tcp_sport = {}", tried.port);
        lab.wait_row(&condition, State::Established)?;
        drop(tried);
        lab.wait_row(&condition, State::Close)?;

        // Longer than the agent holds a packet: it does not wait for the server to drop it.
        lab.server.signal(Signal::STOP)?;
        let lost = Attempt::to(addr::SERVER4, 80)
            .within(Duration::from_millis(700))
            .run(&lab.net.client)?;
        assert_eq!(lost.outcome, Outcome::TimedOut);
        assert_eq!(waiting(lab)?, 1);
        wait_for("the agent to drop it", PATIENCE, || Ok(waiting(lab)? == 0))?;
        lab.server.signal(Signal::CONT)?;
        lab.wait_passes(80)?;
        let condition = format!("tcp_sport = {}", lost.port);
        wait_for("its row to say so", PATIENCE, || {
            let rows = lab.rows(&condition)?;
            assert!(rows.len() <= 1, "{rows:?}");
            Ok(rows.iter().all(|row| {
                row.state() == State::Drop
                    || (row.state() == State::Close && row.text("close_reason") == Some("never-forwarded"))
            }) && rows.len() == 1)
        })?;
        assert!(web.accepted() >= 2);
        Ok(())
    });
}
