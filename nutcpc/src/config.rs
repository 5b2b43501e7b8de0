//! What the client shall do: the system's file, the user's, and the command line, where the later wins.
//!
//! Reads and checks only, and opens nothing that the files name. Every complaint says where the value was set.

use crate::args::Args;
use nufw_common::config::{ConfigError, Loader, Origins, Problems};
use nufw_common::exit::{Exit, Failure};
use nufw_proto::CLIENT_PORT;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The system's file.
pub(crate) const SYSTEM_FILE: &str = "/etc/nufw/nutcpc.toml";
/// Certificates of the authority, unless told otherwise.
const DEFAULT_CA: &str = "/etc/nufw/ca.crt";
/// What shows notifications, unless told otherwise.
const DEFAULT_NOTIFY_COMMAND: &str = "notify-send";
/// Most servers: each is a thread, a connection and a few descriptors.
pub(crate) const MAX_SERVERS: usize = 16;
/// Keys that the user's file may not have where the system's says `allow-override = false`.
const SYSTEMS_OWN: [&str; 3] = ["server", "ca", "crl"];

/// Where the files are. Neither has to be there.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The system's.
    pub(crate) system: PathBuf,
    /// The user's, and whether it was asked for by name.
    pub(crate) home: Option<(PathBuf, bool)>,
    /// What `~` stands for.
    pub(crate) home_dir: Option<PathBuf>,
    /// The user's name on this host, for `user = "%u"`.
    pub(crate) user: Option<String>,
}

impl Files {
    /// The usual places; `named` is the user's file in the place of the usual one.
    pub(crate) fn usual(named: Option<PathBuf>) -> Self {
        let directory = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home_dir = directory("HOME");
        let config = directory("XDG_CONFIG_HOME").or_else(|| Some(home_dir.as_ref()?.join(".config")));
        let home = match named {
            Some(file) => Some((file, true)),
            None => config.map(|directory| (directory.join("nufw/nutcpc.toml"), false)),
        };
        let user = uzers::get_user_by_uid(rustix::process::getuid().as_raw());
        Self {
            system: PathBuf::from(SYSTEM_FILE),
            home,
            home_dir,
            user: user.and_then(|user| user.name().to_str().map(str::to_owned)),
        }
    }
}

/// What the client shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// At least one, each once.
    pub(crate) servers: Vec<Server>,
    /// Log in again also when a server has ended the session.
    pub(crate) stay: bool,
    /// What shows refusals, if they are to be shown.
    pub(crate) notify: Option<PathBuf>,
}

/// One server, and how to log in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    /// What it is called: host and port.
    pub(crate) label: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) also: Vec<SocketAddr>,
    pub(crate) name: Option<String>,
    pub(crate) ca: PathBuf,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) kerberos: bool,
    pub(crate) ticket_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Raw {
    allow_override: Option<bool>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    user: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    password_file: Option<PathBuf>,
    kerberos: bool,
    ticket_file: Option<PathBuf>,
    stay: bool,
    notify: bool,
    notify_command: Option<PathBuf>,
    server: Vec<RawServer>,
}

/// `[[server]]`: what is not said here is as at the top of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct RawServer {
    address: Option<String>,
    also: Vec<String>,
    name: Option<String>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    user: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    password_file: Option<PathBuf>,
    kerberos: Option<bool>,
    ticket_file: Option<PathBuf>,
}

