//! In which order connections and groups stand, and what a group adds up.
//!
//! What is not known stands last, whichever way the order goes.

use crate::row::{Rate, Row, address_order};
use crate::text::UNKNOWN;
use clap::ValueEnum;
use nufw_proto::Timestamp;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

/// What connections are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    User,
    Program,
    Protocol,
    Source,
    Destination,
    State,
    Age,
    In,
    Out,
    Rate,
}

impl Sort {
    pub(crate) const ALL: [Self; 10] = [
        Self::User,
        Self::Program,
        Self::Protocol,
        Self::Source,
        Self::Destination,
        Self::State,
        Self::Age,
        Self::In,
        Self::Out,
        Self::Rate,
    ];

    /// Whether the largest stands first unless told otherwise.
    pub(crate) fn falls(self) -> bool {
        matches!(self, Self::In | Self::Out | Self::Rate)
    }

    fn compare(self, a: &Row, b: &Row, falling: bool) -> Ordering {
        let (x, y) = (&a.log, &b.log);
        match self {
            Self::User => directed(x.username.as_ref(), y.username.as_ref(), falling),
            Self::Program => directed(x.client_app.as_ref(), y.client_app.as_ref(), falling),
            Self::Protocol => directed(Some(x.ip_protocol), Some(y.ip_protocol), falling),
            Self::Source => {
                let key = |row: &Row| (row.log.ip_saddr.clone(), row.log.sport);
                endpoints(&key(a), &key(b), falling)
            }
            Self::Destination => {
                let key = |row: &Row| (row.log.ip_daddr.clone(), row.log.dport);
                endpoints(&key(a), &key(b), falling)
            }
            Self::State => directed(Some(x.state), Some(y.state), falling),
            // The youngest first, which is the latest.
            Self::Age => directed(Some(y.received), Some(x.received), falling),
            Self::In => directed(x.bytes_in, y.bytes_in, falling),
            Self::Out => directed(x.bytes_out, y.bytes_out, falling),
            Self::Rate => directed(a.rate.map(Rate::total), b.rate.map(Rate::total), falling),
        }
    }
}

fn endpoints(a: &(String, Option<u16>), b: &(String, Option<u16>), falling: bool) -> Ordering {
    let (x, y) = ((address_order(&a.0), a.1), (address_order(&b.0), b.1));
    directed(Some(x), Some(y), falling)
}

fn directed<T: Ord>(a: Option<T>, b: Option<T>, falling: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if falling => b.cmp(&a),
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Sorts places in `rows`; equal ones stand the newest first, so that nothing jumps between two reads.
pub(crate) fn sort(places: &mut [usize], rows: &[Row], by: Sort, falling: bool) {
    places.sort_by(|&a, &b| match (rows.get(a), rows.get(b)) {
        (Some(a), Some(b)) => by.compare(a, b, falling).then(b.log.id.cmp(&a.log.id)),
        _ => Ordering::Equal,
    });
}

/// What connections are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupBy {
    User,
    /// The source address.
    Host,
    Program,
}

impl GroupBy {
    /// The next one, round by way of none.
    pub(crate) fn after(current: Option<Self>) -> Option<Self> {
        match current {
            None => Some(Self::User),
            Some(Self::User) => Some(Self::Host),
            Some(Self::Host) => Some(Self::Program),
            Some(Self::Program) => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
            Self::Program => "program",
        }
    }

    fn key(self, row: &Row) -> &str {
        match self {
            Self::User => row.user(),
            Self::Host => &row.log.ip_saddr,
            Self::Program => row.program(),
        }
    }

    /// The filter that shows the connections of a group, if one can.
    pub(crate) fn filter(self, key: &str) -> Option<String> {
        if key == UNKNOWN || key.contains('"') {
            return None;
        }
        let field = match self {
            Self::User => "user",
            Self::Host => "src",
            Self::Program => "program",
        };
        Some(if key.contains(char::is_whitespace) {
            format!("{field}:\"{key}\"")
        } else {
            format!("{field}:{key}")
        })
    }
}

/// What groups are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupSort {
    Key,
    Connections,
    In,
    Out,
    Rate,
    Oldest,
}

impl GroupSort {
    pub(crate) const ALL: [Self; 6] = [
        Self::Key,
        Self::Connections,
        Self::In,
        Self::Out,
        Self::Rate,
        Self::Oldest,
    ];

    pub(crate) fn falls(self) -> bool {
        self != Self::Key
    }
}

/// Connections that have something in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) key: String,
    pub(crate) connections: usize,
    pub(crate) established: usize,
    /// Of those whose counters are known.
    pub(crate) bytes_in: Option<u64>,
    pub(crate) bytes_out: Option<u64>,
    pub(crate) rate: Option<u64>,
    pub(crate) oldest: Timestamp,
}

impl Group {
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        let micros = now.micros().saturating_sub(self.oldest.micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// Adds up the rows at these places, and sorts what comes of it.
pub(crate) fn group(
    places: &[usize],
    rows: &[Row],
    by: GroupBy,
    sort: GroupSort,
    falling: bool,
) -> Vec<Group> {
    let mut groups: HashMap<&str, Group> = HashMap::new();
    for row in places.iter().filter_map(|&place| rows.get(place)) {
        let key = by.key(row);
        let group = groups.entry(key).or_insert_with(|| Group {
            key: key.to_owned(),
            connections: 0,
            established: 0,
            bytes_in: None,
            bytes_out: None,
            rate: None,
            oldest: row.log.received,
        });
        group.connections += 1;
        group.established += usize::from(row.log.state == 2);
        group.bytes_in = sum(group.bytes_in, row.log.bytes_in);
        group.bytes_out = sum(group.bytes_out, row.log.bytes_out);
        group.rate = sum(group.rate, row.rate.map(Rate::total));
        group.oldest = group.oldest.min(row.log.received);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|a, b| {
        let order = match sort {
            GroupSort::Key => directed(Some(address_order(&a.key)), Some(address_order(&b.key)), falling),
            GroupSort::Connections => directed(Some(a.connections), Some(b.connections), falling),
            GroupSort::In => directed(a.bytes_in, b.bytes_in, falling),
            GroupSort::Out => directed(a.bytes_out, b.bytes_out, falling),
            GroupSort::Rate => directed(a.rate, b.rate, falling),
            GroupSort::Oldest => directed(Some(b.oldest), Some(a.oldest), falling),
        };
        order.then_with(|| a.key.cmp(&b.key))
    });
    groups
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}
