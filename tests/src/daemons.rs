//! The whole system on the three hosts: server and agent on the gateway, clients on the client host.
//!
//! Configuration, certificates, sockets and database live in one temporary directory. Whether the system does what it
//! should is not decided here.

use crate::cleanup;
use crate::command::{binary, checked, fed};
use crate::net::{Net, addr};
use crate::options::{Options, User};
use crate::process::{Proc, Spec};
use crate::rows::{self, LogFile, Row, State};
use crate::staging::make_private;
use crate::wait::wait_some;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Name of the server in its certificate.
pub(crate) const SERVER_NAME: &str = "nuauth.lab";
/// Name of the gateway in its certificate and in the log.
pub(crate) const GATEWAY_NAME: &str = "gw1";
/// How long a row may take to reach a state; conntrack's collector is seconds late.
const ROW_PATIENCE: Duration = Duration::from_mins(1);

/// The running system.
#[derive(Debug)]
pub struct Lab {
    /// The hosts.
    pub net: Net,
    /// The authentication server.
    pub server: Proc,
    /// The gateway agent.
    pub agent: Proc,
    /// Clients by user name.
    pub clients: BTreeMap<String, Proc>,
    options: Options,
    /// The log lies on a disk of its own that only the server's mount namespace has.
    small_disk: bool,
    dir: TempDir,
}

impl Lab {
    /// Makes the hosts and, unless the options say otherwise, starts everything on them.
    pub fn start(options: Options) -> Result<Self> {
        let net = Net::new(options.client_addresses)?;
        Self::on(net, options)
    }

    /// The same on hosts that are there.
    pub fn on(net: Net, options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("nufw-lab-")
            .tempdir()
            .context("cannot make a directory")?;
        cleanup::remove_on_signal(dir.path());
        // Clients of other users read certificates and programs here; every secret has its own protection.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        options.write(dir.path(), password_hash()?)?;
        let password = dir.path().join("password");
        std::fs::write(&password, User::PASSWORD)?;
        make_private(&password)?;
        make_pki(dir.path(), &options)?;
        let daemon = |name: &str, file: &str, flag: &str| -> Result<Proc> {
            let config = dir.path().join(file);
            let spec =
                Spec::new(name, &net.gateway, binary(name)?, dir.path()).env("NUFW_LOG", &options.log_level);
            Ok(spec.args([flag.into(), config]).idle())
        };
        let mut lab = Self {
            server: daemon("nuauth-server", "nuauth.toml", "--config")?,
            agent: daemon("nufw-agent", "nufw-agent.toml", "-f")?,
            clients: BTreeMap::new(),
            net,
            options,
            small_disk: false,
            dir,
        };
        if lab.options.start {
            lab.start_all()
                .map_err(|error| anyhow::anyhow!("{error:#}\n{}", lab.tails()))?;
        }
        Ok(lab)
    }

    /// Starts the server, the agent, its rules and the clients of the options.
    pub fn start_all(&mut self) -> Result<()> {
        self.start_server()?;
        // Rules first, as at boot: nothing passes unasked, and the agent looks at them when it starts.
        self.apply_rules(&[])?;
        self.start_agent()?;
        for user in self.options.logged_in.clone() {
            self.log_in(&user)?;
        }
        Ok(())
    }

    /// Directory of everything that the lab writes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The log's file.
    pub fn database(&self) -> PathBuf {
        if self.small_disk {
            let pid = self.server.pid().unwrap_or_default();
            return format!("/proc/{pid}/root{}/disk/nulog.db", self.dir().display()).into();
        }
        self.dir().join("nulog.db")
    }

    /// Starts the server (again) and waits until it serves.
    pub fn start_server(&mut self) -> Result<()> {
        self.server.start()?;
        self.server.wait_log("ready").map(drop)
    }

