//! What stands on the gateway in each case.
//!
//! The accept-everything loop stands behind the very rules that the agent prints.

use super::{SOURCES, own};
use crate::daemons::Lab;
use crate::net::Net;
use crate::options::Options;
use crate::process::Proc;
use crate::wait::wait_for;
use anyhow::{Context, Result};
use std::ops::Range;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Forward,
    AcceptAll,
    FullSqlite,
}

impl Case {
    pub(super) const ALL: [Self; 3] = [Self::Forward, Self::AcceptAll, Self::FullSqlite];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::AcceptAll => "accept-all",
            Self::FullSqlite => "full-sqlite",
        }
    }
}

/// Rows of one run.
pub(super) struct RunRows {
    pub(super) accepted: u64,
    pub(super) stuck: u64,
}

pub(super) struct System {
    case: Case,
    lab: Option<Lab>,
    accept_all: Option<Proc>,
}

impl System {
    pub(super) fn start(case: Case, net: &Net) -> Result<Self> {
        let mut options = Options::default();
        options.client_addresses = SOURCES;
        "info".clone_into(&mut options.log_level);
        options.start = case == Case::FullSqlite;
        let mut lab = None;
        let mut accept_all = None;
        match case {
            Case::Forward => {
                net.iptables("-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")?;
                net.iptables("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT")?;
            }
            Case::AcceptAll => {
                let prepared = Lab::on(net.clone(), options)?;
                prepared.apply_rules(&[])?;
                let args = ["accept-all", "--queue", "0", "--mark", "1001"];
                accept_all = Some(own("accept-all", &net.gateway, prepared.dir(), &args)?);
                lab = Some(prepared);
            }
            Case::FullSqlite => lab = Some(Lab::on(net.clone(), options)?),
        }
        Ok(Self {
            case,
            lab,
            accept_all,
        })
    }

    fn lab(&self) -> Result<&Lab> {
        self.lab.as_ref().context("nothing runs in this case")
    }

    pub(super) fn case(&self) -> Case {
        self.case
    }

    /// Processor time of each process of the case so far.
    pub(super) fn cpu_us(&self) -> Result<Vec<(&'static str, u64)>> {
        match self.case {
            Case::Forward => Ok(Vec::new()),
            Case::AcceptAll => {
                let process = self
                    .accept_all
                    .as_ref()
                    .context("the accept-all loop does not run")?;
                Ok(vec![("accept-all", process.cpu_us()?)])
            }
            Case::FullSqlite => {
                let lab = self.lab()?;
                let client = lab.clients.values().next().context("no client runs")?;
                Ok(vec![
                    ("nuauth-server", lab.server.cpu_us()?),
                    ("nufw-agent", lab.agent.cpu_us()?),
                    ("nutcpc", client.cpu_us()?),
                ])
            }
        }
    }

    pub(super) fn server_rss(&self) -> Result<u64> {
        self.lab()?.server.rss()
    }

    /// Waits until the rows of a run are closed or the time is over, and counts them; `None` where nothing is logged.
    pub(super) fn settle(&self, ports: &Range<u16>, within: Duration) -> Result<Option<RunRows>> {
        if self.case != Case::FullSqlite {
            return Ok(None);
        }
        let stuck = || self.count(&format!("state in (1, 2) and {}", of_ports(ports)));
        // What is stuck after the time is the figure.
        wait_for("every row to be closed", within, || Ok(stuck()? == 0)).ok();
        Ok(Some(RunRows {
            accepted: self.count(&format!("state > 0 and {}", of_ports(ports)))?,
            stuck: stuck()?,
        }))
    }

    pub(super) fn wait_established(&self, ports: &Range<u16>, expected: u64) -> Result<u64> {
        let live = || self.count(&format!("state = 2 and {}", of_ports(ports)));
        wait_for(
            "the held connections to be established",
            Duration::from_mins(1),
            || Ok(live()? >= expected),
        )?;
        live()
    }

    fn count(&self, condition: &str) -> Result<u64> {
        let sql = format!("select count(*) from conntrack_ulog where {condition}");
        Ok(self.lab()?.count(&sql)?.unsigned_abs())
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        let Some(lab) = &mut self.lab else { return Ok(()) };
        for client in lab.clients.values_mut() {
            client.kill()?;
        }
        lab.agent.kill()?;
        lab.server.kill()
    }
}

fn of_ports(ports: &Range<u16>) -> String {
    format!("tcp_sport >= {} and tcp_sport < {}", ports.start, ports.end)
}
