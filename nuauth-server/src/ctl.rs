//! `nuauth-ctl`: what a running server knows, and orders to it, over its control socket.
//!
//! Asks and shows; who may ask what, the server says.

mod table;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nufw_common::config::HumanDuration;
use nufw_common::control::admin::{
    ConnectionInfo, Disconnected, GatewayInfo, Page, PendingInfo, PolicyInfo, Said, SessionInfo, Target,
    Wanted,
};
use nufw_common::control::{Client, ControlError, DEFAULT_SOCKET, Request, Status};
use nufw_common::exit::{Exit, Failure, OrExit as _, report};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long a reload may take: it reads files, and asks a directory perhaps.
const RELOAD: Duration = Duration::from_mins(1);

const EXAMPLES: &str = "\
Examples:
  nuauth-ctl users                          # who is logged in, and where
  nuauth-ctl connections --user alice
  nuauth-ctl disconnect --user alice --reason 'the exam is over'
  nuauth-ctl disconnect --pattern 'guest-*'
  nuauth-ctl log-level debug                # until the next start
  nuauth-ctl drain --within 2m              # end when nothing waits, say before an update

Everybody who may look: root, the server's own user, the group of its socket, and the groups of control.readers. Orders are
for root, the server's own user, and the groups of control.admins.
Exit codes are those of sysexits.h: 64 usage, 69 no server answers, 70 the server refuses, 75 it is busy, 77 not allowed.";

/// Looks into a running authentication server, and gives it orders.
#[derive(Debug, Parser)]
#[command(name = "nuauth-ctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The server's socket (control.socket)
    #[arg(short = 's', long, global = true, value_name = "FILE", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Print JSON: a list for what is shown as a table, else an object
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Who is logged in, where, and how sure that is
    #[command(visible_alias = "sessions")]
    Users,
    /// The gateways, connected or not
    Gateways,
    /// Connections that wait for their decision at this moment
    Pending,
    /// Live connections
    Connections {
        /// Of this user
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// From or to this address
        #[arg(long, value_name = "ADDR")]
        address: Option<IpAddr>,
        /// From or to this port
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
        /// Show at most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Throw sessions out; their clients stay away until somebody logs in again
    Disconnect {
        /// Whom.
        #[command(flatten)]
        whom: Whom,
        /// A sentence that the user is shown
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "an administrator ended the session"
        )]
        reason: String,
    },
    /// Make the tickets worthless with which clients come back without a password
    RevokeTickets {
        /// Those of this user; those of everybody unless it is given
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Read users, access lists, certificates and revocation list again
    Reload,
    /// Which access lists are in force
    #[command(visible_alias = "policy-version")]
    Policy,
    /// What the server remembers of users from elsewhere
    #[command(subcommand)]
    Cache(Cache),
    /// Show the filter of the server's log, or set it until the next start
    LogLevel {
        /// The filter.
        #[arg(help = "As in NUFW_LOG: debug, or info,nuauth_server::clients=debug")]
        filter: Option<String>,
    },
    /// What was counted since the start, and what waits
    #[command(visible_alias = "status")]
    Statistics,
    /// Take no logins and no packets any more, and end when nothing waits
    Drain {
        /// End after this time in any case
        #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
        within: Duration,
    },
}

/// A command about what is remembered.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Forget it, so that it is asked for anew
    Refresh,
}

/// Whose sessions.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// All sessions of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The session of this number
    #[arg(long, value_name = "N")]
    pub session: Option<u64>,
    /// All sessions that hold this address
    #[arg(long, value_name = "ADDR")]
    pub address: Option<IpAddr>,
    /// All sessions of users whose name fits: * for any text, ? for any character
    #[arg(long, value_name = "GLOB")]
    pub pattern: Option<String>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    HumanDuration::parse(text)
        .map(|duration| duration.0)
        .ok_or_else(|| "expected a time such as 30s, 2m or 1h".to_owned())
}

impl Whom {
    fn target(self) -> Option<Target> {
        self.user
            .map(Target::User)
            .or(self.session.map(Target::Session))
            .or(self.address.map(Target::Address))
            .or(self.pattern.map(Target::Pattern))
    }
}

/// The command line, for its manual page.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// The whole program.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => report(run(cli, &mut io::stdout().lock())),
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}

/// Asks and shows.
pub fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let client = Client::connect(&cli.socket).await.map_err(failure)?;
        let asker = Asker {
            client: client.with_patience(RELOAD),
            json: cli.json,
        };
        asker.carry_out(cli.command, out).await
    })
}

