//! How the server is at one moment, gathered for whoever watches it.
//!
//! Numbers and names of the configuration; no user and no address of traffic.

use super::reloads::ReloadState;
use crate::engine::Stats;
use crate::hooks::HookState;
use crate::journal::{LogStats, SpoolStatus};
use crate::port::PortState;
use nufw_common::clock;
use nufw_common::observe::{Report, process::Process};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How the server is.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// What the engine counts.
    pub stats: Stats,
    /// Gateways that may connect.
    pub configured: Vec<Arc<str>>,
    /// Gateways that are connected.
    pub linked: Vec<Arc<str>>,
    /// What the journal did, and what waits in it.
    pub log: LogStats,
    /// What the spool does.
    pub spool: SpoolStatus,
    /// Bytes that the spool may hold; none without one.
    pub spool_limit: Option<u64>,
    /// Whether gateways hold events back.
    pub backpressure: bool,
    /// The port of the gateways.
    pub gateway_port: PortState,
    /// The port of the clients.
    pub client_port: PortState,
    /// Accounting messages of RADIUS that were not taken.
    pub accounting: PortState,
    /// Where both listen.
    pub listening: Vec<SocketAddr>,
    /// What became of reloads.
    pub reloads: ReloadState,
    /// What became of hooks.
    pub hooks: HookState,
    /// The process.
    pub process: Process,
}

impl View {
    /// Every gateway that may connect or is connected, and whether it is.
    pub(super) fn gateways(&self) -> Vec<(String, u64)> {
        let mut names: Vec<&Arc<str>> = self.configured.iter().chain(&self.linked).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| (name.to_string(), u64::from(self.linked.contains(name))))
            .collect()
    }

    /// Whether the database takes rows.
    pub(super) fn database_up(&self) -> bool {
        !self.log.failing && (!self.spool.active || self.spool.draining)
    }

    /// How long the oldest change has waited in the spool.
    pub(super) fn spool_age(&self) -> Option<Duration> {
        let oldest = self.spool.oldest?;
        let micros = clock::wall().micros().saturating_sub(oldest.micros());
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or_default()))
    }

    /// Whether packets can be decided: ports, engine and log are at work.
    pub(super) fn ready(&self, report: Report) -> Report {
        let ports: Vec<_> = self.listening.iter().map(ToString::to_string).collect();
        let log = match (self.log.failing, self.spool.active) {
            (true, _) => "the log cannot be written: packets that need a row are dropped".to_owned(),
            (false, true) => format!(
                "the database is away or behind: {} changes wait in the spool",
                self.spool.rows
            ),
            (false, false) => "the database takes rows".to_owned(),
        };
        let linked = format!(
            "{} of {} gateways are connected",
            self.linked.len(),
            self.configured.len()
        );
        report
            .with(
                "ports",
                !ports.is_empty(),
                format!("listening on {}", ports.join(", ")),
            )
            .with("log", !self.log.failing, log)
            // A gateway that is away is its own trouble: others are served.
            .with("gateways", true, linked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(view: &View) -> Vec<(String, bool)> {
        let report = view.ready(Report::new());
        report
            .checks
            .into_iter()
            .map(|check| (check.name, check.ok))
            .collect()
    }

    #[test]
    fn a_server_that_spools_is_ready_and_one_that_cannot_write_is_not() {
        let mut view = View {
            listening: vec!["127.0.0.1:4128".parse().unwrap()],
            ..View::default()
        };
        assert!(view.ready(Report::new()).is_ok() && view.database_up());
        view.spool.active = true;
        assert!(view.ready(Report::new()).is_ok() && !view.database_up());
        view.spool.draining = true;
        assert!(view.database_up());
        view.log.failing = true;
        assert!(!view.database_up());
        assert!(checks(&view).contains(&("log".to_owned(), false)), "{view:?}");
    }

    #[test]
    fn a_gateway_that_is_linked_without_being_configured_any_more_is_told() {
        let view = View {
            configured: vec!["gw2".into()],
            linked: vec!["gw1".into()],
            ..View::default()
        };
        assert_eq!(view.gateways(), [("gw1".to_owned(), 1), ("gw2".to_owned(), 0)]);
    }
}
