//! `nuauth-server policy`: what the access lists say, would say, and have said.
//!
//! Reads the very files that the server reads, and the log; changes nothing.

mod diff;
mod explain;
mod packet;
mod replay;
mod rows;

use crate::cli::Next;
use crate::config::{Override, ServerConfig};
use crate::kept::Kept;
use crate::policy::{Against, Policy, ReadPolicy, word};
use crate::users::Users;
use anyhow::anyhow;
use clap::{Args, Subcommand};
use nufw_common::config::ConfigError;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use packet::Packet;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A command about the access lists.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Read the lists; print what is wrong or odd about them, exit 78 if they would be refused
    Check {
        /// The lists; those of the configuration if absent
        file: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the lists in their normal form: sets and files resolved, items sorted, as their version is made of
    Show {
        /// The lists; those of the configuration if absent
        file: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what would become of a connection, by which rule, and why no earlier one decides
    #[command(
        after_help = "  nuauth-server policy test --user alice --app /usr/bin/ssh 10.0.0.5:4000 10.1.0.9:22\n  \
                            nuauth-server policy test 10.0.0.5 10.1.0.9 --protocol icmp     # nobody logged in\n\
                            An interface, gateway, program or system that is not given is not known: rules that ask for \
                            one do not match."
    )]
    Test(Box<TestArgs>),
    /// Compare two lists, rule by rule; exit 1 if they differ
    Diff {
        /// The one
        old: PathBuf,
        /// The other
        new: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Run connections of the log against lists, and print those whose verdict would change
    #[command(after_help = "  nuauth-server policy replay new.toml --since 7d\n\
                            Groups are those of the present users' file. Rows that no rule decided, and rows of users \
                            whom the file does not have, are counted at the end.")]
    Replay(ReplayArgs),
    /// Tell from the row and the lists of that time why a connection was accepted or not
    Explain {
        /// The row's id
        id: u64,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// What `policy test` is told.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    packet: Packet,
    /// Other lists than those of the configuration
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `policy replay` is told.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The lists
    new: PathBuf,
    /// Connections of that time before now (7d), or since then (2026-11-30T08:00:00Z)
    #[arg(long, value_name = "TIME", default_value = "1d")]
    since: String,
    /// And before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print one JSON object a line, the summary last
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub(crate) fn run(
    command: &PolicyCommand,
    config: &Path,
    overrides: &[Override],
    out: &mut dyn Write,
) -> Result<Next, Failure> {
    let setting = Setting::load(config, overrides)?;
    match command {
        PolicyCommand::Check { file, json } => check(&setting, file.as_deref(), *json, out)?,
        PolicyCommand::Show { file, json } => show(&setting, file.as_deref(), *json, out)?,
        PolicyCommand::Test(args) => {
            let read = setting.policy(args.policy.as_deref())?;
            packet::test(&setting, &read.policy, &args.packet, args.json, out)?;
        }
        PolicyCommand::Diff { old, new, json } => {
            let [old, new] = [setting.policy(Some(old))?, setting.policy(Some(new))?];
            return diff::run(&old.policy, &new.policy, *json, out);
        }
        PolicyCommand::Replay(args) => {
            let new = setting.policy(Some(&args.new))?;
            replay::run(&setting, &new.policy, args, out)?;
        }
        PolicyCommand::Explain { id, json } => explain::run(&setting, *id, *json, out)?,
    }
    Ok(Next::Done)
}

/// The configuration and the users that lists are read against.
struct Setting {
    config: ServerConfig,
    users: Users,
}

impl Setting {
    fn load(path: &Path, overrides: &[Override]) -> Result<Self, Failure> {
        let config = ServerConfig::load(path, overrides).or_exit(Exit::Config)?;
        let users = Users::load_with(&config.users, config.user_mask(), &config.directories.names)
            .or_exit(Exit::Config)?;
        Ok(Self { config, users })
    }

    fn read(&self, file: Option<&Path>) -> Result<ReadPolicy, ConfigError> {
        let known = Against {
            users: &self.users,
            all_known: self.config.directories.all_known(),
            marks: &self.config.marks,
        };
        let mut read = Policy::load(file.unwrap_or(&self.config.policy), &known)?;
        read.policy = read.policy.rejecting(self.config.rejects_by_default);
        Ok(read)
    }

    fn policy(&self, file: Option<&Path>) -> Result<ReadPolicy, Failure> {
        self.read(file).or_exit(Exit::Config)
    }

    fn kept(&self) -> Kept {
        Kept::beside(&self.config.log.spool.path)
    }
}

fn check(setting: &Setting, file: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let path = file.unwrap_or(&setting.config.policy).display().to_string();
    let read = match setting.read(file) {
        Ok(read) => read,
        Err(errors) if json => {
            let object = json!({ "ok": false, "file": path, "errors": errors.lines(), "warnings": [] });
            writeln!(out, "{object}").or_exit(Exit::IoErr)?;
            return Err(Failure::new(
                Exit::Config,
                anyhow!("{path}: the lists would be refused"),
            ));
        }
        Err(errors) => return Err(Failure::new(Exit::Config, errors)),
    };
    let (rules, version) = (read.policy.rules().len(), read.policy.version_text());
    let written = if json {
        let object = json!({
            "ok": true, "file": path, "version": version, "order": read.policy.order().word(), "rules": rules,
            "errors": [], "warnings": read.notes,
        });
        writeln!(out, "{object}")
    } else {
        let notes: io::Result<()> = read
            .notes
            .iter()
            .try_for_each(|note| writeln!(out, "WARNING  {note}"));
        notes.and_then(|()| {
            let order = read.policy.order().word();
            writeln!(out, "{path}: {rules} rules, {order}, version {version}")
        })
    };
    written.or_exit(Exit::IoErr)
}

fn show(setting: &Setting, file: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let read = setting.policy(file)?;
    let policy = &read.policy;
    let version = policy.version_text();
    let written = if json {
        let rules: Vec<Value> = policy
            .rules()
            .iter()
            .map(|rule| {
                json!({
                    "name": rule.name(), "place": &*rule.place, "decision": word(rule.ruling().decision),
                    "matches": rule.to_string(), "log": rule.ruling().log.word(),
                })
            })
            .collect();
        let object = json!({
            "version": version, "order": policy.order().word(), "rules": rules, "normal": &**policy.normal(),
        });
        writeln!(out, "{object}")
    } else {
        write!(out, "# version {version}\n{}", policy.normal())
    };
    written.or_exit(Exit::IoErr)
}

#[cfg(test)]
mod tests;
