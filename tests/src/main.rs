//! `nufw-lab`: the demonstration, the measurements, and the helpers that they run as processes of their own.
//!
//! Reads the command line and calls the library; nothing else.

use clap::{Parser, Subcommand, ValueEnum};
use lab::{BenchOptions, Closing, CrowdOptions, DemoOptions, FloodOptions, LoadOptions, Pace, User};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(
    version,
    about = "Three hosts in network namespaces with the whole system on them"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows connections being allowed, refused and logged, from the first packet to the last.
    Demo {
        /// Leaves the lab up at the end and says how to look around.
        #[arg(long)]
        keep: bool,
        /// Prints the final rows only, one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Measures the path of a packet, the log alone, the gateway, the access lists, or the client.
    Bench {
        /// What to measure.
        #[arg(value_enum, default_value_t = Measured::Path)]
        what: Measured,
        /// Prints one JSON object a figure.
        #[arg(long)]
        json: bool,
        /// Runs once and small, to see that it works.
        #[arg(long)]
        quick: bool,
        /// Of the log, only what has this in its name: mariadb, sqlite-cleaning, postgresql-kernel, ulogd2, archive; of the
        /// gateway: full, buffers, floods, throughput, overrun, live, restart, split; of the client: old, started, one, replaced; of the
        /// access lists: rules, clients.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Makes Debian packages of the programs beside this one.
    Package {
        /// The directory that they are put into.
        #[arg(long)]
        out: PathBuf,
    },
    /// Many clients in one process, who log in, stay and come back; says as JSON each time that all are there.
    Crowd {
        /// The server.
        #[arg(long)]
        server: SocketAddr,
        /// Its name in its certificate.
        #[arg(long)]
        name: String,
        /// Who signed that.
        #[arg(long)]
        ca: PathBuf,
        /// So many clients, of the users crowd0, crowd1 and so on.
        #[arg(long)]
        count: u32,
        /// The address of the first one; the others follow.
        #[arg(long)]
        source: Ipv4Addr,
    },
    /// Opens many TCP connections and reports as JSON.
    Load {
        /// Where to.
        #[arg(long)]
        target: SocketAddr,
        /// Source address; may be repeated.
        #[arg(long, required = true)]
        source: Vec<IpAddr>,
        /// First source port of each address.
        #[arg(long, default_value_t = 1024)]
        first_port: u16,
        /// Connections.
        #[arg(long)]
        count: u32,
        /// Connections being opened at the same time.
        #[arg(long, default_value_t = 256)]
        in_flight: usize,
        /// Connections begun per second, instead of a number in flight.
        #[arg(long)]
        rate: Option<u32>,
        /// How long a connection may take to open.
        #[arg(long, default_value_t = 20_000)]
        timeout_ms: u64,
        /// Holds every connection until stdin ends, instead of resetting it.
        #[arg(long)]
        hold: bool,
    },
    /// Sends first packets of TCP connections that nobody goes on with, and reports as JSON.
    Flood {
        /// Where to.
        #[arg(long)]
        target: SocketAddrV4,
        /// First source address.
        #[arg(long)]
        source: Ipv4Addr,
        /// So many addresses from there on.
        #[arg(long, default_value_t = 1)]
        sources: u32,
        /// Packets a second; as many as can be sent unless it is given.
        #[arg(long)]
        rate: Option<u32>,
        /// For how long.
        #[arg(long)]
        milliseconds: u64,
    },
    /// Accepts TCP connections and reads nothing.
    Sink {
        /// Port.
        #[arg(long)]
        port: u16,
        /// Connections kept open before the oldest is closed.
        #[arg(long, default_value_t = 4096)]
        keep: usize,
    },
    /// Holds many connections within its host, and opens others when it is told.
    Sockets {
        /// Connections from the start; each is two sockets.
        #[arg(long)]
        connections: u32,
    },
    /// Accepts every packet of a queue with one mark.
    AcceptAll {
        /// Queue number.
        #[arg(long, default_value_t = 0)]
        queue: u16,
        /// Mark.
        #[arg(long, default_value_t = 1)]
        mark: u32,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Measured {
    /// Forwarding, an accept-everything queue loop, and the full path.
    Path,
    /// Whole lives into each database, the bare loop beside them, and ulogd2.
    Log,
    /// How soon the client knows whose a connection is, on a host with 10,000 sockets.
    Client,
    /// What the gateway loses: at full rate, in floods, by overruns and restarts, beside conntrack and ulogd2.
    Gateway,
    /// Decisions of access lists, a look at every rule beside them; nothing else runs.
    Policy,
}

fn main() -> ExitCode {
    raise_descriptor_limit();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done about a stderr that is closed.
            writeln!(std::io::stderr(), "nufw-lab: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn crowd(options: &CrowdOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(lab::crowd(options, |report| {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        Ok(out.flush()?)
    }))
}

fn run(command: Command) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Demo { keep, json } => {
            lab::become_root()?;
            lab::demo(DemoOptions { keep, json }, &mut out)
        }
        Command::Bench {
            what,
            json,
            quick,
            only,
        } => {
            lab::become_root()?;
            let options = BenchOptions { json, quick, only };
            match what {
                Measured::Path => lab::bench(&options, &mut out),
                Measured::Log => lab::bench_log(&options, &mut out),
                Measured::Client => lab::bench_client(&options, &mut out),
                Measured::Gateway => lab::bench_gateway(&options, &mut out),
                Measured::Policy => lab::bench_policy(&options, &mut out),
            }
        }
        Command::Crowd {
            server,
            name,
            ca,
            count,
            source,
        } => {
            let options = CrowdOptions {
                server,
                name,
                ca,
                count,
                source,
                password: User::PASSWORD.to_owned(),
            };
            crowd(&options, &mut out)
        }
        Command::Load {
            target,
            source,
            first_port,
            count,
            in_flight,
            rate,
            timeout_ms,
            hold,
        } => {
            let report = lab::load(&LoadOptions {
                target,
                sources: source,
                first_port,
                count,
                pace: rate.map_or(Pace::Closed(in_flight), Pace::Open),
                closing: if hold { Closing::Hold } else { Closing::Reset },
                timeout: Duration::from_millis(timeout_ms),
            })?;
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
            out.flush()?;
            if hold {
                std::io::stdin().read_to_end(&mut Vec::new())?;
            }
            Ok(())
        }
        Command::Flood {
            target,
            source,
            sources,
            rate,
            milliseconds,
        } => {
            let report = lab::flood(&FloodOptions {
                target,
                source,
                sources,
                first_port: 1024,
                rate,
                time: Duration::from_millis(milliseconds),
            })?;
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
            Ok(())
        }
        Command::Package { out: directory } => {
            let programs = std::env::current_exe()?;
            let programs = programs.parent().unwrap_or(Path::new("/"));
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .unwrap_or(Path::new("/"));
            for file in lab::packages(root, programs, &directory, true)? {
                writeln!(out, "{}", file.display())?;
            }
            Ok(())
        }
        Command::Sink { port, keep } => lab::sink(port, keep, &mut out),
        Command::Sockets { connections } => lab::sockets(connections, std::io::stdin().lock(), &mut out),
        Command::AcceptAll { queue, mark } => lab::accept_all(queue, mark, &mut out),
    }
}

/// Each connection that is held takes a descriptor.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A lower limit holds fewer connections.
    setrlimit(Resource::Nofile, limit).ok();
}
