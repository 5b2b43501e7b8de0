//! Who had an address and port at a time, as the outside saw them: every connection that may have, none guessed.
//!
//! The outside sees the reply's destination: after source NAT, equal to the original source without it. How sure each one
//! is follows from its beginning, its end and the error of the clocks alone.

use super::clause::{Clause, Dialect};
use super::{Row, Search, columns};
use crate::StoreError;
use crate::columns::INFERRED_REASONS;
use nufw_proto::{Addr, Timestamp};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// Connections that are given at most; more are said to be more.
const MAX_HOLDERS: usize = 1000;
/// How long before the time a connection that the kernel never confirmed is still looked for: it ends within minutes.
const UNCONFIRMED: i64 = 3600;

/// The days of a span of seconds, as the index of a file has them.
const DAYS: &str = "oob_time_sec / 86400 IN (WITH RECURSIVE days(day) AS (SELECT ? / 86400 UNION ALL \
     SELECT day + 1 FROM days WHERE day < ? / 86400) SELECT day FROM days)";

/// Who had this address and port at this time?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhoisQuestion {
    /// The address, as the outside saw it.
    pub address: Addr,
    /// The port.
    pub port: u16,
    /// Of this protocol alone.
    pub protocol: Option<u8>,
    /// When.
    pub at: Timestamp,
    /// By how much the clocks of the asker and of the gateways may differ.
    pub clock_error: Duration,
}

/// How sure it is that a connection was there at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Covers {
    /// It had begun and had not ended, whatever the clocks were within their error.
    Surely,
    /// It may have been.
    Possibly,
}

/// A connection that had the address and port.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// The connection.
    pub row: Row,
    /// How sure it is.
    pub covers: Covers,
    /// What it is not sure for; empty if it is.
    pub doubt: &'static str,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Holders {
    /// Most likely first.
    pub holders: Vec<Holder>,
    /// There are more, which are not given.
    pub more: bool,
}

/// The time that was asked for, with its error, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    at: i64,
    from: i64,
    to: i64,
}

impl Window {
    pub(super) fn new(question: &WhoisQuestion) -> Self {
        let error = i64::try_from(question.clock_error.as_micros()).unwrap_or(i64::MAX);
        let at = question.at.micros();
        Self {
            at,
            from: at.saturating_sub(error),
            to: at.saturating_add(error),
        }
    }
}

impl Search {
    /// Every connection that had the address and port within the error of the clocks, most likely first.
    pub async fn whois(&mut self, question: &WhoisQuestion) -> Result<Holders, StoreError> {
        let window = Window::new(question);
        let Some((first, _)) = self.extent().await? else {
            return Ok(Holders {
                holders: Vec::new(),
                more: false,
            });
        };
        let dialect = self.connection.dialect();
        let mut rows: BTreeMap<i64, (Row, Option<i64>)> = BTreeMap::new();
        let mut more = false;
        for (view, clause) in clauses(dialect, question, window, first) {
            let found = self.connection.objects(holders(view, &clause), &clause).await?;
            more |= found.len() > MAX_HOLDERS;
            for mut values in found {
                let end = values.remove("end_micros").and_then(|end| end.as_i64());
                if let Some(row) = Row::new(values) {
                    rows.insert(row.key.id, (row, end));
                }
            }
        }
        let mut holders: Vec<_> = rows
            .into_values()
            .filter_map(|(row, end)| {
                let start = row
                    .key
                    .seconds
                    .saturating_mul(1_000_000)
                    .saturating_add(row.key.micros);
                let overlaps = start <= window.to && end.is_none_or(|end| end >= window.from);
                let (covers, doubt) = judge(&row, start, end, window);
                // Inside at the very instant, before what only touches the window; then what began last.
                let outside = start > window.at || end.is_some_and(|end| end < window.at);
                let order = (covers, outside, end.is_none(), Reverse(start));
                overlaps.then_some((order, Holder { row, covers, doubt }))
            })
            .collect();
        holders.sort_by_key(|(order, _)| *order);
        more |= holders.len() > MAX_HOLDERS;
        holders.truncate(MAX_HOLDERS);
        Ok(Holders {
            holders: holders.into_iter().map(|(_, holder)| holder).collect(),
            more,
        })
    }
}

