//! The access lists as they are written, and their way to rules that can be matched.
//!
//! A rule that could never match, or that says less than its writer thinks, is refused here.

use super::{DEFAULT_RULE, Policy, ReadPolicy, Rule, is_ipv4};
use crate::engine::{Decision, LogMode, Ruling};
use crate::users::Users;
use ipnet::{IpNet, Ipv4Net};
use nufw_common::config::{ConfigError, HumanDuration, Loader, Origins, Problems, Tried};
use nufw_proto::Text;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Protocols that have a name in the file, with their IANA numbers.
pub(super) const PROTOCOLS: [(&str, u8); 10] = [
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("sctp", 132),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp", 1),
    ("icmpv6", 58),
];
/// Least and most time that a rule may let connections live.
const EXPIRE_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(24 * 365)];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

#[derive(Deserialize)]
struct RawPolicy {
    #[serde(default)]
    rule: Vec<Tried<RawRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRule {
    name: String,
    users: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    protocol: Option<Protocol>,
    source: Option<Vec<String>>,
    destination: Option<Vec<String>>,
    source_ports: Option<Vec<PortRange>>,
    ports: Option<Vec<PortRange>>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
    decision: RawDecision,
    log_prefix: Option<String>,
    log: Option<RawLog>,
    expire_after: Option<HumanDuration>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawDecision {
    Accept,
    Drop,
    Reject,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawLog {
    Sync,
    Async,
    None,
}

/// A protocol by name or number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Protocol(u8);

/// `80`, `"80"` or `"8000-8080"`.
struct PortRange(RangeInclusive<u16>);

macro_rules! text_or_integer {
    ($name:ident, $visitor:ident, $expecting:literal, |$text:ident| $parse:expr, |$n:ident| $from:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct $visitor;

                impl Visitor<'_> for $visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, $text: &str) -> Result<$name, E> {
                        let parsed: Option<$name> = $parse;
                        parsed.ok_or_else(|| E::invalid_value(de::Unexpected::Str($text), &self))
                    }

                    fn visit_i64<E: de::Error>(self, $n: i64) -> Result<$name, E> {
                        let parsed: Option<$name> = $from;
                        parsed.ok_or_else(|| E::invalid_value(de::Unexpected::Signed($n), &self))
                    }
                }

                deserializer.deserialize_any($visitor)
            }
        }
    };
}

text_or_integer!(
    Protocol,
    ProtocolVisitor,
    "tcp, udp, udplite, sctp, dccp, gre, esp, ah, icmp, icmpv6 or a number from 0 to 255",
    |text| PROTOCOLS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number)
        .or_else(|| number(text))
        .map(Protocol),
    |n| u8::try_from(n).ok().map(Protocol)
);
text_or_integer!(
    PortRange,
    PortVisitor,
    "a port from 0 to 65535 or a range such as \"8000-8080\"",
    |text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number::<u16>(first), number::<u16>(last)) {
            (Some(first), Some(last)) if first <= last => Some(PortRange(first..=last)),
            _ => None,
        }
    },
    |n| u16::try_from(n).ok().map(|port| PortRange(port..=port))
);

/// Digits only: no sign, no blanks.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Reads and checks the file.
pub(super) fn load(path: &Path, users: &Users, all_known: bool) -> Result<ReadPolicy, ConfigError> {
    let loaded = Loader::new("policy").file(path, true).load::<RawPolicy>()?;
    let mut reader = Reader {
        origins: &loaded.origins,
        users,
        all_known,
        groups: users.groups(),
        names: HashSet::new(),
        problems: Problems::default(),
        notes: Vec::new(),
    };
    let mut rules = Vec::new();
    for (index, raw) in loaded.value.rule.into_iter().enumerate() {
        if let Some(raw) = reader.problems.take(raw.0) {
            rules.push(reader.rule(&format!("rule[{index}]"), raw));
        }
    }
    if rules.is_empty() && reader.problems.is_empty() {
        reader.notes.push(format!(
            "{}: there is no rule, so everything is dropped",
            path.display()
        ));
    }
    let notes = reader.notes;
    reader.problems.finish(ReadPolicy {
        policy: Policy::new(rules),
        notes,
    })
}

struct Reader<'a> {
    origins: &'a Origins,
    users: &'a Users,
    all_known: bool,
    groups: BTreeSet<&'a str>,
    names: HashSet<String>,
    problems: Problems,
    notes: Vec<String>,
}

