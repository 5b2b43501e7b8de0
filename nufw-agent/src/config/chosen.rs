//! `conntrack.accept-src`, `accept-dst` and `accept-proto`: of which connections events are relayed, as ulogd2's keys say it.
//!
//! Networks and protocols as text; what they choose is [`Chosen`]'s.

use super::Conntrack;
use crate::conntrack::{Chosen, MOST_CHOSEN};
use ipnet::IpNet;
use nufw_proto::{Mark, protocol};
use std::net::IpAddr;

const NETWORK: &str = "a network or an address: \"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.7\"";
const PROTOCOL: &str =
    "tcp, udp, udplite, sctp, dccp, gre, esp, ah, icmp, icmpv6 or a number from 0 to 255, as text";
const FEWER: &str = "at most 64 entries";

/// A key, what was found there, and what would be right.
pub(super) type Complaint = (&'static str, String, &'static str);

/// Whether the lists can be read.
pub(super) fn check(conntrack: &Conntrack) -> Result<(), Complaint> {
    read(conntrack, None).map(drop)
}

/// What the lists choose; `None` if they are empty.
pub(super) fn chosen(conntrack: &Conntrack, marks: Option<Mark>) -> Option<Chosen> {
    let lists = [
        &conntrack.accept_src,
        &conntrack.accept_dst,
        &conntrack.accept_proto,
    ];
    if lists.iter().all(|list| list.is_empty()) {
        return None;
    }
    read(conntrack, marks).ok()
}

fn read(conntrack: &Conntrack, marks: Option<Mark>) -> Result<Chosen, Complaint> {
    Ok(Chosen {
        marks,
        sources: list("conntrack.accept-src", &conntrack.accept_src, network, NETWORK)?,
        destinations: list("conntrack.accept-dst", &conntrack.accept_dst, network, NETWORK)?,
        protocols: list(
            "conntrack.accept-proto",
            &conntrack.accept_proto,
            protocol::parse,
            PROTOCOL,
        )?,
    })
}

fn list<T>(
    key: &'static str,
    texts: &[String],
    read: fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Vec<T>, Complaint> {
    if texts.len() > MOST_CHOSEN {
        return Err((key, texts.len().to_string(), FEWER));
    }
    texts
        .iter()
        .map(|text| read(text).ok_or_else(|| (key, text.clone(), expected)))
        .collect()
}

fn network(text: &str) -> Option<IpNet> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.ok().map(|net| net.trunc())
}
