//! The conditions of one statement, with their parameters, in each database's form.
//!
//! Values are parameters, never text; what is not given is not in the statement, so that each gets the plan of its own.

use super::{AddrRange, Order, RowKey, SearchFilter};
use nufw_proto::{Addr, Timestamp};

/// How a database is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parameter {
    Int(i64),
    Text(String),
    Addr(Addr),
}

impl From<i64> for Parameter {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Parameter {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Addr> for Parameter {
    fn from(value: Addr) -> Self {
        Self::Addr(value)
    }
}

/// Conditions that all hold.
#[derive(Debug, Clone)]
pub(super) struct Clause {
    dialect: Dialect,
    conditions: String,
    parameters: Vec<Parameter>,
}

impl Clause {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            conditions: String::new(),
            parameters: Vec::new(),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The conditions behind their WHERE; nothing, when there are none.
    pub(super) fn conditions(&self) -> &str {
        &self.conditions
    }

    /// Adds a condition, with a parameter for each question mark.
    pub(super) fn and<const N: usize>(&mut self, condition: &str, parameters: [Parameter; N]) {
        self.conditions.push_str(if self.conditions.is_empty() {
            " WHERE "
        } else {
            " AND "
        });
        let mut number = self.parameters.len();
        for character in condition.chars() {
            if character == '?' && self.dialect == Dialect::Postgres {
                number += 1;
                self.conditions.push('$');
                self.conditions.push_str(&number.to_string());
            } else {
                self.conditions.push(character);
            }
        }
        self.parameters.extend(parameters);
    }

    /// Everything that a search asks, of the rows of the seconds of a window.
    pub(super) fn filter(&mut self, filter: &SearchFilter, after: Option<RowKey>, window: (i64, i64)) {
        self.and("oob_time_sec >= ?", [window.0.into()]);
        self.and("oob_time_sec <= ?", [window.1.into()]);
        if let Some(key) = after {
            let condition = match filter.order {
                Order::NewestFirst => {
                    "(oob_time_sec < ? OR oob_time_usec < ? OR oob_time_usec = ? AND id < ?)"
                }
                Order::OldestFirst => {
                    "(oob_time_sec > ? OR oob_time_usec > ? OR oob_time_usec = ? AND id > ?)"
                }
            };
            let micros = key.micros;
            self.and(
                condition,
                [key.seconds.into(), micros.into(), micros.into(), key.id.into()],
            );
        }
        let parts = |at: Timestamp| {
            (
                at.micros().div_euclid(1_000_000),
                at.micros().rem_euclid(1_000_000),
            )
        };
        if let Some((seconds, micros)) = filter.since.map(parts) {
            self.and(
                "(oob_time_sec > ? OR oob_time_usec >= ?)",
                [seconds.into(), micros.into()],
            );
        }
        if let Some((seconds, micros)) = filter.until.map(parts) {
            self.and(
                "(oob_time_sec < ? OR oob_time_usec < ?)",
                [seconds.into(), micros.into()],
            );
        }
        if let Some(user) = &filter.user {
            if self.dialect == Dialect::Postgres {
                // As the index has it.
                self.and("\"left\"(username, 64) = \"left\"(?, 64)", [user.as_str().into()]);
            }
            self.text("username", user);
        }
        if let Some(range) = filter.source {
            self.addresses("ip_saddr", range);
        }
        if let Some(range) = filter.destination {
            self.addresses("ip_daddr", range);
        }
        for (column, port) in [("sport", filter.source_port), ("dport", filter.port)] {
            if let Some(port) = port {
                self.and(&format!("{column} = ?"), [i64::from(port).into()]);
            }
        }
        if let Some(protocol) = filter.protocol {
            self.and("ip_protocol = ?", [i64::from(protocol).into()]);
        }
        for (column, text) in [
            ("gateway", &filter.gateway),
            ("acl", &filter.acl),
            ("close_reason", &filter.close_reason),
        ] {
            if let Some(text) = text {
                self.text(column, text);
            }
        }
        if let Some(app) = &filter.app {
            let condition = match self.dialect {
                Dialect::Sqlite => "instr(client_app, ?) > 0",
                Dialect::Postgres => "strpos(client_app, ?) > 0",
                Dialect::MySql => "locate(?, client_app) > 0",
            };
            self.and(condition, [app.as_str().into()]);
        }
        if !filter.states.is_empty() {
            // Numbers of our own.
            let states: Vec<String> = filter
                .states
                .iter()
                .map(|state| (*state as i16).to_string())
                .collect();
            self.and(&format!("state IN ({})", states.join(", ")), []);
        }
    }

    /// This text, to the last character: MySQL takes `a` and `a ` for the same.
    fn text(&mut self, column: &str, text: &str) {
        self.and(&format!("{column} = ?"), [text.into()]);
        if self.dialect == Dialect::MySql {
            let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
            self.and(&format!("octet_length({column}) = ?"), [length.into()]);
        }
    }

    fn addresses(&mut self, column: &str, range: AddrRange) {
        if range.first == range.last {
            self.and(&format!("{column} = ?"), [range.first.into()]);
            return;
        }
        match self.dialect {
            // Text, whose order is not that of the addresses.
            Dialect::Sqlite => {}
            Dialect::Postgres => {
                let condition = format!("{column} >= ? AND {column} <= ?");
                self.and(&condition, [range.first.into(), range.last.into()]);
            }
            Dialect::MySql => {
                let length = if range.first.is_ipv4() { 4 } else { 16 };
                let condition = format!("{column} >= ? AND {column} <= ? AND length({column}) = {length}");
                self.and(&condition, [range.first.into(), range.last.into()]);
            }
        }
    }
}