/// Reads the files and merges them with the command line.
pub(crate) fn load(args: &Args, files: &Files) -> Result<Settings, Failure> {
    let wrong = |error: ConfigError| Failure::new(Exit::Config, error);
    let usage = |error: String| Failure::new(Exit::Usage, anyhow::anyhow!(error));
    let system = Loader::new("nutcpc")
        .file(&files.system, false)
        .load::<Raw>()
        .map_err(wrong)?;
    let is_fixed = system.value.allow_override == Some(false);
    let mut loader = Loader::new("nutcpc").file(&files.system, false);
    if let Some((home, required)) = &files.home {
        let home = home.clone();
        check_home(Loader::new("nutcpc").file(&home, *required), is_fixed).map_err(wrong)?;
        loader = loader.file(home, *required);
    }
    if is_fixed && let Some(option) = forbidden_option(args) {
        let place = system.origins.of("allow-override");
        return Err(usage(format!(
            "{place}: the system's configuration does not allow {option}: it says which servers there are"
        )));
    }
    let merged = loader.load::<Raw>().map_err(wrong)?;
    let mut check = Check {
        origins: &merged.origins,
        files,
        problems: Problems::default(),
    };
    let raw = merged.value;
    let mut servers = Vec::new();
    if args.server.is_empty() {
        if raw.server.is_empty() {
            return Err(usage(format!(
                "no server: give --server HOST, or write [[server]] with its address into {}",
                files
                    .home
                    .as_ref()
                    .map_or(&files.system, |(home, _)| home)
                    .display()
            )));
        }
        for (i, server) in raw.server.iter().enumerate() {
            servers.extend(check.server(i, server, &raw, args));
        }
    } else {
        if args.server.len() > 1 && (args.name.is_some() || !args.also.is_empty()) {
            return Err(usage(
                "--name and --also are one server's: with several, write them into a configuration file"
                    .to_owned(),
            ));
        }
        for server in &args.server {
            let place = given_place(server, args).map_err(usage)?;
            servers.push(check.login(place, None, &RawServer::default(), &raw, args));
        }
    }
    check.each_once(&servers, args.server.is_empty());
    let notify = (raw.notify || args.notify) && !args.system;
    let notify = notify.then(|| check.program(raw.notify_command));
    let settings = Settings {
        servers,
        stay: (raw.stay || args.stay) && !args.once,
        notify,
    };
    check.problems.finish(settings).map_err(wrong)
}

/// The user's file has no say in what the system keeps for itself.
fn check_home(loader: Loader, is_fixed: bool) -> Result<(), ConfigError> {
    let home = loader.load::<Raw>()?;
    let mut problems = Problems::default();
    if home.origins.is_set("allow-override") {
        let text = format!("only {SYSTEM_FILE} may say this");
        problems.push(home.origins.complain("allow-override", text));
    }
    let forbidden = SYSTEMS_OWN
        .into_iter()
        .filter(|key| is_fixed && home.origins.is_set(key));
    for key in forbidden {
        let text =
            format!("{SYSTEM_FILE} says allow-override = false: it alone says which servers there are");
        problems.push(home.origins.complain(key, text));
    }
    problems.finish(())
}

/// The first option that says something about servers.
fn forbidden_option(args: &Args) -> Option<&'static str> {
    let given = [
        ("--server", !args.server.is_empty()),
        ("--ca", args.ca.is_some()),
        ("--crl", args.crl.is_some()),
    ];
    given
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
}

/// Where a server is.
struct Place {
    host: String,
    port: u16,
    also: Vec<SocketAddr>,
    name: Option<String>,
}

fn given_place(server: &str, args: &Args) -> Result<Place, String> {
    let (host, port) = host_and_port(server).map_err(|error| format!("--server {server}: {error}"))?;
    if let (Some(one), Some(other)) = (port, args.port)
        && one != other
    {
        return Err(format!(
            "--server says port {one} and --port {other}: leave one of them out"
        ));
    }
    let port = match args.port {
        Some(0) => return Err("--port 0: there is no such port".to_owned()),
        given => port.or(given).unwrap_or(CLIENT_PORT),
    };
    let also = args
        .also
        .iter()
        .map(|text| further_address(text, port).map_err(|error| format!("--also {text}: {error}")));
    Ok(Place {
        host,
        port,
        also: also.collect::<Result<_, _>>()?,
        name: args.name.clone(),
    })
}

struct Check<'a> {
    origins: &'a Origins,
    files: &'a Files,
    problems: Problems,
}

