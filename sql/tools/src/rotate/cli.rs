//! The command line of `ulog-rotate`.
//!
//! Reads arguments and settings, and hands over.

use super::config::{self, Config};
use super::report::{self, Progress, Report};
use super::run::Run;
use super::writer::File;
use crate::settings::Overrides;
use anyhow::Context as _;
use clap::Parser;
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nufw_common::lifecycle::{self, Shutdown, Signals};
use nufw_common::{clock, logging};
use nulog::rotate::Archive;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ulog-rotate --keep 90d               what is older than 90 days goes, by whole days
  ulog-rotate --keep 400d --unit month by whole months
  ulog-rotate --keep 90d --export /srv/nufw-archive
                                       ... after it was written to one file a day
  ulog-rotate --keep 90d --dry-run     says what would go
  ulog-rotate --list                   what the archive consists of

Exit codes: 0 done; 75 another run is at work, others hold a lock, or a signal came: the next run goes on;
69 the database is away; 73, 74 the export cannot be written; 77 not allowed; 78 the settings are wrong.";

/// Keeps the archive of the log bounded: makes its partitions ahead, and drops what is too old
#[derive(Debug, Parser)]
#[command(name = "ulog-rotate", version, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
struct Cli {
    /// Settings [default: /etc/nufw/nulog.toml, if there is one]
    #[arg(short = 'f', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The log (key rotate.database)
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// How long rows are kept, such as 90d (key rotate.keep)
    #[arg(long, value_name = "TIME")]
    keep: Option<String>,
    /// What goes at once: day or month (key rotate.unit)
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Partitions to make ahead (key rotate.ahead)
    #[arg(long, value_name = "NUMBER")]
    ahead: Option<String>,
    /// Write what goes to files in this directory first (key rotate.export)
    #[arg(long, value_name = "DIR")]
    export: Option<String>,
    /// Format of these files: csv.gz or csv (key rotate.format)
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// How long a lock that others hold is tried for (key rotate.patience)
    #[arg(long, value_name = "TIME")]
    patience: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Show what the archive consists of, and change nothing
    #[arg(long, conflicts_with = "dry_run")]
    list: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Say nothing when all is well
    #[arg(short, long, conflicts_with_all = ["list", "json"])]
    quiet: bool,
}

impl Cli {
    fn overrides(&self) -> Overrides {
        let given = [
            ("rotate.database", &self.database, "--database"),
            ("rotate.keep", &self.keep, "--keep"),
            ("rotate.unit", &self.unit, "--unit"),
            ("rotate.ahead", &self.ahead, "--ahead"),
            ("rotate.format", &self.format, "--format"),
            ("rotate.patience", &self.patience, "--patience"),
        ];
        let given = given
            .into_iter()
            .filter_map(|(key, value, option)| Some((key, value.clone()?, option)));
        let export = self.export.as_ref().map(|directory| {
            // Relative to where it was said.
            let here = std::env::current_dir().unwrap_or_default();
            (
                "rotate.export",
                here.join(directory).display().to_string(),
                "--export",
            )
        });
        given.chain(export).collect()
    }
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
    exit::report(run(&cli))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let config = config::load(cli.file.as_deref(), cli.overrides()).or_exit(Exit::Config)?;
    logging::init("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let (trigger, stop) = lifecycle::shutdown();
        let mut signals = Signals::new()
            .context("cannot take signals over")
            .or_exit(Exit::OsErr)?;
        tokio::spawn(async move {
            while signals.next().await != lifecycle::Signal::Terminate {}
            trigger.shut_down();
        });
        work(cli, &config, stop).await
    })
}

async fn work(cli: &Cli, config: &Config, stop: Shutdown) -> Result<(), Failure> {
    let mut archive = Archive::open(&config.database).await.map_err(Failure::from)?;
    let mut out = std::io::stdout().lock();
    if cli.list {
        let parts = archive.parts(config.unit).await.map_err(Failure::from)?;
        return report::list(&parts, cli.json, &mut out)
            .context("the list cannot be written")
            .or_exit(Exit::IoErr);
    }
    let keep = config
        .keep
        .context("how long rows are kept is not said: give --keep, or rotate.keep in the settings, such as \"90d\"")
        .or_exit(Exit::Config)?;
    let file = if cli.dry_run {
        None
    } else {
        archive.lock().await.map_err(Failure::from)?;
        File::of(config).await?
    };
    let mut run = Run {
        config,
        archive,
        file,
        stop,
        report: Report {
            dry_run: cli.dry_run,
            ..Report::default()
        },
        progress: Progress::new(),
    };
    let ended = run.all(clock::wall().micros().div_euclid(1_000_000), keep).await;
    let Run {
        archive,
        file,
        report,
        progress,
        ..
    } = run;
    drop(progress);
    if let Some(file) = file {
        file.close().await?;
    }
    // What was done is told also when not all was.
    if !cli.quiet {
        report
            .write(cli.json, &mut out)
            .and_then(|()| out.flush())
            .context("the report cannot be written")
            .or_exit(Exit::IoErr)?;
    }
    // The lock ends with the connection anyhow.
    let _ = archive.close().await;
    ended
}
