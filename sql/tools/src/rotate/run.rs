//! One run, from what an earlier one left to the last step.
//!
//! Each step can be the last: a signal ends the run after it, and the next run goes on. What holds a lock is waited for in
//! short attempts, since others wait behind each of them.

use super::config::Config;
use super::export::Writer;
use super::report::{Progress, Report};
use super::writer::File;
use anyhow::Context as _;
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::lifecycle::Shutdown;
use nulog::StoreError;
use nulog::rotate::{Archive, Detached, Kept, Part, PartKind, Period, Prepared, Record, Span, Taken, cutoff};
use std::path::PathBuf;
use std::time::Duration;

/// Rows that are read, moved or dropped at a time.
const BATCH: u32 = 1_000;
/// Rows of one exported file of what has no partition; their ids are held in memory until they are dropped.
const ROWS_OF_A_FILE: usize = 1_000_000;
/// Partitions that one run makes at most: years of days that nobody made any for.
const MOST_MADE: usize = 4_000;
/// The first and the longest wait between two attempts to get a lock.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) config: &'a Config,
    pub(super) archive: Archive,
    /// Who changes the file, where the log is one.
    pub(super) file: Option<File>,
    pub(super) stop: Shutdown,
    pub(super) report: Report,
    pub(super) progress: Progress,
}

/// Tries a step again while somebody else holds a lock.
macro_rules! patiently {
    ($run:expr, $step:expr) => {{
        let began = clock::mono();
        let mut wait = RETRY.0;
        loop {
            match $step {
                Err(StoreError::Busy(log)) => {
                    $run.go_on()?;
                    if clock::mono().saturating_duration_since(began) >= $run.config.patience {
                        break Err(Failure::new(
                            Exit::TempFail,
                            anyhow::anyhow!(
                                "others keep the archive of {} locked: a long transaction or a backup; the next run goes on",
                                log.display()
                            ),
                        ));
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY.1);
                }
                other => break other.map_err(Failure::from),
            }
        }
    }};
}

