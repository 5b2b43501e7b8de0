//! What people use today: ulogd2 from Debian's packages, writing connections of the lab as its manual configures it.
//!
//! Real connections through the lab's gateway, real events of its kernel. PostgreSQL with the procedure that keeps one row a
//! connection in place; the other two, for which it has none, with a row at the end.

use super::super::figures::{Figure, Figures, Rate};
use super::super::{IN_FLIGHT, LOAD_PORT, SINK_KEEPS, SOURCES, own, ratio};
use super::place::{Database, Kind, Place};
use crate::command::{binary, checked, fed};
use crate::load::LoadReport;
use crate::net::{Net, addr};
use crate::process::{Proc, Spec};
use crate::wait::now;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Where Debian's package keeps its schemas.
const SCHEMAS: &str = "/usr/share/doc/ulogd2";
/// Bytes of the netlink socket's buffer that its manual says to raise; the kernel doubles it.
const LARGE_BUFFER: u32 = 16 * 1024 * 1024;
/// How often its table is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How long nothing may change before it is done, once the kernel's table is empty.
const QUIET: Duration = Duration::from_secs(3);
/// The longest run.
const LONGEST: Duration = Duration::from_mins(2);

pub(super) fn case(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => "ulogd2-postgresql",
        Kind::MariaDb => "ulogd2-mariadb",
        Kind::Sqlite => "ulogd2-sqlite",
    }
}

/// Logs `connections` with the buffer that ulogd2 has by itself, for what is lost, and with a large one, for the rate.
pub(super) fn run(
    place: &Place,
    runtime: &Runtime,
    dir: &Path,
    connections: u32,
    quick: bool,
    figures: &mut Figures,
) -> Result<()> {
    let case = case(place.kind);
    if !quick {
        let (made, run) = one(place, runtime, dir, connections, None)?;
        let lost = u64::from(made).saturating_sub(run.records);
        let metric = "rows_lost_default_buffer";
        figures.add(Figure::new(case, metric, Rate::Full, ratio(lost, 1), "rows"));
    }
    let (made, run) = one(place, runtime, dir, connections, Some(LARGE_BUFFER))?;
    let lost = u64::from(made).saturating_sub(run.records);
    let rate = ratio(run.records, 1) / run.took.as_secs_f64().max(f64::MIN_POSITIVE);
    let writes = match place.kind {
        Kind::Postgres => 2.0,
        Kind::MariaDb | Kind::Sqlite => 1.0,
    };
    for (metric, value, unit) in [
        ("lives_per_second", rate, "1/s"),
        ("row_writes_per_second", rate * writes, "1/s"),
        ("rows_lost", ratio(lost, 1), "rows"),
    ] {
        figures.add(Figure::new(case, metric, Rate::Full, value, unit));
    }
    Ok(())
}

struct Written {
    /// Connections of which it has the end.
    records: u64,
    /// From the first row to the last change.
    took: Duration,
}

fn one(
    place: &Place,
    runtime: &Runtime,
    dir: &Path,
    connections: u32,
    buffer: Option<u32>,
) -> Result<(u32, Written)> {
    let database = runtime.block_on(place.empty())?;
    make_tables(&database)?;
    let net = Net::new(SOURCES)?;
    // Rules that look at the state, as a gateway has them, make the kernel track.
    net.iptables("-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j ACCEPT")?;
    let args = ["sink", "--port", &LOAD_PORT.to_string(), "--keep", SINK_KEEPS];
    let _sink = own("sink-ulogd", &net.server, dir, &args)?;
    let config = dir.join("ulogd.conf");
    std::fs::write(&config, configuration(&database, buffer)?)?;
    let socket = database.server.join("socket").display().to_string();
    let mut ulogd = Spec::new("ulogd", &net.gateway, "/usr/sbin/ulogd".into(), dir)
        .args(["-v", "-c"])
        .args([config.as_os_str()])
        .env("MYSQL_UNIX_PORT", &socket)
        .start()?;
    // It says nothing when it is ready; events of before it listens are not asked for.
    std::thread::sleep(Duration::from_secs(1));
    if let Some(status) = ulogd.exited()? {
        anyhow::bail!("ulogd ended ({status}):\n{}", ulogd.tail(20));
    }
    let report = load(&net, connections)?;
    let written = watch(&net, runtime, &database, &ulogd)?;
    ulogd.kill()?;
    runtime.block_on(database.remove(place))?;
    Ok((report.connected, written))
}

pub(super) fn load(net: &Net, connections: u32) -> Result<LoadReport> {
    let mut command = net.client.command(binary("nufw-lab")?);
    command.args(["load", "--target", &format!("{}:{LOAD_PORT}", addr::SERVER4)]);
    command.args(["--count", &connections.to_string(), "--in-flight", IN_FLIGHT]);
    for index in 0..SOURCES {
        command.args(["--source", &addr::client4(index).to_string()]);
    }
    serde_json::from_str(&checked(&mut command)?).context("the load generator gave no report")
}