    /// Starts the agent (again) and waits until it is bound to its queue and welcomed by the server.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent.start()?;
        self.agent.wait_log("ready")?;
        self.agent.wait_log(AGENT_LINKED).map(drop)
    }

    /// Applies the rules that the agent prints.
    pub fn apply_rules(&self, args: &[&str]) -> Result<()> {
        let rules = self
            .agent_command()
            .arg("rules")
            .args(args)
            .output()
            .context("cannot run nufw-agent")?;
        anyhow::ensure!(
            rules.status.success(),
            "`nufw-agent rules` failed: {}",
            String::from_utf8_lossy(&rules.stderr)
        );
        let script = String::from_utf8(rules.stdout).context("the rules are not UTF-8")?;
        fed(self.net.gateway.command("sh").arg("-e"), &script)
            .context("the rules that the agent prints")
            .map(drop)
    }

    /// `nufw-agent` with the lab's configuration, on the gateway.
    pub fn agent_command(&self) -> Command {
        let program = binary("nufw-agent").unwrap_or_else(|_| "nufw-agent".into());
        let mut command = self.net.gateway.command(program);
        command
            .arg("-f")
            .arg(self.dir().join("nufw-agent.toml"))
            .current_dir(self.dir());
        command
    }

    /// `nuauth-server` with the lab's configuration, on the gateway.
    pub fn server_command(&self) -> Command {
        let program = binary("nuauth-server").unwrap_or_else(|_| "nuauth-server".into());
        let mut command = self.net.gateway.command(program);
        command
            .arg("--config")
            .arg(self.dir().join("nuauth.toml"))
            .current_dir(self.dir());
        command
    }

    /// A client of a user, not started: with the right password, as the user of this process.
    pub fn client(&self, user: &str) -> Result<Spec> {
        self.client_with_password(user, &self.dir().join("password"))
    }

    pub(crate) fn log_level(&self) -> &str {
        &self.options.log_level
    }

    pub(crate) fn use_small_disk(&mut self) {
        self.small_disk = true;
    }

    /// Starts a user's client and waits until it is logged in with its IPv4 and its IPv6 address.
    pub fn log_in(&mut self, user: &str) -> Result<()> {
        let spec = self.client(user)?;
        self.log_in_with(user, spec)
    }

    /// The same with a client of the caller's making.
    pub fn log_in_with(&mut self, user: &str, spec: Spec) -> Result<()> {
        let mut client = spec.start()?;
        let result = client.wait_log(CLIENT_LOGGED_IN).and_then(|_| {
            // It logs in from one address and proves the others.
            let others = 1 + usize::from(self.options.client_addresses);
            client.wait_count(CLIENT_PROVED, others)
        });
        self.clients.insert(user.to_owned(), client);
        result
    }

    /// Rows that fulfil a condition on the columns of `conntrack_ulog`.
    pub fn rows(&self, condition: &str) -> Result<Vec<Row>> {
        rows::query(&self.log_file()?, condition)
    }

    /// The number that a query gives.
    pub fn count(&self, sql: &str) -> Result<i64> {
        rows::number(&self.log_file()?, sql)
    }

    /// Every row in the form that is published: keys are column names, ids text, times RFC 3339.
    pub fn published(&self) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
        rows::published(&self.log_file()?)
    }

    fn log_file(&self) -> Result<LogFile> {
        Ok(if self.small_disk {
            LogFile {
                path: self.dir().join("disk/nulog.db"),
                seen_by: Some(self.server.pid()?),
            }
        } else {
            LogFile {
                path: self.database(),
                seen_by: None,
            }
        })
    }

    /// Waits for exactly one row with a condition, in a state. Entries that expired are ended meanwhile.
    pub fn wait_row(&self, condition: &str, state: State) -> Result<Row> {
        let mut last = Vec::new();
        wait_some(
            &format!("one row in state {state:?} where {condition}"),
            ROW_PATIENCE,
            || {
                if state == State::Close {
                    self.net.conntrack()?;
                }
                last = self.rows(condition)?;
                Ok(match last.as_slice() {
                    [row] if row.state() == state => Some(row.clone()),
                    _ => None,
                })
            },
        )
        .with_context(|| format!("rows at the end: {:#?}", self.rows(condition)))
    }

    /// The last lines of every log, for a failure report.
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for process in [&self.server, &self.agent]
            .into_iter()
            .chain(self.clients.values())
        {
            text.push_str(&process.tail(40));
        }
        if let Ok(rows) = self.rows("1") {
            for Row(row) in rows.iter().rev().take(10) {
                writeln!(text, "{}", serde_json::Value::Object(row.clone())).ok();
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        cleanup::forget(self.dir.path());
    }
}

/// What the agent logs when the server has welcomed it.
const AGENT_LINKED: &str = "linked to the server";
/// What a client says when it is logged in.
const CLIENT_LOGGED_IN: &str = "logged in as";
/// What a client says of each further address.
const CLIENT_PROVED: &str = "proved ";

/// Hashing takes long by design; one hash serves every lab of the process.
fn password_hash() -> Result<&'static str> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash);
    }
    let hash = fed(
        Command::new(binary("nuauth-server")?).arg("hash-password"),
        &format!("{}\n", User::PASSWORD),
    )?;
    Ok(HASH.get_or_init(|| hash.trim().to_owned()))
}

fn make_pki(dir: &Path, options: &Options) -> Result<()> {
    let program = binary("nuauth-server")?;
    let pki = |words: &[&str]| {
        checked(
            Command::new(&program)
                .arg("pki")
                .args(words)
                .arg("--dir")
                .arg(dir.join("pki")),
        )
    };
    pki(&["init"])?;
    let mut server = vec!["server", SERVER_NAME];
    let addresses: Vec<_> = [addr::GATEWAY4, addr::GATEWAY6]
        .iter()
        .map(ToString::to_string)
        .collect();
    for address in &addresses {
        server.extend(["--address", address]);
    }
    pki(&server)?;
    pki(&["gateway", GATEWAY_NAME])?;
    for user in &options.users {
        pki(&["client", &user.name])?;
    }
    Ok(())
}
