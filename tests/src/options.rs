//! What a lab is made of: users, access list, and changes to the configuration files.
//!
//! Files are kept as tables until they are written, so that a test changes one key and says which.

use crate::staging::make_private;
use anyhow::{Context, Result, bail};
use std::path::Path;
use toml::{Table, Value};

/// A user of the lab; the password of everybody is [`User::PASSWORD`].
#[derive(Debug, Clone)]
pub struct User {
    /// Name.
    pub name: String,
    /// Number and mark.
    pub id: u32,
    /// Groups.
    pub groups: Vec<String>,
}

impl User {
    /// The password of every user of the lab.
    pub const PASSWORD: &'static str = "correct horse battery staple";

    /// A user whose mark is the id.
    pub fn new(name: &str, id: u32) -> Self {
        Self {
            name: name.to_owned(),
            id,
            groups: vec!["staff".to_owned()],
        }
    }
}

/// The access list unless a test brings its own: nothing else passes.
const POLICY: &str = r#"
[[rule]]
name = "web"
protocol = "tcp"
ports = ["80", "8000-8999"]
decision = "accept"
log-prefix = "web"

[[rule]]
name = "tickets"
protocol = "udp"
ports = ["5000-5999"]
decision = "accept"
log-prefix = "tickets"

[[rule]]
name = "teapot"
ports = ["6666"]
protocol = "tcp"
decision = "reject"
log-prefix = "teapot"
"#;

/// What the lab is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Users.
    pub users: Vec<User>,
    /// policy.toml.
    pub policy: String,
    /// Further IPv4 addresses of the client.
    pub client_addresses: u8,
    /// Who is logged in from the start, with a client of their own.
    pub logged_in: Vec<String>,
    /// Whether the server, the agent, its rules and the clients are started.
    pub start: bool,
    /// What the daemons log (`NUFW_LOG`).
    pub log_level: String,
    nuauth: Vec<(String, Value)>,
    agent: Vec<(String, Value)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: vec![User::new("alice", 1001), User::new("bob", 1002)],
            policy: POLICY.to_owned(),
            client_addresses: 0,
            logged_in: vec!["alice".to_owned()],
            start: true,
            log_level: "debug".to_owned(),
            nuauth: Vec::new(),
            agent: Vec::new(),
        }
    }
}

impl Options {
    /// Nobody is logged in.
    pub fn nobody() -> Self {
        Self {
            logged_in: Vec::new(),
            ..Self::default()
        }
    }

    /// Everything is prepared and nothing started.
    pub fn prepared() -> Self {
        Self {
            start: false,
            ..Self::default()
        }
    }

    /// Sets a key of nuauth.toml, e.g. `clients.max-sessions`.
    #[must_use]
    pub fn nuauth(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.nuauth.push((key.to_owned(), value.into()));
        self
    }

    /// Sets a key of nufw-agent.toml, e.g. `conntrack.marked-only`.
    #[must_use]
    pub fn agent(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.agent.push((key.to_owned(), value.into()));
        self
    }

    /// Writes the four files.
    pub(crate) fn write(&self, dir: &Path, password_hash: &str) -> Result<()> {
        write(dir, "nuauth.toml", NUAUTH, &self.nuauth)?;
        write(dir, "nufw-agent.toml", AGENT, &self.agent)?;
        std::fs::write(dir.join("policy.toml"), &self.policy)?;
        let users: Vec<Value> = self
            .users
            .iter()
            .map(|user| {
                let mut table = Table::new();
                table.insert("name".into(), user.name.clone().into());
                table.insert("id".into(), i64::from(user.id).into());
                table.insert("groups".into(), user.groups.clone().into());
                table.insert("password".into(), password_hash.into());
                table.into()
            })
            .collect();
        let mut file = Table::new();
        file.insert("user".into(), users.into());
        let users = dir.join("users.toml");
        std::fs::write(&users, toml::to_string(&file)?)?;
        make_private(&users)?;
        Ok(())
    }
}

const NUAUTH: &str = r#"
server-number = 1
dead-after = "4s"

[gateways]
listen = ["0.0.0.0:4128", "[::]:4128"]
names = ["gw1"]

[clients]
listen = ["0.0.0.0:4129", "[::]:4129"]
mechanisms = ["PLAIN", "EXTERNAL"]

[tls]
certificate = "pki/nuauth.lab.crt"
key = "pki/nuauth.lab.key"
ca = "pki/ca.crt"
crl = "pki/ca.crl"

[users]
file = "users.toml"

[policy]
file = "policy.toml"
# A test that edits a file says itself when it is read.
watch = false

[log]
database = "sqlite:DIR/nulog.db"

[control]
socket = "DIR/nuauth.sock"

[privileges]
sandbox = "enforce"
"#;

const AGENT: &str = r#"
[server]
address = "10.81.0.1:4128"
name = "nuauth.lab"

[tls]
ca = "pki/ca.crt"
certificate = "pki/gw1.crt"
key = "pki/gw1.key"

[queue]
number = 0

[conntrack]
relay = true

[marks]
set = true

[status]
socket = "DIR/agent.sock"
[privileges]
sandbox = "enforce"
"#;

fn write(dir: &Path, name: &str, text: &str, edits: &[(String, Value)]) -> Result<()> {
    let text = text
        .replace("DIR", &dir.display().to_string())
        .replace("\"pki/", &format!("\"{}/pki/", dir.display()));
    let mut table: Table = text.parse().context("a file of the lab is not TOML")?;
    for (key, value) in edits {
        set(&mut table, key, value.clone())?;
    }
    std::fs::write(dir.join(name), toml::to_string(&table)?).with_context(|| format!("cannot write {name}"))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Table::new().into());
            match inner {
                Value::Table(inner) => set(inner, rest, value),
                _ => bail!("{section} is not a section"),
            }
        }
    }
}
