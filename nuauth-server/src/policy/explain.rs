//! What a packet lacks for a rule, as a sentence for people.
//!
//! Words only; that it lacks it, `rule` has found.

use super::rule::{DEVICES, Hash, Lack, Rule, list};
use crate::engine::{Quality, Subject};

impl Rule {
    /// Why it does not match, as a sentence.
    pub fn explain(&self, lack: Lack, subject: &Subject<'_>) -> String {
        let tuple = subject.tuple;
        let ports = tuple.transport().ports();
        let show = |port: Option<u16>| port.map_or_else(|| "none".to_owned(), |port| port.to_string());
        let said = |claim: Option<&str>| claim.map_or_else(|| "not told".to_owned(), str::to_owned);
        let named = |device: &str| {
            if device.is_empty() {
                "none".to_owned()
            } else {
                device.to_owned()
            }
        };
        let wants = |found: String, wanted: String| format!("{found}, not {wanted}");
        match lack {
            Lack::User => match subject.user {
                None => format!("nobody is logged in there; the rule is for {}", self.who),
                Some(user) => wants(format!("the user is {}", user.user.name), self.who.to_string()),
            },
            Lack::Quality => {
                let least = self.quality.map_or("", Quality::word);
                match subject.user {
                    None => format!("nobody is logged in there; the rule needs a login by {least}"),
                    Some(_) => format!(
                        "the login was by {}, which is less than {least}",
                        subject.quality.word()
                    ),
                }
            }
            Lack::Protocol => wants(
                format!("the protocol is {}", nufw_proto::protocol::show(tuple.protocol())),
                self.protocol.map(nufw_proto::protocol::show).unwrap_or_default(),
            ),
            Lack::Source => wants(
                format!("the source is {}", tuple.src()),
                list(self.source.words()),
            ),
            Lack::Destination => wants(
                format!("the destination is {}", tuple.dst()),
                list(self.destination.words()),
            ),
            Lack::SourcePort => wants(
                format!("the source port is {}", show(ports.map(|ports| ports.src))),
                list(self.source_ports.words()),
            ),
            Lack::Port => wants(
                format!("the port is {}", show(ports.map(|ports| ports.dst))),
                list(self.ports.words()),
            ),
            Lack::IcmpType => wants(
                format!(
                    "the ICMP type is {}",
                    byte(tuple.transport().icmp().map(|key| key.kind))
                ),
                byte(self.icmp_type),
            ),
            Lack::IcmpCode => wants(
                format!(
                    "the ICMP code is {}",
                    byte(tuple.transport().icmp().map(|key| key.code))
                ),
                byte(self.icmp_code),
            ),
            Lack::Program => wants(
                format!("the program is {}", said(subject.program)),
                list(&self.programs),
            ),
            Lack::Hash => wants(
                format!(
                    "the SHA-256 of the program is {}",
                    subject
                        .program_hash
                        .map_or_else(|| "not told".to_owned(), |hash| Hash(*hash).to_string())
                ),
                list(&self.hashes),
            ),
            Lack::Os => wants(
                format!("the operating system is {}", said(subject.os)),
                list(&self.os),
            ),
            Lack::Device(place) => {
                let devices = [subject.in_dev, subject.out_dev, subject.phys_in, subject.phys_out];
                wants(
                    format!(
                        "the interface \"{}\" is {}",
                        DEVICES[place],
                        named(devices[place])
                    ),
                    list(&self.devices[place]),
                )
            }
            Lack::Gateway => wants(
                format!("the gateway is {}", named(subject.gateway)),
                list(&self.gateways),
            ),
            Lack::Time => {
                let period = self.period.as_ref().map_or("", |period| &period.name);
                format!("the time is outside period {period}")
            }
        }
    }
}

fn byte(number: Option<u8>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
}
