//! Two SYN floods at half of what the lab carries, while users work: from addresses where nobody is logged in, and from the
//! address of a user.
//!
//! The limit is measured first: how many of such packets a second the gateway forwards without us.

use super::super::{SOURCES, millis, ratio};
use super::Gateway;
use super::stand::{count, number, settle};
use crate::command::binary;
use crate::flood::FloodReport;
use crate::net::addr;
use anyhow::{Context, Result};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Where nobody is logged in: the first of 512 addresses.
const STRANGERS: (&str, &str) = ("10.83.0.0", "512");
/// The port that the flood is for; the lab's policy would let it pass.
const PORT: u16 = 8500;
/// A connection of a user that takes longer counts as a failure.
const PATIENCE_MS: &str = "1000";

impl Gateway {
    pub(super) fn floods(&mut self) -> Result<()> {
        let limit = self.limit().context("case flood-limit")?;
        self.count("flood-limit", "packets_per_second", limit, "1/s");
        let half = u32::try_from(limit / 2)?.max(1);
        // The last of the user's addresses floods, the others work.
        let known = addr::client4(SOURCES - 1).to_string();
        self.flooded("flood-strangers", STRANGERS.0, STRANGERS.1, half)
            .context("case flood-strangers")?;
        self.flooded("flood-known-user", &known, "1", half)
            .context("case flood-known-user")
    }

    /// First packets a second that the gateway forwards when it only tracks.
    fn limit(&mut self) -> Result<u64> {
        self.stand.forward()?;
        // The table would be full of them.
        let target = addr::SERVER4;
        self.stand
            .net
            .iptables(&format!("-A FORWARD -p tcp -d {target} --dport {PORT} -j ACCEPT"))?;
        let time = self.size.flood.min(Duration::from_secs(5));
        let report = finish(self.flooder(STRANGERS.0, STRANGERS.1, None, time)?)?;
        self.stand.net.reset()?;
        Ok(rounded(
            ratio(report.sent, 1) / report.seconds.max(f64::MIN_POSITIVE),
        ))
    }

    fn flooder(&self, source: &str, sources: &str, rate: Option<u32>, time: Duration) -> Result<Child> {
        let mut command = self.stand.net.client.command(binary("nufw-lab")?);
        command.args(["flood", "--target", &format!("{}:{PORT}", addr::SERVER4)]);
        command.args(["--source", source, "--sources", sources]);
        command.args(["--milliseconds", &time.as_millis().to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        Ok(command.stdout(Stdio::piped()).spawn()?)
    }

    fn flooded(&mut self, case: &'static str, source: &str, sources: &str, rate: u32) -> Result<()> {
        let lab = self.stand.system(|options| options)?;
        let rss = lab.agent.rss()?;
        let flooder = self.flooder(source, sources, Some(rate), self.size.flood)?;
        let work = self.size.work * u32::try_from(self.size.flood.as_secs())?;
        let pace = self.size.work.to_string();
        let args = ["--rate", &pace, "--timeout-ms", PATIENCE_MS];
        let (report, ports) = self.stand.load(work, SOURCES - 1, &args)?;
        let sent = finish(flooder)?;
        let grown = lab.agent.rss()?.saturating_sub(rss);
        let (agent, server) = (self.stand.agent()?, self.stand.server()?);
        self.stand.drain()?;
        let (accepted, stuck) = settle(&lab, &ports)?;
        let connected = u64::from(report.connected);
        self.count(case, "flood_packets", sent.sent, "packets");
        self.add(
            case,
            "known_user_success_ratio",
            ratio(connected, u64::from(work)),
            "ratio",
        );
        self.add(case, "connect_p99_ms", millis(report.p99_us), "ms");
        self.count(case, "agent_grown_bytes", grown, "bytes");
        self.count(case, "drop_rows", count(&lab, "state = 0")?, "rows");
        let aggregated = number(
            &server,
            "nuauth_drops_without_row_total",
            &[("cause", "aggregated")],
        );
        self.count(case, "drops_aggregated", aggregated, "packets");
        let at_gateway = number(
            &agent,
            "nufw_agent_verdicts_total",
            &[("reason", "unknown-source")],
        );
        self.count(case, "dropped_at_gateway", at_gateway, "packets");
        let unseen = number(&agent, "nufw_agent_queue_dropped_total", &[]);
        self.count(case, "dropped_by_kernel", unseen, "packets");
        self.count(case, "rows_lost", connected.saturating_sub(accepted), "rows");
        self.count(case, "rows_stuck", stuck, "rows");
        Ok(())
    }
}

fn finish(flooder: Child) -> Result<FloodReport> {
    let output = flooder.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "the flood ended: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the flood gave no report")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "packets a second: not negative and far below 2^53"
)]
fn rounded(rate: f64) -> u64 {
    rate as u64
}
