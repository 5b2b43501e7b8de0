//! The command line, and every command but `run`.
//!
//! Parses and dispatches; what a command does is its module's business.

use crate::config::{DEFAULT_PATH, Override};
use crate::policy_command::{self, PolicyCommand};
use crate::{check, db, directory, hash_password, import, pki, status};
use clap::{Args, Parser, Subcommand};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::privileges;
use nufw_common::sandbox::Mode;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The authentication server of a firewall that knows the user: asks the users' clients whose connection a waiting
/// packet is, decides by the access lists, writes the row, answers the gateway.
#[derive(Debug, Parser)]
#[command(name = "nuauth-server", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The configuration file; paths in it are relative to its directory
    #[arg(short = 'f', long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub log_sync: Option<bool>,

    /// Become this user when started as root, after the ports are open; overrides privileges.user
    #[arg(long, global = true, value_name = "USER")]
    pub user: Option<String>,

    /// enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox
    #[arg(long, global = true, value_name = "MODE")]
    pub sandbox: Option<String>,

    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXAMPLES: &str = "\
From nothing to a running server:
  nuauth-server pki init    --dir /etc/nufw/pki
  nuauth-server pki server  --dir /etc/nufw/pki nuauth --address nuauth.example.org
  nuauth-server pki gateway --dir /etc/nufw/pki gw1
  nuauth-server hash-password        # for users.toml
  nuauth-server db migrate           # unless the log is a file of SQLite
  nuauth-server check                # is everything right, and what was understood?
  nuauth-server policy test --user alice 10.0.0.5:4000 10.1.0.9:22
  nuauth-server                      # runs in the foreground
  nuauth-server status               # how the running one is

Signals: HUP reloads users, access lists, certificates and revocation list; TERM ends.
Environment: NUAUTH_<SECTION>_<KEY> overrides the file, as in NUAUTH_LOG_SYNC=false;
NUFW_LOG=debug shows more.
Exit codes are those of sysexits.h: 64 usage, 74 input or output, 77 permission, 78 configuration.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server in the foreground (also without any command)
    Run,
    /// Check every file, print what was understood, exit 78 if something is wrong
    #[command(
        after_help = "Run it as the user that the server runs as: it looks whether that user can read the keys \
                            and write the database."
    )]
    Check {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show how the running server is: gateways, sessions, decisions, journal
    #[command(
        after_help = "Asks over control.socket. Exit code 69 when no server runs, 77 when it may not be asked."
    )]
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print what a running server holds: user, capabilities, filters, sandbox
    #[command(after_help = "Without PID: every nuauth-server of this host. Ask as root to see all of it.")]
    Privileges {
        /// Its process
        pid: Option<u32>,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Make certificates: an authority, servers, gateways, users
    #[command(subcommand)]
    Pki(Pki),
    /// Look after the log's database
    #[command(subcommand)]
    Db(Db),
    /// Check, show, try out, compare and replay access lists; explain what they decided
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Read a password, print its hash for users.toml
    #[command(after_help = "Asks twice at a terminal, else reads one line:\n  \
                            printf '%s\\n' \"$PASSWORD\" | nuauth-server hash-password")]
    HashPassword {
        /// Print keys for SCRAM-SHA-256 (the key scram), by which the password never leaves the client
        #[arg(long)]
        scram: bool,
    },
    /// Make nuauth.toml, policy.toml and users.toml of the files of a NuFW 2.4 server
    #[command(after_help = IMPORT)]
    ImportNufw(ImportNufw),
    /// The process that asks directories; the server starts it
    #[command(hide = true)]
    DirectoryHelper {
        /// Whom workers of users.system become
        #[arg(long)]
        system_user: Option<String>,
    },
    /// A process that asks one directory; the helper starts it
    #[command(hide = true)]
    DirectoryWorker {
        /// What it asks
        kind: directory::Kind,
    },
}

const IMPORT: &str = "\
What has no equivalent is named, line by line; docs/migrating-from-nufw.md has every key of NuFW's. Nothing is let through that
NuFW refused: an access list that cannot be said here is left out if it accepts, and makes the file invalid if it refuses.
  nuauth-server import-nufw /etc/nufw/nuauth.conf /etc/nufw/acls.nufw /etc/nufw/users.nufw /etc/nufw/periods.xml --dir new
Exit code 65 when a file is none of NuFW's, 73 when a file is there already.";

