//! What the configuration says of sessions: how many, how long, when, with which programs; and of addresses without a client.
//!
//! Words only; what they do is the engine's part, and that of `tickets`, `hooks` and `identify`.

use super::ends::{RawOnEnd, on_end};
use super::raw::Check;
use crate::engine::{self, OnUserLimit};
use crate::hooks::HookSettings;
use crate::hours::{EXPECTED, Hours, Week};
use ipnet::IpNet;
use jiff::tz::TimeZone;
use nufw_common::config::HumanDuration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a ticket counts unless told otherwise: longer than a restart takes.
const TICKET_LIFETIME: Duration = Duration::from_mins(10);
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// A session of RADIUS accounting of which nothing was heard for so long is over.
const RADIUS_TIMEOUT: Duration = Duration::from_mins(30);
const RADIUS_PORT: u16 = 1813;
/// Networks that may be named; each packet from an address without session is compared with all of them.
const MAX_NETWORKS: usize = 4096;
const A_DAY: u64 = 86_400;
const A_YEAR: u64 = 366 * A_DAY;

/// Where the keys of tickets are, and how long a ticket counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketSettings {
    /// The file.
    pub file: PathBuf,
    /// Whether the configuration names it: then it must be usable.
    pub configured: bool,
    /// How long.
    pub lifetime: Duration,
}

/// Who is where without a client.
#[derive(Debug, Clone, Default)]
pub struct Identify {
    /// Names of users by network.
    pub networks: Vec<(IpNet, Arc<str>)>,
    /// A file of leases, written by a portal or a DHCP server.
    pub leases: Option<PathBuf>,
    /// Accounting messages that are listened to.
    pub radius: Option<Radius>,
}

/// Accounting messages of RADIUS (RFC 2866).
#[derive(Debug, Clone)]
pub struct Radius {
    /// Where they come in.
    pub listen: Vec<SocketAddr>,
    /// From whom.
    pub clients: Vec<IpNet>,
    /// What is shared with these.
    pub secret: Zeroizing<String>,
    /// Where it was read.
    pub secret_file: PathBuf,
    /// A session of which nothing was heard for so long is over.
    pub timeout: Duration,
}

/// `[sessions]`
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawSessions {
    on_end: Option<RawOnEnd>,
    grace: Option<HumanDuration>,
    on_removal: Option<RawOnEnd>,
    per_user: Option<u32>,
    on_limit: Option<RawOnLimit>,
    max_age: Option<HumanDuration>,
    idle: Option<HumanDuration>,
    hours: Option<Vec<String>>,
    #[serde(default)]
    hours_of_groups: BTreeMap<String, Vec<String>>,
    zone: Option<String>,
    ticket_lifetime: Option<HumanDuration>,
    ticket_key: Option<PathBuf>,
}

/// `sessions.on-limit`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOnLimit {
    Refuse,
    EndOldest,
}

/// `[hooks]`
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawHooks {
    login: Option<PathBuf>,
    logout: Option<PathBuf>,
    timeout: Option<HumanDuration>,
    parallel: Option<u32>,
    queue: Option<u32>,
}

