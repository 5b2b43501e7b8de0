//! The configuration: `nu-sso.toml` under the command line, checked before anything is opened.
//!
//! Reads and checks only. Every complaint names the place where the value was set.

use crate::finder::FinderOptions;
use hyper::header::HeaderName;
use ipnet::IpNet;
use nufw_common::config::{ConfigError, HumanDuration, Loaded, Loader, Problems};
use nufw_common::listen::Place;
use nulog::{Location, StoreError, TRANSACTION_TIMEOUT};
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is when the command line does not say.
pub const DEFAULT_FILE: &str = "/etc/nufw/nu-sso.toml";
/// Where local accounts are.
const ACCOUNTS: &str = "/etc/passwd";
/// Most connections to the database.
const MAX_CONNECTIONS: u32 = 64;
/// Most askers at a time.
const MAX_ASKERS: u32 = 65_536;
/// Most questions of Squid at a time.
const MAX_IN_FLIGHT: u32 = 4096;
/// Longest patience with a miss.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Least and most time that an answer may take.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_mins(1));
/// Least and most time that connecting may take.
const CONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Least and most time that a connection may idle, and that draining may take.
const SERVE_TIMES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));

/// What holds where the file is silent.
const DEFAULTS: &str = r#"
[log]
database = "sqlite:/var/lib/nufw/nulog.db"
connect-timeout = "5s"
connections = 4

[server]

[lookup]
retry = "250ms"
timeout = "2s"

[serve]
listen = ["unix:/run/nu-sso/nu-sso.sock"]
socket-mode = "0660"
allow-users = ["www-data"]
allow-from = ["127.0.0.1/32", "::1/128"]
user-header = "X-Remote-User"
max-connections = 1024
idle-timeout = "75s"
drain-timeout = "5s"

[squid]
max-in-flight = 256
"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    log: RawLog,
    server: RawServer,
    lookup: RawLookup,
    serve: RawServe,
    squid: RawSquid,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLog {
    database: String,
    password_file: Option<PathBuf>,
    connect_timeout: HumanDuration,
    connections: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawServer {
    socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLookup {
    retry: HumanDuration,
    timeout: HumanDuration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawServe {
    listen: Vec<String>,
    socket_mode: String,
    allow_users: Vec<String>,
    allow_from: Vec<String>,
    user_header: String,
    max_connections: u32,
    idle_timeout: HumanDuration,
    drain_timeout: HumanDuration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSquid {
    max_in_flight: u32,
}

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The log.
    pub database: Location,
    /// Connections to it.
    pub connections: u32,
    /// Where the server is asked for what is not in the log.
    pub server: Option<PathBuf>,
    /// How long a miss is looked for again.
    pub retry: Duration,
    /// How long an answer may take in all.
    pub timeout: Duration,
    /// `[serve]`
    pub serve: Serve,
    /// Questions of Squid at a time.
    pub max_in_flight: u32,
}

/// Where and to whom HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where it listens.
    pub listen: Vec<Place>,
    /// Permissions of sockets in the file system.
    pub socket_mode: u32,
    /// Users who may ask over them, beside root and our own.
    pub allow_users: Vec<Asker>,
    /// Networks that may ask over TCP.
    pub allow_from: Vec<IpNet>,
    /// The header of the answer.
    pub user_header: HeaderName,
    /// Askers at a time.
    pub max_connections: u32,
    /// How long a connection may stay without a complete request.
    pub idle_timeout: Duration,
    /// How long draining may take.
    pub drain_timeout: Duration,
}

/// A user who may ask, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// By number.
    Uid(u32),
    /// By the name of a local account, which may come to be later.
    Name(String),
}

impl Asker {
    /// The number of the user; `None` when there is no such account.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Self::Uid(uid) => Some(*uid),
            Self::Name(name) => std::fs::read_to_string(ACCOUNTS)
                .ok()
                .and_then(|accounts| uid_of(&accounts, name)),
        }
    }
}

fn uid_of(accounts: &str, name: &str) -> Option<u32> {
    accounts
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)))
        .flatten()
        .and_then(|uid| uid.parse().ok())
}

impl Config {
    /// How the finder looks.
    pub fn finder(&self) -> FinderOptions {
        FinderOptions {
            retry: self.retry,
            timeout: self.timeout,
            connections: self.connections,
        }
    }
}

/// What the command line says about keys of the file: key, value, option.
pub type Overrides = Vec<(&'static str, String, &'static str)>;

/// Loads and checks. `file` must exist if it was named on the command line.
pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut layers = Loader::new("nu-sso")
        .defaults(DEFAULTS)
        .file(path, file.is_some())
        .conf_d(path.with_extension("d"))
        .env("NU_SSO");
    for (key, value, option) in overrides {
        layers = layers.override_key(key, value, option);
    }
    check(&layers.load()?, path.parent().unwrap_or(Path::new("")))
}

/// Gathers complaints, so that one run shows them all.
struct Checker<'a> {
    loaded: &'a Loaded<Raw>,
    problems: Problems,
}

