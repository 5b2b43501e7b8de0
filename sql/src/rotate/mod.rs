//! Keeping the archive bounded: partitions made ahead and dropped whole where the database has them, rows dropped by their
//! ids where it has not.
//!
//! Nothing here looks at a clock or decides what to keep; each call is one step that may be the last one. What is on its way
//! out can be found again by its name, so that a run goes on where another one was ended.

mod columns;
mod mysql;
mod period;
mod postgres;
mod sqlite;
mod steps;

pub use columns::{Kept, Record};
pub use period::{Period, Span, Unit, cutoff};
pub use steps::MOST_IDS;

use crate::Work;
use crate::location::Kind;
use crate::{Location, StoreError};
use serde::Serialize;

/// Rows without a partition that are moved into theirs at once, under a lock; of more, a partition is made as they are.
pub(crate) const SMALL: u32 = 1_000;

/// One part of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name in the database; a day's where there are no partitions.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: PartKind,
    /// The times of its rows.
    #[serde(flatten)]
    pub span: Span,
    /// Its rows.
    pub rows: u64,
    /// Whether they were counted; else they are the database's estimate.
    pub exact: bool,
    /// Its bytes, indexes included, where they can be told.
    pub bytes: Option<u64>,
}

/// What a part of the archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum PartKind {
    /// A partition.
    Range,
    /// Whatever no partition was made for.
    Rest,
    /// Taken out of the archive, to be dropped.
    Detached {
        /// Not without being exported.
        export: bool,
    },
    /// One day or month of an archive without partitions.
    Rows,
}

/// What a step of [`Archive::prepare`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// A partition was made, the name of which is this; there may be more to do.
    Made(String),
    /// There was nothing to do.
    Done,
}

/// What [`Archive::detach`] took out of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The partition.
    Whole(Detached),
    /// Its rows; it is to be detached again when they are dropped.
    Again(Detached),
    /// No rows: it was empty, and is dropped.
    Nothing,
}

/// A table that was part of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    pub(crate) name: String,
    /// The times of its rows.
    pub span: Span,
    /// Whether it was to be exported.
    pub export: bool,
}

/// How names of detached tables begin.
const FATES: [(&str, bool); 2] = [("gone", false), ("export", true)];

impl Detached {
    fn new(span: Span, export: bool) -> Self {
        let from = span.from.map_or("min".to_owned(), number);
        Self::named(&from, span, export)
    }

    /// Of rows before `before` that had no partition.
    fn of_rest(before: i64, export: bool) -> Self {
        let span = Span {
            from: None,
            to: Some(before),
        };
        Self::named("rest", span, export)
    }

    fn named(from: &str, span: Span, export: bool) -> Self {
        let fate = if export { "export" } else { "gone" };
        let to = span.to.map_or("max".to_owned(), number);
        Self {
            name: format!("ulog_{fate}_{from}_{to}"),
            span,
            export,
        }
    }

    /// What its name says.
    fn parse(name: &str) -> Option<Self> {
        let (fate, ends) = name.strip_prefix("ulog_")?.split_once('_')?;
        let (_, export) = *FATES.iter().find(|(word, _)| *word == fate)?;
        let (from, to) = ends.split_once('_')?;
        let from = match from {
            "min" | "rest" => None,
            from => Some(read_number(from)?),
        };
        let span = Span {
            from,
            to: Some(read_number(to)?),
        };
        Some(Self {
            name: name.to_owned(),
            span,
            export,
        })
    }

    /// The same for a table of a fixed name.
    fn comment(&self) -> String {
        Self::new(self.span, self.export).name
    }

    fn from_comment(name: &str, comment: &str) -> Option<Self> {
        let parsed = Self::parse(comment)?;
        Some(Self {
            name: name.to_owned(),
            ..parsed
        })
    }
}

/// A number as part of a name.
fn number(value: i64) -> String {
    value.to_string().replace('-', "n")
}

fn read_number(text: &str) -> Option<i64> {
    text.replace('n', "-").parse().ok()
}