/// Waits until the kernel has told everything and nothing is written any more.
fn watch(net: &Net, runtime: &Runtime, database: &Database, ulogd: &Proc) -> Result<Written> {
    let start = now();
    let mut last: Option<(u64, Instant)> = None;
    let mut first = None;
    let mut used = ulogd.cpu_us()?;
    loop {
        std::thread::sleep(LOOK);
        let at = now();
        let records = runtime.block_on(records(database))?;
        let busy = ulogd.cpu_us()?;
        if records > 0 && first.is_none() {
            first = at.checked_sub(LOOK / 2);
        }
        // A file is not looked into while it is written: a reader would be in the writer's way.
        if last.is_none_or(|(seen, _)| seen != records) || busy != used {
            last = Some((records, at));
            used = busy;
        }
        let idle = last.is_some_and(|(_, changed)| at - changed > QUIET);
        // Reading the table makes the kernel end what has expired.
        let load = format!("dport={LOAD_PORT} ");
        let tracked = net.conntrack()?.iter().any(|line| line.contains(&load));
        if (idle && !tracked) || start.elapsed() > LONGEST {
            let (_, end) = last.context("nothing was seen")?;
            // The in-place mode writes from the first connection on; the others wait for the first end.
            let began = match database.kind {
                Kind::Postgres => start,
                Kind::MariaDb | Kind::Sqlite => first.unwrap_or(start),
            };
            return Ok(Written {
                records: runtime.block_on(final_records(database))?,
                took: end.saturating_duration_since(began),
            });
        }
    }
}

/// Something that grows with what is written.
async fn records(database: &Database) -> Result<u64> {
    match database.kind {
        Kind::Sqlite => {
            let length = std::fs::metadata(&database.name).map_or(0, |file| file.len());
            // Empty tables have a page each.
            Ok(length.saturating_sub(3 * 4096))
        }
        _ => final_records(database).await,
    }
}

async fn final_records(database: &Database) -> Result<u64> {
    let query = match database.kind {
        Kind::Postgres => "SELECT count(*) FROM ulog2_ct WHERE ct_event = 4",
        Kind::MariaDb => "SELECT count(*) FROM ulog2_ct",
        Kind::Sqlite => "SELECT count(*) FROM ulog_ct",
    };
    database.number(query).await
}

/// The tables of Debian's package.
fn make_tables(database: &Database) -> Result<()> {
    let schema = |name: &str| -> Result<String> {
        let file = Path::new(SCHEMAS).join(name);
        // Some are compressed; this reads both.
        let text = checked(Command::new("gzip").args(["-dcf"]).arg(&file));
        text.with_context(|| format!("{} is missing: it comes with Debian's ulogd2", file.display()))
    };
    let directory = database.server.display();
    match database.kind {
        Kind::Postgres => {
            let mut command = Command::new("psql");
            command.args([
                "-q",
                "-h",
                &directory.to_string(),
                "-U",
                "nufw",
                "-d",
                &database.name,
            ]);
            fed(&mut command, &schema("pgsql-ulogd2.sql.gz")?)?;
        }
        Kind::MariaDb => {
            let mut command = Command::new("mariadb");
            command.args(["--no-defaults", &format!("--socket={directory}/socket")]);
            command.args(["--user=nufw", &database.name]);
            fed(&mut command, &schema("mysql-ulogd2.sql.gz")?)?;
        }
        Kind::Sqlite => {
            fed(
                Command::new("sqlite3").arg(&database.name),
                &schema("sqlite3.table")?,
            )?;
        }
    }
    Ok(())
}

/// The stacks of its sample configuration, with the hash table that recent kernels make needless left out.
fn configuration(database: &Database, buffer: Option<u32>) -> Result<String> {
    let plugins = plugins()?;
    let (stack, filter, output, events, section) = match database.kind {
        Kind::Postgres => (
            "ct1:NFCT,ip2str1:IP2STR,out1:PGSQL",
            "filter_IP2STR",
            "output_PGSQL",
            5,
            format!(
                "db=\"{}\"\nhost=\"{}\"\nuser=\"nufw\"\npass=\"none\"\ntable=\"ulog2_ct\"\nprocedure=\"INSERT_OR_REPLACE_CT\"",
                database.name,
                database.server.display()
            ),
        ),
        Kind::MariaDb => (
            "ct1:NFCT,ip2bin1:IP2BIN,out1:MYSQL",
            "filter_IP2BIN",
            "output_MYSQL",
            4,
            format!(
                "db=\"{}\"\nhost=\"localhost\"\nuser=\"nufw\"\npass=\"\"\ntable=\"conntrack\"\nprocedure=\"INSERT_CT\"",
                database.name
            ),
        ),
        Kind::Sqlite => (
            "ct1:NFCT,out1:SQLITE3",
            "filter_IP2STR",
            "output_SQLITE3",
            4,
            format!("table=\"ulog_ct\"\ndb=\"{}\"", database.name),
        ),
    };
    let buffer = buffer.map_or(String::new(), |bytes| {
        format!(
            "netlink_socket_buffer_size={bytes}\nnetlink_socket_buffer_maxsize={}\n",
            4 * bytes
        )
    });
    let plugin = |name: &str| format!("plugin=\"{}/ulogd_{name}.so\"\n", plugins.display());
    Ok(format!(
        "[global]\nlogfile=\"stdout\"\nloglevel=5\n{}{}{}stack={stack}\n\n\
         [ct1]\nhash_enable=0\nevent_mask={events}\n{buffer}\n[out1]\n{section}\n",
        plugin("inpflow_NFCT"),
        plugin(filter),
        plugin(output)
    ))
}

fn plugins() -> Result<PathBuf> {
    std::fs::read_dir("/usr/lib")?
        .flatten()
        .map(|entry| entry.path().join("ulogd"))
        .find(|path| path.is_dir())
        .context(
            "ulogd2 is not installed (Debian packages ulogd2, ulogd2-pgsql, ulogd2-mysql, ulogd2-sqlite3)",
        )
}
