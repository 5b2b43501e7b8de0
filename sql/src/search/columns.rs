//! The columns of a row that was found, as each database spells them.
//!
//! The views have them as they are stored, so that indexes serve; what comes out is the same for all.

use super::clause::Dialect;

/// What a row is shown with, best first.
pub(super) const NAMES: [&str; 45] = [
    "id",
    "oob_time",
    "state",
    "username",
    "user_id",
    "client_app",
    "client_os",
    "gateway",
    "ip_protocol",
    "ip_saddr",
    "sport",
    "ip_daddr",
    "dport",
    "reply_saddr",
    "reply_sport",
    "reply_daddr",
    "reply_dport",
    "start_timestamp",
    "end_timestamp",
    "duration",
    "close_reason",
    "packets_in",
    "packets_out",
    "bytes_in",
    "bytes_out",
    "acl",
    "parent_id",
    "policy",
    "auth",
    "oob_prefix",
    "oob_mark",
    "oob_in",
    "oob_out",
    "phys_in",
    "phys_out",
    "icmp_type",
    "icmp_code",
    "icmp_id",
    "ct_id",
    "ct_mark",
    "ct_zone",
    "oob_time_sec",
    "oob_time_usec",
    "reply_icmp_type",
    "reply_icmp_code",
];

/// The list of a statement.
pub(super) fn list(dialect: Dialect) -> String {
    NAMES
        .map(|name| match (name, dialect) {
            ("ip_saddr" | "ip_daddr" | "reply_saddr" | "reply_daddr", dialect) => address(name, dialect),
            ("oob_time", dialect) => oob_time(dialect),
            ("start_timestamp" | "end_timestamp", dialect) => time(name, dialect),
            ("duration", dialect) => duration(dialect),
            _ => format!("c.{name}"),
        })
        .join(", ")
}

/// The end in microseconds since 1970.
pub(super) fn end_micros(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "c.end_timestamp",
        Dialect::Postgres => "(extract(epoch FROM c.end_timestamp) * 1000000)::bigint",
        Dialect::MySql => {
            "CAST(timestampdiff(MICROSECOND, timestamp'1970-01-01 00:00:00', c.end_timestamp) AS SIGNED)"
        }
    }
}

/// A parameter of microseconds since 1970 as the database's own time.
pub(super) fn time_parameter(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "?",
        Dialect::Postgres => "(timestamptz '1970-01-01 00:00:00Z' + ? * interval '1 microsecond')",
        Dialect::MySql => "timestampadd(MICROSECOND, ?, timestamp'1970-01-01 00:00:00')",
    }
}

fn address(name: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => format!("c.{name}"),
        Dialect::Postgres => format!("host(c.{name}) AS {name}"),
        Dialect::MySql => format!("inet6_ntoa(c.{name}) AS {name}"),
    }
}

fn oob_time(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => "strftime('%Y-%m-%dT%H:%M:%S', c.oob_time_sec, 'unixepoch') \
             || printf('.%06dZ', c.oob_time_usec) AS oob_time"
            .to_owned(),
        Dialect::Postgres => {
            "to_char(to_timestamp(c.oob_time_sec) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') \
             || to_char(c.oob_time_usec, 'FM\".\"000000\"Z\"') AS oob_time"
                .to_owned()
        }
        Dialect::MySql => {
            "date_format(timestampadd(MICROSECOND, c.oob_time_sec * 1000000 + c.oob_time_usec, \
             timestamp'1970-01-01 00:00:00'), '%Y-%m-%dT%H:%i:%s.%fZ') AS oob_time"
                .to_owned()
        }
    }
}

fn time(name: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => format!(
            "strftime('%Y-%m-%dT%H:%M:%S', c.{name} / 1000000, 'unixepoch') || printf('.%06dZ', c.{name} % 1000000) \
             AS {name}"
        ),
        Dialect::Postgres => {
            format!("to_char(c.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}")
        }
        Dialect::MySql => format!("date_format(c.{name}, '%Y-%m-%dT%H:%i:%s.%fZ') AS {name}"),
    }
}

fn duration(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => "(c.end_timestamp - c.start_timestamp) / 1000000.0 AS duration",
        Dialect::Postgres => {
            "extract(epoch FROM c.end_timestamp - c.start_timestamp)::double precision AS duration"
        }
        Dialect::MySql => "timestampdiff(MICROSECOND, c.start_timestamp, c.end_timestamp) / 1e6 AS duration",
    }
    .to_owned()
}
