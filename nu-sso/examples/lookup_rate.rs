//! How fast `nu-sso serve` answers while a million connections are live.
//!
//! `cargo run --profile lab -p nu-sso --example lookup_rate -- DATABASE /directory/on/disk [rows] [seconds] [askers]`,
//! with `sqlite`, `postgres` or `mariadb` (a private server of Debian's) as the database.
//! Writes the rows (half of them masqueraded) through the store, starts the `nu-sso` that was built beside it on a unix
//! socket, and asks in a closed loop over kept connections, for rows at random. Then the same while a writer adds and ends
//! connections. Prints one JSON object a case.

use nufw_proto::{Addr, ConnId, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Change, Close, CloseReason, Established, Location, OpenRow, Store, User};
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "../../sql/tests/support/mod.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "others use the rest; it is made for tests"
)]
mod support;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    Instant::now()
}

fn tcp(src: Ipv4Addr, sport: u16, dst: Ipv4Addr, dport: u16) -> Result<Tuple> {
    let ports = Ports {
        src: sport,
        dst: dport,
    };
    Ok(Tuple::new(
        Addr::from(src),
        Addr::from(dst),
        Transport::Tcp(ports),
    )?)
}

/// The original and the reply tuple of a connection: those with odd numbers are masqueraded.
fn tuples(number: u64) -> Result<(Tuple, Tuple)> {
    let [.., a, b, c] = (number / 50).to_be_bytes();
    let (client, web) = (Ipv4Addr::new(10, a, b, c), Ipv4Addr::new(192, 0, 2, 80));
    let port = u16::try_from(20_000 + number % 40_000)?;
    let original = tcp(client, port, web, 443)?;
    let seen = if number % 2 == 1 {
        let [.., a, b] = (number / 40_000).to_be_bytes();
        Ipv4Addr::new(198, 51, a, b)
    } else {
        client
    };
    Ok((original, tcp(web, 443, seen, port)?))
}

fn id(number: u64) -> Result<ConnId> {
    Ok(ConnId::try_from((1 << 49) + number)?)
}

fn binding(number: u64) -> Result<Binding> {
    let (original, reply) = tuples(number)?;
    Ok(Binding {
        ct_id: 7,
        ct_mark: Mark(1001),
        original,
        reply,
    })
}

fn live(number: u64) -> Result<[Change; 2]> {
    let (original, _) = tuples(number)?;
    let word = |text: &str| -> Arc<str> { Arc::from(text) };
    let received = Timestamp::from_micros(1_700_000_000_000_000);
    let open = Change::Open(Box::new(OpenRow {
        id: id(number)?,
        gateway: word("gw1"),
        received,
        prefix: word("web"),
        mark: Mark(1001),
        in_dev: word("lan"),
        out_dev: word("wan"),
        phys_in: word(""),
        phys_out: word(""),
        zone: 0,
        original,
        shown: original,
        user: Some(User {
            id: 1001,
            name: word("alice"),
        }),
        client_os: Some(word("Linux 6.1.0 x86_64")),
        client_app: Some(word("/usr/lib/firefox-esr/firefox-esr")),
        acl: word("web"),
        parent: None,
        policy: Arc::from(""),
        auth: None,
    }));
    let established = Change::Established(Box::new(Established {
        id: id(number)?,
        at: Some(received),
        binding: Some(binding(number)?),
    }));
    Ok([open, established])
}

fn close(number: u64) -> Result<Change> {
    Ok(Change::Close(Box::new(Close {
        id: id(number)?,
        at: None,
        reason: CloseReason::Finished,
        counters: None,
        binding: Some(binding(number)?),
    })))
}

