//! How fast the log takes changes: whole lives in groups, and single rows one after the other.
//!
//! `cargo run --profile lab -p nulog --example journal_rate -- WHERE [seconds]`, where WHERE is a directory on the disk to
//! measure `SQLite` on, or `postgres` or `mariadb` for a private server of that kind in TMPDIR. Prints one line a case.
//! Nothing of the server is in the way: this is the store alone, each group one durable commit.

#![expect(clippy::unwrap_used, reason = "shares the tests' servers")]

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "tests do more with their servers")]
mod support;

use nufw_proto::{Addr, ConnId, Count, Counters, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Change, Close, CloseReason, Established, Location, OpenRow, Store, User};
use std::error::Error;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Durability, Kind, Server};

/// Rows between a connection's OPEN and its ESTABLISHED, and between that and its CLOSE.
const LIFE: u64 = 5_000;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    Instant::now()
}

/// What every row has in common.
struct Maker {
    gateway: Arc<str>,
    acl: Arc<str>,
    eth: Arc<str>,
    user: User,
    os: Arc<str>,
    app: Arc<str>,
}

impl Maker {
    fn new() -> Self {
        Self {
            gateway: Arc::from("gw1"),
            acl: Arc::from("web"),
            eth: Arc::from("eth0"),
            user: User {
                id: 1001,
                name: Arc::from("alice"),
            },
            os: Arc::from("Linux 6.1.0 x86_64"),
            app: Arc::from("/usr/lib/firefox-esr/firefox-esr"),
        }
    }

    fn id(number: u64) -> Result<ConnId, Box<dyn Error>> {
        Ok(ConnId::try_from((1 << 49) + number)?)
    }

    fn tuple(number: u64) -> Result<Tuple, Box<dyn Error>> {
        let [.., a, b] = number.to_be_bytes();
        let src = Addr::from(Ipv4Addr::new(10, 0, a % 16, b));
        let ports = Ports {
            src: u16::try_from(1024 + number % 60_000)?,
            dst: 443,
        };
        Ok(Tuple::new(
            src,
            Addr::from(Ipv4Addr::new(192, 0, 2, 80)),
            Transport::Tcp(ports),
        )?)
    }

    fn open(&self, number: u64) -> Result<Change, Box<dyn Error>> {
        let original = Self::tuple(number)?;
        Ok(Change::Open(Box::new(OpenRow {
            id: Self::id(number)?,
            gateway: Arc::clone(&self.gateway),
            received: Timestamp::from_micros(1_800_000_000_000_000 + i64::try_from(number)?),
            prefix: Arc::clone(&self.acl),
            mark: Mark(1001),
            in_dev: Arc::clone(&self.eth),
            out_dev: Arc::clone(&self.eth),
            zone: 0,
            original,
            shown: original,
            user: Some(self.user.clone()),
            client_os: Some(Arc::clone(&self.os)),
            client_app: Some(Arc::clone(&self.app)),
            acl: Arc::clone(&self.acl),
        })))
    }

    fn binding(number: u64) -> Result<Binding, Box<dyn Error>> {
        let original = Self::tuple(number)?;
        Ok(Binding {
            ct_id: u32::try_from(number)?,
            ct_mark: Mark(1001),
            original,
            reply: original,
        })
    }

    fn established(number: u64) -> Result<Change, Box<dyn Error>> {
        Ok(Change::Established(Box::new(Established {
            id: Self::id(number)?,
            at: Some(Timestamp::from_micros(1_800_000_000_000_000)),
            binding: Self::binding(number)?,
        })))
    }

    fn close(number: u64) -> Result<Change, Box<dyn Error>> {
        let count = Count {
            packets: 12,
            bytes: 3_456,
        };
        Ok(Change::Close(Box::new(Close {
            id: Self::id(number)?,
            at: Some(Timestamp::from_micros(1_800_000_001_000_000)),
            reason: CloseReason::Finished,
            counters: Some(Counters {
                original: count,
                reply: count,
            }),
            binding: Some(Self::binding(number)?),
        })))
    }
}

/// Where the log is made anew for every case.
enum Place {
    File(String),
    Server(Kind, Server),
}

impl Place {
    async fn fresh(&self) -> Result<Location, Box<dyn Error>> {
        match self {
            Self::File(directory) => {
                let path = format!("{directory}/journal_rate.db");
                for suffix in ["", "-wal", "-shm", ".lock"] {
                    let _ = std::fs::remove_file(format!("{path}{suffix}"));
                }
                Ok(Location::parse(&format!("sqlite:{path}"))?)
            }
            Self::Server(kind, server) => {
                let url = server.url(&server.database().await);
                let location = Location::parse(&url)?;
                nulog::migrate(&location).await?;
                // For trying out what another setting does.
                if let Ok(statements) = std::env::var("JOURNAL_RATE_SQL") {
                    support::execute(*kind, &url, &statements).await?;
                }
                Ok(location)
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are for people")]
/// Commits groups of `group` changes, a third each OPEN, ESTABLISHED and CLOSE; single rows are OPENs only.
async fn measure(
    out: &mut impl Write,
    place: &Place,
    group: u64,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let mut store = Store::open(&place.fresh().await?, 1).await?;
    let maker = Maker::new();
    let (mut next, mut changes) = (1, 0);
    let mut latencies = Vec::new();
    let begin = now();
    while begin.elapsed() < time {
        let mut batch = Vec::new();
        for _ in 0..group.div_ceil(3) {
            batch.push(maker.open(next)?);
            if group > 1 && next > LIFE {
                batch.push(Maker::established(next - LIFE)?);
            }
            if group > 1 && next > 2 * LIFE {
                batch.push(Maker::close(next - 2 * LIFE)?);
            }
            next += 1;
        }
        changes += batch.len();
        let started = now();
        let applied = store.apply(&batch).await?;
        latencies.push(started.elapsed());
        if applied.missing > 0 {
            return Err(format!("{} updates found no row", applied.missing).into());
        }
        store.tend().await?;
    }
    let took = begin.elapsed().as_secs_f64();
    store.close().await?;
    latencies.sort_unstable();
    let at = |hundredths: usize| {
        latencies
            .get(latencies.len() * hundredths / 10_000)
            .copied()
            .unwrap_or_default()
    };
    writeln!(
        out,
        "group {group:>5}: {:>7.0} changes/s {:>6.0} whole lives/s {:>6.0} commits/s  commit p50 {:>9.3?} p99 {:>9.3?} p99.9 {:>9.3?} max {:>9.3?}",
        changes as f64 / took,
        if group > 1 {
            next.saturating_sub(2 * LIFE) as f64 / took
        } else {
            0.0
        },
        latencies.len() as f64 / took,
        at(5_000),
        at(9_900),
        at(9_990),
        latencies.last().copied().unwrap_or_default(),
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments
        .next()
        .ok_or("give a directory on the disk to measure, or postgres, or mariadb")?;
    let seconds = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let server = |kind| Ok::<_, String>(Place::Server(kind, Server::start(kind, Durability::Machine)?));
    let place = match what.as_str() {
        "postgres" => server(Kind::Postgres)?,
        "mariadb" => server(Kind::MariaDb)?,
        directory => Place::File(directory.to_owned()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut out = std::io::stdout().lock();
    for group in [1, 30, 300, 3_000, 12_000] {
        runtime.block_on(measure(&mut out, &place, group, Duration::from_secs(seconds)))?;
    }
    Ok(())
}
