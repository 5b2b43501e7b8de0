//! Rules that can never decide, since others always decide before them.
//!
//! Said of rules that a single other one covers whole; what several cover together is not looked for.

use super::members::Whose;
use super::rule::{Listed, Rule};
use super::sets::{Addresses, Ranges};
use super::{Order, Policy, word};
use crate::engine::Decision;
use nufw_proto::{Addr, IcmpKey, Ports, Transport, Tuple};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A sentence for each of them, with both places.
pub(super) fn find(policy: &Policy) -> Vec<String> {
    policy
        .rules
        .iter()
        .enumerate()
        .filter_map(|(place, rule)| {
            let packet = packet_of(rule)?;
            let like = policy.members.like(rule);
            let other = policy
                .index
                .candidates(&packet, Whose::like(&like))
                .filter(|&other| other != place && hides(policy, other, place))
                .map(|other| &policy.rules[other])
                .find(|other| covers(other, rule))?;
            Some(sentence(policy, rule, other))
        })
        .collect()
}

/// Whether a rule would decide in the place of another one, should both match.
fn hides(policy: &Policy, one: usize, other: usize) -> bool {
    let [first, second] = [one, other].map(|place| policy.rules[place].ruling.decision);
    let [ends, ended] = [first, second].map(|decision| policy.order.ends_with(decision));
    match (ends, ended) {
        (true, false) => true,
        (false, true) => false,
        (true, true) | (false, false) => one < other,
    }
}

fn sentence(policy: &Policy, rule: &Rule, other: &Rule) -> String {
    let (name, by) = (rule.name(), other.name());
    let (decision, instead) = (rule.ruling.decision, other.ruling.decision);
    let accepts = |decision| decision == Decision::Accept;
    let why = match policy.order {
        Order::AcceptWins if accepts(instead) && !accepts(decision) => "accepts, which wins",
        Order::DropWins if accepts(decision) && !accepts(instead) => "does not accept, which wins",
        Order::FirstMatch | Order::AcceptWins | Order::DropWins => "comes before it",
    };
    let kind = if accepts(decision) == accepts(instead) {
        "is unreachable"
    } else {
        "is contradicted"
    };
    format!(
        "{}: rule \"{name}\" ({}) {kind}: \"{by}\" ({}) at {} matches everything that it matches and {why}",
        rule.place,
        word(decision),
        word(instead),
        other.place
    )
}

/// Whether the first rule matches whatever the second one does.
fn covers(rule: &Rule, other: &Rule) -> bool {
    let same_or_any = |wanted: Option<u8>, others: Option<u8>| wanted.is_none() || wanted == others;
    same_or_any(rule.protocol, other.protocol)
        && same_or_any(rule.icmp_type, other.icmp_type)
        && same_or_any(rule.icmp_code, other.icmp_code)
        && rule.who.covers(&other.who)
        && rule
            .quality
            .is_none_or(|least| other.quality.is_some_and(|others| others >= least))
        && listed(&rule.destination, &other.destination, Addresses::covers)
        && listed(&rule.source, &other.source, Addresses::covers)
        && listed(&rule.ports, &other.ports, Ranges::covers)
        && listed(&rule.source_ports, &other.source_ports, Ranges::covers)
        && subset(&rule.programs, &other.programs)
        && subset(&rule.hashes, &other.hashes)
        && subset(&rule.os, &other.os)
        && rule.devices.iter().zip(&other.devices).all(|(a, b)| subset(a, b))
        && subset(&rule.gateways, &other.gateways)
        && match (&rule.period, &other.period) {
            (None, _) => true,
            (Some(period), Some(others)) => Arc::ptr_eq(period, others),
            (Some(_), None) => false,
        }
}

fn listed<T>(wanted: &Listed<T>, others: &Listed<T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (wanted.set(), others.set()) {
        (None, _) => true,
        (Some(wanted), Some(others)) => covers(wanted, others),
        (Some(_), None) => false,
    }
}

/// Whether a list lets everything through that another one does; an empty one lets all through.
fn subset<T: PartialEq>(wanted: &[T], others: &[T]) -> bool {
    wanted.is_empty() || !others.is_empty() && others.iter().all(|other| wanted.contains(other))
}

/// One of the packets that a rule may match; `None` if there is none.
fn packet_of(rule: &Rule) -> Option<Tuple> {
    let v4 = |listed: &Listed<Addresses>| match listed.set() {
        None => Some(Ipv4Addr::LOCALHOST.to_bits()),
        Some(set) => set.v4.iter().next().map(|(from, _)| from),
    };
    let v6 = |listed: &Listed<Addresses>| match listed.set() {
        None => Some(Ipv6Addr::LOCALHOST.to_bits()),
        Some(set) => set.v6.iter().next().map(|(from, _)| from),
    };
    let ends = |ends: [Option<IpAddr>; 2]| {
        let [source, destination] = ends;
        Some((source?, destination?))
    };
    let listeds = [&rule.source, &rule.destination];
    let pair = ends(listeds.map(|listed| v4(listed).map(Ipv4Addr::from_bits).map(IpAddr::V4)))
        .filter(|_| rule.protocol != Some(58))
        .or_else(|| ends(listeds.map(|listed| v6(listed).map(Ipv6Addr::from_bits).map(IpAddr::V6))))?;
    let port = |listed: &Listed<Ranges<u16>>| match listed.set() {
        None => Some(1),
        Some(set) => set.iter().next().map(|(from, _)| from),
    };
    let ports = Ports {
        src: port(&rule.source_ports)?,
        dst: port(&rule.ports)?,
    };
    let icmp = IcmpKey {
        kind: rule.icmp_type.unwrap_or(0),
        code: rule.icmp_code.unwrap_or(0),
        id: 0,
    };
    let transport = Transport::from_parts(rule.protocol.unwrap_or(6), Some(ports), Some(icmp))?;
    Tuple::new(Addr::from(pair.0), Addr::from(pair.1), transport).ok()
}
