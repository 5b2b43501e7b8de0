//! The measurement of the client: how soon it knows whose a connection is, and which program's, on a host with 10,000 sockets.
//!
//! The kernel is asked and /proc is read as in a session; nothing is sent. Figures only, never a judgement.

use super::BenchOptions;
use super::figures::{Figure, Figures, Rate};
use crate::command::binary;
use crate::netns::NetNs;
use crate::wait::now;
use anyhow::{Context, Result, bail};
use nufw_proto::client::Finding;
use nufw_proto::{Ports, Transport, Tuple};
use nutcpc::owner::SocketOwner;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// What is asked about, and how the sockets are spread.
struct Case {
    name: &'static str,
    programs: u32,
    asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A connection that was just opened.
    Opened,
    /// The same where another one was closed before, whose number it gets.
    Replaced,
    /// One that is open since long, in no order.
    Old,
    /// The first of a program that has just been started.
    Started,
}

const CASES: [Case; 6] = [
    Case {
        name: "claims-10000",
        programs: 20,
        asked: Asked::Opened,
    },
    Case {
        name: "claims-10000-replaced",
        programs: 20,
        asked: Asked::Replaced,
    },
    Case {
        name: "claims-10000-old",
        programs: 20,
        asked: Asked::Old,
    },
    Case {
        name: "claims-10000-started",
        programs: 20,
        asked: Asked::Started,
    },
    Case {
        name: "claims-10000-one",
        programs: 1,
        asked: Asked::Opened,
    },
    Case {
        name: "claims-10000-one-replaced",
        programs: 1,
        asked: Asked::Replaced,
    },
];

struct Size {
    sockets: u32,
    claims: usize,
    started: usize,
    repeats: u32,
}

/// Measures the client and writes the figures.
pub fn bench_client(options: &BenchOptions, out: &mut impl Write) -> Result<()> {
    let size = if options.quick {
        Size {
            sockets: 1000,
            claims: 200,
            started: 10,
            repeats: 1,
        }
    } else {
        Size {
            sockets: 10_000,
            // Each opens two sockets more, and no process may have more than some 20,000.
            claims: 2000,
            started: 200,
            repeats: 3,
        }
    };
    let mut figures = Figures::new("client");
    for _ in 0..size.repeats {
        for case in &CASES {
            if options
                .only
                .as_ref()
                .is_none_or(|only| case.name.contains(only.as_str()))
            {
                measure(case, &size, &mut figures).with_context(|| format!("case {}", case.name))?;
            }
        }
    }
    if options.json {
        figures.write_json(out)
    } else {
        figures.write_table(out)
    }
}

fn measure(case: &Case, size: &Size, figures: &mut Figures) -> Result<()> {
    let host = NetNs::new()?;
    let each = size.sockets / case.programs / 2;
    let mut programs = Vec::new();
    for _ in 0..case.programs {
        programs.push(Program::start(&host, each)?);
    }
    let times = host.enter(|| -> Result<Vec<Claim>> {
        let mut owner = SocketOwner::open(rustix::process::geteuid().as_raw())?;
        let count = if case.asked == Asked::Started {
            size.started
        } else {
            size.claims
        };
        // Each program is known by a connection, as after a while of use.
        for program in &mut programs {
            claim(&mut owner, program.tell("open")?)?;
        }
        let mut times = Vec::with_capacity(count);
        for i in 0..count {
            // Every program has its turn, now this one and now that.
            let number = i * 7 % programs.len();
            let program = &mut programs[number];
            let asked = match case.asked {
                Asked::Opened => program.tell("open")?,
                Asked::Replaced => program.tell("replace")?,
                Asked::Old => program.held[i * 7919 % program.held.len()],
                Asked::Started => {
                    let started = Program::start(&host, 1)?;
                    times.push(claim(&mut owner, started.held[0])?);
                    continue;
                }
            };
            times.push(claim(&mut owner, asked)?);
        }
        times.sort_unstable_by_key(|claim| claim.nanos);
        Ok(times)
    })??;
    let at = |percent: usize| -> Result<f64> {
        let time = times
            .get((times.len().saturating_sub(1)) * percent / 100)
            .context("nothing was measured")?;
        Ok(super::ratio(time.nanos, 1000))
    };
    for (metric, percent) in [("claim_p50_us", 50), ("claim_p99_us", 99), ("claim_max_us", 100)] {
        figures.add(Figure::new(case.name, metric, Rate::Full, at(percent)?, "us"));
    }
    let unnamed = times.iter().filter(|claim| !claim.named).count();
    let unnamed = super::ratio(u64::try_from(unnamed)?, 1);
    figures.add(Figure::new(
        case.name,
        "claims_without_program",
        Rate::Full,
        unnamed,
        "claims",
    ));
    Ok(())
}

/// How long it takes to say whose the connection is and which program's.
fn claim(owner: &mut SocketOwner, asked: Tuple) -> Result<Claim> {
    let before = now();
    let findings = owner.findings(&[asked]);
    let took = now().saturating_duration_since(before);
    let [Finding::Mine(mine)] = &findings[..] else {
        bail!("{asked} was not found: {findings:?}");
    };
    Ok(Claim {
        nanos: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        named: mine.program.is_some(),
    })
}

/// One answer.
struct Claim {
    nanos: u64,
    /// The program was found in the time that a look may take.
    named: bool,
}

/// A program with connections.
struct Program {
    process: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    held: Vec<Tuple>,
}

impl Program {
    fn start(host: &NetNs, connections: u32) -> Result<Self> {
        let mut process = host
            .command(binary("nufw-lab")?)
            .args(["sockets", "--connections", &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut program = Self {
            orders: process.stdin.take().context("no stdin")?,
            lines: BufReader::new(process.stdout.take().context("no stdout")?).lines(),
            process,
            held: Vec::new(),
        };
        for _ in 0..connections {
            let held = program.next()?;
            program.held.push(held);
        }
        Ok(program)
    }

    fn tell(&mut self, order: &str) -> Result<Tuple> {
        writeln!(self.orders, "{order}")?;
        self.next()
    }

    fn next(&mut self) -> Result<Tuple> {
        let line = self
            .lines
            .next()
            .context("the program with the sockets has ended")??;
        let (src, dst) = line.split_once(' ').context("no two ports")?;
        let ports = Ports {
            src: src.parse()?,
            dst: dst.parse()?,
        };
        let host = Ipv4Addr::LOCALHOST.into();
        Ok(Tuple::new(host, host, Transport::Tcp(ports))?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It ends by itself when its orders end; it is only not waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