impl Check<'_> {
    fn reject(&mut self, key: &str, found: &str, expected: impl std::fmt::Display) {
        self.problems
            .push(self.origins.reject(key, format_args!("\"{found}\""), expected));
    }

    fn server(&mut self, i: usize, own: &RawServer, raw: &Raw, args: &Args) -> Option<Server> {
        let table = format!("server[{i}]");
        let Some(address) = &own.address else {
            self.problems
                .push(self.origins.missing(&format!("{table}.address")));
            return None;
        };
        let (host, port) = match host_and_port(address) {
            Ok(place) => place,
            Err(error) => {
                self.reject(
                    &format!("{table}.address"),
                    address,
                    format_args!("a host, with or without port: {error}"),
                );
                return None;
            }
        };
        let port = port.unwrap_or(CLIENT_PORT);
        let mut also = Vec::new();
        for (j, text) in own.also.iter().enumerate() {
            match further_address(text, port) {
                Ok(address) => also.push(address),
                Err(error) => self.reject(&format!("{table}.also[{j}]"), text, error),
            }
        }
        let name = own.name.clone();
        let place = Place {
            host,
            port,
            also,
            name,
        };
        Some(self.login(place, Some(&table), own, raw, args))
    }

    /// The rest of a server: the command line wins over its table, its table over the top of the file.
    fn login(
        &mut self,
        place: Place,
        table: Option<&str>,
        own: &RawServer,
        raw: &Raw,
        args: &Args,
    ) -> Server {
        let label = label(&place.host, place.port);
        let mut path =
            |key: &str, given: Option<&PathBuf>, own: Option<&PathBuf>, top: Option<&PathBuf>| match (
                given, own,
            ) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(own)) => Some(self.path(&format!("{}.{key}", table.unwrap_or_default()), own)),
                (None, None) => top.map(|top| self.path(key, top)),
            };
        let ca = path("ca", args.ca.as_ref(), own.ca.as_ref(), raw.ca.as_ref());
        let crl = path("crl", args.crl.as_ref(), own.crl.as_ref(), raw.crl.as_ref());
        let ticket_file = path(
            "ticket-file",
            args.ticket_file.as_ref(),
            own.ticket_file.as_ref(),
            raw.ticket_file.as_ref(),
        );
        let is_given = args.kerberos
            || args.certificate.is_some()
            || args.password_file.is_some()
            || args.password_fd.is_some();
        let is_own = own.kerberos == Some(true)
            || own.certificate.is_some()
            || own.key.is_some()
            || own.password_file.is_some();
        let (certificate, key, password_file, kerberos) = if is_given {
            (
                args.certificate.clone(),
                args.key.clone(),
                args.password_file.clone(),
                args.kerberos,
            )
        } else if is_own {
            let mut of = |name, file: &Option<PathBuf>| path(name, None, file.as_ref(), None);
            (
                of("certificate", &own.certificate),
                of("key", &own.key),
                of("password-file", &own.password_file),
                own.kerberos == Some(true),
            )
        } else {
            let mut of = |name, file: &Option<PathBuf>| path(name, None, None, file.as_ref());
            (
                of("certificate", &raw.certificate),
                of("key", &raw.key),
                of("password-file", &raw.password_file),
                own.kerberos.unwrap_or(raw.kerberos),
            )
        };
        let prefix = if is_own {
            table.map_or(String::new(), |table| format!("{table}."))
        } else {
            String::new()
        };
        let pair = match (&certificate, &key) {
            (Some(_), None) => Some(("key", "certificate")),
            (None, Some(_)) => Some(("certificate", "key")),
            _ if kerberos && (certificate.is_some() || password_file.is_some()) => {
                let text = "there is a certificate or a password-file, too: leave one of them out";
                self.problems
                    .push(self.origins.complain(&format!("{prefix}kerberos"), text));
                None
            }
            _ if certificate.is_some() && password_file.is_some() => {
                let text = "there is a certificate, too: leave one of them out";
                self.problems
                    .push(self.origins.complain(&format!("{prefix}password-file"), text));
                None
            }
            _ => None,
        };
        if let Some((missing, there)) = pair {
            let text = format!("{missing} is missing beside it");
            self.problems
                .push(self.origins.complain(&format!("{prefix}{there}"), text));
        }
        let user = args.user.as_ref().or(own.user.as_ref()).or(raw.user.as_ref());
        let user = self.user(user, table.filter(|_| own.user.is_some() && args.user.is_none()));
        Server {
            label,
            host: place.host,
            port: place.port,
            also: place.also,
            name: place.name,
            ca: ca.unwrap_or_else(|| PathBuf::from(DEFAULT_CA)),
            crl,
            user,
            certificate: certificate.zip(key),
            password_file,
            kerberos,
            ticket_file,
        }
    }

    /// `%u` is who runs the client: one file of the system serves everybody.
    fn user(&mut self, user: Option<&String>, table: Option<&str>) -> Option<String> {
        match user {
            Some(user) if user == "%u" => {
                if self.files.user.is_none() {
                    let key = table.map_or("user".to_owned(), |table| format!("{table}.user"));
                    self.reject(&key, user, "a name: the user who runs this has none on this host");
                }
                self.files.user.clone()
            }
            other => other.cloned(),
        }
    }

    /// Whose file it is does not say where paths begin: they are whole, or begin at the user's home.
    fn path(&mut self, key: &str, path: &Path) -> PathBuf {
        let path = &self.with_user(key, path);
        if let Ok(rest) = path.strip_prefix("~")
            && let Some(home) = &self.files.home_dir
        {
            return home.join(rest);
        }
        if !path.is_absolute() {
            let expected = "a whole path, or one that begins with ~/";
            self.reject(key, &path.display().to_string(), expected);
        }
        path.to_owned()
    }

    /// `%u` as a part of a path, too.
    fn with_user(&mut self, key: &str, path: &Path) -> PathBuf {
        if !path.iter().any(|part| part == "%u") {
            return path.to_owned();
        }
        let Some(user) = &self.files.user else {
            let expected = "a path without %u: the user who runs this has no name on this host";
            self.reject(key, &path.display().to_string(), expected);
            return path.to_owned();
        };
        let parts = path
            .iter()
            .map(|part| if part == "%u" { user.as_ref() } else { part });
        parts.collect()
    }

    /// A name to be found in PATH, or a whole path.
    fn program(&mut self, program: Option<PathBuf>) -> PathBuf {
        match program {
            None => PathBuf::from(DEFAULT_NOTIFY_COMMAND),
            Some(name) if name.components().count() == 1 && !name.is_absolute() && !name.starts_with("~") => {
                name
            }
            Some(path) => self.path("notify-command", &path),
        }
    }

    /// No server twice, no ticket file of two, and not too many.
    fn each_once(&mut self, servers: &[Server], from_file: bool) {
        let key = |i: usize, key: &str| {
            if from_file {
                format!("server[{i}].{key}")
            } else {
                "server".to_owned()
            }
        };
        if servers.len() > MAX_SERVERS {
            let text = format!(
                "there are {} servers, and at most {MAX_SERVERS} may be",
                servers.len()
            );
            self.problems
                .push(self.origins.complain(&key(MAX_SERVERS, "address"), text));
        }
        for (i, server) in servers.iter().enumerate() {
            let before = &servers[..i];
            if before.iter().any(|other| other.label == server.label) {
                let text = format!("{} is there twice", server.label);
                self.problems
                    .push(self.origins.complain(&key(i, "address"), text));
            }
            if let Some(file) = &server.ticket_file
                && before
                    .iter()
                    .any(|other| other.ticket_file.as_ref() == Some(file))
            {
                let text = format!(
                    "{} is another server's, too: each needs one of its own",
                    file.display()
                );
                self.problems
                    .push(self.origins.complain(&key(i, "ticket-file"), text));
            }
        }
    }
}

/// What a server is called: an IPv6 address stands in brackets.
fn label(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// `host`, `host:port`, `address`, `address:port`, `[address]:port`; an IPv6 address without brackets has no port.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is open")?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| "between the brackets there must be an IPv6 address")?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if rest.is_empty() => None,
            None => return Err("after the bracket there must be :PORT or nothing".to_owned()),
        };
        return Ok((host.to_owned(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (text, None),
    };
    if host.is_empty() || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("there must be a host name or an address".to_owned());
    }
    Ok((host.to_owned(), port))
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse::<u16>()
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| format!("\"{text}\" is not a port from 1 to 65535"))
}

fn further_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let (host, own_port) = host_and_port(text)?;
    let ip: IpAddr = host.parse().map_err(|_| "there must be an address, not a name")?;
    Ok(SocketAddr::new(ip, own_port.unwrap_or(port)))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
