//! The hosts of the measurements, the services behind the gateway and the load that goes to them.
//!
//! One network for all cases, emptied between them; no tuple is used twice.

use super::super::{HOLD_PORT, IN_FLIGHT, LOAD_PORT, OTHER_DESCRIPTORS, SINK_KEEPS, SOURCES, drain, own};
use crate::command::{binary, checked};
use crate::daemons::Lab;
use crate::load::LoadReport;
use crate::net::{Net, addr};
use crate::options::Options;
use crate::process::Proc;
use crate::wait::wait_for;
use crate::watching::scrape;
use anyhow::{Context, Result};
use nufw_common::observe::Scrape;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the daemons tell of themselves.
const AGENT_METRICS: u16 = 9641;
const SERVER_METRICS: u16 = 9642;
/// Tuples begin anew above this source port.
const LAST_PORT: u32 = 60_000;
/// How long the log may take to close its rows once the table is empty.
const SETTLE: Duration = Duration::from_mins(1);

pub(super) struct Stand {
    pub(super) net: Net,
    pub(super) dir: tempfile::TempDir,
    /// Live connections that the descriptors of one process allow.
    each: u32,
    port: u16,
    _sinks: Vec<Proc>,
}

/// Connections that stay until they are let go. Several processes hold them, since descriptors are counted for each.
pub(super) struct Held {
    children: Vec<Child>,
    pub(super) report: LoadReport,
    pub(super) ports: Range<u16>,
}

impl Held {
    /// Lets all of them go.
    pub(super) fn release(&mut self) -> Result<()> {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            child.wait()?;
        }
        Ok(())
    }
}

