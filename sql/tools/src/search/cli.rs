//! The command line of `nulog`: `whois` and `search`.
//!
//! Reads arguments and settings, opens the log, and hands over.

use super::when::Zone;
use super::{find, whois};
use crate::settings::{self, DEFAULT_FILE};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nufw_common::logging;
use nulog::{Search, StoreError};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long one statement may take on a database server, where the settings are silent.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(5);
/// By how much clocks may differ, where nobody says.
const CLOCK_ERROR: Duration = Duration::from_secs(1);

/// Looks connections up, in the live table and the archive
#[derive(Debug, Parser)]
#[command(
    name = "nulog",
    version,
    after_help = "\
Examples:
  nulog whois 203.0.113.5:61000 --at 2026-11-20T14:03:00Z --proto tcp
  nulog search --user alice --since 2h
  nulog search --dst 198.51.100.0/24 --port 443 --since 2026-11-01 --until 2026-11-08 --format csv > week.csv"
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Options {
    /// Settings [default: /etc/nufw/nulog.toml, if there is one]
    #[arg(short = 'f', long = "config", value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// The log (key search.database)
    #[arg(long, value_name = "URL", global = true)]
    database: Option<String>,
    /// Take times without a zone as this machine's, and show times in it, instead of UTC
    #[arg(long, global = true)]
    local: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say who had an address and port at a time, as the outside saw them; exit 1 when nobody had
    Whois(whois::Question),
    /// Find connections by what is known of them
    Search(Box<find::Filters>),
}

/// What both commands work with.
pub(super) struct Context<'a> {
    pub(super) search: Search,
    pub(super) zone: Zone,
    pub(super) clock_error: Duration,
    pub(super) out: &'a mut dyn Write,
    /// For people who wait: nothing that a program reads.
    pub(super) notes: &'a mut dyn Write,
    /// Whether `out` is a terminal.
    pub(super) terminal: bool,
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
    match run(&cli) {
        Ok(code) => code,
        Err(failure) if is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => exit::report(Err(failure)),
    }
}

/// Whoever reads has seen enough.
fn is_broken_pipe(failure: &Failure) -> bool {
    failure.error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    logging::init("error");
    let now = nufw_common::clock::wall();
    let zone = Zone::new(cli.options.local);
    // A wrong question is told before anything is opened.
    let asked = match &cli.command {
        Command::Whois(question) => Asked::Whois(question.read(&zone, now).or_exit(Exit::Usage)?),
        Command::Search(filters) => Asked::Search(Box::new(filters.read(&zone, now).or_exit(Exit::Usage)?)),
    };
    let file = cli.options.file.as_deref();
    let overrides = cli
        .options
        .database
        .iter()
        .map(|url| ("search.database", url.clone(), "--database"))
        .collect();
    let loaded = settings::load(file, overrides).or_exit(Exit::Config)?;
    let own = &loaded.value.search;
    let dir = file
        .unwrap_or(Path::new(DEFAULT_FILE))
        .parent()
        .unwrap_or(Path::new(""));
    let account = (own.database.as_deref(), own.password_file.as_deref());
    let location = settings::location(&loaded, "search", account, dir).or_exit(Exit::Config)?;
    let patience = own.statement_timeout.map_or(STATEMENT_TIMEOUT, |limit| limit.0);
    let clock_error = own.clock_error.map_or(CLOCK_ERROR, |error| error.0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let mut out = io::BufWriter::new(stdout.lock());
        let mut context = Context {
            search: Search::open(&location, patience).await.map_err(failure)?,
            zone,
            clock_error,
            out: &mut out,
            notes: &mut io::stderr(),
            terminal,
        };
        let code = match &asked {
            Asked::Whois(question) => whois::run(question, &mut context).await,
            Asked::Search(wanted) => find::run(wanted, &mut context).await,
        }?;
        out.flush().map_err(anyhow::Error::from).or_exit(Exit::IoErr)?;
        Ok(code)
    })
}

/// What could not be read, with its exit code.
pub(super) fn failure(error: StoreError) -> Failure {
    let exit = match &error {
        StoreError::Missing(_) => Exit::NoInput,
        StoreError::NotADatabase(_) | StoreError::Corrupt { .. } => Exit::DataErr,
        StoreError::TimedOut { .. } => {
            let narrower =
                "the search was given up; a shorter time with --since and --until, or --user, takes less";
            return Failure::new(Exit::TempFail, anyhow::Error::new(error).context(narrower));
        }
        _ => return Failure::from(error),
    };
    Failure::new(exit, error)
}

enum Asked {
    Whois(whois::Asked),
    Search(Box<find::Asked>),
}
