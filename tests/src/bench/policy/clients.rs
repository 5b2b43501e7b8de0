//! Many clients of one real server: how quickly they log in by password, what each costs, and how soon all are back after a
//! restart. Meanwhile a user who was there before opens connections through the kernel, whose verdicts are timed.
//!
//! Nothing is arranged to be quick: passwords are hashed as `hash-password` does it, and everybody comes at once.

use super::super::figures::{Figure, Figures, Rate};
use super::super::{LOAD_PORT, SINK_KEEPS, ratio, say};
use crate::command::{binary, checked};
use crate::crowd::CrowdReport;
use crate::daemons::{Lab, SERVER_NAME};
use crate::load::LoadReport;
use crate::net::addr;
use crate::options::{Options, User};
use crate::process::{Proc, Spec};
use crate::wait::now;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Connections a second of the user who was there before.
const RATE: u32 = 100;
/// Their first source port, and the one after the last.
const PORTS: std::ops::Range<u32> = 1024..60_000;
/// The addresses of the crowd, on the gateway itself.
const CROWD: &str = "10.99.0.0";
/// How long the crowd may take.
const PATIENCE: Duration = Duration::from_mins(20);

const LISTS: &str = r#"
[[rule]]
name = "load"
protocol = "tcp"
ports = ["8000"]
decision = "accept"
log = "async"
"#;

struct Bench {
    lab: Lab,
    _sink: Proc,
    port: u32,
}

/// Measures with so many clients; `quiet` is how long verdicts are timed while nothing else happens.
pub(super) fn run(
    (case, clients): (&'static str, u32),
    quiet: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let mut add = |metric, rate, value, unit| figures.add(Figure::new(case, metric, rate, value, unit));
    let mut options = Options::default();
    LISTS.clone_into(&mut options.policy);
    "info".clone_into(&mut options.log_level);
    options
        .users
        .extend((0..clients).map(|number| User::new(&format!("crowd{number}"), 10_000 + number)));
    options = options
        .nuauth("dead-after", "10s")
        .nuauth("clients.max-sessions", i64::from(clients) + 1);
    let lab = Lab::start(options)?;
    checked(lab.net.gateway.command("ip").args([
        "route",
        "add",
        "local",
        &format!("{CROWD}/16"),
        "dev",
        "lo",
    ]))?;
    let sink = Spec::new("sink", &lab.net.server, binary("nufw-lab")?, lab.dir());
    let mut sink = sink
        .args(["sink", "--port", &LOAD_PORT.to_string(), "--keep", SINK_KEEPS])
        .start()?;
    sink.wait_log("ready")?;
    let mut bench = Bench {
        lab,
        _sink: sink,
        port: PORTS.start,
    };
    bench.load(Duration::from_secs(1))?;
    let before = bench.lab.server.rss()?;
    let report = bench.load(quiet)?;
    add(
        "decision_p99_us",
        Rate::PerSecond(RATE),
        ratio(report.p99_us, 1),
        "us",
    );

    say(format_args!("{case}: all log in at once"));
    let mut crowd = bench.crowd(clients)?;
    let (all, worst) = bench.meanwhile(&mut crowd, 1)?;
    let each = |reports: f64| reports / all.seconds;
    add(
        "logins_per_second",
        Rate::Full,
        each(f64::from(all.clients)),
        "1/s",
    );
    add(
        "login_attempts_failed",
        Rate::Full,
        f64::from(all.failed),
        "logins",
    );
    add(
        "decision_p99_us_of_logins",
        Rate::PerSecond(RATE),
        worst.p99,
        "us",
    );
    add(
        "decisions_failed_of_logins",
        Rate::PerSecond(RATE),
        worst.failed,
        "connections",
    );
    let grown = bench.lab.server.rss()?.saturating_sub(before);
    add(
        "bytes_per_client",
        Rate::Full,
        ratio(grown, u64::from(clients)),
        "bytes",
    );

    say(format_args!("{case}: the server is restarted"));
    bench.lab.server.terminate()?;
    bench.lab.start_server()?;
    let (back, worst) = bench.meanwhile(&mut crowd, 2)?;
    add("reconnect_seconds", Rate::Full, back.seconds, "s");
    add(
        "reconnects_by_ticket",
        Rate::Full,
        f64::from(back.by_ticket),
        "logins",
    );
    add(
        "decisions_per_second_of_reconnect",
        Rate::PerSecond(RATE),
        worst.per_second,
        "1/s",
    );
    add(
        "decision_p99_us_of_reconnect",
        Rate::PerSecond(RATE),
        worst.p99,
        "us",
    );
    crowd.kill()
}

/// The loads of a while: the worst of them, and what came through.
#[derive(Default)]
struct Worst {
    p99: f64,
    failed: f64,
    per_second: f64,
}

impl Bench {
    /// Connections for so long.
    fn load(&mut self, time: Duration) -> Result<LoadReport> {
        let count = RATE * u32::try_from(time.as_secs().max(1))?;
        if self.port + count > PORTS.end {
            // Tuples of long ago are free again.
            self.port = PORTS.start;
        }
        let mut command = self.lab.net.client.command(binary("nufw-lab")?);
        command.args(["load", "--target", &format!("{}:{LOAD_PORT}", addr::SERVER4)]);
        command.args(["--source", &addr::CLIENT4.to_string()]);
        command.args(["--first-port", &self.port.to_string()]);
        command.args(["--count", &count.to_string(), "--rate", &RATE.to_string()]);
        self.port += count;
        serde_json::from_str(&checked(&mut command)?).context("the load generator gave no report")
    }

    fn crowd(&self, clients: u32) -> Result<Proc> {
        let lab = &self.lab;
        // It stands for as many machines, and must not take a processor from the one that is measured (sched(7), SCHED_IDLE).
        let spec = Spec::new("crowd", &lab.net.gateway, "chrt".into(), lab.dir());
        spec.args([
            "--idle".into(),
            "0".to_owned(),
            binary("nufw-lab")?.display().to_string(),
        ])
        .args(["crowd", "--server", &format!("{}:4129", addr::GATEWAY4)])
        .args(["--name", SERVER_NAME, "--source", &CROWD.replace(".0.0", ".0.1")])
        .args(["--count".into(), clients.to_string(), "--ca".into()])
        .args([lab.dir().join("pki/ca.crt")])
        .start()
    }

    /// Opens connections until the crowd has told so many times that all of it is there.
    fn meanwhile(&mut self, crowd: &mut Proc, told: usize) -> Result<(CrowdReport, Worst)> {
        let began = now();
        let mut worst = Worst::default();
        let mut connected = 0;
        loop {
            let report = self.load(Duration::from_secs(5))?;
            say(format_args!(
                "{:.0} s: connections meanwhile took {} ms at most but for 1 %",
                began.elapsed().as_secs_f64(),
                report.p99_us / 1000
            ));
            worst.p99 = worst.p99.max(ratio(report.p99_us, 1));
            worst.failed += f64::from(report.refused + report.timed_out + report.failed);
            connected += report.connected;
            worst.per_second = f64::from(connected) / began.elapsed().as_secs_f64();
            let log = crowd.log()?;
            if let Some(line) = log
                .lines()
                .filter(|line| line.contains("\"clients\""))
                .nth(told - 1)
            {
                return Ok((serde_json::from_str(line)?, worst));
            }
            ensure!(
                crowd.exited()?.is_none(),
                "the crowd has ended: {}",
                crowd.tail(5)
            );
            ensure!(
                began.elapsed() < PATIENCE,
                "the crowd is not complete after {PATIENCE:?}"
            );
        }
    }
}
