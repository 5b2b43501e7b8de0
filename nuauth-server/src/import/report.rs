//! What the import did with each line of the old files, for people and for programs.
//!
//! Says; decides nothing.

use serde::Serialize;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where something stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    /// From 1; 0 for the file as a whole.
    pub(super) line: usize,
}

impl Place {
    pub(super) fn new(file: &Path, line: usize) -> Self {
        Self {
            file: file.to_owned(),
            line,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fate {
    /// It means the same here.
    Taken,
    /// It is taken over, and means something a little different.
    Changed,
    /// It has no equivalent, or needs none.
    Gone,
    /// Somebody must look: it could not be taken over, and things are less allowed than before.
    Look,
}

#[derive(Debug, Serialize)]
struct Entry {
    place: String,
    what: String,
    fate: Fate,
    text: String,
}

/// Everything that is to be said, in the order of the files.
#[derive(Debug, Default)]
pub(super) struct Report {
    entries: Vec<Entry>,
}

impl Report {
    pub(super) fn say(
        &mut self,
        place: &Place,
        what: impl fmt::Display,
        fate: Fate,
        text: impl fmt::Display,
    ) {
        self.entries.push(Entry {
            place: place.to_string(),
            what: what.to_string(),
            fate,
            text: text.to_string(),
        });
    }

    /// People see what was taken over as a number, and everything else line by line; programs see all.
    pub(super) fn print(&self, written: &[PathBuf], json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            let object = serde_json::json!({ "written": written, "lines": self.entries });
            return writeln!(out, "{object}");
        }
        for path in written {
            writeln!(out, "wrote {}", path.display())?;
        }
        let of = |fate| self.entries.iter().filter(move |entry| entry.fate == fate);
        for (fate, title) in [
            (Fate::Look, "To look at, since it could not be taken over"),
            (Fate::Changed, "Taken over with a difference"),
            (Fate::Gone, "Without equivalent, or needing none"),
        ] {
            if of(fate).next().is_some() {
                writeln!(out, "\n{title}:")?;
            }
            for entry in of(fate) {
                writeln!(out, "  {}: {}: {}", entry.place, entry.what, entry.text)?;
            }
        }
        let taken = of(Fate::Taken).count();
        writeln!(
            out,
            "\n{taken} lines were taken over as they were. `nuauth-server check` tells whether the result is whole."
        )
    }
}
