//! From the lists as they are written to rules that can be matched.
//!
//! A rule that could never match, or that says less than its writer thinks, is refused here.

mod calendar;
mod lists;
mod who;

pub(super) use lists::NamedSet;

use super::marks::Marks;
use super::members::Groups;
use super::period::Period;
use super::raw::{MAX_RULES, Protocol, RawDecision, RawLog, RawOrder, RawPolicy, RawQuality, RawRule};
use super::rule::{Listed, Rule};
use super::sets::Addresses;
use super::{Against, DEFAULT_RULE, Order, Parts, Policy, ReadPolicy, overlap};
use crate::engine::{Decision, LogMode, Quality, Ruling};
use crate::users::Users;
use jiff::tz::TimeZone;
use nufw_common::config::{ConfigError, HumanDuration, Loader, Origins, Problems};
use nufw_proto::{Mark, Text};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Least and most time that a rule may let connections live.
const EXPIRE_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_hours(24 * 365)];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Reads and checks the file.
pub(super) fn load(path: &Path, known: &Against<'_>) -> Result<ReadPolicy, ConfigError> {
    let loaded = Loader::new("policy").file(path, true).load::<RawPolicy>()?;
    let raw = loaded.value;
    let mut reader = Reader {
        origins: &loaded.origins,
        directory: path.parent().unwrap_or(Path::new("")),
        users: known.users,
        all_known: known.all_known,
        known_groups: known.users.groups(),
        known_ids: known.users.iter().map(|user| user.identity.user.id).collect(),
        marks: known.marks,
        zone: TimeZone::UTC,
        groups: Groups::default(),
        names: HashSet::new(),
        periods: HashMap::new(),
        sets: HashMap::new(),
        items: 0,
        files: vec![path.to_path_buf()],
        problems: Problems::default(),
        notes: Vec::new(),
    };
    reader.zone = reader.time_zone("time-zone", raw.time_zone.as_deref());
    let mut parts = Parts {
        order: match raw.order {
            None | Some(RawOrder::FirstMatch) => Order::FirstMatch,
            Some(RawOrder::AcceptWins) => Order::AcceptWins,
            Some(RawOrder::DropWins) => Order::DropWins,
        },
        marks: known.marks.tables.clone(),
        rule_field: known.marks.rule,
        ..Parts::default()
    };
    for (index, raw) in raw.period.into_iter().enumerate() {
        if let Some(raw) = reader.problems.take(raw.0) {
            parts
                .periods
                .push(reader.period(&format!("period[{index}]"), &raw));
        }
    }
    for (index, raw) in raw.set.into_iter().enumerate() {
        if let Some(raw) = reader.problems.take(raw.0)
            && let Some(set) = reader.named_set(&format!("set[{index}]"), &raw)
        {
            parts.sets.push((Arc::from(raw.name), set));
        }
    }
    if raw.rule.len() > MAX_RULES {
        let found = format!("{} rules", raw.rule.len());
        reader.reject("rule", found, format_args!("at most {MAX_RULES}"));
    }
    for (index, raw) in raw.rule.into_iter().enumerate() {
        if let Some(raw) = reader.problems.take(raw.0) {
            parts.rules.push(reader.rule(&format!("rule[{index}]"), &raw));
        }
    }
    if parts.rules.is_empty() && reader.problems.is_empty() {
        reader.notes.push(format!(
            "{}: there is no rule, so everything is dropped",
            path.display()
        ));
    }
    parts.groups = reader.groups;
    let (notes, files) = (reader.notes, reader.files);
    let policy = reader.problems.finish(Policy::new(parts))?;
    let overlaps = overlap::find(&policy);
    Ok(ReadPolicy {
        notes: notes.into_iter().chain(overlaps).collect(),
        policy,
        files,
    })
}

struct Reader<'a> {
    origins: &'a Origins,
    /// Files that the lists name are relative to it.
    directory: &'a Path,
    users: &'a Users,
    all_known: bool,
    known_groups: BTreeSet<&'a str>,
    known_ids: HashSet<u64>,
    marks: &'a Marks,
    /// Whose clock counts where a period does not say it.
    zone: TimeZone,
    groups: Groups,
    names: HashSet<String>,
    periods: HashMap<String, Arc<Period>>,
    sets: HashMap<String, NamedSet>,
    /// Items of all sets so far.
    items: usize,
    files: Vec<PathBuf>,
    problems: Problems,
    notes: Vec<String>,
}

