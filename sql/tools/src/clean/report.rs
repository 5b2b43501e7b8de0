//! What a run came to, for people and for scripts.
//!
//! Only words; ids are text in JSON, so that no reader rounds them.

use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What a run came to.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// The log.
    pub(crate) log: String,
    /// How it was written: `server`, `file` or `database`.
    pub(crate) through: &'static str,
    pub(crate) dry_run: bool,
    /// Whether everything was done that there was to do.
    pub(crate) finished: bool,
    /// Rows moved to the archive; in a dry run, that would be.
    pub(crate) moved: u64,
    /// Transactions that took.
    pub(crate) batches: u64,
    /// Rows closed because their gateway is lost; in a dry run, that would be.
    pub(crate) closed: u64,
    /// Rows that are in both tables, and the first of them.
    pub(crate) held: u64,
    pub(crate) held_ids: Vec<String>,
    /// Old live rows that stay, by gateway, and what was done about them.
    pub(crate) old: BTreeMap<String, Old>,
    pub(crate) seconds: f64,
}

/// Old live rows of one gateway.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Old {
    pub(crate) rows: u64,
    pub(crate) fate: Fate,
}

/// What becomes of old live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fate {
    /// Their gateway shows its table, and the server closes what is not in it.
    Verifying,
    /// Their gateway is connected and tells nothing of its table.
    Mute,
    /// Their gateway is away, but not for long enough.
    Waiting,
    /// The server cannot be asked from here, and their gateway was heard of.
    Unasked,
    /// They were closed, or would be.
    Closed,
}

impl Fate {
    fn sentence(self) -> &'static str {
        match self {
            Self::Verifying => "being checked against the gateway's kernel",
            Self::Mute => "kept: the gateway relays no events",
            Self::Waiting => "kept: the gateway is away, but not for long enough",
            Self::Unasked => "kept: this server cannot check them, another or a later run may",
            Self::Closed => "closed as gateway-lost",
        }
    }
}

impl Report {
    pub(crate) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    pub(crate) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (would, done) = if self.dry_run { ("would be ", "") } else { ("", "") };
        writeln!(
            out,
            "{} {would}moved to the archive{done} in {:.1} s",
            rows(self.moved),
            self.seconds
        )?;
        for (gateway, old) in &self.old {
            let would = if self.dry_run && old.fate == Fate::Closed {
                "would be "
            } else {
                ""
            };
            writeln!(
                out,
                "{} of gateway {gateway}, old and not closed: {would}{}",
                rows(old.rows),
                old.fate.sentence()
            )?;
        }
        if self.held > 0 {
            writeln!(
                out,
                "{} in the archive already and left in the live table: {}",
                match self.held {
                    1 => "1 row is".to_owned(),
                    held => format!("{held} rows are"),
                },
                self.held_ids.join(", ")
            )?;
        }
        if !self.finished {
            writeln!(out, "ended before it was done; the next run goes on")?;
        }
        Ok(())
    }
}

fn rows(count: u64) -> String {
    match count {
        1 => "1 row".to_owned(),
        count => format!("{count} rows"),
    }
}
