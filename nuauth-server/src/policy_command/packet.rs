//! A connection as somebody describes it, and what lists say of it.

use super::Setting;
use crate::engine::{Identity, Quality, Ruling, Subject};
use crate::policy::{DEFAULT_RULE, Hash, Order, Policy, word};
use anyhow::{Context as _, anyhow};
use clap::Args;
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_proto::{Addr, IcmpKey, Mark, Ports, Timestamp, Transport, Tuple};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A connection.
#[derive(Debug, Args)]
pub(super) struct Packet {
    /// From where: an address, with a port where the protocol has ports (`10.0.0.5:4000`, `[2001:db8::5]:4000`)
    source: String,
    /// To where, as the packet shows it at the gateway: behind DNAT the inner address
    destination: String,
    /// Whose: a name of the users' file. Without it nobody is logged in at the source
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The user's number, where another back-end than the users' file has the user
    #[arg(long, value_name = "NUMBER", requires = "user")]
    id: Option<u64>,
    /// A group of the user, in the place of those that the users' file has; may be repeated
    #[arg(long, value_name = "NAME", requires = "user")]
    group: Vec<String>,
    /// How the user has logged in: address, password or certificate
    #[arg(long, value_name = "WORD", default_value = "password", value_parser = quality)]
    auth: Quality,
    /// tcp, udp, icmp and so on, or a number
    #[arg(long, value_name = "WORD", default_value = "tcp")]
    protocol: String,
    /// ICMP type and code, as 8 or 3/1
    #[arg(long, value_name = "TYPE[/CODE]")]
    icmp: Option<String>,
    /// Path of the program, as a client would say
    #[arg(long, value_name = "PATH")]
    app: Option<String>,
    /// SHA-256 of the program, as sha256sum prints it
    #[arg(long, value_name = "HEX", value_parser = hash)]
    sha256: Option<Hash>,
    /// Operating system as rows have it: name-version-release
    #[arg(long, value_name = "TEXT")]
    os: Option<String>,
    /// The interface that it comes in by
    #[arg(long = "in", value_name = "NAME", default_value = "")]
    in_dev: String,
    /// The interface that it would leave by
    #[arg(long = "out", value_name = "NAME", default_value = "")]
    out_dev: String,
    /// The port of the bridge that it comes in by
    #[arg(long, value_name = "NAME", default_value = "")]
    bridge_in: String,
    /// The port of the bridge that it would leave by
    #[arg(long, value_name = "NAME", default_value = "")]
    bridge_out: String,
    /// The gateway
    #[arg(long, value_name = "NAME", default_value = "")]
    gateway: String,
    /// At which time, as 2026-12-24T18:00:00Z; now, if absent
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
}

fn quality(text: &str) -> Result<Quality, String> {
    Quality::parse(text).ok_or_else(|| "expected address, password or certificate".to_owned())
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::parse(text).ok_or_else(|| "expected 64 hexadecimal digits, as sha256sum prints them".to_owned())
}

/// A time as people and programs write it.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse::<jiff::Timestamp>()
        .map(|at| Timestamp::from_micros(at.as_microsecond()))
        .map_err(|_| "expected a time such as 2026-12-24T18:00:00Z (RFC 3339)".to_owned())
}

impl Packet {
    fn tuple(&self) -> anyhow::Result<Tuple> {
        let protocol = nufw_proto::protocol::parse(&self.protocol)
            .with_context(|| format!("{:?} is no protocol", self.protocol))?;
        let has_ports = [6, 17, 33, 132, 136].contains(&protocol);
        let [(source, from), (destination, to)] =
            [end(&self.source, has_ports)?, end(&self.destination, has_ports)?];
        let icmp = match &self.icmp {
            None => IcmpKey {
                kind: if protocol == 58 { 128 } else { 8 },
                code: 0,
                id: 1,
            },
            Some(text) => {
                let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
                let number = |text: &str| {
                    text.parse()
                        .with_context(|| format!("{text:?} is no ICMP type or code"))
                };
                IcmpKey {
                    kind: number(kind)?,
                    code: number(code)?,
                    id: 1,
                }
            }
        };
        let ports = Ports { src: from, dst: to };
        let transport =
            Transport::from_parts(protocol, Some(ports), Some(icmp)).context("no such transport")?;
        Tuple::new(source, destination, transport)
            .map_err(|_| anyhow!("source and destination are of different families"))
    }
}

/// An address, and a port where there must be one.
fn end(text: &str, has_port: bool) -> anyhow::Result<(Addr, u16)> {
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Ok((Addr::from(end.ip()), end.port()));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        anyhow!("{text:?} is no address with a port, such as 10.0.0.5:4000 or [2001:db8::5]:4000")
    })?;
    if has_port {
        return Err(anyhow!("{text:?} has no port, which this protocol needs"));
    }
    Ok((Addr::from(address), 0))
}

