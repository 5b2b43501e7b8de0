//! Rows of the log as the packets that were decided about.

use super::Setting;
use crate::engine::{Identity, Quality, Subject};
use nufw_proto::{Addr, IcmpKey, Mark, Ports, Timestamp, Transport, Tuple};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A row, as far as access lists look at it.
pub(super) struct Decided {
    pub(super) id: String,
    pub(super) user: Option<Arc<Identity>>,
    pub(super) username: String,
    /// Whether the users' file does not have the user, whose groups are not known then.
    pub(super) is_stranger: bool,
    pub(super) tuple: Tuple,
    /// Whether it was let pass.
    pub(super) accepted: bool,
    /// The rule that decided, or what stands in its place.
    pub(super) acl: String,
    pub(super) policy: String,
    quality: Quality,
    program: Option<String>,
    os: Option<String>,
    in_dev: String,
    out_dev: String,
    phys_in: String,
    phys_out: String,
    gateway: String,
    pub(super) at: Timestamp,
}

/// Why a row is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skipped {
    /// No rule decided about it: nobody claimed it, or it was never asked for.
    Undecided,
    /// It cannot be read as a packet.
    Unreadable,
}

fn text(row: &Map<String, Value>, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Numbers are numbers save ids, which are strings.
fn number<T: TryFrom<i64>>(row: &Map<String, Value>, name: &str) -> Option<T> {
    let value = row.get(name)?;
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    T::try_from(number).ok()
}

impl Decided {
    pub(super) fn new(setting: &Setting, row: &Map<String, Value>) -> Result<Self, Skipped> {
        let acl = text(row, "acl");
        // Whoever was not logged in may be by another rule; everything else in brackets no rule could have changed.
        if acl.starts_with('(') && acl != "(nobody)" {
            return Err(Skipped::Undecided);
        }
        let at = number::<i64>(row, "oob_time_sec")
            .zip(number::<i64>(row, "oob_time_usec"))
            .map(|(seconds, micros)| seconds.saturating_mul(1_000_000).saturating_add(micros));
        let username = text(row, "username");
        let known = setting.users.by_name(&username);
        let user = number::<u64>(row, "user_id").map(|id| {
            known.map_or_else(
                || {
                    Arc::new(Identity {
                        user: nulog::User {
                            id,
                            name: Arc::from(username.as_str()),
                        },
                        mark: Mark(0),
                        groups: Arc::from([]),
                    })
                },
                |user| Arc::clone(&user.identity),
            )
        });
        let is_stranger = user.is_some() && known.is_none();
        Ok(Self {
            is_stranger,
            id: text(row, "id"),
            tuple: shown(row).ok_or(Skipped::Unreadable)?,
            accepted: number::<i64>(row, "state").ok_or(Skipped::Unreadable)? != 0,
            at: Timestamp::from_micros(at.ok_or(Skipped::Unreadable)?),
            quality: Quality::parse(&text(row, "auth")).unwrap_or_default(),
            program: row.get("client_app").and_then(Value::as_str).map(str::to_owned),
            os: row.get("client_os").and_then(Value::as_str).map(str::to_owned),
            in_dev: text(row, "oob_in"),
            out_dev: text(row, "oob_out"),
            phys_in: text(row, "phys_in"),
            phys_out: text(row, "phys_out"),
            gateway: text(row, "gateway"),
            policy: text(row, "policy"),
            user,
            username,
            acl,
        })
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            quality: self.quality,
            program: self.program.as_deref(),
            os: self.os.as_deref(),
            in_dev: &self.in_dev,
            out_dev: &self.out_dev,
            phys_in: &self.phys_in,
            phys_out: &self.phys_out,
            gateway: &self.gateway,
            ..Subject::new(self.user.as_deref(), &self.tuple, self.at)
        }
    }
}

/// What the packet showed at the gateway: the destination is the reply direction's source.
fn shown(row: &Map<String, Value>) -> Option<Tuple> {
    let address = |name: &str| row.get(name)?.as_str()?.parse::<Addr>().ok();
    let (source, original) = (address("ip_saddr")?, address("ip_daddr")?);
    let destination = address("reply_saddr").unwrap_or(original);
    let port = |name: &str| number::<u16>(row, name);
    let ports = port("sport").map(|src| Ports {
        src,
        dst: port("reply_sport").or_else(|| port("dport")).unwrap_or(0),
    });
    let icmp = number::<u8>(row, "icmp_type").map(|kind| IcmpKey {
        kind,
        code: number(row, "icmp_code").unwrap_or(0),
        id: number(row, "icmp_id").unwrap_or(0),
    });
    let transport = Transport::from_parts(number(row, "ip_protocol")?, ports, icmp)?;
    Tuple::new(source, destination, transport).ok()
}