/// `nu-sso serve`; ends with the measurement.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(dir: &Path, url: &str) -> Result<Serving> {
    let beside = std::env::current_exe()?;
    let program = beside
        .ancestors()
        .nth(2)
        .map(|dir| dir.join("nu-sso"))
        .ok_or("this program has no directory")?;
    let socket = dir.join("sso.sock");
    let child = Command::new(program)
        .arg("--database")
        .arg(url)
        .args(["serve", "--listen", &format!("unix:{}", socket.display())])
        .env("NUFW_LOG", "warn")
        .spawn()?;
    let serving = Serving(child);
    let began = now();
    while UnixStream::connect(&socket).is_err() {
        if began.elapsed() > Duration::from_secs(30) {
            return Err("nu-sso does not serve".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(serving)
}

/// Asks until the time is over; how long each answer took, in microseconds.
fn ask(socket: &Path, rows: u64, mut seed: u64, until: Instant) -> Result<Vec<u64>> {
    let mut stream = UnixStream::connect(socket)?;
    let mut times = Vec::new();
    let mut answer = [0; 4096];
    while now() < until {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (_, reply) = tuples((seed >> 33) % rows)?;
        let ports = reply.transport().ports().ok_or("no ports")?;
        let question = format!(
            "GET /lookup HTTP/1.1\r\nHost: x\r\nX-NuFW-Src: {}\r\nX-NuFW-Src-Port: {}\r\nX-NuFW-Dst: {}\r\n\
             X-NuFW-Dst-Port: {}\r\n\r\n",
            reply.dst(),
            ports.dst,
            reply.src(),
            ports.src
        );
        let began = now();
        stream.write_all(question.as_bytes())?;
        let read = stream.read(&mut answer)?;
        times.push(u64::try_from(began.elapsed().as_micros())?);
        if !answer[..read].starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&answer[..read]).into_owned().into());
        }
    }
    Ok(times)
}

fn measure(database: &str, case: &str, dir: &Path, rows: u64, seconds: u64, askers: u64) -> Result<()> {
    let until = now() + Duration::from_secs(seconds);
    let socket = dir.join("sso.sock");
    let threads: Vec<_> = (0..askers)
        .map(|asker| {
            let socket = socket.clone();
            std::thread::spawn(move || ask(&socket, rows, asker + 1, until))
        })
        .collect();
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().map_err(|_| "an asker panicked")??);
    }
    times.sort_unstable();
    let at = |per_mille: usize| {
        times
            .get((times.len() * per_mille / 1000).min(times.len() - 1))
            .copied()
    };
    writeln!(
        std::io::stdout(),
        "{}",
        serde_json::json!({
            "database": database, "case": case, "rows": rows, "askers": askers, "answers_per_second": times.len() as u64 / seconds,
            "p50_us": at(500), "p99_us": at(990), "p999_us": at(999), "max_us": times.last(),
        })
    )?;
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    let usage = "usage: lookup_rate sqlite|postgres|mariadb DIRECTORY [rows] [seconds] [askers]";
    let (database, dir) = arguments.get(1).zip(arguments.get(2)).ok_or(usage)?;
    let dir = std::path::absolute(dir)?;
    let (rows, seconds, askers) = (number(3, 1_000_000)?, number(4, 5)?, number(5, 4)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let kind = match database.as_str() {
        "sqlite" => None,
        "postgres" => Some(support::Kind::Postgres),
        "mariadb" => Some(support::Kind::MariaDb),
        _ => return Err(usage.into()),
    };
    let server = kind
        .map(|kind| support::Server::start(kind, support::Durability::Process))
        .transpose()?;
    let url = match &server {
        None => format!("sqlite:{}/nulog.db", dir.display()),
        Some(server) => server.url(&runtime.block_on(server.database())),
    };
    let location = Location::parse(&url)?;
    if server.is_some() {
        runtime.block_on(nulog::migrate(&location))?;
    }
    let mut store = runtime.block_on(Store::open(&location, 1))?;
    let began = now();
    for first in (0..rows).step_by(1000) {
        let changes: Result<Vec<[Change; 2]>> = (first..rows.min(first + 1000)).map(live).collect();
        runtime.block_on(store.apply(&changes?.concat()))?;
    }
    writeln!(
        std::io::stderr(),
        "{rows} live rows in {:.1} s",
        began.elapsed().as_secs_f64()
    )?;
    let _serving = serve(&dir, &url)?;
    measure(database, "quiet", &dir, rows, 1, 1)?;
    measure(database, "quiet", &dir, rows, seconds, 1)?;
    measure(database, "quiet", &dir, rows, seconds, askers)?;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || -> Result<u64> {
            let mut next = rows;
            while !stop.load(Ordering::Relaxed) {
                // 1,000 connections a second, as groups of ten.
                let opened: Result<Vec<[Change; 2]>> = (next..next + 10).map(live).collect();
                runtime.block_on(store.apply(&opened?.concat()))?;
                let closed: Result<Vec<Change>> = (next..next + 10).map(close).collect();
                runtime.block_on(store.apply(&closed?))?;
                next += 10;
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(next - rows)
        })
    };
    measure(database, "beside a writer", &dir, rows, seconds, 1)?;
    measure(database, "beside a writer", &dir, rows, seconds, askers)?;
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().map_err(|_| "the writer panicked")??;
    writeln!(std::io::stderr(), "{written} connections were written meanwhile")?;
    Ok(())
}
