//! The agent's worker is killed as by a crash while connections are opened one after the other: every one of them is
//! established, each has one row, and every row is closed with its counters.
//!
//! `NUFW_WORKER_KILLS` says how many times, 10 if it is not set.

use anyhow::Context;
use lab::{Closing, LoadOptions, Options, Pace, Signal, TcpService, addr, load, wait_for, with_lab};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections of one round.
const ROUND: u16 = 1000;
/// Connections that are open at one time.
const AT_ONCE: usize = 40;

#[test]
fn claim() {
    let kills: usize = std::env::var("NUFW_WORKER_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    let mut options = Options::default();
    options.client_addresses = 4;
    with_lab(options, |lab| {
        let _web = TcpService::keep(&lab.net.server, 80, 64)?;
        let (mut killed, mut opened) = (0, 0);
        let mut first_port = 10_000;
        while killed < kills {
            let run = LoadOptions {
                target: SocketAddr::new(addr::SERVER4, 80),
                sources: (0..4).map(addr::client4).collect(),
                first_port,
                count: u32::from(ROUND),
                pace: Pace::Closed(AT_ONCE),
                closing: Closing::Reset,
                timeout: Duration::from_mins(1),
            };
            first_port = if first_port > 50_000 {
                10_000
            } else {
                first_port + ROUND / 4 + 1
            };
            let done = AtomicBool::new(false);
            let report = std::thread::scope(|scope| {
                let loading = scope.spawn(|| {
                    let report = lab.net.client.enter(|| load(&run));
                    done.store(true, Ordering::Relaxed);
                    report
                });
                while !done.load(Ordering::Relaxed) && killed < kills {
                    let worker = lab.agent.signal_worker(Signal::KILL)?;
                    killed += 1;
                    lab.agent.worker(Some(worker))?;
                    // It gets as far as it does: reading, asking, answering.
                    std::thread::sleep(Duration::from_millis(20 + 13 * (killed as u64 % 17)));
                }
                loading.join().map_err(|_| anyhow::anyhow!("the load panicked"))?
            })??;
            assert_eq!(
                report.connected,
                u32::from(ROUND),
                "after {killed} kills: {report:?}"
            );
            opened += i64::from(ROUND);
        }
        let complete = "select count(*) from conntrack_ulog where state = 3 and username = 'alice' and ct_mark = 1001 \
            and packets_in >= 2 and packets_out >= 1 and close_reason = 'reset' and ct_id is not null";
        wait_for("complete rows", Duration::from_mins(2), || {
            lab.net.conntrack()?;
            Ok(lab.count(complete)? >= opened)
        })
        .with_context(|| format!("{killed} kills, {opened} connections, rows: {:?}", summary(lab)))?;
        assert_eq!(
            lab.count("select count(*) from conntrack_ulog")?,
            opened,
            "rows: {:?}",
            summary(lab)
        );
        assert_eq!(lab.count("select count(*) from log_gap")?, 0);
        Ok(())
    });
}

/// How many rows there are of each kind.
fn summary(lab: &lab::Lab) -> Vec<(&'static str, i64)> {
    [
        ("all", "1"),
        ("closed", "state = 3"),
        ("without counters", "packets_in is null"),
        ("reset", "close_reason = 'reset'"),
        ("superseded", "close_reason = 'superseded'"),
        ("never-confirmed", "close_reason = 'never-confirmed'"),
        ("never-forwarded", "close_reason = 'never-forwarded'"),
        ("vanished", "close_reason = 'vanished'"),
        ("dropped", "state = 0"),
    ]
    .map(|(name, condition)| {
        let sql = format!("select count(*) from conntrack_ulog where {condition}");
        (name, lab.count(&sql).unwrap_or(-1))
    })
    .to_vec()
}