impl Checker<'_> {
    fn reject(&mut self, key: &str, found: impl fmt::Display, expected: impl fmt::Display) {
        self.problems.push(self.loaded.reject(key, found, expected));
    }

    fn number(&mut self, key: &str, found: u32, most: u32) {
        if !(1..=most).contains(&found) {
            self.reject(key, found, format_args!("a number from 1 to {most}"));
        }
    }

    fn duration(&mut self, key: &str, found: HumanDuration, (least, most): (Duration, Duration)) {
        if !(least..=most).contains(&found.0) {
            let (least, most) = (HumanDuration(least), HumanDuration(most));
            self.reject(key, found, format_args!("a duration from {least} to {most}"));
        }
    }

    /// How long answers may take, of the log and of the server.
    fn times(&mut self, lookup: &RawLookup, server: &RawServer) {
        self.duration("lookup.retry", lookup.retry, (Duration::ZERO, MAX_RETRY));
        self.duration("lookup.timeout", lookup.timeout, TIMEOUT);
        if lookup.timeout.0 <= lookup.retry.0 {
            let expected = format_args!("longer than lookup.retry, {}", lookup.retry);
            self.reject("lookup.timeout", lookup.timeout, expected);
        } else if server.socket.is_some() && lookup.timeout.0 / 2 <= lookup.retry.0 {
            let expected = format_args!(
                "longer than twice lookup.retry, {}: once for the log, once for the server",
                lookup.retry
            );
            self.reject("lookup.timeout", lookup.timeout, expected);
        }
        if let Some(socket) = server.socket.as_deref().filter(|socket| !socket.is_absolute()) {
            self.reject(
                "server.socket",
                format_args!("{:?}", socket.display().to_string()),
                "the whole path of the server's socket, such as \"/run/nufw/nuauth.sock\"",
            );
        }
    }

    /// The log. Relative paths start from where the settings are.
    fn database(&mut self, log: &RawLog, dir: &Path) -> Option<Location> {
        let location = match Location::parse(&log.database) {
            Ok(location) => location,
            Err(error) => {
                let shown = match &error {
                    StoreError::Location(shown) => shown.clone(),
                    _ => String::new(),
                };
                self.reject("log.database", format_args!("{shown:?}"), error);
                return None;
            }
        };
        let location = location.with_timeouts(log.connect_timeout.0, TRANSACTION_TIMEOUT);
        let Some(file) = log.password_file.as_deref().map(|file| dir.join(file)) else {
            return Some(location);
        };
        let with_password = location.with_password_file(&file);
        let refused = with_password.map_err(|error| {
            self.reject(
                "log.password-file",
                format_args!("{}: {error}", file.display()),
                "a file whose first line is the password of the database account",
            );
        });
        refused.ok()
    }

    fn each<T>(
        &mut self,
        key: &str,
        items: &[String],
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match read(item) {
                Some(value) => out.push(value),
                None => self.reject(&format!("{key}[{index}]"), format_args!("{item:?}"), expected),
            }
        }
        out
    }
}

fn check(loaded: &Loaded<Raw>, dir: &Path) -> Result<Config, ConfigError> {
    let Raw {
        log,
        server,
        lookup,
        serve,
        squid,
    } = &loaded.value;
    let mut checker = Checker {
        loaded,
        problems: Problems::default(),
    };
    let database = checker.database(log, dir);
    checker.number("log.connections", log.connections, MAX_CONNECTIONS);
    checker.number("serve.max-connections", serve.max_connections, MAX_ASKERS);
    checker.number("squid.max-in-flight", squid.max_in_flight, MAX_IN_FLIGHT);
    checker.duration("log.connect-timeout", log.connect_timeout, CONNECT);
    checker.times(lookup, server);
    checker.duration("serve.idle-timeout", serve.idle_timeout, SERVE_TIMES);
    checker.duration("serve.drain-timeout", serve.drain_timeout, SERVE_TIMES);
    let listen = checker.each(
        "serve.listen",
        &serve.listen,
        "\"unix:/path/of/socket\" or an address and port: \"127.0.0.1:4130\", \"[::1]:4130\"",
        Place::parse,
    );
    if serve.listen.is_empty() {
        checker.reject("serve.listen", "an empty list", "at least one place to listen at");
    }
    let allow_from = checker.each(
        "serve.allow-from",
        &serve.allow_from,
        "an address or a network: \"192.0.2.7\", \"192.0.2.0/24\", \"2001:db8::/64\"",
        network,
    );
    let allow_users = checker.each(
        "serve.allow-users",
        &serve.allow_users,
        "the name of a user or a number",
        asker,
    );
    let socket_mode = u32::from_str_radix(&serve.socket_mode, 8)
        .ok()
        .filter(|mode| serve.socket_mode.starts_with('0') && *mode <= 0o777)
        .ok_or_else(|| {
            checker.reject(
                "serve.socket-mode",
                format_args!("{:?}", serve.socket_mode),
                "permissions in octal, such as \"0660\"",
            );
        });
    let user_header = HeaderName::from_bytes(serve.user_header.as_bytes()).map_err(|_| {
        checker.reject(
            "serve.user-header",
            format_args!("{:?}", serve.user_header),
            "the name of an HTTP header",
        );
    });
    checker.problems.finish(())?;
    let (Some(database), Ok(socket_mode), Ok(user_header)) = (database, socket_mode, user_header) else {
        return Err(ConfigError::new("the configuration is not usable".to_owned()));
    };
    Ok(Config {
        database,
        connections: log.connections,
        server: server.socket.clone(),
        retry: lookup.retry.0,
        timeout: lookup.timeout.0,
        serve: Serve {
            listen,
            socket_mode,
            allow_users,
            allow_from,
            user_header,
            max_connections: serve.max_connections,
            idle_timeout: serve.idle_timeout.0,
            drain_timeout: serve.drain_timeout.0,
        },
        max_in_flight: squid.max_in_flight,
    })
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn asker(text: &str) -> Option<Asker> {
    if text.is_empty() || text.contains([':', '\n']) {
        None
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok().map(Asker::Uid)
    } else {
        Some(Asker::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