impl Run<'_> {
    /// Ends the run between two steps when it was asked to end.
    fn go_on(&self) -> Result<(), Failure> {
        if self.stop.is_triggered() {
            return Err(Failure::new(
                Exit::TempFail,
                anyhow::anyhow!("ended by a signal after a whole step; the next run goes on"),
            ));
        }
        Ok(())
    }

    /// Does everything.
    pub(super) async fn all(&mut self, now: i64, keep: i64) -> Result<(), Failure> {
        let before = cutoff(self.config.unit, now, keep)
            .context("the clock is beyond every calendar")
            .or_exit(Exit::OsErr)?;
        self.report.before = before;
        if self.report.dry_run {
            return self.tell(now, before).await;
        }
        if self.archive.has_partitions() {
            self.finish_earlier().await?;
            self.make_ahead(now, before).await?;
            while patiently!(
                self,
                self.archive
                    .sweep(before, self.config.export.is_some(), BATCH)
                    .await
            )? > 0
            {
                self.progress
                    .tell(format_args!("moving old rows that have no partition"));
                self.go_on()?;
            }
            self.finish_earlier().await?;
            self.drop_partitions(before).await?;
        } else {
            self.drop_rows(Kept::Archive, before).await?;
        }
        self.drop_rows(Kept::Sessions, before).await?;
        self.drop_rows(Kept::Gaps, before).await?;
        self.shrink().await
    }

    /// Says what would be done.
    async fn tell(&mut self, now: i64, before: i64) -> Result<(), Failure> {
        let parts = self
            .archive
            .parts(self.config.unit)
            .await
            .map_err(Failure::from)?;
        let expired = |part: &&Part| match part.kind {
            PartKind::Detached { .. } => true,
            PartKind::Range | PartKind::Rows => part.span.to.is_some_and(|to| to <= before),
            PartKind::Rest => false,
        };
        for part in parts.iter().filter(expired) {
            self.report.dropped(part.span, part.rows, None);
        }
        let homeless = self.archive.homeless(before).await.map_err(Failure::from)?;
        if homeless > 0 {
            let span = Span {
                from: None,
                to: Some(before),
            };
            self.report.dropped(span, homeless, None);
        }
        if self.archive.has_partitions() {
            let there = |period: &Period| {
                parts.iter().any(|part| {
                    part.kind == PartKind::Range
                        && part.span.from.is_none_or(|from| from <= period.from)
                        && part.span.to.is_some_and(|to| to >= period.to)
                })
            };
            let made = self.wanted(now)?;
            let made = made.iter().filter(|period| !there(period));
            let labels = made.map(|period| {
                Span {
                    from: Some(period.from),
                    to: Some(period.to),
                }
                .label()
            });
            self.report.made = labels.collect();
        }
        for kept in [Kept::Sessions, Kept::Gaps] {
            let mut last: Option<Record> = None;
            loop {
                self.go_on()?;
                let rows = self.archive.expired(kept, before, last.as_ref(), BATCH).await;
                let rows = rows.map_err(Failure::from)?;
                match kept {
                    Kept::Gaps => self.report.gaps += rows.len() as u64,
                    _ => self.report.sessions += rows.len() as u64,
                }
                last = rows.last().cloned();
                if last.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn wanted(&self, now: i64) -> Result<Vec<Period>, Failure> {
        let current = Period::of(self.config.unit, now)
            .context("the clock is beyond every calendar")
            .or_exit(Exit::OsErr)?;
        Ok(current.and_ahead(self.config.ahead))
    }

    async fn make_ahead(&mut self, now: i64, before: i64) -> Result<(), Failure> {
        let wanted = self.wanted(now)?;
        while self.report.made.len() < MOST_MADE {
            self.go_on()?;
            match patiently!(self, self.archive.prepare(&wanted, before, now).await)? {
                Prepared::Made(name) => {
                    self.progress.tell(format_args!("made {name}"));
                    self.report.made.push(name);
                }
                Prepared::Done => break,
            }
        }
        Ok(())
    }

    /// Exports and drops what was taken out of the archive before.
    async fn finish_earlier(&mut self) -> Result<(), Failure> {
        let parts = self
            .archive
            .parts(self.config.unit)
            .await
            .map_err(Failure::from)?;
        for detached in parts.iter().filter_map(Archive::detached) {
            self.go_on()?;
            if detached.export && self.config.export.is_none() {
                let label = detached.span.label();
                let rows = self.archive.count(&detached).await.map_err(Failure::from)?;
                if rows > 0 {
                    return Err(Failure::new(
                        Exit::Config,
                        anyhow::anyhow!(
                            "{rows} rows of {label} wait to be exported, as an earlier run was told: run with --export"
                        ),
                    ));
                }
            }
            self.finish(&detached).await?;
        }
        Ok(())
    }

    async fn drop_partitions(&mut self, before: i64) -> Result<(), Failure> {
        let parts = self
            .archive
            .parts(self.config.unit)
            .await
            .map_err(Failure::from)?;
        let old = |part: &&Part| part.kind == PartKind::Range && part.span.to.is_some_and(|to| to <= before);
        for part in parts.iter().filter(old) {
            loop {
                self.go_on()?;
                self.progress.tell(format_args!("dropping {}", part.span.label()));
                let export = self.config.export.is_some();
                match patiently!(self, self.archive.detach(part, export).await)? {
                    Taken::Whole(detached) => {
                        self.finish(&detached).await?;
                        break;
                    }
                    Taken::Again(detached) => self.finish(&detached).await?,
                    Taken::Nothing => break,
                }
            }
        }
        Ok(())
    }

    /// Exports what was taken out of the archive, if so configured, and drops it.
    async fn finish(&mut self, detached: &Detached) -> Result<(), Failure> {
        let rows = self.archive.count(detached).await.map_err(Failure::from)?;
        let mut file = None;
        if rows > 0
            && let Some(export) = &self.config.export
        {
            let label = detached.span.label();
            let mut writer = Writer::begin(export, Kept::Archive, &label).or_exit(Exit::CantCreate)?;
            let (mut after, mut read) = (i64::MIN, 0);
            loop {
                self.go_on()?;
                let batch = self.archive.read(detached, after, BATCH).await;
                let batch = batch.map_err(Failure::from)?;
                let Some(last) = batch.last().and_then(Record::id) else {
                    break;
                };
                for record in &batch {
                    writer.write(record).or_exit(Exit::IoErr)?;
                }
                after = last;
                read += batch.len();
                self.progress
                    .tell(format_args!("exporting {label}: {read} of {rows} rows"));
            }
            let (written, path) = writer.finish().or_exit(Exit::IoErr)?;
            if written != rows {
                return Err(Failure::new(
                    Exit::IoErr,
                    anyhow::anyhow!(
                        "{} has {written} of the {rows} rows of {label}: they are not dropped",
                        path.display()
                    ),
                ));
            }
            file = Some(path);
        }
        self.archive.discard(detached).await.map_err(Failure::from)?;
        if rows > 0 || file.is_some() {
            self.report.dropped(detached.span, rows, file);
        }
        Ok(())
    }

    /// Drops old rows by their ids: a day or month at a time if they are exported, else as they come.
    async fn drop_rows(&mut self, kept: Kept, before: i64) -> Result<(), Failure> {
        loop {
            self.go_on()?;
            let first = self.archive.expired(kept, before, None, BATCH).await;
            let first = first.map_err(Failure::from)?;
            if first.is_empty() {
                return Ok(());
            }
            let span = self.span(kept, &first, before);
            let mut ids = ids_before(&first, span.to);
            let mut path = None;
            if self.config.export.is_some() {
                let (all, exported) = self.export_rows(kept, first, span).await?;
                ids = all;
                path = Some(exported);
            }
            let dropped = self.forget(kept, before, &ids).await?;
            if dropped != ids.len() as u64 {
                return Err(Failure::new(
                    Exit::Software,
                    anyhow::anyhow!(
                        "of {} rows of {} that are too old {dropped} were dropped: somebody else changes the log",
                        ids.len(),
                        kept.table()
                    ),
                ));
            }
            match kept {
                Kept::Archive => match self.report.dropped.last_mut() {
                    Some(last) if path.is_none() && last.span == span => {
                        last.rows += dropped;
                        self.report.rows += dropped;
                    }
                    _ => self.report.dropped(span, dropped, path),
                },
                Kept::Sessions => {
                    self.report.sessions += dropped;
                    self.report.files.extend(path);
                }
                Kept::Gaps => {
                    self.report.gaps += dropped;
                    self.report.files.extend(path);
                }
            }
        }
    }

    /// The times that one file, or one line of the report, is of.
    fn span(&self, kept: Kept, rows: &[Record], before: i64) -> Span {
        let period = match kept {
            Kept::Archive => rows
                .first()
                .and_then(Record::at)
                .and_then(|(second, _)| Period::of(self.config.unit, second)),
            Kept::Sessions | Kept::Gaps => None,
        };
        Span {
            from: period.map(|period| period.from),
            to: Some(period.map_or(before, |period| period.to.min(before))),
        }
    }

    /// Writes rows of `span` to a file, beginning with `batch`; their ids, and the file.
    async fn export_rows(
        &mut self,
        kept: Kept,
        mut batch: Vec<Record>,
        span: Span,
    ) -> Result<(Vec<i64>, PathBuf), Failure> {
        let Some((export, to)) = self.config.export.as_ref().zip(span.to) else {
            return Err(Failure::new(
                Exit::Software,
                anyhow::anyhow!("nothing says where to export to"),
            ));
        };
        let mut writer = Writer::begin(export, kept, &span.label()).or_exit(Exit::CantCreate)?;
        let mut ids = Vec::new();
        loop {
            let fitting = ids_before(&batch, span.to);
            for record in batch.iter().take(fitting.len()) {
                writer.write(record).or_exit(Exit::IoErr)?;
            }
            let whole = fitting.len() == batch.len();
            ids.extend(fitting);
            let Some(last) = batch.last().filter(|_| whole && ids.len() < ROWS_OF_A_FILE) else {
                break;
            };
            self.go_on()?;
            self.progress
                .tell(format_args!("exporting {}: {} rows", span.label(), ids.len()));
            batch = self
                .archive
                .expired(kept, to, Some(last), BATCH)
                .await
                .map_err(Failure::from)?;
            if batch.is_empty() {
                break;
            }
        }
        let (written, path) = writer.finish().or_exit(Exit::IoErr)?;
        if written != ids.len() as u64 {
            return Err(Failure::new(
                Exit::Software,
                anyhow::anyhow!("{} is not what is to be dropped", path.display()),
            ));
        }
        Ok((ids, path))
    }

    async fn forget(&mut self, kept: Kept, before: i64, ids: &[i64]) -> Result<u64, Failure> {
        let mut dropped = 0;
        for ids in ids.chunks(BATCH as usize) {
            self.go_on()?;
            dropped += match &mut self.file {
                Some(file) => file.forget(kept, before, ids).await?,
                None => patiently!(self, self.archive.forget(kept, ids).await)?,
            };
            self.progress
                .tell(format_args!("dropping old rows of {}", kept.table()));
        }
        Ok(dropped)
    }

    /// Gives the space of a file back.
    async fn shrink(&mut self) -> Result<(), Failure> {
        let Some(shrinks) = self.archive.shrinks().await.map_err(Failure::from)? else {
            return Ok(());
        };
        let Some(file) = self.file.as_mut().filter(|_| shrinks) else {
            self.report.notes.push(
                "the file of the log was made without incremental vacuum, so it does not become smaller, and its space is \
                 used again: to change that, stop the server once and run \
                 sqlite3 FILE 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'"
                    .to_owned(),
            );
            return Ok(());
        };
        loop {
            let (freed, more) = file.shrink().await?;
            self.report.pages_freed += freed;
            if !more {
                return Ok(());
            }
            self.progress
                .tell(format_args!("gave {} pages back", self.report.pages_freed));
            if self.stop.is_triggered() {
                return Ok(());
            }
        }
    }
}

/// The ids of the first of these rows, up to the first one that is not before `to`; sessions and gaps are all before it.
fn ids_before(rows: &[Record], to: Option<i64>) -> Vec<i64> {
    let fits = |record: &&Record| match (record.at(), to) {
        (Some((second, _)), Some(to)) => second < to,
        _ => true,
    };
    rows.iter().take_while(fits).filter_map(Record::id).collect()
}
