//! The measurements: forward, accept-everything and the full path on the same hosts in one run.
//!
//! Figures only, never a judgement: the machine is noisy, so ratios within one run are what counts.

mod client;
mod figures;
mod gateway;
mod log;
mod policy;
mod system;

pub use client::bench_client;
pub use gateway::bench_gateway;
pub use log::bench_log;
pub use policy::bench_policy;

use crate::command::{binary, checked};
use crate::load::LoadReport;
use crate::net::{Net, addr};
use crate::netns::NetNs;
use crate::process::{Proc, Spec};
use crate::wait::{now, wait_for};
use anyhow::{Context, Result};
use figures::{Figure, Figures, Rate};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Duration;
use system::{Case, System};

/// Source addresses of the load.
const SOURCES: u8 = 16;
/// Connections being opened at the same time at full rate.
const IN_FLIGHT: &str = "256";
/// Port of the service that load goes to.
const LOAD_PORT: u16 = 8000;
/// Port of the service that keeps its connections.
const HOLD_PORT: u16 = 8001;
/// Reset connections that the sink keeps before it closes the oldest.
const SINK_KEEPS: &str = "4096";
/// How long the conntrack table may take to empty.
const DRAIN: Duration = Duration::from_mins(2);
/// How long the log may take to close its rows once the table is empty.
const SETTLE: Duration = Duration::from_secs(20);
/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// How to measure.
#[derive(Debug, Clone, Default)]
pub struct BenchOptions {
    /// One object a line instead of a table.
    pub json: bool,
    /// A smoke run: small and once.
    pub quick: bool,
    /// Only what has this in its name, such as `mariadb` or `restart`.
    pub only: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    repeats: u32,
    full: u32,
    seconds: u32,
    hold: u32,
}

/// Says how far a long measurement is; figures alone go to standard output.
fn say(what: std::fmt::Arguments<'_>) {
    // Nothing can be done about a stderr that is closed.
    writeln!(std::io::stderr(), "nufw-lab: {what}").ok();
}

/// Measures everything and writes the figures.
pub fn bench(options: &BenchOptions, out: &mut impl Write) -> Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let hold_limit = u32::try_from(limit.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(u32::MAX);
    let size = if options.quick {
        Size {
            repeats: 1,
            full: 2_000,
            seconds: 1,
            hold: 500,
        }
    } else {
        Size {
            repeats: 3,
            full: 20_000,
            seconds: 5,
            hold: 20_000.min(hold_limit),
        }
    };
    let mut bench = Bench::new(size)?;
    for repeat in 0..size.repeats {
        for case in Case::ALL {
            bench
                .case(case, repeat == 0)
                .with_context(|| format!("case {}", case.name()))?;
        }
    }
    if options.json {
        bench.figures.write_json(out)
    } else {
        bench.figures.write_table(out)
    }
}

struct Bench {
    net: Net,
    size: Size,
    figures: Figures,
    /// First source port of the next run: no tuple is used twice.
    port: u16,
    _dir: tempfile::TempDir,
    _sinks: [Proc; 2],
}

impl Bench {
    fn new(size: Size) -> Result<Self> {
        let net = Net::new(SOURCES)?;
        let dir = tempfile::tempdir()?;
        crate::cleanup::remove_on_signal(dir.path());
        let hold = size.hold.to_string();
        let sink = |port: u16, keep: &str| -> Result<Proc> {
            let spec = Spec::new(
                &format!("sink-{port}"),
                &net.server,
                binary("nufw-lab")?,
                dir.path(),
            );
            let mut sink = spec
                .args(["sink", "--port", &port.to_string(), "--keep", keep])
                .start()?;
            sink.wait_log("ready")?;
            Ok(sink)
        };
        let sinks = [sink(LOAD_PORT, SINK_KEEPS)?, sink(HOLD_PORT, &hold)?];
        Ok(Self {
            net,
            size,
            figures: Figures::new("path"),
            port: 1024,
            _dir: dir,
            _sinks: sinks,
        })
    }

    fn case(&mut self, case: Case, first: bool) -> Result<()> {
        self.net.reset()?;
        let mut system = System::start(case, &self.net)?;
        let warm_up = self.size.full / 20;
        self.load(&["--count", &warm_up.to_string(), "--in-flight", "16"])?;
        self.drain()?;
        if first {
            if case == Case::FullSqlite {
                self.memory(&system)?;
            }
            for rate in [100, 1000] {
                let count = (rate * self.size.seconds).to_string();
                self.measured(
                    &system,
                    Rate::PerSecond(rate),
                    &["--count", &count, "--rate", &rate.to_string()],
                )?;
            }
        }
        let count = self.size.full.to_string();
        self.measured(
            &system,
            Rate::Full,
            &["--count", &count, "--in-flight", IN_FLIGHT],
        )?;
        system.stop()
    }

