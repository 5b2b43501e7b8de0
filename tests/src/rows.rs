//! The log as a reader sees it: rows of `conntrack_ulog`, read only, from the SQLite file.
//!
//! Whatever the server has not committed is not there.

use crate::command::checked;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::process::Command;

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The packet was dropped.
    Drop,
    /// Accepted.
    Open,
    /// Answered.
    Established,
    /// Gone.
    Close,
}

/// One row, column by column.
#[derive(Debug, Clone)]
pub struct Row(pub Map<String, Value>);

impl Row {
    /// A number; `None` when the column is NULL.
    pub fn int(&self, column: &str) -> Option<i64> {
        let value = self.0.get(column)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }

    /// A text; `None` when the column is NULL.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.0.get(column)?.as_str()
    }

    /// Whether a connection that both sides closed in order is closed so in the log.
    ///
    /// A virtual Ethernet on two processors reorders packets: an acknowledgement that the second FIN has overtaken is
    /// answered from `TIME_WAIT`, and its sender, whose socket is gone, answers with a reset. That is what the kernel saw
    /// last, so that the row says `reset`.
    pub fn ended_in_order(&self) -> bool {
        matches!(self.text("close_reason"), Some("finished" | "reset"))
    }

    /// Whether the column is there and NULL.
    pub fn is_null(&self, column: &str) -> bool {
        self.0.get(column).is_some_and(Value::is_null)
    }

    /// The state.
    pub fn state(&self) -> State {
        match self.int("state") {
            Some(0) => State::Drop,
            Some(1) => State::Open,
            Some(2) => State::Established,
            _ => State::Close,
        }
    }

    /// The source port, whatever the protocol.
    pub fn sport(&self) -> Option<u16> {
        self.port("tcp_sport").or_else(|| self.port("udp_sport"))
    }

    /// The destination port, whatever the protocol.
    pub fn dport(&self) -> Option<u16> {
        self.port("tcp_dport").or_else(|| self.port("udp_dport"))
    }

    fn port(&self, column: &str) -> Option<u16> {
        self.int(column).and_then(|port| u16::try_from(port).ok())
    }
}

/// Where a log is.
pub(crate) struct LogFile {
    /// The SQLite file.
    pub(crate) path: PathBuf,
    /// The process whose view of the file systems has it, if not every process has.
    pub(crate) seen_by: Option<u32>,
}

/// Reads rows with a condition, oldest first; none when the database does not exist yet.
pub(crate) fn query(log: &LogFile, condition: &str) -> Result<Vec<Row>> {
    let rows = sqlite(
        log,
        &format!("select * from conntrack_ulog where {condition} order by id"),
    )?;
    Ok(rows.into_iter().map(Row).collect())
}

/// Every row as people and programs read it: times as RFC 3339 text, ids as strings, which nobody rounds.
pub(crate) fn published(log: &LogFile) -> Result<Vec<Map<String, Value>>> {
    let mut rows = sqlite(log, "select * from connections order by id")?;
    for row in &mut rows {
        for (column, value) in row {
            if matches!(column.as_str(), "id" | "user_id" | "ct_id") && value.is_number() {
                *value = value.to_string().into();
            }
        }
    }
    Ok(rows)
}

/// The number that a query gives.
pub(crate) fn number(log: &LogFile, sql: &str) -> Result<i64> {
    let rows = sqlite(log, &format!("select ({sql}) as n"))?;
    rows.first()
        .and_then(|row| row.get("n"))
        .and_then(Value::as_i64)
        .context("not a number")
}

fn sqlite(log: &LogFile, sql: &str) -> Result<Vec<Map<String, Value>>> {
    let mut command = match log.seen_by {
        None if !log.path.exists() => return Ok(Vec::new()),
        None => Command::new("sqlite3"),
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("sqlite3");
            command
        }
    };
    let text = checked(
        command
            .args(["-readonly", "-json", "-cmd", ".timeout 5000"])
            .arg(&log.path)
            .arg(sql),
    )?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).context("sqlite3 gave no JSON")
}