/// The files of NuFW, and where ours go.
#[derive(Debug, Args)]
pub struct ImportNufw {
    /// nuauth.conf; the files that it includes are read with it
    #[arg(value_name = "NUAUTH.CONF")]
    conf: PathBuf,
    /// acls.nufw, for policy.toml
    #[arg(value_name = "ACLS.NUFW")]
    acls: Option<PathBuf>,
    /// users.nufw, for users.toml
    #[arg(value_name = "USERS.NUFW")]
    users: Option<PathBuf>,
    /// periods.xml, for the periods of policy.toml
    #[arg(value_name = "PERIODS.XML")]
    periods: Option<PathBuf>,
    /// Where our files go; made if absent
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

/// A command about the log's database.
#[derive(Debug, Subcommand)]
pub enum Db {
    /// Bring the schema up to date: before the first start, and after every update of the program
    #[command(
        after_help = "Run it as an account that may create tables, with the server stopped; afterwards the grants of \
                            sql/grants. A file of SQLite is brought up to date by the server itself.\n  \
                            NUAUTH_LOG_DATABASE=postgres://owner@host/nulog nuauth-server db migrate"
    )]
    Migrate,
}

/// A command of the certificate authority.
#[derive(Debug, Subcommand)]
pub enum Pki {
    /// Make a certificate authority: ca.crt, ca.key, and ca.crl that revokes nothing
    Init {
        /// The directory, made if absent
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The authority's name
        #[arg(long, default_value = "NuFW certificate authority")]
        name: String,
        /// When it is valid.
        #[command(flatten)]
        validity: Validity,
        /// Replace an authority that is there: every certificate of it becomes worthless
        #[arg(long)]
        force: bool,
    },
    /// Make an authentication server's certificate
    #[command(
        after_help = "Gateways and clients connect by the name or by one of the addresses:\n  \
                            nuauth-server pki server --dir pki nuauth --address nuauth.example.org --address 2001:db8::1"
    )]
    Server {
        /// What to make.
        #[command(flatten)]
        issue: Issue,
        /// A further host name or IP address of the server; may be repeated
        #[arg(long, value_name = "NAME|IP")]
        address: Vec<String>,
    },
    /// Make a gateway's certificate; its name must be among gateways.names
    Gateway(Issue),
    /// Make a user's certificate, which logs in without a password (EXTERNAL)
    Client(Issue),
    /// Put a certificate on the revocation list
    #[command(after_help = "Then copy ca.crl to the servers and send them HUP.")]
    Revoke {
        /// The authority's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The name that the certificate was made under
        name: String,
    },
}

/// A certificate to make.
#[derive(Debug, Args)]
pub struct Issue {
    /// The authority's directory; NAME.crt and NAME.key are written there
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The server's or gateway's host name, or the user's name
    pub name: String,
    /// When it is valid.
    #[command(flatten)]
    pub validity: Validity,
    /// Replace a certificate of that name
    #[arg(long)]
    pub force: bool,
}

/// When a certificate is valid.
#[derive(Debug, Args)]
pub struct Validity {
    /// Days that it is valid (3650 for an authority, 825 for others)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    /// Valid from then on, as in 2026-12-31T23:59:59Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub valid_from: Option<OffsetDateTime>,
    /// Valid until then
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "days")]
    pub valid_until: Option<OffsetDateTime>,
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "expected a time such as 2026-12-31T23:59:59Z (RFC 3339)".to_owned())
}

/// What is left to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Done,
    /// Nothing but to say by the exit code that two things that were compared differ.
    Differs,
    /// Run the server.
    Run {
        /// The configuration file.
        config: PathBuf,
        /// What the command line overrides.
        overrides: Vec<Override>,
    },
}