    /// One run, from the first connection until the last row is closed.
    fn measured(&mut self, system: &System, rate: Rate, args: &[&str]) -> Result<()> {
        let (case, first_port) = (system.case().name(), self.port);
        let before = system.cpu_us()?;
        let report = self.load(args)?;
        self.drain()?;
        let ports = first_port..self.port;
        let rows = system.settle(&ports, SETTLE)?;
        let mut add = |metric, value, unit| self.figures.add(Figure::new(case, metric, rate, value, unit));
        add("connections_per_second", report.connections_per_second, "1/s");
        add("connect_p50_ms", millis(report.p50_us), "ms");
        add("connect_p99_ms", millis(report.p99_us), "ms");
        let failures = report.refused + report.timed_out + report.failed;
        add("connect_failures", f64::from(failures), "connections");
        for ((process, used), (_, at_start)) in system.cpu_us()?.into_iter().zip(before) {
            let each = ratio(used.saturating_sub(at_start), u64::from(report.connected));
            let figure = Figure::new(case, "cpu_us_per_connection", rate, each, "us");
            self.figures.add(figure.of(process));
        }
        if let Some(rows) = rows {
            let lost = u64::from(report.connected).saturating_sub(rows.accepted);
            self.figures
                .add(Figure::new(case, "rows_lost", rate, ratio(lost, 1), "rows"));
            self.figures.add(Figure::new(
                case,
                "rows_stuck",
                rate,
                ratio(rows.stuck, 1),
                "rows",
            ));
        }
        Ok(())
    }

    fn load(&mut self, args: &[&str]) -> Result<LoadReport> {
        let text = checked(self.load_command(LOAD_PORT)?.args(args))?;
        let report: LoadReport = serde_json::from_str(&text).context("the load generator gave no report")?;
        self.advance(report.connected + report.refused + report.timed_out + report.failed)?;
        Ok(report)
    }

    fn advance(&mut self, connections: u32) -> Result<()> {
        let used = u16::try_from(connections.div_ceil(u32::from(SOURCES)))?;
        // Tuples of long ago are free again.
        self.port = self
            .port
            .checked_add(used)
            .filter(|port| *port < 55_000)
            .unwrap_or(1024);
        Ok(())
    }

    fn load_command(&self, port: u16) -> Result<std::process::Command> {
        let mut command = self.net.client.command(binary("nufw-lab")?);
        command.args(["load", "--target", &format!("{}:{port}", addr::SERVER4)]);
        command.args(["--first-port", &self.port.to_string()]);
        for index in 0..SOURCES {
            command.args(["--source", &addr::client4(index).to_string()]);
        }
        Ok(command)
    }

    /// Waits until the gateway tracks no connection of the load.
    fn drain(&self) -> Result<()> {
        drain(&self.net)
    }

    /// Growth of the server's memory with live connections: of the later ones, when its buffers have their size.
    fn memory(&mut self, system: &System) -> Result<()> {
        let first = self.hold(system, self.size.hold / 5)?;
        let before = system.server_rss()?;
        let second = self.hold(system, self.size.hold - self.size.hold / 5)?;
        let grown = system.server_rss()?.saturating_sub(before);
        let held = second.established;
        first.release()?;
        second.release()?;
        self.drain()?;
        let each = ratio(grown, held);
        let figure = Figure::new(
            system.case().name(),
            "bytes_per_live_connection",
            Rate::Full,
            each,
            "bytes",
        );
        self.figures.add(figure);
        Ok(())
    }

    /// Opens connections that stay, and waits until they are established in the log.
    fn hold(&mut self, system: &System, count: u32) -> Result<Held> {
        let ports = self.port..self.port + u16::try_from(count.div_ceil(u32::from(SOURCES)))?;
        let mut child = self
            .load_command(HOLD_PORT)?
            .args(["--count", &count.to_string(), "--in-flight", "64", "--hold"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let report: LoadReport = serde_json::from_str(&line).context("the load generator gave no report")?;
        self.advance(count)?;
        let established = system.wait_established(&ports, u64::from(report.connected))?;
        Ok(Held { child, established })
    }
}

/// Connections that a load generator holds open until its stdin ends.
struct Held {
    child: Child,
    established: u64,
}

impl Held {
    fn release(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

fn drain(net: &Net) -> Result<()> {
    // Those of the load, and those behind them where connections are held.
    let ports: Vec<_> = (LOAD_PORT..LOAD_PORT + 10)
        .map(|port| format!("dport={port} "))
        .collect();
    let mut not_before = now();
    wait_for("the conntrack table to empty", DRAIN, || {
        if now() < not_before {
            return Ok(false);
        }
        not_before = now() + Duration::from_millis(300);
        Ok(!net
            .conntrack()?
            .iter()
            .any(|line| ports.iter().any(|port| line.contains(port))))
    })
}

fn millis(micros: u64) -> f64 {
    ratio(micros, 1000)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people: far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// A process of the lab's own program on a host.
fn own(name: &str, ns: &NetNs, dir: &std::path::Path, args: &[&str]) -> Result<Proc> {
    let mut process = Spec::new(name, ns, binary("nufw-lab")?, dir)
        .args(args.iter().copied())
        .start()?;
    process.wait_log("ready")?;
    Ok(process)
}