/// `wanted`, or the first like it that is not taken: what was there before may have had other bounds.
fn free_name(wanted: &str, parts: &[Part]) -> String {
    let taken = |name: &String| parts.iter().any(|part| part.name == *name);
    // One more than there are parts: one of them is free.
    let mut names = (1..=parts.len() + 1).map(|n| match n {
        1 => wanted.to_owned(),
        n => format!("{wanted}_{n}"),
    });
    names
        .find(|name| !taken(name))
        .unwrap_or_else(|| wanted.to_owned())
}

/// The archive as whoever keeps it bounded has it open.
pub struct Archive(Inner);

enum Inner {
    Sqlite(Box<sqlite::File>),
    Postgres(Box<postgres::Postgres>),
    MySql(Box<mysql::MySql>),
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

/// The same call on whichever back-end it is.
macro_rules! each {
    ($inner:expr, $archive:ident => $call:expr) => {
        match $inner {
            Inner::Sqlite($archive) => $call,
            Inner::Postgres($archive) => $call,
            Inner::MySql($archive) => $call,
        }
    };
}

impl Archive {
    /// Opens the archive. A file of `SQLite` is only read; it is changed by [`crate::Upkeep`].
    pub fn open(location: &Location) -> Work<'_, Result<Self, StoreError>> {
        Box::pin(async move {
            Ok(Self(match &location.kind {
                Kind::Sqlite(path) => Inner::Sqlite(Box::new(sqlite::File::open(path).await?)),
                Kind::Postgres(options) => {
                    Inner::Postgres(Box::new(postgres::Postgres::open(options, location).await?))
                }
                Kind::MySql(options) => Inner::MySql(Box::new(mysql::MySql::open(options, location).await?)),
            }))
        })
    }

