//! `nufw-agent check`: what the agent needs of its host, whether it is there, and how to mend what is not.
//!
//! [`collect`] looks, [`judge`] decides, [`write()`] tells; only the first touches the host, and it changes nothing.

mod chains;
mod collect;
mod escapes;
mod judge;
mod ruleset;
mod whole;

pub use collect::{collect, lend_net_admin};
pub use judge::judge;
pub use ruleset::{RuleFacts, scan_iptables, scan_nft};
pub use whole::Listings;

use crate::loss::Choices;
use crate::queue::Holder;
use crate::rules::RulesOptions;
use nufw_common::exit::Exit;
use nufw_common::sandbox::Mode;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// What of the agent's configuration matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfigView {
    /// `queue.number`.
    pub queue: u16,
    /// The rules that the configuration asks for; `None` where a server's name cannot be resolved.
    pub rules: Option<RulesOptions>,
    /// `queue.receive-buffer`, bytes.
    pub queue_buffer: usize,
    /// `conntrack.receive-buffer`, bytes.
    pub event_buffer: usize,
    /// `conntrack.relay`.
    pub relays_events: bool,
    /// The queue of `conntrack.track-by-flags`, if that is chosen.
    pub flags_queue: Option<u16>,
    /// `privileges.sandbox`.
    pub sandbox: Mode,
    /// `marks.set`.
    pub sets_marks: bool,
    /// `marks.mask`.
    pub mask: u32,
    /// `marks.reject-bit`; 0 drops instead.
    pub reject_bit: u32,
    /// `marks.kill-bit`; 0 deletes instead.
    pub kill_bit: u32,
    /// `marks.blind-bit`; 0 where nothing may pass unasked.
    pub blind_bit: u32,
    /// What becomes of packets that cannot be asked about.
    pub on_loss: Choices,
    /// The files of `[tls]`.
    pub files: Vec<TlsFile>,
}

/// A file of `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFile {
    /// Its key in the configuration, such as `tls.certificate`.
    pub key: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What must be in it.
    pub content: TlsContent,
}

/// What a file must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsContent {
    /// One or more certificates.
    Certificates,
    /// A private key that only its owner can read.
    Key,
    /// A certificate revocation list.
    RevocationList,
}

/// What was seen of the host. `None` is "could not be seen".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// `CAP_NET_ADMIN` is effective.
    pub net_admin: bool,
    /// Who reads the queue.
    pub queue_holder: Option<Holder>,
    /// `nf_conntrack_acct`.
    pub acct: Option<u32>,
    /// `nf_conntrack_timestamp`.
    pub timestamp: Option<u32>,
    /// `nf_conntrack_events`.
    pub events: Option<u32>,
    /// `nf_conntrack_tcp_loose`.
    pub tcp_loose: Option<u32>,
    /// Whether `SO_RCVBUFFORCE` works here.
    pub force_buffer: bool,
    /// `net.core.rmem_max`.
    pub rmem_max: Option<usize>,
    /// The rules for IPv4.
    pub rules_v4: Option<RuleFacts>,
    /// The rules for IPv6.
    pub rules_v6: Option<RuleFacts>,
    /// What both were read from.
    pub listings: Listings,
    /// Conntrack's helpers that are in use: what they follow brings other connections with it.
    pub helpers: Vec<String>,
    /// Who else listens to conntrack events.
    pub listeners: Vec<Holder>,
    /// What is wrong with each of [`AgentConfigView::files`], in their order.
    pub files: Vec<Option<String>>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The agent works, with less than it could.
    Warn,
    /// The agent cannot do its work.
    Missing,
}

/// One need and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is needed.
    pub need: String,
    /// Whether it is there.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// How to mend it: a command, or what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// The exit code that it leads to, if it is missing.
    #[serde(skip)]
    pub exit: Option<Exit>,
}

/// Looks at the host and tells what was found. The code is `None` when nothing is missing.
pub fn run(view: &AgentConfigView, json: bool, out: &mut dyn Write) -> io::Result<Option<Exit>> {
    let findings = judge(view, &collect(view));
    write(&findings, json, out)?;
    Ok(exit_code(&findings))
}

/// The code to end with: a missing permission hides what is behind it, so it comes first.
pub fn exit_code(findings: &[Finding]) -> Option<Exit> {
    [Exit::NoPerm, Exit::Unavailable, Exit::Config]
        .into_iter()
        .find(|exit| findings.iter().any(|finding| finding.exit == Some(*exit)))
}

/// Writes the findings as a table, or as one JSON object.
pub fn write(findings: &[Finding], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        #[derive(Serialize)]
        struct Report<'a> {
            ok: bool,
            findings: &'a [Finding],
        }
        let report = Report {
            ok: exit_code(findings).is_none(),
            findings,
        };
        serde_json::to_writer_pretty(&mut *out, &report)?;
        return writeln!(out);
    }
    let width = findings
        .iter()
        .map(|finding| finding.need.chars().count())
        .max()
        .unwrap_or(0);
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Missing => "MISSING",
        };
        writeln!(out, "{level:<8} {:<width$}  {}", finding.need, finding.found)?;
        if let Some(mend) = &finding.mend {
            writeln!(out, "{:<8} {:<width$}  -> {mend}", "", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
