//! The cases of the whole system alone: full rate, sizes of buffer, throughput, overrun, many connections.
//!
//! Each on a log and with daemons of its own.

use super::super::{millis, ratio};
use super::Gateway;
use super::stand::{count, events, number, settle};
use crate::command::{checked, in_path};
use crate::daemons::Lab;
use crate::load::LoadReport;
use crate::net::addr;
use crate::process::Spec;
use crate::wait::{now, wait_for};
use anyhow::{Context, Result};
use nufw_common::control::Client;
use rustix::process::Signal;
use std::ops::Range;
use std::time::Duration;

/// How long the slowest of these waits may take.
const LONG: Duration = Duration::from_mins(5);
/// The port of the throughput; the lab's policy lets it pass.
const BULK_PORT: &str = "8100";

impl Gateway {
    /// Many connections at full rate with the buffers as they come.
    pub(super) fn full(&mut self) -> Result<()> {
        let lab = self.stand.system(|options| options)?;
        self.lossless(&lab, "full-default", self.size.full)
    }

    /// The same with receive buffers of three sizes, and what people use today beside it.
    pub(super) fn buffers(&mut self) -> Result<()> {
        for (case, beside, size) in [
            ("buffer-1MiB", ("conntrack-1MiB", "ulogd2-1MiB"), 1_u32),
            ("buffer-8MiB", ("conntrack-8MiB", "ulogd2-8MiB"), 8),
            ("buffer-64MiB", ("conntrack-64MiB", "ulogd2-64MiB"), 64),
        ] {
            let lab = self
                .stand
                .system(|options| options.agent("conntrack.receive-buffer", format!("{size}MiB")))?;
            self.lossless(&lab, case, self.size.buffers)
                .with_context(|| format!("case {case}"))?;
            drop(lab);
            self.conntrack(beside.0, size << 20)
                .with_context(|| format!("case {}", beside.0))?;
            self.ulogd(beside.1, size << 20)
                .with_context(|| format!("case {}", beside.1))?;
        }
        Ok(())
    }

    /// Events a second while the load runs, and what was lost of events and rows.
    fn lossless(&mut self, lab: &Lab, case: &'static str, connections: u32) -> Result<()> {
        let (before, dropped) = events(&self.stand.agent()?);
        let began = now();
        let (report, ports) = self.stand.full(connections)?;
        let (during, _) = events(&self.stand.agent()?);
        let seconds = began.elapsed().as_secs_f64();
        self.stand.drain()?;
        let rows = missing(lab, case, &report, &ports)?;
        let (_, lost) = events(&self.stand.agent()?);
        self.add(
            case,
            "events_per_second",
            ratio(during - before, 1) / seconds,
            "1/s",
        );
        self.count(case, "events_lost", lost - dropped, "messages");
        self.add(case, "connect_p99_ms", millis(report.p99_us), "ms");
        self.add(
            case,
            "connections_per_second",
            report.connections_per_second,
            "1/s",
        );
        self.count(case, "rows_lost", rows.0, "rows");
        self.count(case, "rows_stuck", rows.1, "rows");
        Ok(())
    }

    /// What one established connection carries, without us and with us.
    pub(super) fn throughput(&mut self) -> Result<()> {
        self.stand.forward()?;
        let without = self.iperf()?;
        let lab = self.stand.system(|options| options)?;
        let with = self.iperf()?;
        drop(lab);
        self.add("throughput-forward", "bits_per_second", without, "bit/s");
        self.add("throughput-full", "bits_per_second", with, "bit/s");
        Ok(())
    }

