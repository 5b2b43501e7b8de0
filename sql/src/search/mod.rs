//! Finds connections in the live table and the archive: by what is known of them, or by an address, a port and a time.
//!
//! Reads only, in short statements, each of a span of time, and a bounded number of rows at a time. A row that is moved to the
//! archive meanwhile is neither missed nor given twice.

mod clause;
mod columns;
mod connection;
#[cfg(test)]
pub(crate) mod plans;
mod whois;

pub use whois::{Covers, Holder, Holders, WhoisQuestion};

use crate::{Location, State, StoreError};
use clause::Clause;
use connection::Connection;
use nufw_common::clock;
use nufw_proto::{Addr, Timestamp};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// The span of time of the first statement, in seconds.
const FIRST_SPAN: i64 = 86_400;
/// A statement that was faster lets the next span be twice as long.
const FAST: Duration = Duration::from_millis(250);
/// After one that was slower it is half as long.
const SLOW: Duration = Duration::from_secs(2);
/// The shortest span.
const LEAST_SPAN: i64 = 60;

/// The views that are searched, in the order in which a row moves through them.
const VIEWS: [&str; 2] = ["live_rows", "archived_rows"];

/// Addresses from one to another of the same family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddrRange {
    /// The first one.
    pub first: Addr,
    /// The last one.
    pub last: Addr,
}

impl AddrRange {
    fn contains(self, address: IpAddr) -> bool {
        let (first, last) = (self.first.ip(), self.last.ip());
        address.is_ipv4() == first.is_ipv4() && first <= address && address <= last
    }
}

/// Which end of time comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The latest.
    #[default]
    NewestFirst,
    /// The earliest.
    OldestFirst,
}

/// What is looked for: connections that fit everything that is given. Times are those of the first packet.
#[derive(Debug, Clone, Default)]
pub struct SearchFilter {
    /// Of this user.
    pub user: Option<String>,
    /// Of a program whose path contains this.
    pub app: Option<String>,
    /// From these addresses, before translation.
    pub source: Option<AddrRange>,
    /// To these addresses, before translation.
    pub destination: Option<AddrRange>,
    /// From this port.
    pub source_port: Option<u16>,
    /// To this port.
    pub port: Option<u16>,
    /// Of this protocol.
    pub protocol: Option<u8>,
    /// Through this gateway.
    pub gateway: Option<String>,
    /// In one of these states; any, if there is none.
    pub states: Vec<State>,
    /// Decided by this rule.
    pub acl: Option<String>,
    /// Ended for this reason.
    pub close_reason: Option<String>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// In which order.
    pub order: Order,
}

impl SearchFilter {
    fn texts(&self) -> impl Iterator<Item = &String> {
        [
            &self.user,
            &self.app,
            &self.gateway,
            &self.acl,
            &self.close_reason,
        ]
        .into_iter()
        .flatten()
    }
}

/// A row's place in the order of time, for reading on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    seconds: i64,
    micros: i64,
    id: i64,
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}-{}", self.seconds, self.micros, self.id)
    }
}

/// A text that is no place in the order of rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a place to read on from, as the end of a page names it: seconds.microseconds-id")]
pub struct NotAKey(String);

impl FromStr for RowKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let read = || {
            let (time, id) = text.rsplit_once('-')?;
            let (seconds, micros) = time.split_once('.')?;
            let micros = Some(micros).filter(|micros| micros.len() == 6)?;
            Some(Self {
                seconds: seconds.parse().ok()?,
                micros: micros.parse().ok()?,
                id: id.parse().ok()?,
            })
        };
        read().ok_or_else(|| NotAKey(text.chars().take(64).collect()))
    }
}

/// A connection that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its place.
    pub key: RowKey,
    /// Its columns by name, [`Row::COLUMNS`]: ids are strings, times RFC 3339 text in UTC, addresses text.
    pub values: Map<String, Value>,
}

impl Row {
    /// The columns, in the order in which they are best shown.
    pub const COLUMNS: [&str; 45] = columns::NAMES;

    fn new(values: Map<String, Value>) -> Option<Self> {
        let number = |name: &str| values.get(name).and_then(Value::as_i64);
        let key = RowKey {
            seconds: number("oob_time_sec")?,
            micros: number("oob_time_usec")?,
            id: values.get("id")?.as_str()?.parse().ok()?,
        };
        Some(Self { key, values })
    }

    fn address(&self, name: &str) -> Option<IpAddr> {
        self.values.get(name)?.as_str()?.parse().ok()
    }
}

/// The log, open for searching.
#[derive(Debug)]
pub struct Search {
    connection: Connection,
    /// The seconds of the first and the last row, once there were any.
    extent: Option<(i64, i64)>,
    /// Seconds that the next statement looks at.
    span: i64,
}

impl Search {
    /// Rows that are given at once, since all are held in memory.
    pub const MAX_PAGE: u32 = 10_000;

