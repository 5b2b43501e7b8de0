//! `nuauth-server check`: is every file right, and what was understood?
//!
//! Opens nothing for writing and listens nowhere: it may run beside the server.

mod gather;

use crate::config::Override;
use anyhow::anyhow;
use gather::gather;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The server runs, but somebody should look.
    Warning,
    /// The server will not start with it.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found.
    pub text: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of the flow: configuration, certificates, users, access lists, database.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, level: Level, subject: &'static str, text: impl Into<String>) {
        self.findings.push(Finding {
            level,
            subject,
            text: text.into(),
        });
    }

    /// How many findings are of that level.
    pub fn count(&self, level: Level) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    }

    fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.findings.iter().map(|f| f.subject.len()).max().unwrap_or(0);
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Ok => "ok     ",
                Level::Warning => "WARNING",
                Level::Error => "ERROR  ",
            };
            writeln!(out, "{mark}  {:width$}  {}", finding.subject, finding.text)?;
        }
        writeln!(
            out,
            "{}, {}",
            plural(self.count(Level::Error), "error"),
            plural(self.count(Level::Warning), "warning")
        )
    }

    fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let object = serde_json::json!({
            "ok": self.count(Level::Error) == 0,
            "errors": self.count(Level::Error),
            "warnings": self.count(Level::Warning),
            "findings": self.findings,
        });
        writeln!(out, "{object}")
    }
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Checks everything that the configuration names and prints it; fails with [`Exit::Config`] if something is wrong.
pub fn run(path: &Path, overrides: &[Override], json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let report = gather(path, overrides);
    let written = if json {
        report.write_json(out)
    } else {
        report.write_table(out)
    };
    written.or_exit(Exit::IoErr)?;
    match report.count(Level::Error) {
        0 => Ok(()),
        errors => {
            let error = anyhow!(
                "{}: the server would not start ({}, see above)",
                path.display(),
                plural(errors, "error")
            );
            Err(Failure::new(Exit::Config, error))
        }
    }
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
