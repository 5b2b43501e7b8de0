//! The access lists: which user may open which connection.
//!
//! Pure: the first rule that matches decides, and no rule means drop. Who the user is was settled before.

mod read;

use crate::engine::{Decision, Identity, Judge, LogMode, Ruling};
use crate::users::Users;
use ipnet::IpNet;
use nufw_common::config::ConfigError;
use nufw_proto::{Transport, Tuple};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// The name of the rule that drops what no other rule decides.
pub const DEFAULT_RULE: &str = "default";

/// The access lists, in order.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Ruling,
}

/// One rule. An empty list matches everything.
#[derive(Debug, Clone)]
pub struct Rule {
    users: Vec<Arc<str>>,
    groups: Vec<Arc<str>>,
    protocol: Option<u8>,
    source: Vec<IpNet>,
    destination: Vec<IpNet>,
    source_ports: Vec<RangeInclusive<u16>>,
    ports: Vec<RangeInclusive<u16>>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    ruling: Ruling,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Who opens the connection.
    pub user: &'a Identity,
    /// The connection, as the packet shows it.
    pub tuple: &'a Tuple,
}

/// Lists that were read, and what is odd about them without being wrong.
#[derive(Debug, Clone)]
pub struct ReadPolicy {
    /// The lists.
    pub policy: Policy,
    /// Sentences with file and line.
    pub notes: Vec<String>,
}

impl Policy {
    /// Reads the file. A rule for a user that does not exist is refused where `all_known`, that is where the users file names
    /// every user; else it is noted, as one for a group that nobody is in.
    pub fn load(path: &Path, users: &Users, all_known: bool) -> Result<ReadPolicy, ConfigError> {
        read::load(path, users, all_known)
    }

    /// Lists that drop everything: what stands in where no policy can be trusted.
    pub fn deny_all() -> Self {
        Self::new(Vec::new())
    }

    fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            default: Ruling {
                decision: Decision::Drop,
                rule: DEFAULT_RULE.into(),
                prefix: DEFAULT_RULE.into(),
                log: LogMode::Default,
                expires: None,
            },
        }
    }

    /// What no rule decides is rejected: its sender is told.
    #[must_use]
    pub fn rejecting(mut self, rejects: bool) -> Self {
        if rejects {
            self.default.decision = Decision::Reject;
        }
        self
    }

    /// Decides. The first rule that matches counts.
    pub fn decide(&self, subject: &Subject<'_>) -> &Ruling {
        self.rules
            .iter()
            .find(|rule| rule.matches(subject))
            .map_or(&self.default, |rule| &rule.ruling)
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl Judge for Policy {
    fn judge(&self, user: &Identity, tuple: &Tuple) -> Ruling {
        self.decide(&Subject { user, tuple }).clone()
    }
}

impl Rule {
    /// What the rule decides, under which name.
    pub fn ruling(&self) -> &Ruling {
        &self.ruling
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        let tuple = subject.tuple;
        self.matches_transport(tuple.transport())
            && any_or_empty(&self.destination, |net| net.contains(&tuple.dst().ip()))
            && any_or_empty(&self.source, |net| net.contains(&tuple.src().ip()))
            && self.matches_user(subject.user)
    }

    /// A rule for users and groups matches each of either.
    fn matches_user(&self, user: &Identity) -> bool {
        (self.users.is_empty() && self.groups.is_empty())
            || self.users.contains(&user.user.name)
            || self.groups.iter().any(|group| user.groups.contains(group))
    }

    fn matches_transport(&self, transport: Transport) -> bool {
        if self.protocol.is_some_and(|wanted| wanted != transport.protocol()) {
            return false;
        }
        // A call's identifier is no port: whoever makes the call chooses it.
        let ports = transport
            .ports()
            .filter(|_| !matches!(transport, Transport::Gre(_)));
        let icmp = transport.icmp();
        any_or_empty(&self.ports, |range| ports.is_some_and(|p| range.contains(&p.dst)))
            && any_or_empty(&self.source_ports, |range| {
                ports.is_some_and(|p| range.contains(&p.src))
            })
            && self
                .icmp_type
                .is_none_or(|kind| icmp.is_some_and(|key| key.kind == kind))
            && self
                .icmp_code
                .is_none_or(|code| icmp.is_some_and(|key| key.code == code))
    }
}

fn any_or_empty<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

/// The word for a decision, as the file has it.
pub fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Accept => "accept",
        Decision::Drop => "drop",
        Decision::Reject => "reject",
    }
}

/// The word for a protocol, as the file has it.
fn protocol_word(number: u8) -> String {
    read::PROTOCOLS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

impl std::fmt::Display for Rule {
    /// What the rule matches, for people: `users alice groups staff tcp to 10.0.0.0/8 ports 80,8000-8080`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |items: Vec<String>| items.join(",");
        let nets = |nets: &[IpNet]| join(nets.iter().map(ToString::to_string).collect());
        let names = |names: &[Arc<str>]| join(names.iter().map(ToString::to_string).collect());
        let ports = |ports: &[RangeInclusive<u16>]| join(ports.iter().map(show_range).collect());
        let mut words: Vec<String> = Vec::new();
        let mut part = |label: &str, text: String| {
            if !text.is_empty() {
                words.push(format!("{label}{text}"));
            }
        };
        part("users ", names(&self.users));
        part("groups ", names(&self.groups));
        part("", self.protocol.map(protocol_word).unwrap_or_default());
        part("type ", self.icmp_type.map(|t| t.to_string()).unwrap_or_default());
        part("code ", self.icmp_code.map(|c| c.to_string()).unwrap_or_default());
        part("from ", nets(&self.source));
        part("source-ports ", ports(&self.source_ports));
        part("to ", nets(&self.destination));
        part("ports ", ports(&self.ports));
        if words.is_empty() {
            f.write_str("everything")
        } else {
            f.write_str(&words.join(" "))
        }
    }
}

fn show_range(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}

/// Whether a network is of the same family as an address of that kind.
fn is_ipv4(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V4(_))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
