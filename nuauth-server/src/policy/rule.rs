//! One rule: what it asks for, whether a packet has it, and if not, what is missing.
//!
//! Valid by its types; nothing here reads a file.

use super::pattern::Pattern;
use super::period::{Period, Within};
use super::sets::{Addresses, Ranges, port_words};
use crate::engine::{Decision, Quality, Ruling, Subject};
use nufw_proto::{Ports, Transport};
use std::fmt;
use std::sync::Arc;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Where it is written, as `policy.toml:12`.
    pub place: Arc<str>,
    /// Whose packets it is for.
    pub who: Who,
    /// At least so sure it must be who it is.
    pub quality: Option<Quality>,
    /// The protocol's number.
    pub protocol: Option<u8>,
    /// Where from.
    pub source: Listed<Addresses>,
    /// Where to.
    pub destination: Listed<Addresses>,
    /// From which ports.
    pub source_ports: Listed<Ranges<u16>>,
    /// To which ports.
    pub ports: Listed<Ranges<u16>>,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
    /// Paths of programs.
    pub programs: Vec<Pattern>,
    /// SHA-256 of programs.
    pub hashes: Vec<Hash>,
    /// Operating systems.
    pub os: Vec<Pattern>,
    /// Interfaces: in, out, and the bridge's ports in and out.
    pub devices: [Vec<Pattern>; 4],
    /// Names of gateways.
    pub gateways: Vec<Arc<str>>,
    /// When it holds.
    pub period: Option<Arc<Period>>,
    /// What it decides. Its end is that of the period, which only the time tells.
    pub ruling: Ruling,
}

/// The words for [`Rule::devices`], as the file has them.
pub const DEVICES: [&str; 4] = ["in", "out", "bridge-in", "bridge-out"];

/// Whose packets a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever is logged in.
    Authenticated,
    /// Addresses at which nobody is logged in.
    Nobody,
    /// Both.
    Anyone,
    /// These, whichever of them.
    Named(Named),
}

/// Users and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Ids of users, sorted.
    pub ids: Vec<u64>,
    /// Names of users, sorted.
    pub names: Vec<Arc<str>>,
    /// Names of groups, with their numbers among those that rules name.
    pub groups: Vec<(Arc<str>, u32)>,
}

/// The SHA-256 of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A set with the words that it was written in.
#[derive(Debug)]
pub enum Listed<T> {
    /// The rule does not ask for it.
    Any,
    /// It does.
    Of {
        /// The set.
        set: Arc<T>,
        /// Its items, among them names of sets as `@name`.
        words: Vec<String>,
    },
}

impl<T> Listed<T> {
    /// The set, if the rule asks for one.
    pub fn set(&self) -> Option<&T> {
        match self {
            Self::Any => None,
            Self::Of { set, .. } => Some(set),
        }
    }

    /// The words that it was written in.
    pub fn words(&self) -> &[String] {
        match self {
            Self::Any => &[],
            Self::Of { words, .. } => words,
        }
    }
}

/// A packet with what its user's groups come to in these lists.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The packet.
    pub subject: &'a Subject<'a>,
    /// One bit for each group that a rule names.
    pub groups: &'a [u64],
}

/// What a packet lacks that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Another user.
    User,
    /// A better login.
    Quality,
    /// Another protocol.
    Protocol,
    /// Another source.
    Source,
    /// Another destination.
    Destination,
    /// Another source port.
    SourcePort,
    /// Another port.
    Port,
    /// Another ICMP type.
    IcmpType,
    /// Another ICMP code.
    IcmpCode,
    /// Another program.
    Program,
    /// Another hash of the program.
    Hash,
    /// Another operating system.
    Os,
    /// Another interface, by its place in [`DEVICES`].
    Device(usize),
    /// Another gateway.
    Gateway,
    /// Another time.
    Time,
}

impl Rule {
    /// What it decides, under which name.
    pub fn ruling(&self) -> &Ruling {
        &self.ruling
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.ruling.rule
    }

    /// Whether it can match a packet from an address at which nobody is logged in.
    pub fn is_for_nobody(&self) -> bool {
        matches!(self.who, Who::Nobody | Who::Anyone)
    }

    /// The first thing that the packet lacks; `None` if the rule matches. What is dear comes last.
    pub fn lack(&self, facts: &Facts<'_>) -> Option<Lack> {
        self.lack_of_indexed(facts)
            .or_else(|| self.lack_of_quality(facts.subject))
            .or_else(|| self.lack_of_details(facts.subject))
    }

