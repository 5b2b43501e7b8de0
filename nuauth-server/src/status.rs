//! `nuauth-server status`: how the running server is, asked over its control socket.
//!
//! Shows what it is told, as lines for people or as the one JSON object that came.

use crate::config::{Override, ServerConfig};
use anyhow::Context as _;
use nufw_common::control::{Client, ControlError, Status};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

/// Width of the names in front of the numbers.
const WIDTH: usize = 24;

/// Asks and prints.
pub fn run(config: &Path, overrides: &[Override], json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let config = ServerConfig::load(config, overrides).or_exit(Exit::Config)?;
    let socket = config
        .control
        .socket
        .context("control.socket is empty, so the server cannot be asked")
        .or_exit(Exit::Config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .or_exit(Exit::OsErr)?;
    let status = runtime
        .block_on(async { Client::connect(&socket).await?.status().await })
        .map_err(|error| {
            let exit = match &error {
                ControlError::Denied(_) | ControlError::Forbidden { .. } => Exit::NoPerm,
                ControlError::Busy(_) => Exit::TempFail,
                _ => Exit::Unavailable,
            };
            Failure::new(exit, error)
        })?;
    let written = if json {
        serde_json::to_writer(&mut *out, &status)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        show(&status, out)
    };
    written
        .context("the status cannot be written")
        .or_exit(Exit::IoErr)
}

fn line(out: &mut dyn Write, name: &str, value: impl Display) -> io::Result<()> {
    writeln!(out, "  {name:<WIDTH$} {value}")
}

pub(crate) fn show(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "nuauth-server {}, number {}, up {} s",
        status.version, status.server_number, status.uptime
    )?;
    line(out, "log", &status.database)?;
    writeln!(out, "\nat this moment:")?;
    let gateways = if status.gateways.is_empty() {
        "none".to_owned()
    } else {
        status.gateways.join(", ")
    };
    line(out, "gateways connected", gateways)?;
    line(out, "sessions", status.sessions)?;
    line(out, "live connections", status.live_connections)?;
    line(out, "packets that wait", status.pending_asks)?;
    writeln!(out, "\ncounted since the start:")?;
    for (name, value) in &status.counters {
        line(out, &name.replace('_', " "), value)?;
    }
    writeln!(out, "\njournal:")?;
    numbers(out, "", &status.journal)
}

/// Every number and truth of an object, however deep, each on its line.
fn numbers(out: &mut dyn Write, path: &str, value: &serde_json::Value) -> io::Result<()> {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('_', " ");
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path} {name}")
                };
                numbers(out, &path, value)?;
            }
            Ok(())
        }
        serde_json::Value::Array(items) => {
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            line(out, path, items.join(" "))
        }
        other => line(out, path, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_the_server_tells_is_shown() {
        let status = Status {
            version: "1.2.3".to_owned(),
            gateways: vec!["gw1".to_owned(), "gw2".to_owned()],
            sessions: 4,
            journal: serde_json::json!({"durable": {"open": 17}, "commit_wait": {"buckets": [1, 2]}}),
            counters: [("refused_by_rule".to_owned(), 23)].into(),
            ..Status::default()
        };
        let mut out = Vec::new();
        show(&status, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "nuauth-server 1.2.3",
            "gw1, gw2",
            "refused by rule          23\n",
            "durable open             17\n",
            "commit wait buckets      1 2\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