impl Stand {
    pub(super) fn new(live: u32) -> Result<Self> {
        let net = Net::new(SOURCES)?;
        // Spoofed sources have no way back.
        for device in ["all", "lan"] {
            net.gateway
                .sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), 0)?;
        }
        let dir = tempfile::Builder::new().prefix("nufw-bench-").tempdir()?;
        crate::cleanup::remove_on_signal(dir.path());
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX);
        let each = live.min(u32::try_from(limit.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(u32::MAX));
        let sink = |name: &str, port: u16, keep: &str| {
            let args = ["sink", "--port", &port.to_string(), "--keep", keep];
            own(name, &net.server, dir.path(), &args)
        };
        let mut sinks = vec![sink("sink-load", LOAD_PORT, SINK_KEEPS)?];
        for part in 0..parts(live, each)? {
            sinks.push(sink(
                &format!("sink-hold-{part}"),
                HOLD_PORT + part,
                &each.to_string(),
            )?);
        }
        Ok(Self {
            net,
            dir,
            each,
            port: 1024,
            _sinks: sinks,
        })
    }

    /// Empties the gateway and starts the whole system on it.
    pub(super) fn system(&self, change: impl FnOnce(Options) -> Options) -> Result<Lab> {
        let mut lab = self.prepared(change)?;
        lab.start_all()
            .map_err(|error| anyhow::anyhow!("{error:#}\n{}", lab.tails()))?;
        Ok(lab)
    }

    /// Empties the gateway and prepares the whole system on it, not started.
    pub(super) fn prepared(&self, change: impl FnOnce(Options) -> Options) -> Result<Lab> {
        self.net.reset()?;
        let mut options = Options::default()
            .agent("metrics.listen", format!("127.0.0.1:{AGENT_METRICS}"))
            .nuauth("metrics.listen", format!("127.0.0.1:{SERVER_METRICS}"));
        options.client_addresses = SOURCES;
        options.start = false;
        "info".clone_into(&mut options.log_level);
        Lab::on(self.net.clone(), change(options))
    }

    /// A gateway that forwards and tracks, without us.
    pub(super) fn forward(&self) -> Result<()> {
        self.net.reset()?;
        self.net
            .iptables("-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j ACCEPT")
    }

    pub(super) fn agent(&self) -> Result<Scrape> {
        scrape(&self.net.gateway, AGENT_METRICS)
    }

    pub(super) fn server(&self) -> Result<Scrape> {
        scrape(&self.net.gateway, SERVER_METRICS)
    }

    /// Connections at full rate.
    pub(super) fn full(&mut self, count: u32) -> Result<(LoadReport, Range<u16>)> {
        self.load(count, SOURCES, &["--in-flight", IN_FLIGHT])
    }

    /// Connections from the first of the addresses, with more arguments of the generator.
    pub(super) fn load(
        &mut self,
        count: u32,
        sources: u8,
        args: &[&str],
    ) -> Result<(LoadReport, Range<u16>)> {
        let (mut command, ports) = self.load_command(LOAD_PORT, count, sources)?;
        let text = checked(command.args(args))?;
        let report = serde_json::from_str(&text).context("the load generator gave no report")?;
        Ok((report, ports))
    }

    /// Connections that stay until they are released.
    pub(super) fn hold(&mut self, count: u32) -> Result<Held> {
        let parts = parts(count, self.each)?;
        let used = u16::try_from(self.each.div_ceil(u32::from(SOURCES)))?;
        if u32::from(self.port) + u32::from(used) * u32::from(parts) > LAST_PORT {
            self.port = 1024;
        }
        let first = self.port;
        let mut children = Vec::new();
        let mut sum: Option<LoadReport> = None;
        for part in 0..parts {
            let rest = count - self.each * u32::from(part);
            let (mut command, _) = self.load_command(HOLD_PORT + part, rest.min(self.each), SOURCES)?;
            let mut child = command
                .args(["--in-flight", "64", "--hold"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
            children.push(child);
            let report: LoadReport =
                serde_json::from_str(&line).context("the load generator gave no report")?;
            match &mut sum {
                Some(sum) => sum.connected += report.connected,
                None => sum = Some(report),
            }
        }
        Ok(Held {
            children,
            report: sum.context("nothing was to be held")?,
            ports: first..self.port,
        })
    }

    pub(super) fn load_command(
        &mut self,
        port: u16,
        count: u32,
        sources: u8,
    ) -> Result<(Command, Range<u16>)> {
        let used = u16::try_from(count.div_ceil(u32::from(sources)))?;
        if self
            .port
            .checked_add(used)
            .is_none_or(|end| u32::from(end) > LAST_PORT)
        {
            // Tuples of long ago are free again.
            self.port = 1024;
        }
        let ports = self.port..self.port + used;
        self.port = ports.end;
        let mut command = self.net.client.command(binary("nufw-lab")?);
        command.args(["load", "--target", &format!("{}:{port}", addr::SERVER4)]);
        command.args([
            "--first-port",
            &ports.start.to_string(),
            "--count",
            &count.to_string(),
        ]);
        for index in 0..sources {
            command.args(["--source", &addr::client4(index).to_string()]);
        }
        Ok((command, ports))
    }

    /// Waits until the kernel tracks no connection of the load.
    pub(super) fn drain(&self) -> Result<()> {
        drain(&self.net)
    }
}

/// Processes that hold so many connections.
fn parts(count: u32, each: u32) -> Result<u16> {
    Ok(u16::try_from(count.div_ceil(each.max(1)))?)
}

/// Rows of accepted connections with these ports, and how many of them are not closed when the table has long been empty.
pub(super) fn settle(lab: &Lab, ports: &Range<u16>) -> Result<(u64, u64)> {
    let of = format!("tcp_sport >= {} and tcp_sport < {}", ports.start, ports.end);
    let stuck = || count(lab, &format!("state in (1, 2) and {of}"));
    // What is stuck after the time is the figure.
    wait_for("every row to be closed", SETTLE, || Ok(stuck()? == 0)).ok();
    Ok((count(lab, &format!("state > 0 and {of}"))?, stuck()?))
}

/// Rows that fulfil a condition.
pub(super) fn count(lab: &Lab, condition: &str) -> Result<u64> {
    let sql = format!("select count(*) from conntrack_ulog where {condition}");
    Ok(lab.count(&sql)?.unsigned_abs())
}

/// What a scrape says of a counter, as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole, not negative and far below 2^53"
)]
pub(super) fn number(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> u64 {
    scrape.sum(name, labels) as u64
}

/// Events read so far, and messages of events that found no room.
pub(super) fn events(scrape: &Scrape) -> (u64, u64) {
    (
        number(scrape, "nufw_agent_events_total", &[]),
        number(
            scrape,
            "nufw_agent_receive_buffer_drops_total",
            &[("socket", "events")],
        ),
    )
}