    /// Opens the log read-only; it must exist and have the schema of this version. No statement may take longer than
    /// `patience` on a database server.
    pub async fn open(location: &Location, patience: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            connection: Connection::open(location, patience).await?,
            extent: None,
            span: FIRST_SPAN,
        })
    }

    /// The next `limit` connections after the one at `after`, or the first ones. Fewer mean that there are no more.
    pub async fn page(
        &mut self,
        filter: &SearchFilter,
        after: Option<RowKey>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let limit = limit.min(Self::MAX_PAGE) as usize;
        let mut rows = Vec::new();
        // No row has such a text, and not every database takes it.
        if filter.texts().any(|text| text.contains('\0')) {
            return Ok(rows);
        }
        let Some((mut first, mut last)) = self.bounds(filter).await? else {
            return Ok(rows);
        };
        let mut after = after;
        while rows.len() < limit {
            match (filter.order, after) {
                (Order::NewestFirst, Some(key)) => last = last.min(key.seconds),
                (Order::OldestFirst, Some(key)) => first = first.max(key.seconds),
                (_, None) => {}
            }
            if first > last {
                break;
            }
            let window = match filter.order {
                Order::NewestFirst => (first.max(last.saturating_sub(self.span)), last),
                Order::OldestFirst => (first, last.min(first.saturating_add(self.span))),
            };
            // Of what a file's own statement cannot tell apart, more than are wanted.
            let wanted = if self.connection.compares_addresses() || !ranged(filter) {
                limit - rows.len()
            } else {
                limit.max(1000)
            };
            let began = clock::mono();
            let found = self.window(filter, after, window, wanted).await?;
            let took = began.elapsed();
            if took < FAST {
                self.span = self.span.saturating_mul(2);
            } else if took > SLOW {
                self.span = (self.span / 2).max(LEAST_SPAN);
            }
            let whole = found.len() < wanted;
            if let Some(row) = found.last().filter(|_| !whole) {
                after = Some(row.key);
            }
            let room = limit - rows.len();
            rows.extend(found.into_iter().filter(|row| fits(filter, row)).take(room));
            if whole {
                after = None;
                match filter.order {
                    Order::NewestFirst => last = window.0.saturating_sub(1),
                    Order::OldestFirst => first = window.1.saturating_add(1),
                }
            }
        }
        Ok(rows)
    }

    /// The seconds of the first and the last row.
    async fn extent(&mut self) -> Result<Option<(i64, i64)>, StoreError> {
        if self.extent.is_none() {
            self.extent = self.connection.extent().await?;
        }
        Ok(self.extent)
    }

    /// The seconds that can have rows.
    async fn bounds(&mut self, filter: &SearchFilter) -> Result<Option<(i64, i64)>, StoreError> {
        let extent = self.extent().await?;
        let second = |at: Timestamp| at.micros().div_euclid(1_000_000);
        Ok(extent.map(|(first, last)| {
            (
                filter.since.map_or(first, |since| first.max(second(since))),
                filter.until.map_or(last, |until| last.min(second(until))),
            )
        }))
    }

    /// The rows of a window: of the live table first and then of the archive, so that a row which is moved in between is
    /// seen in one of them at least.
    async fn window(
        &mut self,
        filter: &SearchFilter,
        after: Option<RowKey>,
        window: (i64, i64),
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let mut rows = BTreeMap::new();
        for view in VIEWS {
            let mut clause = Clause::new(self.connection.dialect());
            clause.filter(filter, after, window);
            for row in self.connection.rows(view, &clause, filter.order, limit).await? {
                rows.insert(row.key, row);
            }
        }
        Ok(match filter.order {
            Order::NewestFirst => rows.into_values().rev().take(limit).collect(),
            Order::OldestFirst => rows.into_values().take(limit).collect(),
        })
    }
}

fn ranged(filter: &SearchFilter) -> bool {
    let range = |range: Option<AddrRange>| range.is_some_and(|range| range.first != range.last);
    range(filter.source) || range(filter.destination)
}

/// What a statement for a file cannot ask: its addresses are text.
fn fits(filter: &SearchFilter, row: &Row) -> bool {
    let within = |range: Option<AddrRange>, column| {
        range.is_none_or(|range| row.address(column).is_some_and(|address| range.contains(address)))
    };
    within(filter.source, "ip_saddr") && within(filter.destination, "ip_daddr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_as_it_was_written() {
        for text in ["1795183385.000007-562949953421313", "-5.999999-1", "0.000000-1"] {
            assert_eq!(text.parse::<RowKey>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "1-2",
            "1.5-2",
            "1.000000",
            "1.0000000-2",
            "x.000000-2",
            "1.000000-",
        ] {
            assert!(text.parse::<RowKey>().is_err(), "{text}");
        }
    }
}
