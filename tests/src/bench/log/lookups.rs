//! How long a look-up of a live connection takes, beside a small archive and beside a large one.
//!
//! The same live table for both; only the archive grows.

use super::cleaning::maker;
use super::fill;
use super::place::{Kind, Place};
use crate::bench::figures::{Figure, Figures, Rate};
use crate::wait::now;
use anyhow::{Context, Result, ensure};
use nufw_proto::{Addr, Ports, Timestamp, Transport, Tuple};
use nulog::{Doubting, Lookup, LookupOptions};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Live connections.
const LIVE: u64 = 20_000;
/// Rows that are made by one statement.
const MADE_AT_ONCE: u64 = 250_000;
/// What is given to the database to settle, and to the look-ups to be in its memory.
const WARM_UP: u64 = 500;

fn cases(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::Postgres => ["postgresql-archive-small", "postgresql-archive-large"],
        Kind::MariaDb => ["mariadb-archive-small", "mariadb-archive-large"],
        Kind::Sqlite => ["sqlite-archive-small", "sqlite-archive-large"],
    }
}

pub(super) async fn run(
    place: &Place,
    archived: [u64; 2],
    time: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let (database, location) = place.log().await?;
    let live = 1..=LIVE;
    let statement = fill::statement(maker(place.kind), "conntrack_ulog", *live.start(), *live.end());
    database.execute(&statement).await?;
    let mut there = 0;
    for (case, size) in cases(place.kind).into_iter().zip(archived) {
        while there < size {
            let (first, last) = (LIVE + there + 1, LIVE + size.min(there + MADE_AT_ONCE));
            database
                .execute(&fill::statement(maker(place.kind), "ulog", first, last))
                .await?;
            there = last - LIVE;
        }
        database.settle().await?;
        let options = LookupOptions {
            connections: 1,
            patience: Duration::from_secs(10),
        };
        let lookup = Lookup::open(&location, options).await?;
        let mut waits = look(&lookup, time).await?;
        lookup.close().await;
        waits.sort_unstable();
        for (metric, hundredths) in [("lookup_p50_us", 50), ("lookup_p99_us", 99)] {
            let wait = waits
                .get(waits.len() * hundredths / 100)
                .context("no look-up was made")?;
            let micros = wait.as_secs_f64() * 1e6;
            figures.add(Figure::new(case, metric, Rate::Full, micros, "us"));
        }
        figures.add(Figure::new(
            case,
            "archived_rows",
            Rate::Full,
            crate::bench::ratio(size, 1),
            "rows",
        ));
    }
    database.remove(place).await
}

/// Asks for one live connection after the other, by its outside, as a web server behind the translation sees it.
async fn look(lookup: &Lookup, time: Duration) -> Result<Vec<Duration>> {
    let mut waits = Vec::new();
    let doubting = Doubting {
        newest: None,
        since: Timestamp::from_micros(i64::MAX / 2),
    };
    let mut start = now();
    for asked in 0_u64.. {
        if asked == WARM_UP {
            start = now();
        }
        if asked > WARM_UP && start.elapsed() >= time {
            break;
        }
        let number = 1 + asked * 7_919 % LIVE;
        let tuple = outside(number)?;
        let began = now();
        let found = lookup.look(&tuple, doubting).await?;
        if asked >= WARM_UP {
            waits.push(began.elapsed());
        }
        ensure!(found.row.is_some(), "live connection {number} was not found");
    }
    Ok(waits)
}

/// The tuple of [`fill::statement`]'s connection after source translation.
fn outside(number: u64) -> Result<Tuple> {
    let host = u32::try_from(number * 13 % 2_000)?;
    let server = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 51, 0, 0)) + host);
    let ports = Ports {
        src: u16::try_from(1_024 + number * 104_729 % 64_000)?,
        dst: 443,
    };
    Ok(Tuple::new(
        Addr::from(Ipv4Addr::new(203, 0, 113, 5)),
        Addr::from(server),
        Transport::Tcp(ports),
    )?)
}