/// The statement for the rows of a view.
pub(super) fn holders(view: &str, clause: &Clause) -> String {
    let columns = columns::list(clause.dialect());
    let end = columns::end_micros(clause.dialect());
    let conditions = clause.conditions();
    let most = MAX_HOLDERS + 1;
    format!(
        "SELECT {columns}, {end} AS end_micros FROM {view} AS c{conditions} ORDER BY oob_time_sec DESC LIMIT {most}"
    )
}

fn judge(row: &Row, start: i64, end: Option<i64>, window: Window) -> (Covers, &'static str) {
    let live = matches!(row.values.get("state").and_then(Value::as_i64), Some(1 | 2));
    let confirmed = row.values.get("reply_daddr").is_some_and(|side| !side.is_null());
    let reason = row.values.get("close_reason").and_then(Value::as_str);
    let inferred = reason.is_some_and(|reason| INFERRED_REASONS.contains(&reason));
    let possibly = |doubt| (Covers::Possibly, doubt);
    match end {
        _ if !confirmed => possibly("the kernel has not confirmed it, so its translation is not known"),
        _ if start > window.at => possibly("it began after the time, within the clocks' error"),
        _ if start > window.from => possibly("it began within the clocks' error of the time"),
        Some(end) if end < window.at => possibly("it ended before the time, within the clocks' error"),
        Some(end) if end < window.to => possibly("it ended within the clocks' error of the time"),
        Some(_) if inferred => possibly("its end was not seen: it may have ended earlier"),
        Some(_) => (Covers::Surely, ""),
        None if live => (Covers::Surely, ""),
        None => possibly("when it ended is not known"),
    }
}

/// The statements' conditions, each served by an index of its view.
pub(super) fn clauses(
    dialect: Dialect,
    question: &WhoisQuestion,
    window: Window,
    first: i64,
) -> Vec<(&'static str, Clause)> {
    let (address, port) = (question.address, i64::from(question.port));
    let [from, to] = [window.from, window.to].map(|micros| micros.div_euclid(1_000_000));
    let seconds_to = to;
    let begin = |from_seconds: Option<i64>| {
        let mut clause = Clause::new(dialect);
        clause.and("oob_time_sec <= ?", [seconds_to.into()]);
        if let Some(from) = from_seconds {
            clause.and("oob_time_sec >= ?", [from.into()]);
        }
        let end = format!(
            "(end_timestamp IS NULL OR end_timestamp >= {})",
            columns::time_parameter(dialect)
        );
        clause.and(&end, [window.from.into()]);
        clause.and("state <> 0", []);
        if let Some(protocol) = question.protocol {
            clause.and("ip_protocol = ?", [i64::from(protocol).into()]);
        }
        clause
    };
    let side = [address.into(), port.into()];
    let mut clauses = Vec::new();
    // Live: translated; and not, or not known yet.
    if dialect == Dialect::Sqlite {
        let mut live = begin(None);
        live.and(
            "(reply_daddr = ? AND reply_dport = ? OR reply_daddr IS NULL AND ip_saddr = ? AND sport = ?)",
            [address.into(), port.into(), address.into(), port.into()],
        );
        clauses.push(("live_rows", live));
    } else {
        let mut translated = begin(None);
        translated.and("nat_saddr = ? AND nat_sport = ?", side.clone());
        clauses.push(("live_rows", translated));
        let mut plain = begin(None);
        plain.and("ip_saddr = ? AND sport = ? AND nat_saddr IS NULL", side.clone());
        clauses.push(("live_rows", plain));
    }
    let mut archived = begin(None);
    if dialect == Dialect::Sqlite {
        // The index begins with the day.
        archived.and(DAYS, [first.into(), seconds_to.into()]);
    }
    archived.and("reply_daddr = ? AND reply_dport = ?", side.clone());
    clauses.push(("archived_rows", archived));
    let mut unconfirmed = begin(Some(from.saturating_sub(UNCONFIRMED)));
    unconfirmed.and("ip_saddr = ? AND sport = ? AND reply_daddr IS NULL", side);
    clauses.push(("archived_rows", unconfirmed));
    clauses
}
