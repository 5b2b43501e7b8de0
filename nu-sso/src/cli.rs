//! The command line: `lookup`, `serve`, `squid`.
//!
//! Reads arguments, loads the configuration, and hands over.

use crate::ask::{parse_protocol, parse_tuple};
use crate::config::{self, Config, Overrides};
use crate::finder::{FindError, Finder};
use crate::{Helper, once, serve};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nufw_common::logging;
use nufw_proto::Tuple;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// The exit code of `lookup` when nobody is behind the connection.
const NOBODY: u8 = 1;

/// Tells which user is behind a connection that is live in the log
#[derive(Debug, Parser)]
#[command(name = "nu-sso", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file [default: /etc/nufw/nu-sso.toml, if there is one]
    #[arg(short = 'f', long = "config", value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// The log (key log.database)
    #[arg(long, value_name = "URL", global = true)]
    database: Option<String>,
    /// How long a miss is looked for again, 0s for once (key lookup.retry)
    #[arg(long, value_name = "TIME", global = true)]
    retry: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the user of a connection; exit 1 when there is none
    Lookup(Question),
    /// Answer web servers and proxies by HTTP
    Serve {
        /// Where: `unix:/path` or `address:port`; may be repeated (key serve.listen)
        #[arg(long, value_name = "PLACE")]
        listen: Vec<String>,
    },
    /// Be a helper of Squid's `external_acl_type`: questions on standard input, answers on standard output
    Squid,
}

#[derive(Debug, Args)]
struct Question {
    /// Address of the client, as its peer sees it
    src: String,
    /// Port of the client
    sport: String,
    /// Address of the service
    dst: String,
    /// Port of the service
    dport: String,
    /// tcp, udp, udplite, sctp or dccp
    #[arg(long, default_value = "tcp", value_name = "NAME")]
    proto: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Cli {
    fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::new();
        let mut set = |key, value: Option<String>, option| {
            overrides.extend(value.map(|value| (key, value, option)));
        };
        set("log.database", self.options.database.clone(), "--database");
        set("lookup.retry", self.options.retry.clone(), "--retry");
        if let Command::Serve { listen } = &self.command {
            let listen = (!listen.is_empty()).then(|| listen.join(","));
            set("serve.listen", listen, "--listen");
        }
        overrides
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
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => exit::report(Err(failure)),
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let asked = match &cli.command {
        Command::Lookup(question) => Some(tuple(question)?),
        Command::Serve { .. } | Command::Squid => None,
    };
    let config = config::load(cli.options.file.as_deref(), cli.overrides()).or_exit(Exit::Config)?;
    logging::init(if asked.is_some() { "error" } else { "info" });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .or_exit(Exit::OsErr)?;
    let code = runtime.block_on(async {
        match &cli.command {
            Command::Lookup(question) => look_up(&config, asked, question.json).await,
            Command::Serve { .. } => serve::run(&config).await.map(|()| ExitCode::SUCCESS),
            Command::Squid => squid(&config).await.map(|()| ExitCode::SUCCESS),
        }
    });
    // A thread that waits for standard input would keep the process.
    runtime.shutdown_background();
    code
}

fn tuple(question: &Question) -> Result<Tuple, Failure> {
    parse_protocol(&question.proto)
        .and_then(|protocol| {
            parse_tuple(
                &question.src,
                &question.sport,
                &question.dst,
                &question.dport,
                protocol,
            )
        })
        .or_exit(Exit::Usage)
}

async fn look_up(config: &Config, asked: Option<Tuple>, json: bool) -> Result<ExitCode, Failure> {
    let failure = |error: FindError| Failure::new(once::exit_of(&error), error);
    let mut options = config.finder();
    options.connections = 1;
    let finder = Finder::closed(config.database.clone(), options).with_server(config.server.clone());
    // Without the log the server may know the answer.
    match finder.reopen().await {
        Err(error) if config.server.is_none() => return Err(failure(error)),
        _ => {}
    }
    let answer = match asked {
        Some(tuple) => finder.find(&tuple).await.map_err(failure)?,
        None => None,
    };
    once::print(answer.as_ref(), json, &mut std::io::stdout().lock())
        .context("the answer cannot be written")
        .or_exit(Exit::IoErr)?;
    Ok(if answer.is_some() {
        ExitCode::SUCCESS
    } else {
        NOBODY.into()
    })
}

async fn squid(config: &Config) -> Result<(), Failure> {
    // Squid restarts a helper that ends at once, again and again: each question tries the log instead.
    let finder = Finder::closed(config.database.clone(), config.finder()).with_server(config.server.clone());
    if let Err(error) = finder.reopen().await {
        tracing::warn!(%error, database = %config.database, "the log cannot be read; answering BH until it can");
    }
    let input = tokio::io::BufReader::new(tokio::io::stdin());
    Helper::new(Arc::new(finder), config.max_in_flight)
        .run(input, tokio::io::stdout())
        .await
        .context("cannot talk to Squid")
        .or_exit(Exit::IoErr)
}
