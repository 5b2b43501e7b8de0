//! Rows as every back-end gives them, made into what the server needs at its start.
//!
//! The statements give the same columns with the same types everywhere; what cannot be one of our rows is named, not guessed.

use crate::StoreError;
use crate::change::{ActiveRow, Binding, OpenRow, State, Translated};
use crate::columns::Direction;
use nufw_proto::{BootId, ConnId, EventSeq, Mark, Timestamp};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Up to where each gateway's events are in the log.
pub(crate) type Acknowledged = HashMap<Arc<str>, (BootId, EventSeq)>;

/// What [`acknowledged`] reads.
pub(crate) const ACKNOWLEDGED: &str =
    "SELECT name, boot, acknowledged FROM gateways WHERE boot IS NOT NULL AND acknowledged IS NOT NULL";

pub(crate) fn acknowledged(rows: Vec<(String, String, i64)>, log: &Path) -> Result<Acknowledged, StoreError> {
    rows.into_iter()
        .map(
            |(name, boot, acknowledged)| match (boot.parse(), u64::try_from(acknowledged)) {
                (Ok(boot), Ok(seq)) => Ok((Arc::from(name), (BootId(boot), EventSeq(seq)))),
                _ => Err(StoreError::Corrupt {
                    path: log.to_path_buf(),
                    message: format!("the acknowledged events of gateway {name} are not numbers"),
                }),
            },
        )
        .collect()
}

/// A row in state OPEN or ESTABLISHED, column by column.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct ActiveColumns {
    id: i64,
    gateway: String,
    state: i64,
    oob_time_sec: i64,
    oob_time_usec: i64,
    ct_zone: i64,
    oob_mark: i64,
    user_id: Option<i64>,
    username: Option<String>,
    client_os: Option<String>,
    client_app: Option<String>,
    oob_in: Option<String>,
    oob_out: Option<String>,
    phys_in: Option<String>,
    phys_out: Option<String>,
    auth: Option<String>,
    ip_protocol: i64,
    ip_saddr: String,
    ip_daddr: String,
    sport: Option<i64>,
    dport: Option<i64>,
    icmp_type: Option<i64>,
    icmp_code: Option<i64>,
    icmp_id: Option<i64>,
    reply_saddr: Option<String>,
    reply_daddr: Option<String>,
    reply_sport: Option<i64>,
    reply_dport: Option<i64>,
    reply_icmp_type: Option<i64>,
    reply_icmp_code: Option<i64>,
    reply_icmp_id: Option<i64>,
    ct_id: Option<i64>,
    ct_mark: Option<i64>,
}

pub(crate) fn active(rows: Vec<ActiveColumns>, log: &Path) -> Result<Vec<ActiveRow>, StoreError> {
    let mut texts = HashMap::new();
    rows.into_iter()
        .map(|row| {
            row.read(&mut texts).map_err(|what| StoreError::Corrupt {
                path: log.to_path_buf(),
                message: format!("row {} of conntrack_ulog has an impossible {what}", row.id),
            })
        })
        .collect()
}