    /// Takes the lock of its rotation, on a database server, until it is closed: [`StoreError::AtIt`] says that another
    /// run has it. Nothing may be changed without.
    pub fn lock(&mut self) -> Work<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(()),
                Inner::Postgres(archive) => archive.lock().await,
                Inner::MySql(archive) => archive.lock().await,
            }
        })
    }

    /// Whether it has partitions, which are dropped whole.
    pub fn has_partitions(&self) -> bool {
        !matches!(self.0, Inner::Sqlite(_))
    }

    /// What the archive consists of, and what is on its way out.
    pub fn parts(&mut self, unit: Unit) -> Work<'_, Result<Vec<Part>, StoreError>> {
        Box::pin(async move {
            let mut parts = match &mut self.0 {
                Inner::Sqlite(file) => file.parts(unit).await?,
                Inner::Postgres(archive) => archive.parts().await?,
                Inner::MySql(archive) => archive.parts().await?,
            };
            parts.sort_by_key(|part| (part.kind == PartKind::Rest, part.span.from, part.span.to));
            Ok(parts)
        })
    }

    /// One step towards partitions for `wanted`, which are in order, and for the time of rows since `before` that have none.
    /// A lock that somebody else holds is [`StoreError::Busy`]: nothing was changed.
    pub fn prepare<'a>(
        &'a mut self,
        wanted: &'a [Period],
        before: i64,
        now: i64,
    ) -> Work<'a, Result<Prepared, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(Prepared::Done),
                Inner::Postgres(archive) => archive.prepare(wanted, before, now).await,
                Inner::MySql(archive) => archive.prepare(wanted, before, now).await,
            }
        })
    }

    /// Takes a partition out of the archive. A lock that somebody else holds is [`StoreError::Busy`].
    pub fn detach<'a>(&'a mut self, part: &'a Part, export: bool) -> Work<'a, Result<Taken, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(Taken::Nothing),
                Inner::Postgres(archive) => archive.detach(part, export).await,
                Inner::MySql(archive) => archive.detach(part, export).await,
            }
        })
    }

    /// Takes up to `limit` rows that are older than `before` and have no partition out of the archive; how many it took.
    /// They are among [`Self::parts`] then.
    pub fn sweep(&mut self, before: i64, export: bool, limit: u32) -> Work<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                // The oldest partition takes whatever is old there.
                Inner::Sqlite(_) | Inner::MySql(_) => Ok(0),
                Inner::Postgres(archive) => archive.sweep(before, export, limit).await,
            }
        })
    }

    /// Rows before `before` that have no partition; none where there are no partitions.
    pub fn homeless(&mut self, before: i64) -> Work<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(0),
                Inner::Postgres(archive) => archive.homeless(before).await,
                Inner::MySql(archive) => archive.homeless(before).await,
            }
        })
    }

    /// What an earlier step, maybe of another run, took out of the archive.
    pub fn detached(part: &Part) -> Option<Detached> {
        match part.kind {
            PartKind::Detached { export } => Some(Detached {
                name: part.name.clone(),
                span: part.span,
                export,
            }),
            _ => None,
        }
    }

    /// Rows of a detached table with larger ids than `after`, in the order of their ids.
    pub fn read<'a>(
        &'a mut self,
        detached: &'a Detached,
        after: i64,
        limit: u32,
    ) -> Work<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(Vec::new()),
                Inner::Postgres(archive) => archive.read(&detached.name, after, limit).await,
                Inner::MySql(archive) => archive.read(&detached.name, after, limit).await,
            }
        })
    }

    /// The rows of a detached table, counted.
    pub fn count<'a>(&'a mut self, detached: &'a Detached) -> Work<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(0),
                Inner::Postgres(archive) => archive.count(&detached.name).await,
                Inner::MySql(archive) => archive.count(&detached.name).await,
            }
        })
    }

    /// Drops a detached table.
    pub fn discard<'a>(&'a mut self, detached: &'a Detached) -> Work<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(()),
                Inner::Postgres(archive) => archive.discard(&detached.name).await,
                Inner::MySql(archive) => archive.discard(&detached.name).await,
            }
        })
    }

    /// Rows that are over and older than `before`, in the order of their ids (in the archive of their times), after the
    /// last one that was read. The archive's only where it has no partitions.
    pub fn expired<'a>(
        &'a mut self,
        kept: Kept,
        before: i64,
        after: Option<&'a Record>,
        limit: u32,
    ) -> Work<'a, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let id = after.and_then(Record::id).unwrap_or(i64::MIN);
            match &mut self.0 {
                Inner::Sqlite(file) => file.expired(kept, before, after, limit).await,
                Inner::Postgres(archive) => archive.expired(kept, before, id, limit).await,
                Inner::MySql(archive) => archive.expired(kept, before, id, limit).await,
            }
        })
    }

    /// Drops these rows of a table that has no partitions; how many it dropped. On `SQLite` this is
    /// [`crate::Upkeep::Forget`].
    pub fn forget<'a>(&'a mut self, kept: Kept, ids: &'a [i64]) -> Work<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(_) => Ok(0),
                Inner::Postgres(archive) => archive.forget(kept, ids).await,
                Inner::MySql(archive) => archive.forget(kept, ids).await,
            }
        })
    }

    /// Whether a file gives space back to the system; `None` where that is the database's own business.
    pub fn shrinks(&mut self) -> Work<'_, Result<Option<bool>, StoreError>> {
        Box::pin(async move {
            match &mut self.0 {
                Inner::Sqlite(file) => file.shrinks().await.map(Some),
                Inner::Postgres(_) | Inner::MySql(_) => Ok(None),
            }
        })
    }

    /// Ends the connection, and with it the lock.
    pub fn close(self) -> Work<'static, Result<(), StoreError>> {
        Box::pin(async move { each!(self.0, archive => archive.close().await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_detached_is_found_again_by_its_name() {
        let span = |from, to| Span { from, to: Some(to) };
        for detached in [
            Detached::new(span(Some(86_400), 172_800), true),
            Detached::new(span(Some(-86_400), 0), false),
            Detached::new(span(None, 7), false),
            Detached::of_rest(99, true),
        ] {
            assert_eq!(Detached::parse(&detached.name), Some(detached.clone()));
            let again = Detached::from_comment("ulog_gone", &detached.comment()).unwrap();
            assert_eq!((again.span, again.export), (detached.span, detached.export));
        }
        for name in [
            "ulog_d20261121",
            "ulog_gone",
            "ulog_gone_x_1",
            "ulog_lost_1_2",
            "",
        ] {
            assert_eq!(Detached::parse(name), None, "{name}");
        }
    }
}