    /// What the index finds.
    fn lack_of_indexed(&self, facts: &Facts<'_>) -> Option<Lack> {
        let Facts { subject, groups } = *facts;
        let tuple = subject.tuple;
        if self.protocol.is_some_and(|wanted| wanted != tuple.protocol()) {
            return Some(Lack::Protocol);
        }
        if !has_port(&self.ports, ports(tuple.transport()).map(|ports| ports.dst)) {
            return Some(Lack::Port);
        }
        if !self.who.includes(subject, groups) {
            return Some(Lack::User);
        }
        let within =
            |wanted: &Listed<Addresses>, address| wanted.set().is_none_or(|set| set.contains(address));
        if !within(&self.destination, tuple.dst().ip()) {
            return Some(Lack::Destination);
        }
        (!within(&self.source, tuple.src().ip())).then_some(Lack::Source)
    }

    fn lack_of_quality(&self, subject: &Subject<'_>) -> Option<Lack> {
        (!is_met(self.quality, subject)).then_some(Lack::Quality)
    }

    /// Whether it asks for more than what the index finds, the quality of the login and a program.
    pub(super) fn asks_for_details(&self) -> bool {
        self.source_ports.set().is_some()
            || self.icmp_type.is_some()
            || self.icmp_code.is_some()
            || self.devices.iter().any(|devices| !devices.is_empty())
            || !self.gateways.is_empty()
            || !self.hashes.is_empty()
            || !self.os.is_empty()
            || self.period.is_some()
    }

    /// What the index does not look at, save the quality of the login.
    pub(super) fn lack_of_details(&self, subject: &Subject<'_>) -> Option<Lack> {
        let transport = subject.tuple.transport();
        if !has_port(&self.source_ports, ports(transport).map(|ports| ports.src)) {
            return Some(Lack::SourcePort);
        }
        let icmp = transport.icmp();
        if self
            .icmp_type
            .is_some_and(|kind| icmp.is_none_or(|key| key.kind != kind))
        {
            return Some(Lack::IcmpType);
        }
        if self
            .icmp_code
            .is_some_and(|code| icmp.is_none_or(|key| key.code != code))
        {
            return Some(Lack::IcmpCode);
        }
        let devices = [subject.in_dev, subject.out_dev, subject.phys_in, subject.phys_out];
        for (place, (wanted, device)) in self.devices.iter().zip(devices).enumerate() {
            if !any_or_empty(wanted, |pattern| !device.is_empty() && pattern.matches(device)) {
                return Some(Lack::Device(place));
            }
        }
        if !any_or_empty(&self.gateways, |name| name.eq_ignore_ascii_case(subject.gateway)) {
            return Some(Lack::Gateway);
        }
        let claimed = |wanted: &[Pattern], claim: Option<&str>| {
            any_or_empty(wanted, |pattern| {
                claim.is_some_and(|claim| pattern.matches(claim))
            })
        };
        if !claimed(&self.programs, subject.program) {
            return Some(Lack::Program);
        }
        let hashed = |wanted: &Hash| subject.any_hash || subject.program_hash == Some(&wanted.0);
        if !any_or_empty(&self.hashes, hashed) {
            return Some(Lack::Hash);
        }
        if !claimed(&self.os, subject.os) {
            return Some(Lack::Os);
        }
        let outside = |period: &Arc<Period>| period.at(subject.at) == Within::No;
        self.period.as_ref().is_some_and(outside).then_some(Lack::Time)
    }

    /// What it says of a packet that it matches.
    pub fn ruled(&self, subject: &Subject<'_>) -> Ruling {
        let mut ruling = self.ruling.clone();
        if let Some(period) = &self.period
            && ruling.decision == Decision::Accept
            && let Within::Until(until) = period.at(subject.at)
        {
            ruling.until = until;
        }
        ruling
    }
}

impl Who {
    fn includes(&self, subject: &Subject<'_>, groups: &[u64]) -> bool {
        match (self, subject.user) {
            (Self::Anyone, _) | (Self::Authenticated, Some(_)) | (Self::Nobody, None) => true,
            (Self::Authenticated | Self::Named(_), None) | (Self::Nobody, Some(_)) => false,
            (Self::Named(named), Some(user)) => {
                named.groups.iter().any(|(_, group)| has_bit(groups, *group))
                    || named.ids.binary_search(&user.user.id).is_ok()
                    || named.names.binary_search(&user.user.name).is_ok()
            }
        }
    }

