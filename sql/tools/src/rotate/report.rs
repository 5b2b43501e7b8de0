//! What a run tells: progress on a terminal, a summary or JSON at its end, and the list of what there is.
//!
//! Writes to what it is given; decides nothing.

use nulog::rotate::{Part, PartKind, Span};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

/// What a run came to, or in a dry run would come to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Whether nothing was changed.
    pub(super) dry_run: bool,
    /// Rows before this second are not kept.
    pub(super) before: i64,
    /// Partitions that were made.
    pub(super) made: Vec<String>,
    /// What of the archive was dropped.
    pub(super) dropped: Vec<Dropped>,
    /// Rows of the archive that were dropped.
    pub(super) rows: u64,
    /// Client sessions that were dropped.
    pub(super) sessions: u64,
    /// Gaps that were dropped.
    pub(super) gaps: u64,
    /// Pages of the file that were given back to the system.
    pub(super) pages_freed: u64,
    /// Files that were written.
    pub(super) files: Vec<PathBuf>,
    /// What somebody should know.
    pub(super) notes: Vec<String>,
}

/// One thing that was dropped.
#[derive(Debug, Serialize)]
pub(super) struct Dropped {
    /// Its days, or its month.
    pub(super) label: String,
    /// Its times.
    #[serde(flatten)]
    pub(super) span: Span,
    /// Its rows.
    pub(super) rows: u64,
    /// The file that they are in.
    pub(super) file: Option<PathBuf>,
}

impl Report {
    pub(super) fn dropped(&mut self, span: Span, rows: u64, file: Option<PathBuf>) {
        self.rows += rows;
        self.files.extend(file.clone());
        self.dropped.push(Dropped {
            label: span.label(),
            span,
            rows,
            file,
        });
    }

    pub(super) fn write(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            return write_json(self, out);
        }
        let verb = |done: &'static str, would: &'static str| if self.dry_run { would } else { done };
        for name in &self.made {
            writeln!(out, "{} {name}", verb("made", "would make"))?;
        }
        for dropped in &self.dropped {
            let Dropped {
                label, rows, file, ..
            } = dropped;
            write!(out, "{} {label}: {rows} rows", verb("dropped", "would drop"))?;
            match file {
                Some(file) => writeln!(out, ", in {}", file.display())?,
                None => writeln!(out)?,
            }
        }
        for (what, count) in [("sessions", self.sessions), ("gaps", self.gaps)] {
            if count > 0 {
                writeln!(out, "{} {count} {what}", verb("dropped", "would drop"))?;
            }
        }
        if self.pages_freed > 0 {
            writeln!(out, "gave {} pages back", self.pages_freed)?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        Ok(())
    }
}

/// Writes the list of parts.
pub(super) fn list(parts: &[Part], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return write_json(&parts, out);
    }
    writeln!(
        out,
        "{:<28} {:<24} {:>12} {:>10}",
        "PART", "TIMES (UTC)", "ROWS", "SIZE"
    )?;
    for part in parts {
        let label = match part.kind {
            PartKind::Rest => "without a partition".to_owned(),
            PartKind::Detached { .. } => format!("{} (to go)", part.span.label()),
            PartKind::Range | PartKind::Rows => part.span.label(),
        };
        let rows = if part.exact {
            part.rows.to_string()
        } else {
            format!("~{}", part.rows)
        };
        let size = part.bytes.map_or("-".to_owned(), size);
        writeln!(out, "{:<28} {label:<24} {rows:>12} {size:>10}", part.name)?;
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn write_json(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// One line on a terminal that says where a long run is; nothing elsewhere.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
        }
    }

    pub(super) fn tell(&self, text: std::fmt::Arguments<'_>) {
        if self.terminal {
            // Nobody can be told that nobody can be told.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.tell(format_args!(""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn a_dry_run_does_not_claim_to_have_done_anything() {
        let mut report = Report {
            dry_run: true,
            made: vec!["ulog_d20261121".into()],
            ..Report::default()
        };
        let day = Span {
            from: Some(0),
            to: Some(86_400),
        };
        report.dropped(day, 7, None);
        let mut text = Vec::new();
        report.write(false, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "would make ulog_d20261121\nwould drop 1970-01-01: 7 rows\n");
    }
}
