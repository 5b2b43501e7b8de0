//! How long rows wait for their commit while dead rows are moved to the archive, many of them.
//!
//! On a database server the moving is done beside the journal, as `clean-conntrack` does it there; in a file by the journal
//! itself, as it asks the server to.

use super::PACED;
use super::disk::Disk;
use super::fill::{self, Maker};
use super::journal::{self, Beside, Pace};
use super::place::{Kind, Place};
use crate::bench::figures::{Figures, Rate};
use crate::wait::now;
use anyhow::{Result, ensure};
use nuauth_server::journal::Journal;
use nufw_proto::Timestamp;
use nulog::{Job, Keeper, Upkeep, UpkeepDone};
use std::time::Duration;

/// The server whose rows are moved: another one than that whose lives are measured.
const OTHERS: u64 = 9;
/// Rows that are made by one statement.
const MADE_AT_ONCE: u64 = 100_000;
/// What ended before this is moved: 2026-06-01T00:00:00Z. The measured lives end later.
const BEFORE_MICROS: i64 = 1_780_272_000_000_000;
/// The longest pause of `clean-conntrack` between two steps.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn case(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "postgresql-cleaning",
        Kind::MariaDb => "mariadb-cleaning",
        Kind::Sqlite => "sqlite-cleaning",
    }
}

/// Lives at a fixed rate, for as long as `dead` rows are moved.
pub(super) async fn run(place: &Place, warm_up: Duration, dead: u64, figures: &mut Figures) -> Result<()> {
    let (database, location) = place.log().await?;
    let maker = maker(place.kind);
    let mut first = 1;
    while first <= dead {
        let last = dead.min(first + MADE_AT_ONCE - 1);
        // Ended connections, where they are before anybody has cleaned.
        let statement = fill::statement(maker, "ulog", first, last)
            .replace("INSERT INTO ulog ", "INSERT INTO conntrack_ulog ")
            .replace(&(1_u64 << 49).to_string(), &(OTHERS << 49).to_string());
        database.execute(&statement).await?;
        first = last + 1;
    }
    let mover = match place.kind {
        Kind::Sqlite => Mover::Journal,
        _ => Mover::Keeper(Box::new(Keeper::open(&location, Job::Clean).await?)),
    };
    let beside: Beside = Box::new(move |journal| tokio::spawn(mover.all(journal, dead)));
    let rate = Pace::PerSecond(PACED);
    let disk = Disk::watch(&database.server)?;
    let outcome = journal::run(&location, rate, warm_up, Duration::from_secs(1), Some(beside)).await?;
    let (took, syncs) = (outcome.took, disk.seen()?);
    let whole = database.whole_lives().await?;
    super::add(figures, case(place.kind), Rate::PerSecond(PACED), outcome, whole);
    let per_second = crate::bench::ratio(dead, 1) / took.as_secs_f64().max(f64::MIN_POSITIVE);
    for (metric, value, unit) in [
        ("moved_rows_per_second", per_second, "1/s"),
        ("disk_sync_p99_ms", super::millis_at(&syncs, 99), "ms"),
        ("disk_sync_max_ms", super::millis_at(&syncs, 100), "ms"),
    ] {
        let rate = Rate::PerSecond(PACED);
        figures.add(super::Figure::new(case(place.kind), metric, rate, value, unit));
    }
    database.remove(place).await
}

pub(super) fn maker(kind: Kind) -> Maker {
    match kind {
        Kind::Postgres => Maker::Postgres,
        Kind::MariaDb => Maker::MariaDb,
        Kind::Sqlite => Maker::Sqlite,
    }
}

enum Mover {
    Journal,
    Keeper(Box<Keeper>),
}

impl Mover {
    /// Moves everything, pausing as long as each step took.
    async fn all(mut self, journal: Journal, dead: u64) -> Result<()> {
        let mut sum = UpkeepDone {
            more: true,
            ..UpkeepDone::default()
        };
        while sum.more {
            let began = now();
            let step = Upkeep::MoveDead {
                after: sum.after,
                before: Timestamp::from_micros(BEFORE_MICROS),
                dry: false,
            };
            let done = match &mut self {
                Self::Journal => journal.upkeep(step).await?,
                Self::Keeper(keeper) => keeper.upkeep(&step).await?,
            };
            sum.add(done);
            tokio::time::sleep(began.elapsed().min(LONGEST_PAUSE)).await;
        }
        if let Self::Keeper(keeper) = self {
            keeper.close().await?;
        }
        ensure!(sum.moved == dead, "{} of {dead} dead rows were moved", sum.moved);
        Ok(())
    }
}