    fn iperf(&self) -> Result<f64> {
        let program = in_path("iperf3").context("iperf3 is missing: apt-get install iperf3")?;
        let mut server = Spec::new(
            "iperf3",
            &self.stand.net.server,
            program.clone(),
            self.stand.dir.path(),
        )
        .args(["-s", "-p", BULK_PORT, "--forceflush"])
        .start()?;
        server.wait_log("Server listening")?;
        let seconds = self.size.throughput.to_string();
        let mut command = self.stand.net.client.command(program);
        command.args([
            "-c",
            &addr::SERVER4.to_string(),
            "-p",
            BULK_PORT,
            "-t",
            &seconds,
            "-J",
        ]);
        let report: serde_json::Value = serde_json::from_str(&checked(&mut command)?)?;
        server.kill()?;
        report["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .context("iperf3 gave no figure")
    }

    /// The agent stands still while many connections end, so that their events are lost; then the time until the log is exact.
    pub(super) fn overrun(&mut self) -> Result<()> {
        let case = "overrun";
        let lab = self.stand.system(|options| {
            options
                .agent("conntrack.receive-buffer", "128KiB")
                // It is to stand still, not to be replaced.
                .agent("worker.hung-after", "5m")
                .nuauth("dead-after", "5m")
        })?;
        let mut held = self.stand.hold(self.size.overrun)?;
        established(&lab, &held.ports, held.report.connected)?;
        lab.agent.signal_worker(Signal::STOP)?;
        held.release()?;
        let drained = self.stand.drain();
        lab.agent.signal_worker(Signal::CONT)?;
        drained?;
        let began = now();
        let of = of_ports(&held.ports);
        let exact = || Ok(count(&lab, &format!("state in (1, 2) and {of}"))? == 0);
        wait_for("the log to be exact again", LONG, exact)?;
        self.add(case, "resync_seconds", began.elapsed().as_secs_f64(), "s");
        let rows = missing(&lab, case, &held.report, &held.ports)?;
        let overruns = number(&self.stand.agent()?, "nufw_agent_event_overruns_total", &[]);
        self.count(case, "overruns", overruns, "overruns");
        self.count(case, "rows_lost", rows.0, "rows");
        self.count(case, "rows_stuck", rows.1, "rows");
        Ok(())
    }

    /// Many live connections: what they take, how long a dump of them takes, and how long it takes to learn that all are gone.
    pub(super) fn live(&mut self) -> Result<()> {
        let case = "live";
        let mut lab = self
            .stand
            .system(|options| options.nuauth("limits.dump-interval", "1s"))?;
        let before = (lab.agent.rss()?, lab.server.rss()?);
        let mut held = self.stand.hold(self.size.live)?;
        established(&lab, &held.ports, held.report.connected)?;
        let live = u64::from(held.report.connected);
        self.count(case, "live_connections", live, "connections");
        for (process, rss, before) in [
            ("nufw-agent", lab.agent.rss()?, before.0),
            ("nuauth-server", lab.server.rss()?, before.1),
        ] {
            let each = ratio(rss.saturating_sub(before), live);
            let figure = super::Figure::new(
                case,
                "bytes_per_live_connection",
                super::Rate::Full,
                each,
                "bytes",
            );
            self.figures.add(figure.of(process));
        }
        self.dump(&lab, case)?;
        // While nobody looks they all vanish; the next agent's first dump tells.
        lab.agent.kill()?;
        held.release()?;
        self.stand.drain()?;
        let began = now();
        lab.start_agent()?;
        let of = of_ports(&held.ports);
        let gone = || Ok(count(&lab, &format!("state in (1, 2) and {of}"))? == 0);
        wait_for("every vanished connection to be closed", LONG, gone)?;
        self.add(case, "reconcile_seconds", began.elapsed().as_secs_f64(), "s");
        Ok(())
    }

    /// The time of one dump that the server asks for, to a quarter of a second.
    fn dump(&mut self, lab: &Lab, case: &'static str) -> Result<()> {
        let dumps = |stand: &super::Stand| -> Result<(u64, u64)> {
            let agent = stand.agent()?;
            Ok((
                number(&agent, "nufw_agent_dumps_total", &[]),
                number(&agent, "nufw_agent_dump_running", &[]),
            ))
        };
        let (made, _) = dumps(&self.stand)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let socket = lab.dir().join("nuauth.sock");
        runtime.block_on(async {
            let mut client = Client::connect(&socket).await?;
            client.verify(vec!["gw1".to_owned()]).await
        })?;
        // The server waits until its interval is over; the agent tells four times a second how far it is.
        wait_for("the dump to begin", LONG, || Ok(dumps(&self.stand)?.0 > made))?;
        let began = now();
        wait_for("the dump to end", LONG, || Ok(dumps(&self.stand)?.1 == 0))?;
        self.add(case, "dump_seconds", began.elapsed().as_secs_f64(), "s");
        Ok(())
    }
}

pub(super) fn of_ports(ports: &Range<u16>) -> String {
    format!("tcp_sport >= {} and tcp_sport < {}", ports.start, ports.end)
}

fn established(lab: &Lab, ports: &Range<u16>, expected: u32) -> Result<()> {
    let of = of_ports(ports);
    wait_for("the held connections to be established", LONG, || {
        Ok(count(lab, &format!("state = 2 and {of}"))? >= u64::from(expected))
    })
}

/// Rows that are missing, and rows that are not closed.
pub(super) fn missing(lab: &Lab, case: &str, report: &LoadReport, ports: &Range<u16>) -> Result<(u64, u64)> {
    anyhow::ensure!(report.connected > 0, "{case}: no connection came about");
    let (accepted, stuck) = settle(lab, ports)?;
    Ok((u64::from(report.connected).saturating_sub(accepted), stuck))
}