fn failure(error: ControlError) -> Failure {
    let exit = match &error {
        ControlError::Denied(_) | ControlError::Forbidden { .. } => Exit::NoPerm,
        ControlError::Busy(_) => Exit::TempFail,
        ControlError::Refused { .. } => Exit::Software,
        ControlError::Absent { .. } | ControlError::Lost { .. } | ControlError::TimedOut { .. } => {
            Exit::Unavailable
        }
    };
    Failure::new(exit, error)
}

struct Asker {
    client: Client,
    json: bool,
}

impl Asker {
    async fn carry_out(mut self, command: Command, out: &mut dyn Write) -> Result<(), Failure> {
        let written = match command {
            Command::Users => {
                let list: Vec<SessionInfo> = self.all(|after| Request::Sessions { after }, None).await?;
                self.show(out, &list, |out| table::sessions(&list, out))
            }
            Command::Gateways => {
                let list: Vec<GatewayInfo> = self.ask(&Request::Gateways).await?;
                self.show(out, &list, |out| table::gateways(&list, out))
            }
            Command::Pending => {
                let list: Vec<PendingInfo> = self.all(|after| Request::Pending { after }, None).await?;
                self.show(out, &list, |out| table::pending(&list, out))
            }
            Command::Connections {
                user,
                address,
                port,
                limit,
            } => {
                let wanted = Wanted { user, address, port };
                let request = |from| Request::Connections {
                    wanted: wanted.clone(),
                    from,
                };
                let list: Vec<ConnectionInfo> = self.all(request, limit).await?;
                self.show(out, &list, |out| table::connections(&list, out))
            }
            Command::Disconnect { whom, reason } => {
                let target = whom.target().context("nobody is named").or_exit(Exit::Usage)?;
                let done: Disconnected = self.ask(&Request::Disconnect { target, reason }).await?;
                self.show(out, &done, |out| match done.sessions.as_slice() {
                    [] => writeln!(out, "nobody was logged in whom that means"),
                    [one] => writeln!(out, "session {one} was ended"),
                    _ => writeln!(out, "{} sessions were ended", done.count),
                })
            }
            Command::RevokeTickets { user } => self.say(&Request::RevokeTickets { user }, out).await?,
            Command::Reload => self.say(&Request::Reload, out).await?,
            Command::Policy => {
                let policy: PolicyInfo = self.ask(&Request::Policy).await?;
                self.show(out, &policy, |out| table::policy(&policy, out))
            }
            Command::Cache(Cache::Refresh) => self.say(&Request::RefreshCache, out).await?,
            Command::LogLevel { filter } => self.say(&Request::LogLevel { filter }, out).await?,
            Command::Statistics => {
                let status: Status = self.ask(&Request::Status).await?;
                self.show(out, &status, |out| crate::status::show(&status, out))
            }
            Command::Drain { within } => {
                let within = within.as_secs();
                self.say(&Request::Drain { within }, out).await?
            }
        };
        written
            .context("the answer cannot be written")
            .or_exit(Exit::IoErr)
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        self.client.ask(request).await.map_err(failure)
    }

    /// Every page of a list, or as much as is wanted.
    async fn all<T: DeserializeOwned>(
        &mut self,
        request: impl Fn(u64) -> Request,
        limit: Option<usize>,
    ) -> Result<Vec<T>, Failure> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let mut from = 0;
        loop {
            let page: Page<T> = self.ask(&request(from)).await?;
            items.extend(page.items);
            match page.next {
                Some(next) if items.len() < limit => from = next,
                _ => break,
            }
        }
        items.truncate(limit);
        Ok(items)
    }

    /// Asks what is answered with a sentence.
    async fn say(&mut self, request: &Request, out: &mut dyn Write) -> Result<io::Result<()>, Failure> {
        let said: Said = self.ask(request).await?;
        Ok(self.show(out, &said, |out| writeln!(out, "{}", said.text)))
    }

    fn show(
        &self,
        out: &mut dyn Write,
        value: &impl Serialize,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
            return writeln!(out);
        }
        people(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exactly_one_way_of_meaning_somebody_is_taken() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["nuauth-ctl", "disconnect"], args].concat());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--user", "alice", "--session", "4"]).is_err());
        let Command::Disconnect { whom, .. } = parse(&["--address", "10.0.0.7"]).unwrap().command else {
            panic!("another command")
        };
        assert_eq!(whom.target(), Some(Target::Address("10.0.0.7".parse().unwrap())));
    }

    #[test]
    fn where_no_server_is_the_exit_code_says_so() {
        let cli = Cli::try_parse_from(["nuauth-ctl", "--socket", "/nowhere/at.all", "users"]).unwrap();
        let failure = run(cli, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(
            failure.error.to_string().contains("/nowhere/at.all"),
            "{}",
            failure.error
        );
    }
}
