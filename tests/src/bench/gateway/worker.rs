//! What the agent's two processes are for, and what they cost: workers that are killed in the middle of a load, and full rate
//! beside the same in one process.

use super::super::{LOAD_PORT, SOURCES, ratio};
use super::Gateway;
use super::cases::{missing, of_ports};
use super::stand::{count, events};
use crate::daemons::Lab;
use crate::load::LoadReport;
use crate::wait::{now, wait_for};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::process::Stdio;
use std::time::Duration;

/// How long the slowest of these waits may take.
const LONG: Duration = Duration::from_mins(5);
/// So many times each of the two is measured, in turns.
const TURNS: u32 = 3;

impl Gateway {
    /// The worker is killed again and again in the middle of a load that goes on whatever happens.
    pub(super) fn restart(&mut self) -> Result<()> {
        let case = "restart";
        let lab = self.stand.system(|options| options)?;
        let (mut command, ports) = self.stand.load_command(LOAD_PORT, self.size.restart, SOURCES)?;
        let rate = (self.size.restart / self.size.restart_seconds).to_string();
        let mut child = command
            // Nobody gives up: what is late is no packet lost.
            .args(["--rate", &rate, "--timeout-ms", "60000"])
            .stdout(Stdio::piped())
            .spawn()?;
        wait_for("the load to have begun", LONG, || {
            Ok(count(&lab, &format!("state > 0 and {}", of_ports(&ports)))? > 0)
        })?;
        let repeated = retransmissions(&lab)?;
        let began = now();
        let mut kills = 0_u32;
        while kills < self.size.kills && child.try_wait()?.is_none() {
            let worker = lab.agent.signal_worker(Signal::KILL)?;
            kills += 1;
            lab.agent.worker(Some(worker))?;
            // They are spread over the load.
            let next =
                Duration::from_secs(u64::from(self.size.restart_seconds)) * kills / (self.size.kills + 1);
            std::thread::sleep(next.saturating_sub(began.elapsed()));
        }
        let output = child.wait_with_output()?;
        let report: LoadReport =
            serde_json::from_slice(&output.stdout).context("the load generator gave no report")?;
        self.stand.drain()?;
        let rows = missing(&lab, case, &report, &ports)?;
        let given_up = report.refused + report.timed_out + report.failed;
        self.count(case, "worker_kills", kills.into(), "kills");
        self.count(case, "packets_lost", given_up.into(), "connections");
        // Of what waited longer than a second, and of what was lost.
        let repeated = retransmissions(&lab)?.saturating_sub(repeated);
        self.count(case, "syn_retransmissions", repeated, "packets");
        self.count(case, "restart_rows_lost", rows.0, "rows");
        self.count(case, "rows_stuck", rows.1, "rows");
        self.count(
            case,
            "gaps",
            lab.count("select count(*) from log_gap")?.unsigned_abs(),
            "gaps",
        );
        let connected = ratio(u64::from(report.connected), u64::from(self.size.restart));
        self.add(case, "known_user_success_ratio", connected, "ratio");
        Ok(())
    }

    /// Full rate with supervisor and worker, and with one process that does both, in turns.
    pub(super) fn split(&mut self) -> Result<()> {
        let mut rates = [Vec::new(), Vec::new()];
        for turn in 0..TURNS * 2 {
            let alone = turn % 2 == 1;
            let case = if alone { "one-process" } else { "two-processes" };
            let mut lab = self.stand.prepared(|options| options)?;
            if alone {
                lab.agent.spec().args.push("--single-process".into());
            }
            lab.start_all()?;
            let rate = self.at_full_rate(&lab, case)?;
            rates[usize::from(alone)].push(rate);
        }
        let median = |rates: &mut Vec<f64>| {
            rates.sort_by(f64::total_cmp);
            rates.get(rates.len() / 2).copied().unwrap_or_default()
        };
        let [two, one] = &mut rates;
        let kept = median(two) / median(one);
        self.add("two-processes", "of_one_process", kept, "ratio");
        Ok(())
    }

    fn at_full_rate(&mut self, lab: &Lab, case: &'static str) -> Result<f64> {
        // Buffers have their size, and caches are warm.
        self.stand.full(self.size.buffers / 10)?;
        self.stand.drain()?;
        let (_, dropped) = events(&self.stand.agent()?);
        let used = lab.agent.cpu_us()?;
        let (report, ports) = self.stand.full(self.size.buffers)?;
        self.stand.drain()?;
        let used = lab.agent.cpu_us()?.saturating_sub(used);
        let (_, lost) = events(&self.stand.agent()?);
        let rows = missing(lab, case, &report, &ports)?;
        let rate = report.connections_per_second;
        self.add(case, "connections_per_second", rate, "1/s");
        self.add(case, "connect_p99_ms", super::super::millis(report.p99_us), "ms");
        let figure = super::Figure::new(
            case,
            "cpu_us_per_connection",
            super::Rate::Full,
            ratio(used, report.connected.into()),
            "us",
        );
        self.figures.add(figure.of("nufw-agent"));
        self.count(case, "events_lost", lost - dropped, "messages");
        self.count(case, "rows_lost", rows.0, "rows");
        self.count(case, "rows_stuck", rows.1, "rows");
        Ok(rate)
    }
}

/// First packets that the client host has sent again (`TCPSynRetrans`).
fn retransmissions(lab: &Lab) -> Result<u64> {
    let table = lab
        .net
        .client
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))??;
    // Two lines of each kind: names, and values in the same order.
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        lines.next().context("no TcpExt")?,
        lines.next().context("no values")?,
    );
    names
        .split_ascii_whitespace()
        .zip(values.split_ascii_whitespace())
        .find(|(name, _)| *name == "TCPSynRetrans")
        .and_then(|(_, value)| value.parse().ok())
        .context("the kernel does not count retransmissions")
}