/// The command line, for its manual page.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Reads the process's arguments; on a mistake, `--help` or `--version` prints and gives the exit code.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // Nobody is left to tell if this fails.
        let _ = error.print();
        if error.use_stderr() {
            Exit::Usage.into()
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Does what was asked for, save running the server, which is left to the caller.
pub fn dispatch(cli: Cli, out: &mut dyn Write) -> Result<Next, Failure> {
    let overrides = cli.overrides();
    match cli.command {
        None | Some(Command::Run) => {
            return Ok(Next::Run {
                config: cli.config,
                overrides,
            });
        }
        Some(Command::Check { json }) => check::run(&cli.config, &overrides, json, out)?,
        Some(Command::Status { json }) => status::run(&cli.config, &overrides, json, out)?,
        Some(Command::Privileges { pid, json }) => privileges::print("nuauth-server", pid, json, out)?,
        Some(Command::Pki(command)) => pki::run(&command, out)?,
        Some(Command::Policy(command)) => return policy_command::run(&command, &cli.config, &overrides, out),
        Some(Command::Db(Db::Migrate)) => db::migrate(&cli.config, &overrides, out)?,
        Some(Command::HashPassword { scram }) => hash_password::run(scram, out)?,
        Some(Command::DirectoryHelper { system_user }) => {
            nufw_common::logging::init("info");
            directory::run_helper(directory::Launch {
                program: std::env::current_exe().or_exit(Exit::OsErr)?,
                user: cli.user,
                system_user,
                sandbox: sandbox_mode(cli.sandbox.as_deref())?.to_string(),
            })?;
        }
        Some(Command::DirectoryWorker { kind }) => {
            // It has a line for every message that it did not ask for.
            nufw_common::logging::init_quieted("info", Some("ldap3"));
            let mode = sandbox_mode(cli.sandbox.as_deref())?;
            directory::run_worker(kind, cli.user.as_deref(), mode)?;
        }
        Some(Command::ImportNufw(command)) => {
            let old = import::Old {
                conf: &command.conf,
                acls: command.acls.as_deref(),
                users: command.users.as_deref(),
                periods: command.periods.as_deref(),
            };
            import::run(&old, &command.dir, command.force, command.json, out)?;
        }
    }
    Ok(Next::Done)
}

fn sandbox_mode(text: Option<&str>) -> Result<Mode, Failure> {
    text.map_or(Ok(Mode::default()), str::parse)
        .map_err(|error| Failure::new(Exit::Usage, anyhow::anyhow!("--sandbox: {error}")))
}

impl Cli {
    fn overrides(&self) -> Vec<Override> {
        [
            (
                "log.sync",
                self.log_sync.map(|sync| sync.to_string()),
                "--log-sync",
            ),
            ("privileges.user", self.user.clone(), "--user"),
            ("privileges.sandbox", self.sandbox.clone(), "--sandbox"),
        ]
        .into_iter()
        .filter_map(|(key, value, option)| value.map(|value| Override { key, value, option }))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use std::path::Path;

    fn dispatch_args(args: &[&str]) -> Result<Next, Failure> {
        let cli = Cli::try_parse_from(std::iter::once(&"nuauth-server").chain(args)).unwrap();
        dispatch(cli, &mut Vec::new())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn running_is_the_default() {
        let run = |config: &str, overrides| Next::Run {
            config: config.into(),
            overrides,
        };
        assert_eq!(dispatch_args(&[]).unwrap(), run(DEFAULT_PATH, vec![]));
        let sync = Override {
            key: "log.sync",
            value: "false".to_owned(),
            option: "--log-sync",
        };
        assert_eq!(
            dispatch_args(&["run", "--config", "/x.toml", "--log-sync=false"]).unwrap(),
            run("/x.toml", vec![sync])
        );
    }

    #[test]
    fn a_wrong_time_is_explained() {
        let error = Cli::try_parse_from([
            "nuauth-server",
            "pki",
            "client",
            "--dir",
            "d",
            "a",
            "--valid-until",
            "soon",
        ]);
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("expected a time such as 2026-12-31T23:59:59Z (RFC 3339)"),
            "{text}"
        );
    }

    #[test]
    fn every_command_teaches() {
        let help = Cli::command().render_long_help().to_string();
        for word in [
            "pki init",
            "hash-password",
            "db migrate",
            "check",
            "HUP",
            "NUAUTH_",
            DEFAULT_PATH,
        ] {
            assert!(help.contains(word), "{word} is missing from the help");
        }
    }

    #[test]
    fn failures_carry_their_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let failure = dispatch_args(&["pki", "client", "--dir", &path("none"), "alice"]).unwrap_err();
        assert_eq!(failure.exit, Exit::NoInput);
        for command in [&["check"][..], &["db", "migrate"]] {
            let config = path("none.toml");
            let failure = dispatch_args(&[command, &["--config", &config]].concat()).unwrap_err();
            assert_eq!(failure.exit, Exit::Config);
        }
        assert!(!Path::new(&path("none")).exists());
    }
}