impl ActiveColumns {
    /// The row; an error is the name of what cannot be right.
    fn read(&self, texts: &mut HashMap<String, Arc<str>>) -> Result<ActiveRow, &'static str> {
        // The same few texts stand in many rows.
        let mut text = |text: &String| match texts.get(text) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(
                texts
                    .entry(text.clone())
                    .or_insert_with_key(|text| Arc::from(text.as_str())),
            ),
        };
        let gateway = text(&self.gateway);
        let [
            username,
            client_os,
            client_app,
            in_dev,
            out_dev,
            phys_in,
            phys_out,
            auth,
        ] = [
            &self.username,
            &self.client_os,
            &self.client_app,
            &self.oob_in,
            &self.oob_out,
            &self.phys_in,
            &self.phys_out,
            &self.auth,
        ]
        .map(|found| found.as_ref().map(&mut text));
        let known = |text: Option<Arc<str>>| text.unwrap_or_else(|| Arc::from(""));
        let original = Direction {
            protocol: self.ip_protocol,
            src: &self.ip_saddr,
            dst: &self.ip_daddr,
            sport: self.sport,
            dport: self.dport,
            icmp: [self.icmp_type, self.icmp_code, self.icmp_id],
        };
        Ok(ActiveRow {
            id: u64::try_from(self.id)
                .ok()
                .and_then(|id| ConnId::try_from(id).ok())
                .ok_or("id")?,
            gateway,
            state: match self.state {
                2 => State::Established,
                _ => State::Open,
            },
            received: Timestamp::from_micros(
                self.oob_time_sec
                    .saturating_mul(1_000_000)
                    .saturating_add(self.oob_time_usec),
            ),
            zone: u16::try_from(self.ct_zone).map_err(|_| "ct_zone")?,
            original: original.tuple()?,
            translated: self.translated(&original)?,
            mark: u32::try_from(self.oob_mark).map(Mark).map_err(|_| "oob_mark")?,
            user_id: self
                .user_id
                .map(|id| u64::try_from(id).map_err(|_| "user_id"))
                .transpose()?,
            username,
            client_os,
            client_app,
            in_dev: known(in_dev),
            out_dev: known(out_dev),
            phys_in: known(phys_in),
            phys_out: known(phys_out),
            auth,
        })
    }

    fn translated(&self, original: &Direction<'_>) -> Result<Translated, &'static str> {
        let source = self.reply_saddr.as_deref().ok_or("reply_saddr")?;
        let Some(ct_id) = self.ct_id else {
            let shown = Direction {
                dst: source,
                dport: self.reply_sport,
                ..*original
            };
            return Ok(Translated::Shown(shown.tuple()?));
        };
        let reply = Direction {
            protocol: self.ip_protocol,
            src: source,
            dst: self.reply_daddr.as_deref().ok_or("reply_daddr")?,
            sport: self.reply_sport,
            dport: self.reply_dport,
            icmp: [self.reply_icmp_type, self.reply_icmp_code, self.reply_icmp_id],
        };
        Ok(Translated::Bound(Binding {
            ct_id: u32::try_from(ct_id).map_err(|_| "ct_id")?,
            ct_mark: self
                .ct_mark
                .and_then(|mark| u32::try_from(mark).ok())
                .map(Mark)
                .ok_or("ct_mark")?,
            original: original.tuple()?,
            reply: reply.tuple()?,
        }))
    }
}

/// The columns of an existing row that the same OPEN or DROP would have given it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct ExistingColumns {
    pub(crate) id: i64,
    state: i64,
    oob_time_sec: i64,
    oob_time_usec: i64,
    oob_mark: i64,
    gateway: String,
    ct_zone: i64,
    user_id: Option<i64>,
    ct_id: Option<i64>,
    ip_protocol: i64,
    ip_saddr: String,
    ip_daddr: String,
    sport: Option<i64>,
    dport: Option<i64>,
}

impl ExistingColumns {
    /// The first column that differs from the row that was to be inserted. The tuple is compared only while no kernel
    /// entry was seen, since that overrides it.
    pub(crate) fn difference(&self, row: &OpenRow, state: State) -> Option<&'static str> {
        let ports = row.original.transport().ports();
        let bound = self.ct_id.is_some();
        let received = self
            .oob_time_sec
            .saturating_mul(1_000_000)
            .saturating_add(self.oob_time_usec);
        let user_id = row.user.as_ref().and_then(|user| i64::try_from(user.id).ok());
        let compared = [
            ("state", (self.state == 0) == (state == State::Drop)),
            ("oob_time", received == row.received.micros()),
            ("oob_mark", self.oob_mark == i64::from(row.mark.0)),
            ("gateway", self.gateway == *row.gateway),
            ("ct_zone", self.ct_zone == i64::from(row.zone)),
            ("user_id", self.user_id == user_id),
            (
                "ip_saddr",
                bound || self.ip_saddr == row.original.src().to_string(),
            ),
            (
                "ip_daddr",
                bound || self.ip_daddr == row.original.dst().to_string(),
            ),
            (
                "source port",
                bound || self.sport == ports.map(|p| i64::from(p.src)),
            ),
            (
                "destination port",
                bound || self.dport == ports.map(|p| i64::from(p.dst)),
            ),
            (
                "ip_protocol",
                self.ip_protocol == i64::from(row.original.protocol()),
            ),
        ];
        compared
            .into_iter()
            .find_map(|(what, same)| (!same).then_some(what))
    }
}

/// Compares existing rows with those that were to be inserted under their ids.
pub(crate) fn expect_same(found: &[ExistingColumns], rows: &[(&OpenRow, State)]) -> Result<(), StoreError> {
    let found: HashMap<i64, &ExistingColumns> = found.iter().map(|found| (found.id, found)).collect();
    for (row, state) in rows {
        let difference = found
            .get(&row.id.get())
            .and_then(|found| found.difference(row, *state));
        if let Some(what) = difference {
            return Err(StoreError::Conflict { id: row.id, what });
        }
    }
    Ok(())
}