impl Reader<'_> {
    /// With a problem the rule is not fit for use, and [`load`] fails.
    fn rule(&mut self, at: &str, raw: &RawRule) -> Rule {
        self.name(&format!("{at}.name"), &raw.name);
        if let Some(prefix) = &raw.log_prefix {
            self.text(&format!("{at}.log-prefix"), prefix);
        }
        self.transport(at, raw);
        let log = self.log_mode(at, raw);
        let expires = self.expires(at, raw);
        let source = self.addresses(&format!("{at}.source"), raw.source.as_deref());
        let destination = self.addresses(&format!("{at}.destination"), raw.destination.as_deref());
        self.families(at, raw.protocol, &source, &destination);
        let who = self.who(at, raw);
        let quality = raw.min_auth.map(|quality| match quality {
            RawQuality::Address => Quality::Address,
            RawQuality::Password => Quality::Password,
            RawQuality::Certificate => Quality::Certificate,
        });
        let period = self.period_of(at, raw);
        let devices = [
            ("in", &raw.in_dev),
            ("out", &raw.out_dev),
            ("bridge-in", &raw.bridge_in),
            ("bridge-out", &raw.bridge_out),
        ]
        .map(|(key, raw)| self.devices(&format!("{at}.{key}"), raw.as_deref()));
        let place = self.origins.of(&format!("{at}.name"));
        let name: Arc<str> = raw.name.as_str().into();
        Rule {
            place: Arc::from(place),
            who,
            quality,
            protocol: raw.protocol.map(|protocol| protocol.0),
            source,
            destination,
            source_ports: self.ports(&format!("{at}.source-ports"), raw.source_ports.as_deref()),
            ports: self.ports(&format!("{at}.ports"), raw.ports.as_deref()),
            icmp_type: raw.icmp_type,
            icmp_code: raw.icmp_code,
            programs: self.programs(&format!("{at}.programs"), raw.programs.as_deref()),
            hashes: self.hashes(&format!("{at}.program-sha256"), raw.program_sha256.as_deref()),
            os: self.systems(&format!("{at}.os"), raw.os.as_deref()),
            devices,
            gateways: self.gateways(&format!("{at}.gateways"), raw.gateways.as_deref()),
            period,
            ruling: Ruling {
                decision: match raw.decision {
                    RawDecision::Accept => Decision::Accept,
                    RawDecision::Drop => Decision::Drop,
                    RawDecision::Reject => Decision::Reject,
                },
                prefix: raw
                    .log_prefix
                    .as_deref()
                    .map_or_else(|| Arc::clone(&name), Arc::from),
                rule: name,
                log,
                expires,
                until: None,
                mark: self.mark(at, raw),
            },
        }
    }

    fn reject(&mut self, key: &str, found: impl fmt::Display, expected: impl fmt::Display) {
        self.problems.push(self.origins.reject(key, found, expected));
    }

    fn note(&mut self, key: &str, text: impl fmt::Display) {
        self.notes.push(self.origins.complain(key, text).to_string());
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
        let accepts = matches!(raw.decision, RawDecision::Accept);
        let (mode, word) = match raw.log {
            None => return LogMode::Default,
            Some(RawLog::None) => return LogMode::None,
            Some(RawLog::Async) => return LogMode::Async,
            Some(RawLog::Sync) => (LogMode::Sync, "\"sync\""),
            Some(RawLog::Strict) => (LogMode::Strict, "\"strict\""),
        };
        if accepts {
            return mode;
        }
        let expected = "\"async\" or \"none\": only what is accepted waits for its row";
        self.reject(&format!("{at}.log"), word, expected);
        LogMode::Default
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

    fn mark(&mut self, at: &str, raw: &RawRule) -> Mark {
        let Some(value) = raw.mark else { return Mark(0) };
        let key = format!("{at}.mark");
        if !matches!(raw.decision, RawDecision::Accept) {
            self.reject(&key, value, "no such key: what is not accepted has no mark");
            return Mark(0);
        }
        match self.marks.rule {
            None => {
                let expected =
                    "a field for it first: marks.rule in nuauth.toml, as in rule = { shift = 20, width = 4 }";
                self.reject(&key, value, expected);
                Mark(0)
            }
            Some(field) if value > field.most() => {
                let expected = format!(
                    "at most {}, what the {} bits of marks.rule hold",
                    field.most(),
                    field.width
                );
                self.reject(&key, value, expected);
                Mark(0)
            }
            Some(field) => field.place(value),
        }
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

    /// A packet has one family: lists of different ones never match together.
    fn families(
        &mut self,
        at: &str,
        protocol: Option<Protocol>,
        source: &Listed<Addresses>,
        destination: &Listed<Addresses>,
    ) {
        // What is empty here was refused already.
        let families = |listed: &Listed<Addresses>| match listed.set() {
            None => (true, true),
            Some(set) if set.is_empty() => (true, true),
            Some(set) => (!set.v4.is_empty(), !set.v6.is_empty()),
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
}
