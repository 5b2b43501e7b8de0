//! The measurements of the log: whole lives through the journal, the bare loop as their limit, and ulogd2 as what people
//! use today, on each database in one run.
//!
//! Figures only, never a judgement: ratios within one run are what counts.

mod bare;
mod cleaning;
mod disk;
#[path = "../../../../sql/tests/support/fill.rs"]
mod fill;
mod journal;
mod kernel;
mod life;
mod lookups;
mod place;
#[expect(
    clippy::unwrap_used,
    dead_code,
    reason = "shares the servers of the tests of nulog, which do more with them and fail by panicking"
)]
#[path = "../../../../sql/tests/support/mod.rs"]
mod support;
mod ulogd;

use super::BenchOptions;
use super::figures::{Figure, Figures, Rate};
use anyhow::{Context, Result};
use journal::{Outcome, Pace};
use place::{Kind, Place};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Rows in one statement of the bare loop.
const BATCH: usize = 1_000;
/// Rows in flight in both: a batch each that is opened, established and closed.
const IN_FLIGHT: usize = 3 * BATCH;
/// Lives that begin in a second where the wait is measured rather than the rate.
const PACED: u32 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Size {
    repeats: u32,
    warm_up: Duration,
    time: Duration,
    connections: u32,
    /// Dead rows that are moved while lives go on.
    dead: u64,
    /// Sizes of the archive at which look-ups are measured.
    archived: [u64; 2],
}

/// Measures the log and writes the figures.
pub fn bench_log(options: &BenchOptions, out: &mut impl Write) -> Result<()> {
    let size = if options.quick {
        Size {
            repeats: 1,
            warm_up: Duration::from_millis(200),
            time: Duration::from_millis(500),
            connections: 500,
            dead: 20_000,
            archived: [1_000, 20_000],
        }
    } else {
        Size {
            repeats: 3,
            warm_up: Duration::from_secs(1),
            time: Duration::from_secs(6),
            connections: 20_000,
            dead: 1_000_000,
            archived: [1_000, 10_000_000],
        }
    };
    let dir = tempfile::Builder::new().prefix("nufw-bench-").tempdir()?;
    crate::cleanup::remove_on_signal(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut figures = Figures::new("log");
    let measured = all(options, size, &runtime, dir.path(), &mut figures);
    // What was measured before a case failed took its time, too.
    if options.json {
        figures.write_json(out)?;
    } else {
        figures.write_table(out)?;
        ratios(&figures, out)?;
    }
    measured
}

fn all(
    options: &BenchOptions,
    size: Size,
    runtime: &Runtime,
    dir: &Path,
    figures: &mut Figures,
) -> Result<()> {
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
    let step = |kind, what: &str| super::say(format_args!("{}: {what}", case(kind)));
    for kind in Kind::ALL {
        let (lives_case, ulogd_case) = (case(kind), ulogd::case(kind));
        let (cleaning_case, kernel_case) = (cleaning::case(kind), format!("{lives_case}-kernel"));
        let cases = [lives_case, cleaning_case, kernel_case.as_str(), ulogd_case];
        if !cases.into_iter().any(wanted) {
            continue;
        }
        // One server at a time: they share two processors.
        let place = Place::new(kind, dir)?;
        if wanted(lives_case) {
            step(kind, "whole lives");
            for _ in 0..size.repeats {
                runtime
                    .block_on(lives(&place, size, figures))
                    .with_context(|| format!("case {lives_case}"))?;
            }
        }
        if wanted(cleaning_case) {
            step(kind, "lives while dead rows are moved");
            runtime
                .block_on(cleaning::run(&place, size.warm_up, size.dead, figures))
                .with_context(|| format!("case {cleaning_case}"))?;
        }
        if wanted(&kernel_case) {
            step(kind, "connections through the kernel");
            kernel::run(&place, runtime, size.connections, figures)
                .with_context(|| format!("case {lives_case} through the kernel"))?;
        }
        if wanted(ulogd_case) {
            step(kind, "ulogd2");
            ulogd::run(&place, runtime, dir, size.connections, options.quick, figures)
                .with_context(|| format!("case {ulogd_case}"))?;
        }
    }
    // Last, since filling the archive takes the longest.
    for kind in Kind::ALL {
        if !wanted(&format!("{}-archive", case(kind))) {
            continue;
        }
        step(kind, "look-ups");
        let place = Place::new(kind, dir)?;
        runtime
            .block_on(lookups::run(&place, size.archived, size.time, figures))
            .with_context(|| format!("look-ups of {}", case(kind)))?;
    }
    Ok(())
}

fn case(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "postgresql",
        Kind::MariaDb => "mariadb",
        Kind::Sqlite => "sqlite",
    }
}

fn bare_case(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "postgresql-bare",
        Kind::MariaDb => "mariadb-bare",
        Kind::Sqlite => "sqlite-bare",
    }
}

/// The bare loop, the journal at full rate, and the journal at a fixed one, each on a new database.
async fn lives(place: &Place, size: Size, figures: &mut Figures) -> Result<()> {
    let (database, location) = place.log().await?;
    let outcome = bare::run(&location, size.warm_up, size.time).await?;
    let whole = database.whole_lives().await?;
    add(figures, bare_case(place.kind), Rate::Full, outcome, whole);
    database.remove(place).await?;
    for (pace, rate) in [
        (Pace::InFlight(IN_FLIGHT), Rate::Full),
        (Pace::PerSecond(PACED), Rate::PerSecond(PACED)),
    ] {
        let (database, location) = place.log().await?;
        let outcome = journal::run(&location, pace, size.warm_up, size.time, None).await?;
        let whole = database.whole_lives().await?;
        add(figures, case(place.kind), rate, outcome, whole);
        database.remove(place).await?;
    }
    Ok(())
}

fn add(figures: &mut Figures, case: &'static str, rate: Rate, mut outcome: Outcome, whole: u64) {
    let per_second = super::ratio(outcome.lives, 1) / outcome.took.as_secs_f64().max(f64::MIN_POSITIVE);
    outcome.waits.sort_unstable();
    let wait = |hundredths: usize| millis_at(&outcome.waits, hundredths);
    let lost = outcome.begun.saturating_sub(whole);
    for (metric, value, unit) in [
        ("lives_per_second", per_second, "1/s"),
        ("row_writes_per_second", 3.0 * per_second, "1/s"),
        ("commit_wait_p50_ms", wait(50), "ms"),
        ("commit_wait_p99_ms", wait(99), "ms"),
        ("commit_wait_max_ms", wait(100), "ms"),
        ("rows_lost", super::ratio(lost, 1), "rows"),
    ] {
        figures.add(Figure::new(case, metric, rate, value, unit));
    }
}

/// Of durations in order, the one below which so many hundredths of them are; the longest for a hundred.
fn millis_at(sorted: &[Duration], hundredths: usize) -> f64 {
    let at = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default().as_secs_f64() * 1_000.0
}

/// What the figures are for.
fn ratios(figures: &Figures, out: &mut impl Write) -> Result<()> {
    for kind in Kind::ALL {
        let find = |case| figures.find(case, "lives_per_second", Rate::Full);
        let (Some(ours), Some(bare)) = (find(case(kind)), find(bare_case(kind))) else {
            continue;
        };
        write!(out, "\n{}: {:.2} of the bare loop", case(kind), ours / bare)?;
        if let Some(theirs) = find(ulogd::case(kind)) {
            write!(out, ", {:.1} times {}", ours / theirs, ulogd::case(kind))?;
        }
    }
    writeln!(out)?;
    Ok(())
}
