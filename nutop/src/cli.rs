//! The command line, and which of the three ways to show the picture it asks for.
//!
//! Reads arguments and settings, tries the log once, and hands over.

use crate::filter::FIELDS;
use crate::model::Model;
use crate::order::{GroupBy, Sort};
use crate::view::Theme;
use crate::{plain, run};
use anyhow::Context as _;
use clap::Parser;
use nufw_common::clock;
use nufw_common::config::HumanDuration;
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nulog::{Live, Location};
use nulog_tools::settings::{self, DEFAULT_FILE};
use std::fmt::Write as _;
use std::io::{BufWriter, ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Connections that are read unless `--limit` says otherwise: more than anybody looks through, and little to hold.
const LIMIT: u32 = 10_000;
/// A read more often than this would be all that a database does.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_hours(1);

const EXAMPLES: &str = "\
Examples:
  nutop                                    the log that /etc/nufw/nulog.toml names
  nutop --database sqlite:/var/lib/nufw/nulog.db --filter 'user:alice port:443'
  nutop --once --group user                who has how many connections
  nutop --json --filter host:10.0.0.7 | jq -r '.connections[].username'

Press ? in the view for its keys. Only live connections of users are shown: rows in state OPEN or ESTABLISHED that have
a user. To a database server it needs no more than the role nufw_reader of sql/grants. Where standard output is no
terminal it prints once; NO_COLOR is obeyed.";

/// Shows which user is connected to what, live, from the log
#[derive(Debug, Parser)]
#[command(name = "nutop", version, after_help = EXAMPLES)]
struct Cli {
    /// Settings file; its section [log] says where the log is [default: /etc/nufw/nulog.toml, if there is one]
    #[arg(short = 'f', long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The log (key log.database)
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// How often it is read, 200ms to 1h
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// How many connections are read at most, the newest; the view says when there are more
    #[arg(long, value_name = "ROWS", default_value_t = LIMIT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(Live::MAX_ROWS)))]
    limit: u32,
    /// Show only connections that fit: words and field:value pairs, all of which must occur
    #[arg(long, value_name = "FILTER", default_value = "", long_help = filter_help())]
    filter: String,
    /// Sort by this column
    #[arg(long, value_enum, value_name = "COLUMN", default_value = "age")]
    sort: Sort,
    /// The other way round
    #[arg(long)]
    reverse: bool,
    /// Put connections together
    #[arg(long, value_enum, value_name = "BY")]
    group: Option<GroupBy>,
    /// Print a table once and end
    #[arg(long)]
    once: bool,
    /// Print one JSON object and end
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    HumanDuration::parse(text)
        .map(|duration| duration.0)
        .filter(|duration| (SHORTEST..=LONGEST).contains(duration))
        .ok_or_else(|| "not a time from 200ms to 1h, such as 500ms, 2s or 1m".to_owned())
}

fn filter_help() -> String {
    let mut text = "Show only connections that fit: words that must all occur, and pairs:\n".to_owned();
    for (field, what) in FIELDS {
        let _ = writeln!(text, "  {field}:  {what}");
    }
    text
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
    let location = location(cli).or_exit(Exit::Config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .or_exit(Exit::OsErr)?;
    let shown = runtime.block_on(show(cli, location));
    // A read that hangs must not keep the process.
    runtime.shutdown_background();
    shown
}

fn location(cli: &Cli) -> Result<Location, nufw_common::config::ConfigError> {
    let mut overrides = settings::Overrides::new();
    overrides.extend(
        cli.database
            .clone()
            .map(|url| ("log.database", url, "--database")),
    );
    let loaded = settings::load(cli.file.as_deref(), overrides)?;
    let file = cli.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let dir = file.parent().unwrap_or(Path::new("."));
    settings::location(&loaded, "log", (None, None), dir)
}

async fn show(cli: &Cli, location: Location) -> Result<(), Failure> {
    let name = location.to_string();
    let mut live = Live::new(location, "nutop");
    let (at, mono) = (clock::wall(), clock::mono());
    // What is wrong from the start is said before the terminal is taken.
    let picture = live.read(cli.limit).await.map_err(Failure::from)?;
    let mut model = Model::new();
    model.sort_by(cli.sort);
    model.filter_by(cli.filter.clone());
    model.group_by(cli.group);
    if cli.reverse {
        model.reverse();
    }
    model.show(picture, at, mono);
    if cli.json || cli.once || !std::io::stdout().is_terminal() {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let printed = if cli.json {
            plain::json(&mut out, &model, &name)
        } else {
            plain::table(&mut out, &model, at)
        };
        return match printed {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            printed => printed
                .context("the output cannot be written")
                .or_exit(Exit::IoErr),
        };
    }
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let theme = Theme { colour: !no_colour };
    run::watch(live, model, &name, cli.limit, cli.interval, theme)
        .await
        .context("the terminal cannot be used")
        .or_exit(Exit::IoErr)
}