impl Reader<'_> {
    /// With a problem the rule is not fit for use, and [`load`] fails.
    fn rule(&mut self, at: &str, raw: RawRule) -> Rule {
        self.name(&format!("{at}.name"), &raw.name);
        if let Some(prefix) = &raw.log_prefix {
            self.text(&format!("{at}.log-prefix"), prefix);
        }
        self.transport(at, &raw);
        let log = self.log_mode(at, &raw);
        let expires = self.expires(at, &raw);
        let (source, destination) = (
            self.nets(&format!("{at}.source"), raw.source.as_deref()),
            self.nets(&format!("{at}.destination"), raw.destination.as_deref()),
        );
        self.families(at, raw.protocol, &source, &destination);
        let rule: Arc<str> = raw.name.into();
        Rule {
            users: self.user_names(&format!("{at}.users"), raw.users.as_deref()),
            groups: self.group_names(&format!("{at}.groups"), raw.groups.as_deref()),
            protocol: raw.protocol.map(|protocol| protocol.0),
            source,
            destination,
            source_ports: self.ports(&format!("{at}.source-ports"), raw.source_ports),
            ports: self.ports(&format!("{at}.ports"), raw.ports),
            icmp_type: raw.icmp_type,
            icmp_code: raw.icmp_code,
            ruling: Ruling {
                decision: match raw.decision {
                    RawDecision::Accept => Decision::Accept,
                    RawDecision::Drop => Decision::Drop,
                    RawDecision::Reject => Decision::Reject,
                },
                prefix: raw.log_prefix.map_or_else(|| Arc::clone(&rule), Arc::from),
                rule,
                log,
                expires,
            },
        }
    }

    fn reject(&mut self, key: &str, found: impl fmt::Display, expected: impl fmt::Display) {
        self.problems.push(self.origins.reject(key, found, expected));
    }

    fn text(&mut self, key: &str, text: &str) -> bool {
        let good = !text.is_empty() && Text::<64>::new(text).is_ok();
        if !good {
            let expected = "1 to 64 bytes without control characters";
            self.reject(key, format_args!("string {text:?}"), expected);
        }
        good
    }

    fn name(&mut self, key: &str, name: &str) {
        if !self.text(key, name) {
            return;
        }
        if name == DEFAULT_RULE || name.starts_with('(') {
            let expected = "another name: rows where no rule decided carry such ones";
            self.reject(key, format_args!("\"{name}\""), expected);
        } else if !self.names.insert(name.to_owned()) {
            self.reject(key, format_args!("\"{name}\" again"), "each name once");
        }
    }

    /// A drop never waits for its row: a rule that asks for it is not what its writer thinks.
    fn log_mode(&mut self, at: &str, raw: &RawRule) -> LogMode {
        match (raw.log, raw.decision) {
            (None, _) => LogMode::Default,
            (Some(RawLog::None), _) => LogMode::None,
            (Some(RawLog::Async), _) => LogMode::Async,
            (Some(RawLog::Sync), RawDecision::Accept) => LogMode::Sync,
            (Some(RawLog::Sync), RawDecision::Drop | RawDecision::Reject) => {
                let expected = "\"async\" or \"none\": only what is accepted waits for its row";
                self.reject(&format!("{at}.log"), "\"sync\"", expected);
                LogMode::Default
            }
        }
    }

    /// How long what the rule accepts may live. What has no row is not known and could not be ended.
    fn expires(&mut self, at: &str, raw: &RawRule) -> Option<Duration> {
        let lifetime = raw.expire_after?;
        let key = format!("{at}.expire-after");
        let [low, high] = EXPIRE_AFTER.map(HumanDuration);
        if !matches!(raw.decision, RawDecision::Accept) {
            self.reject(&key, lifetime, "no such key: what is not accepted has no end");
        } else if matches!(raw.log, Some(RawLog::None)) {
            self.reject(
                &key,
                lifetime,
                "no log = \"none\" with it: what has no row cannot be ended",
            );
        } else if lifetime.0 < low.0 || lifetime.0 > high.0 {
            self.reject(&key, lifetime, format_args!("a duration from {low} to {high}"));
        }
        Some(lifetime.0)
    }

    fn transport(&mut self, at: &str, raw: &RawRule) {
        let protocol = raw.protocol.map(|protocol| protocol.0);
        let has_ports = protocol.is_none_or(|number| [6, 17, 33, 132, 136].contains(&number));
        for (key, ranges) in [("ports", &raw.ports), ("source-ports", &raw.source_ports)] {
            if ranges.is_some() && !has_ports {
                let key = format!("{at}.{key}");
                let expected = "none, since the rule's protocol has no ports";
                self.reject(&key, "ports", expected);
            }
        }
        let is_icmp = protocol.is_some_and(|number| number == ICMP || number == ICMPV6);
        if raw.icmp_type.is_some() && !is_icmp {
            let expected = "protocol = \"icmp\" or \"icmpv6\" with it: their types differ";
            self.reject(&format!("{at}.icmp-type"), "an ICMP type", expected);
        }
        if raw.icmp_code.is_some() && raw.icmp_type.is_none() {
            let expected = "icmp-type with it: a code means nothing alone";
            self.reject(&format!("{at}.icmp-code"), "an ICMP code", expected);
        }
    }

    /// A list of a rule. An empty one is refused: its writer may have taken the last item out to close the rule, and
    /// an absent list matches everything.
    fn list<'t, T>(&mut self, key: &str, raw: Option<&'t [T]>) -> &'t [T] {
        if raw.is_some_and(<[T]>::is_empty) {
            let expected = "at least one item, or no such key if the rule is for all";
            self.reject(key, "an empty list", expected);
        }
        raw.unwrap_or_default()
    }

    fn ports(&mut self, key: &str, raw: Option<Vec<PortRange>>) -> Vec<RangeInclusive<u16>> {
        self.list(key, raw.as_deref());
        raw.into_iter().flatten().map(|range| range.0).collect()
    }

    fn nets(&mut self, key: &str, raw: Option<&[String]>) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for (index, text) in self.list(key, raw).iter().enumerate() {
            let key = format!("{key}[{index}]");
            let found = format!("string \"{text}\"");
            let parsed = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match parsed.map(canonical) {
                Ok(net) if net.trunc() == net => nets.push(net),
                Ok(net) => {
                    let expected = format!("a network without host bits, such as \"{}\"", net.trunc());
                    self.reject(&key, found, expected);
                }
                Err(_) => self.reject(
                    &key,
                    found,
                    "an address or a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
                ),
            }
        }
        nets
    }

    /// A packet has one family: lists of different ones never match together.
    fn families(&mut self, at: &str, protocol: Option<Protocol>, source: &[IpNet], destination: &[IpNet]) {
        let families = |nets: &[IpNet]| {
            let any = nets.is_empty();
            (
                any || nets.iter().any(is_ipv4),
                any || nets.iter().any(|net| !is_ipv4(net)),
            )
        };
        let (from, to) = (families(source), families(destination));
        if !(from.0 && to.0 || from.1 && to.1) {
            let expected = "a network of the family that source has";
            self.reject(
                &format!("{at}.destination"),
                "only networks of the other family",
                expected,
            );
            return;
        }
        let v4_only = protocol == Some(Protocol(ICMP));
        let v6_only = protocol == Some(Protocol(ICMPV6));
        if v4_only && !(from.0 && to.0) || v6_only && !(from.1 && to.1) {
            let found = if v4_only {
                "icmp with IPv6 networks"
            } else {
                "icmpv6 with IPv4 networks"
            };
            let expected = "icmp with IPv4 and icmpv6 with IPv6";
            self.reject(&format!("{at}.protocol"), found, expected);
        }
    }

    fn user_names(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for (index, name) in self.list(key, raw).iter().enumerate() {
            match self.users.by_name(name) {
                Some(user) => names.push(Arc::clone(user.name())),
                None if !self.all_known => {
                    let key = format!("{key}[{index}]");
                    let text = format_args!("the users file has no user \"{name}\"; another back-end may");
                    self.notes.push(self.origins.complain(&key, text).to_string());
                    names.push(Arc::from(name.as_str()));
                }
                None => self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("\"{name}\""),
                    "the name of a user of the users file",
                ),
            }
        }
        names
    }

    fn group_names(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for (index, name) in self.list(key, raw).iter().enumerate() {
            let key = format!("{key}[{index}]");
            // Groups of directories are not known before somebody logs in.
            if self.all_known && !self.groups.contains(name.as_str()) {
                let note = self
                    .origins
                    .complain(&key, format_args!("nobody is in group \"{name}\""));
                self.notes.push(note.to_string());
            }
            names.push(Arc::from(name.as_str()));
        }
        names
    }
}

/// An IPv4-mapped IPv6 network is the IPv4 network, as addresses are everywhere else.
fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6
            .addr()
            .to_ipv4_mapped()
            .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok())
            .map_or(net, IpNet::V4),
        _ => net,
    }
}
