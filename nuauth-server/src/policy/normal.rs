//! The normal form of access lists: everything that they depend on, in one text that can be read again.
//!
//! Two files with the same normal form decide alike. Its hash is the version that rows carry.

use super::read::NamedSet;
use super::rule::{DEVICES, Named, Rule, Who};
use super::sets::port_words;
use super::{Parts, word};
use crate::engine::Quality;
use nufw_common::config::HumanDuration;
use sha2::{Digest as _, Sha256};
use std::fmt::{Display, Write as _};
use std::sync::Arc;

/// Bytes of the hash that a version has.
const VERSION_BYTES: usize = 6;

/// The beginning of the hash of a normal form, in hexadecimal digits.
pub(super) fn version(normal: &str) -> Arc<str> {
    let hash = Sha256::digest(normal.as_bytes());
    let mut text = String::new();
    for byte in &hash[..VERSION_BYTES] {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// The normal form.
pub(super) fn text(parts: &Parts) -> String {
    let mut text = String::new();
    line(&mut text, "order", &quoted(parts.order.word()));
    for period in &parts.periods {
        text.push_str("\n[[period]]\n");
        line(&mut text, "name", &quoted(&period.name));
        line(&mut text, "time-zone", &quoted(period.zone_name()));
        if let Some(days) = period.days_word() {
            line(&mut text, "days", &list(days.split(',')));
        }
        if !period.hours.is_empty() {
            line(&mut text, "hours", &list(&period.hours));
        }
        if !period.dates.is_empty() {
            line(&mut text, "dates", &list(period.dates()));
        }
        if let Some(duration) = period.duration {
            line(&mut text, "duration", &quoted(HumanDuration(duration)));
        }
    }
    for (name, set) in &parts.sets {
        text.push_str("\n[[set]]\n");
        line(&mut text, "name", &quoted(name));
        match set {
            NamedSet::Addresses(set) => line(&mut text, "addresses", &list(set.words())),
            NamedSet::Ports(set) => line(&mut text, "ports", &list(port_words(set))),
        }
    }
    for rule in &parts.rules {
        text.push('\n');
        text.push_str(&rule_text(rule, parts));
    }
    text
}

/// One rule as it would be written.
fn rule_text(rule: &Rule, parts: &Parts) -> String {
    let mut text = String::from("[[rule]]\n");
    let ruling = &rule.ruling;
    line(&mut text, "name", &quoted(&ruling.rule));
    match &rule.who {
        Who::Authenticated => {}
        Who::Nobody => line(&mut text, "who", "\"nobody\""),
        Who::Anyone => line(&mut text, "who", "\"anyone\""),
        Who::Named(named) => who(&mut text, named),
    }
    maybe(&mut text, "min-auth", rule.quality.map(Quality::word).map(quoted));
    maybe(
        &mut text,
        "protocol",
        rule.protocol.map(nufw_proto::protocol::show).map(quoted),
    );
    items(&mut text, "source", rule.source.words());
    items(&mut text, "destination", rule.destination.words());
    items(&mut text, "source-ports", rule.source_ports.words());
    items(&mut text, "ports", rule.ports.words());
    maybe(&mut text, "icmp-type", rule.icmp_type.map(|n| n.to_string()));
    maybe(&mut text, "icmp-code", rule.icmp_code.map(|n| n.to_string()));
    items(&mut text, "programs", &rule.programs);
    items(&mut text, "program-sha256", &rule.hashes);
    items(&mut text, "os", &rule.os);
    for (key, devices) in DEVICES.iter().zip(&rule.devices) {
        items(&mut text, key, devices);
    }
    items(&mut text, "gateways", &rule.gateways);
    maybe(
        &mut text,
        "period",
        rule.period.as_ref().map(|period| quoted(&period.name)),
    );
    line(&mut text, "decision", &quoted(word(ruling.decision)));
    maybe(&mut text, "log", ruling.log.word().map(quoted));
    if ruling.prefix != ruling.rule {
        line(&mut text, "log-prefix", &quoted(&ruling.prefix));
    }
    if let Some(field) = parts.rule_field.filter(|_| ruling.mark.0 != 0) {
        let value = ruling.mark.0 >> field.shift;
        line(&mut text, "mark", &value.to_string());
    }
    maybe(
        &mut text,
        "expire-after",
        ruling.expires.map(HumanDuration).map(quoted),
    );
    text
}

fn who(text: &mut String, named: &Named) {
    let users: Vec<String> = named
        .names
        .iter()
        .map(quoted)
        .chain(named.ids.iter().map(ToString::to_string))
        .collect();
    if !users.is_empty() {
        line(text, "users", &format!("[{}]", users.join(", ")));
    }
    if !named.groups.is_empty() {
        line(text, "groups", &list(named.groups.iter().map(|(name, _)| name)));
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {value}");
}

fn maybe(text: &mut String, key: &str, value: Option<String>) {
    if let Some(value) = value {
        line(text, key, &value);
    }
}

fn items(text: &mut String, key: &str, items: &[impl Display]) {
    if !items.is_empty() {
        line(text, key, &list(items));
    }
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

/// A string of TOML: what JSON writes is one, since there are no control characters beyond its own.
fn quoted(text: impl Display) -> String {
    serde_json::Value::from(text.to_string()).to_string()
}
