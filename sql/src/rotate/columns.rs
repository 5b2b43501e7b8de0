//! What is read of rows before they go: every column of a table, as text, whatever the database.
//!
//! The order is the tables' own; an exported file has these columns.

use crate::StoreError;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

/// Columns of the archive: `@` marks a time, `#` an address.
pub(super) const ULOG: &str = "id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, \
     #ip_saddr, #ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, \
     user_id, username, client_os, client_app, @start_timestamp, @end_timestamp, packets_in, packets_out, bytes_in, \
     bytes_out, #reply_saddr, #reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, \
     gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth";
/// Columns of the client sessions.
const USERS: &str = "id, user_id, username, #ip_saddr, os_sysname, os_release, os_version, @start_time, @end_time, \
     end_reason";
/// Columns of the gaps.
const GAPS: &str = "id, gateway, @from_timestamp, @to_timestamp, cause, count";

/// A table that is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Connections that are over: `ulog`.
    Archive,
    /// Client sessions that are over: `users`.
    Sessions,
    /// Times in which something may have been missed: `log_gap`.
    Gaps,
}

impl Kept {
    /// The table's name.
    pub fn table(self) -> &'static str {
        match self {
            Self::Archive => "ulog",
            Self::Sessions => "users",
            Self::Gaps => "log_gap",
        }
    }

    fn marked(self) -> &'static str {
        match self {
            Self::Archive => ULOG,
            Self::Sessions => USERS,
            Self::Gaps => GAPS,
        }
    }

    /// The columns of a record, in its order.
    pub fn columns(self) -> Vec<&'static str> {
        let columns = self.marked().split(", ");
        columns
            .map(|column| column.trim_start_matches(['@', '#']))
            .collect()
    }
}

/// One row: its columns as text in the order of [`Kept::columns`], `None` for NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(pub Vec<Option<String>>);

impl Record {
    /// Its id, by which it is dropped.
    pub fn id(&self) -> Option<i64> {
        self.0.first()?.as_deref()?.parse().ok()
    }

    /// When its connection was seen, in the archive: seconds, and microseconds of the second.
    pub fn at(&self) -> Option<(i64, i64)> {
        let number = |column: usize| self.0.get(column)?.as_deref()?.parse().ok();
        Some((number(2)?, number(3)?))
    }
}

/// A dialect of SQL.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

/// The columns of a table as text.
pub(super) fn as_text(kept: Kept, dialect: Dialect) -> String {
    let columns = kept.marked().split(", ").map(|column| {
        let name = column.trim_start_matches(['@', '#']);
        let (time, address) = (column.starts_with('@'), column.starts_with('#'));
        match dialect {
            Dialect::Postgres if time => {
                format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
            }
            Dialect::Postgres if address => format!("host({name})"),
            Dialect::Postgres => format!("{name}::text"),
            Dialect::MySql if time => format!("date_format({name}, '%Y-%m-%dT%H:%i:%s.%fZ')"),
            Dialect::MySql if address => format!("inet6_ntoa({name})"),
            Dialect::MySql => format!("CAST({name} AS CHAR)"),
            Dialect::Sqlite if time => format!(
                "strftime('%Y-%m-%dT%H:%M:%S', {name} / 1000000, 'unixepoch') || printf('.%06dZ', {name} % 1000000)"
            ),
            Dialect::Sqlite => format!("CAST({name} AS TEXT)"),
        }
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// Takes rows of such columns over.
pub(super) fn records<R>(
    rows: &[R],
    error: impl Fn(sqlx::Error) -> StoreError,
) -> Result<Vec<Record>, StoreError>
where
    R: Row,
    usize: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    R::Database: Database,
{
    rows.iter()
        .map(|row| {
            let values = (0..row.len()).map(|index| row.try_get_unchecked(index));
            values.collect::<Result<Vec<_>, _>>().map(Record).map_err(&error)
        })
        .collect()
}
