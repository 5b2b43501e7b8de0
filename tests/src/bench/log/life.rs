//! Connections to log: what their rows hold, and the three changes of each one's life.
//!
//! Pure. Every row has a user, a program, a rule and both directions, as the rows of a busy gateway have.

use anyhow::Result;
use nufw_proto::{Addr, ConnId, Count, Counters, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Close, CloseReason, Established, OpenRow, User};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The gateway of every row.
pub(super) const GATEWAY: &str = "gw1";
/// Users, programs and hosts differ, as on a real network.
const USERS: u64 = 2_000;
const BEGAN: i64 = 1_800_000_000_000_000;

/// Makes rows from ids.
pub(super) struct Lives {
    gateway: Arc<str>,
    rule: Arc<str>,
    lan: Arc<str>,
    wan: Arc<str>,
    os: Arc<str>,
    users: Vec<User>,
    programs: [Arc<str>; 4],
}

impl Lives {
    pub(super) fn new() -> Self {
        let user = |id| User {
            id,
            name: format!("user{id}").into(),
        };
        Self {
            gateway: GATEWAY.into(),
            rule: "web".into(),
            lan: "lan".into(),
            wan: "wan".into(),
            os: "Linux 6.1.0-18-amd64".into(),
            users: (1_000..1_000 + USERS).map(user).collect(),
            programs: ["firefox-esr/firefox-esr", "chromium/chromium", "curl", "ssh"]
                .map(|name| format!("/usr/lib/{name}").into()),
        }
    }

    pub(super) fn open(&self, id: ConnId) -> Result<OpenRow> {
        let original = tuple(id)?;
        let number = sequence(id);
        let user = &self.users[usize::try_from(number % USERS)?];
        Ok(OpenRow {
            id,
            gateway: Arc::clone(&self.gateway),
            received: Timestamp::from_micros(BEGAN + i64::try_from(number)?),
            prefix: Arc::clone(&self.rule),
            mark: Mark(u32::try_from(user.id)?),
            in_dev: Arc::clone(&self.lan),
            out_dev: Arc::clone(&self.wan),
            phys_in: Arc::from(""),
            phys_out: Arc::from(""),
            zone: 0,
            original,
            shown: original,
            user: Some(user.clone()),
            client_os: Some(Arc::clone(&self.os)),
            client_app: Some(Arc::clone(&self.programs[usize::try_from(number % 4)?])),
            acl: Arc::clone(&self.rule),
            parent: None,
            policy: Arc::from(""),
            auth: None,
        })
    }
}

pub(super) fn established(id: ConnId) -> Result<Established> {
    Ok(Established {
        id,
        at: Some(Timestamp::from_micros(BEGAN + i64::try_from(sequence(id))? + 900)),
        binding: Some(binding(id)?),
    })
}

pub(super) fn close(id: ConnId) -> Result<Close> {
    let count = |packets| Count {
        packets,
        bytes: packets * 700 + sequence(id) % 700,
    };
    Ok(Close {
        id,
        at: Some(Timestamp::from_micros(
            BEGAN + i64::try_from(sequence(id))? + 1_000_000,
        )),
        reason: CloseReason::Finished,
        counters: Some(Counters {
            original: count(12),
            reply: count(17),
        }),
        binding: Some(binding(id)?),
    })
}

fn sequence(id: ConnId) -> u64 {
    id.get().unsigned_abs() & ((1 << 49) - 1)
}

fn tuple(id: ConnId) -> Result<Tuple> {
    let number = sequence(id);
    let user = u32::try_from(number % USERS)?;
    let ports = Ports {
        src: u16::try_from(1_024 + number / USERS % 60_000)?,
        dst: 443,
    };
    let server = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + u32::try_from(number % 199)?);
    Ok(Tuple::new(
        Addr::from(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + user)),
        Addr::from(server),
        Transport::Tcp(ports),
    )?)
}

/// As the kernel has it behind no translation.
fn binding(id: ConnId) -> Result<Binding> {
    let original = tuple(id)?;
    let ports = original.transport().ports().unwrap_or(Ports { src: 0, dst: 0 });
    let reply = Transport::Tcp(Ports {
        src: ports.dst,
        dst: ports.src,
    });
    Ok(Binding {
        ct_id: u32::try_from(sequence(id).wrapping_mul(2_654_435_761) & 0xffff_ffff)?,
        ct_mark: Mark(1_001),
        original,
        reply: Tuple::new(original.dst(), original.src(), reply)?,
    })
}
