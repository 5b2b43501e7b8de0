//! The command line of `clean-conntrack`.
//!
//! Arguments in, exit code out.

use super::report::Report;
use super::{Settings, run};
use anyhow::Context as _;
use clap::Parser;
use nufw_common::config::HumanDuration;
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nufw_common::logging;
use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
What it does:
  1. Moves rows in state DROP and CLOSE whose end is older than the grace period from conntrack_ulog to ulog, in small
     transactions. Kill it at any moment: a row is in one of the two tables, once, whole.
  2. Has the server check rows in state OPEN and ESTABLISHED that are older than the timeout: their gateways show what
     their kernels have, and the server closes what is gone. A connection that lives for days stays.
  3. Closes rows that old by itself only where their gateway has not been heard of for the timeout: close_reason is
     gateway-lost and end_timestamp stays NULL, since nobody knows it.

A log in a file is cleaned by the running server, which is asked over its socket, and directly when no server runs.

Exit codes:
  0   done
  64  the command line is wrong      78  so are the settings, or the schema is not of this version
  65  done, but rows are in both tables: somebody put them there by hand; the report names some
  69  the database or the server cannot be reached
  75  another run is at work, or this one was told to end before it was done: the next run goes on
  77  the account or user may not

Examples:
  clean-conntrack --dry-run             what would be done
  clean-conntrack --grace 1h            leave an hour of dead rows where tools of NuFW look for them
  clean-conntrack --json --at-most 4m   from cron every five minutes (see also clean-conntrack.timer)";

/// Moves dead connections from the live table of the log to its archive
#[derive(Debug, Parser)]
#[command(name = "clean-conntrack", version, after_long_help = HELP, after_help = HELP)]
struct Cli {
    /// Settings [default: /etc/nufw/nulog.toml, if there is one]
    #[arg(short = 'f', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The log (key clean.database)
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The running server's socket (key log.server-socket)
    #[arg(long, value_name = "FILE")]
    server_socket: Option<String>,
    /// Dead rows younger than this stay [default: 5m] (key clean.grace)
    #[arg(long, value_name = "TIME")]
    grace: Option<String>,
    /// Live rows older than this are checked [default: 1d] (key clean.timeout)
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// How long a silent gateway is watched before its rows are closed [default: 65s] (key clean.watch)
    #[arg(long, value_name = "TIME")]
    watch: Option<String>,
    /// End after this time although there is more to move (exit code 75)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    at_most: Option<HumanDuration>,
    /// Change nothing; say what would be
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

fn duration(text: &str) -> Result<HumanDuration, String> {
    HumanDuration::parse(text).ok_or_else(|| "expected a time such as \"30s\" or \"4m\"".to_owned())
}

/// The command line, for its manual page.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // To standard output for --help, else to standard error; if that is closed nobody can be told.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    logging::init("warn");
    match execute(cli, &mut std::io::stdout()) {
        Ok(code) => code,
        Err(failure) => exit::report(Err(failure)),
    }
}

fn execute(cli: Cli, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let (json, quiet) = (cli.json, cli.quiet);
    let settings = settings(cli).or_exit(Exit::Config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .or_exit(Exit::OsErr)?;
    let report = runtime.block_on(run::run(&settings))?;
    let written = match (json, quiet) {
        (true, _) => report.json(out),
        (false, true) => Ok(()),
        (false, false) => report.text(out),
    };
    written
        .context("the report cannot be written")
        .or_exit(Exit::IoErr)?;
    Ok(code(&report))
}

fn settings(cli: Cli) -> Result<Settings, nufw_common::config::ConfigError> {
    let mut overrides = Vec::new();
    let given = [
        ("clean.database", cli.database, "--database"),
        ("log.server-socket", cli.server_socket, "--server-socket"),
        ("clean.grace", cli.grace, "--grace"),
        ("clean.timeout", cli.timeout, "--timeout"),
        ("clean.watch", cli.watch, "--watch"),
    ];
    for (key, value, option) in given {
        overrides.extend(value.map(|value| (key, value, option)));
    }
    let mut settings = Settings::load(cli.file.as_deref(), overrides)?;
    settings.dry_run = cli.dry_run;
    settings.at_most = cli.at_most.map(|time| time.0);
    settings.bar = !cli.json && !cli.quiet && std::io::stderr().is_terminal();
    Ok(settings)
}

fn code(report: &Report) -> ExitCode {
    if !report.finished {
        Exit::TempFail.into()
    } else if report.held > 0 {
        Exit::DataErr.into()
    } else {
        ExitCode::SUCCESS
    }
}