    /// Whether it includes whoever the other one includes.
    pub fn covers(&self, other: &Self) -> bool {
        let all = |some: &[Arc<str>], others: &[Arc<str>]| others.iter().all(|o| some.contains(o));
        match (self, other) {
            (Self::Anyone, _)
            | (Self::Authenticated, Self::Authenticated | Self::Named(_))
            | (Self::Nobody, Self::Nobody) => true,
            (Self::Named(a), Self::Named(b)) => {
                all(&a.names, &b.names)
                    && b.ids.iter().all(|id| a.ids.contains(id))
                    && b.groups.iter().all(|group| a.groups.contains(group))
            }
            (Self::Nobody | Self::Named(_), _) | (Self::Authenticated, Self::Nobody | Self::Anyone) => false,
        }
    }
}

/// Whether the login is at least as good as a rule asks for.
pub(super) fn is_met(quality: Option<Quality>, subject: &Subject<'_>) -> bool {
    quality.is_none_or(|least| subject.user.is_some() && subject.quality >= least)
}

/// The ports that rules mean. A call's identifier (GRE) is none: whoever makes the call chooses it.
pub(super) fn ports(transport: Transport) -> Option<Ports> {
    match transport {
        Transport::Gre(_) => None,
        transport => transport.ports(),
    }
}

fn has_port(wanted: &Listed<Ranges<u16>>, port: Option<u16>) -> bool {
    wanted
        .set()
        .is_none_or(|set| port.is_some_and(|port| set.contains(port)))
}

fn has_bit(bits: &[u64], bit: u32) -> bool {
    bits.get(bit as usize / 64)
        .is_some_and(|word| word & (1 << (bit % 64)) != 0)
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authenticated => f.write_str("anybody who is logged in"),
            Self::Nobody => f.write_str("nobody known"),
            Self::Anyone => f.write_str("anyone"),
            Self::Named(named) => {
                let users = named.names.iter().map(ToString::to_string);
                let ids = named.ids.iter().map(ToString::to_string);
                let users: Vec<String> = users.chain(ids).collect();
                let groups: Vec<&str> = named.groups.iter().map(|(name, _)| &**name).collect();
                let mut words = Vec::new();
                if !users.is_empty() {
                    words.push(format!("users {}", users.join(",")));
                }
                if !groups.is_empty() {
                    words.push(format!("groups {}", groups.join(",")));
                }
                f.write_str(&words.join(" "))
            }
        }
    }
}

/// Whether a list is empty or one of its items matches.
pub(super) fn any_or_empty<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

pub(super) fn list(items: &[impl fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(",")
}

impl fmt::Display for Rule {
    /// What the rule matches, for people: `users alice groups staff tcp to 10.0.0.0/8 ports 80,8000-8080`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let mut part = |label: &str, text: String| {
            if !text.is_empty() {
                words.push(format!("{label}{text}"));
            }
        };
        let who = match self.who {
            Who::Authenticated => String::new(),
            _ => self.who.to_string(),
        };
        part("", who);
        part(
            "by ",
            self.quality.map(|q| q.word().to_owned()).unwrap_or_default(),
        );
        part(
            "",
            self.protocol.map(nufw_proto::protocol::show).unwrap_or_default(),
        );
        part("type ", self.icmp_type.map(|t| t.to_string()).unwrap_or_default());
        part("code ", self.icmp_code.map(|c| c.to_string()).unwrap_or_default());
        part("from ", list(self.source.words()));
        part("source-ports ", list(self.source_ports.words()));
        part("to ", list(self.destination.words()));
        part("ports ", list(self.ports.words()));
        part("programs ", list(&self.programs));
        part("sha256 ", list(&self.hashes));
        part("os ", list(&self.os));
        for (label, devices) in DEVICES.iter().zip(&self.devices) {
            part(&format!("{label} "), list(devices));
        }
        part("gateways ", list(&self.gateways));
        part(
            "period ",
            self.period
                .as_ref()
                .map(|p| p.name.to_string())
                .unwrap_or_default(),
        );
        if words.is_empty() {
            f.write_str("everything")
        } else {
            f.write_str(&words.join(" "))
        }
    }
}

impl Listed<Ranges<u16>> {
    /// The ports, whatever they were written as.
    pub fn plain(&self) -> Option<Vec<String>> {
        self.set().map(port_words)
    }
}

impl Listed<Addresses> {
    /// The addresses, whatever they were written as.
    pub fn plain(&self) -> Option<Vec<String>> {
        self.set().map(Addresses::words)
    }
}