/// `[identify]`
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawIdentify {
    #[serde(default, rename = "static")]
    fixed: Vec<RawNetworks>,
    guest: Option<RawNetworks>,
    leases: Option<RawLeases>,
    radius: Option<RawRadius>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawNetworks {
    networks: Vec<String>,
    user: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLeases {
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRadius {
    listen: Option<Vec<String>>,
    clients: Vec<String>,
    secret_file: PathBuf,
    timeout: Option<HumanDuration>,
}

/// An address or a network.
fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .map(|network| network.trunc())
}

impl Check<'_> {
    /// What of it is the engine's.
    pub(super) fn session_limits(&mut self, raw: &RawSessions, base: &engine::Limits) -> engine::Limits {
        let some = |check: &mut Self, key: &str, raw: Option<HumanDuration>, most: u64| {
            raw.map(|_| check.duration(key, raw, Duration::ZERO, 60..=most))
        };
        engine::Limits {
            on_session_end: on_end(raw.on_end),
            session_grace: self.duration("sessions.grace", raw.grace, base.session_grace, 0..=3600),
            on_removal: on_end(raw.on_removal),
            sessions_per_user: raw
                .per_user
                .map(|_| self.count("sessions.per-user", raw.per_user, 1)),
            on_user_limit: match raw.on_limit {
                Some(RawOnLimit::EndOldest) => OnUserLimit::EndOldest,
                Some(RawOnLimit::Refuse) | None => OnUserLimit::Refuse,
            },
            session_age: some(self, "sessions.max-age", raw.max_age, A_YEAR),
            session_idle: some(self, "sessions.idle", raw.idle, A_YEAR),
            ..*base
        }
    }

    pub(super) fn hours(&mut self, raw: &RawSessions) -> Hours {
        let zone = raw.zone.as_deref().and_then(|name| {
            let zone = TimeZone::get(name).ok();
            if zone.is_none() {
                let expected = "a time zone that this system has, such as \"Europe/Berlin\"";
                self.reject("sessions.zone", format_args!("string \"{name}\""), expected);
            }
            zone
        });
        let mut week = |key: &str, texts: &[String]| match Week::parse(texts) {
            Ok(week) => week,
            Err(index) => {
                let found = texts
                    .get(index)
                    .map_or("more windows than there may be", String::as_str);
                self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string \"{found}\""),
                    EXPECTED,
                );
                Week::default()
            }
        };
        let everybody = raw.hours.as_ref().map(|texts| week("sessions.hours", texts));
        let groups = raw
            .hours_of_groups
            .iter()
            .map(|(group, texts)| {
                let key = format!("sessions.hours-of-groups.{group}");
                (Arc::from(group.as_str()), week(&key, texts))
            })
            .collect();
        Hours::new(zone, everybody, groups)
    }

    /// Beside the spool, since the server may write there.
    pub(super) fn tickets(&mut self, raw: &RawSessions, spool: &Path) -> Option<TicketSettings> {
        let lifetime = self.duration(
            "sessions.ticket-lifetime",
            raw.ticket_lifetime,
            TICKET_LIFETIME,
            0..=A_DAY,
        );
        let file = match &raw.ticket_key {
            Some(file) => self.path(file),
            None => spool.with_file_name("tickets.key"),
        };
        (!lifetime.is_zero()).then_some(TicketSettings {
            file,
            configured: raw.ticket_key.is_some(),
            lifetime,
        })
    }

    pub(super) fn hooks(&mut self, raw: &RawHooks) -> Option<HookSettings> {
        let timeout = self.duration("hooks.timeout", raw.timeout, HOOK_TIMEOUT, 1..=600);
        let parallel = self.count("hooks.parallel", raw.parallel, 4);
        if parallel > 64 {
            self.reject("hooks.parallel", parallel, "a number from 1 to 64");
        }
        let queue = self.count("hooks.queue", raw.queue, 1024);
        let mut program = |key: &str, raw: &Option<PathBuf>| {
            let path = self.path(raw.as_ref()?);
            let runs = path
                .metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
            if !runs {
                let expected = "a program: a file that may be run";
                self.reject(key, format_args!("\"{}\"", path.display()), expected);
            }
            Some(path)
        };
        let (login, logout) = (
            program("hooks.login", &raw.login),
            program("hooks.logout", &raw.logout),
        );
        (login.is_some() || logout.is_some()).then_some(HookSettings {
            login,
            logout,
            timeout,
            parallel,
            queue,
        })
    }

    pub(super) fn identify(&mut self, raw: &RawIdentify) -> Identify {
        let mut networks = Vec::new();
        let tables = raw
            .fixed
            .iter()
            .enumerate()
            .map(|(index, table)| (format!("identify.static[{index}]"), table))
            .chain(raw.guest.iter().map(|table| ("identify.guest".to_owned(), table)));
        for (key, table) in tables {
            if table.user.is_empty() {
                self.reject(&format!("{key}.user"), "an empty string", "the name of a user");
            }
            let user: Arc<str> = Arc::from(table.user.as_str());
            for network in self.network_list(&format!("{key}.networks"), &table.networks) {
                if networks.iter().any(|(other, _)| *other == network) {
                    let found = format_args!("{network} again");
                    self.reject(&format!("{key}.networks"), found, "each network once");
                }
                networks.push((network, Arc::clone(&user)));
            }
        }
        if networks.len() > MAX_NETWORKS {
            let expected = format!("at most {MAX_NETWORKS} networks");
            self.reject("identify.static", networks.len(), expected);
        }
        Identify {
            networks,
            leases: raw.leases.as_ref().map(|leases| self.path(&leases.file)),
            radius: raw.radius.as_ref().and_then(|radius| self.radius(radius)),
        }
    }

    fn network_list(&mut self, key: &str, raw: &[String]) -> Vec<IpNet> {
        if raw.is_empty() {
            self.reject(key, "an empty list", "at least one address or network");
        }
        let mut networks = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            match network(text) {
                Some(network) => networks.push(network),
                None => self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string \"{text}\""),
                    "an address or a network, such as \"10.1.0.0/16\" or \"2001:db8::/64\"",
                ),
            }
        }
        networks
    }

    fn radius(&mut self, raw: &RawRadius) -> Option<Radius> {
        let file = self.path(&raw.secret_file);
        let expected = "a file that others cannot read, whose first line is the secret";
        let key = "identify.radius.secret-file";
        let open = file
            .metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o007 != 0);
        if open {
            let found = format_args!("{}, which everybody may read", file.display());
            self.reject(key, found, expected);
        }
        let secret = match std::fs::read_to_string(&file).map(Zeroizing::new) {
            Ok(text) => text.lines().next().unwrap_or_default().to_owned(),
            Err(error) => {
                self.reject(key, format_args!("{}: {error}", file.display()), expected);
                return None;
            }
        };
        if secret.is_empty() {
            self.reject(key, format_args!("{}: no secret", file.display()), expected);
        }
        Some(Radius {
            listen: self.listen("identify.radius.listen", raw.listen.as_deref(), RADIUS_PORT),
            clients: self.network_list("identify.radius.clients", &raw.clients),
            secret: Zeroizing::new(secret),
            secret_file: file,
            timeout: self.duration("identify.radius.timeout", raw.timeout, RADIUS_TIMEOUT, 60..=A_DAY),
        })
    }
}