impl Packet {
    /// The user as the file has it, with the number and the groups that were named in their place.
    fn identity(&self, name: &str, setting: &Setting) -> anyhow::Result<Arc<Identity>> {
        let known = setting.users.by_name(name).map(|user| &user.identity);
        let id = self.id.or(known.map(|known| known.user.id)).with_context(|| {
            format!(
                "{}: there is no user {name:?}; of a user of another back-end say the number (--id) and the groups (--group)",
                setting.config.users.display()
            )
        })?;
        let groups = match known {
            Some(known) if self.group.is_empty() => Arc::clone(&known.groups),
            _ => self.group.iter().map(|group| Arc::from(group.as_str())).collect(),
        };
        Ok(Arc::new(Identity {
            user: nulog::User {
                id,
                name: Arc::from(name),
            },
            mark: known.map_or(Mark(0), |known| known.mark),
            groups,
        }))
    }
}

/// Decides and tells why.
pub(super) fn test(
    setting: &Setting,
    policy: &Policy,
    packet: &Packet,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let tuple = packet.tuple().or_exit(Exit::Usage)?;
    let user: Option<Arc<Identity>> = match &packet.user {
        None => None,
        Some(name) => Some(packet.identity(name, setting).or_exit(Exit::DataErr)?),
    };
    let subject = Subject {
        quality: packet.auth,
        program: packet.app.as_deref(),
        program_hash: packet.sha256.as_ref().map(|Hash(hash)| hash),
        os: packet.os.as_deref(),
        in_dev: &packet.in_dev,
        out_dev: &packet.out_dev,
        phys_in: &packet.bridge_in,
        phys_out: &packet.bridge_out,
        gateway: &packet.gateway,
        ..Subject::new(user.as_deref(), &tuple, packet.at.unwrap_or_else(clock::wall))
    };
    let answer = Answer::of(policy, &subject);
    let written = if json {
        writeln!(out, "{}", answer.json(policy))
    } else {
        answer
            .lines(policy)
            .iter()
            .try_for_each(|line| writeln!(out, "{line}"))
    };
    written.or_exit(Exit::IoErr)
}

/// What lists say of a packet, and why.
pub(super) struct Answer {
    /// The place of the rule that decides.
    place: Option<usize>,
    ruling: Ruling,
    /// Rules that were asked before and did not decide, by place, each with the reason.
    passed: Vec<(usize, String)>,
}

impl Answer {
    pub(super) fn of(policy: &Policy, subject: &Subject<'_>) -> Self {
        let place = policy.search(subject);
        let asked = match (policy.order(), place) {
            (Order::FirstMatch, Some(place)) => place,
            _ => policy.rules().len(),
        };
        let passed = (0..asked)
            .filter(|other| Some(*other) != place)
            .map(|other| {
                let rule = &policy.rules()[other];
                let why = match policy.lack(other, subject) {
                    Some(lack) => rule.explain(lack, subject),
                    None => format!(
                        "matches, too; with {} the other one decides",
                        policy.order().word()
                    ),
                };
                (other, why)
            })
            .collect();
        Self {
            ruling: policy.ruled(place, subject),
            place,
            passed,
        }
    }

    fn lines(&self, policy: &Policy) -> Vec<String> {
        let ruling = &self.ruling;
        let decision = word(ruling.decision);
        let mut lines = vec![match self.place.map(|place| &policy.rules()[place]) {
            Some(rule) => format!("{decision} by rule \"{}\" ({}): {rule}", rule.name(), rule.place),
            None => format!("{decision}, since no rule matches (\"{DEFAULT_RULE}\")"),
        }];
        if let Some(log) = ruling.log.word() {
            lines.push(format!("  log {log}"));
        }
        if ruling.mark.0 != 0 {
            lines.push(format!(
                "  mark bits {:#x} beside the user's number",
                ruling.mark.0
            ));
        }
        if let Some(lifetime) = ruling.expires {
            lines.push(format!(
                "  ends after {}",
                nufw_common::config::HumanDuration(lifetime)
            ));
        }
        if let Some(until) = ruling.until {
            lines.push(format!("  ends with its period at {}", shown(until)));
        }
        lines.extend(self.passed.iter().map(|(place, why)| {
            let rule = &policy.rules()[*place];
            format!("  not \"{}\" ({}): {why}", rule.name(), rule.place)
        }));
        lines.push(format!(
            "  lists {}, {}",
            policy.version_text(),
            policy.order().word()
        ));
        lines
    }

    fn json(&self, policy: &Policy) -> Value {
        let rule = self.place.map(|place| &policy.rules()[place]);
        let passed: Vec<Value> = self
            .passed
            .iter()
            .map(|(place, why)| {
                let rule = &policy.rules()[*place];
                json!({ "rule": rule.name(), "place": &*rule.place, "why": why })
            })
            .collect();
        json!({
            "decision": word(self.ruling.decision),
            "rule": &*self.ruling.rule,
            "place": rule.map(|rule| rule.place.to_string()),
            "log": self.ruling.log.word(),
            "mark": self.ruling.mark.0,
            "expires_after_seconds": self.ruling.expires.map(|lifetime| lifetime.as_secs()),
            "until": self.ruling.until.map(shown),
            "not": passed,
            "version": policy.version_text(),
            "order": policy.order().word(),
        })
    }
}

/// A time as RFC 3339 has it.
pub(super) fn shown(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.micros())
        .map_or_else(|_| at.micros().to_string(), |at| at.to_string())
}
