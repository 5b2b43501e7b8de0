//! The configuration as it is written, and its way to what the server uses.
//!
//! Every mistake found is reported, not only the first.

mod spool;
mod users;

use super::ends::{RawPolicyFile, RawReject, RawSessions, on_end};
use super::levels::{RawLevels, RawOverload};
use super::{Clients, Control, Gateways, Log, Mechanism, PortLimits, ServerConfig, Tls};
use crate::engine::{self, Levels, OnOverload};
use nufw_common::config::{ByteSize, ConfigError, HexOrInt, HumanDuration, Loaded, Origins, Problems, Tried};
use nufw_common::control::DEFAULT_SOCKET;
use nufw_common::listen::Place;
use nufw_common::sandbox::Privileges;
use nufw_proto::{CLIENT_PORT, GATEWAY_PORT, Mark, Text};
use nulog::{Location, StoreError};
use serde::Deserialize;
use std::collections::HashSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The largest server number that leaves the sequence its bits.
const MAX_SERVER_NUMBER: u16 = 16_383;
/// What may be in `clients.mechanisms`.
const MECHANISMS: &str = "\"EXTERNAL\", \"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\" or \"PLAIN\"";
/// How long a peer has to log in or say hello, unless told otherwise.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Raw {
    mark_mask: Option<HexOrInt>,
    #[serde(default = "one")]
    server_number: u16,
    dead_after: Option<HumanDuration>,
    gateways: Option<Tried<RawGateways>>,
    #[serde(default)]
    clients: Tried<RawClients>,
    tls: Option<Tried<RawTls>>,
    users: Option<Tried<users::RawUsers>>,
    policy: Option<Tried<RawPolicyFile>>,
    #[serde(default)]
    sessions: Tried<RawSessions>,
    #[serde(default)]
    reject: Tried<RawReject>,
    #[serde(default)]
    log: Tried<RawLog>,
    #[serde(default)]
    control: Tried<RawControl>,
    #[serde(default)]
    metrics: Tried<RawMetrics>,
    #[serde(default)]
    privileges: Tried<Privileges>,
    #[serde(default)]
    limits: Tried<RawLimits>,
}

fn one() -> u16 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawGateways {
    listen: Option<Vec<String>>,
    names: Vec<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawClients {
    listen: Option<Vec<String>>,
    mechanisms: Option<Vec<String>>,
    max_sessions: Option<u32>,
    max_sessions_per_address: Option<u32>,
    max_addresses: Option<u32>,
    address_lease: Option<HumanDuration>,
    ask_margin: Option<HumanDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawTls {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    crl: Option<PathBuf>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLog {
    database: Option<String>,
    password_file: Option<PathBuf>,
    connect_timeout: Option<HumanDuration>,
    transaction_timeout: Option<HumanDuration>,
    sync: Option<bool>,
    on_database_loss: Option<String>,
    spool: Option<PathBuf>,
    spool_limit: Option<ByteSize>,
    stall_after: Option<HumanDuration>,
    levels: Option<RawLevels>,
    commit_timeout: Option<HumanDuration>,
    on_overload: Option<RawOverload>,
    adopt: Option<bool>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawControl {
    socket: Option<PathBuf>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawMetrics {
    listen: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLimits {
    pending_asks: Option<u32>,
    packets_per_ask: Option<u32>,
    connections: Option<u32>,
    waiting_commits: Option<u32>,
    waiting_async: Option<u32>,
    recent_drops: Option<u32>,
    drop_memory: Option<HumanDuration>,
    drops_per_source: Option<u32>,
    drops_per_gateway: Option<u32>,
    drop_burst: Option<HumanDuration>,
    drop_sources: Option<u32>,
    early_claims: Option<u32>,
    early_claim_age: Option<HumanDuration>,
    ended_unseen: Option<u32>,
    confirm_within: Option<HumanDuration>,
    dump_interval: Option<HumanDuration>,
    counters_every: Option<HumanDuration>,
    greetings: Option<u32>,
    greeting_timeout: Option<HumanDuration>,
    password_checks: Option<u32>,
}

/// Checks what was read and turns it into what the server uses.
#[expect(clippy::too_many_lines, reason = "a line or two for each section of the file")]
pub(super) fn parse(path: &Path, loaded: Loaded<Raw>) -> Result<ServerConfig, ConfigError> {
    let Loaded { value: raw, origins } = loaded;
    let mut check = Check {
        origins: &origins,
        problems: Problems::default(),
        dir: path.parent().unwrap_or(Path::new("")),
    };
    let defaults = engine::Limits::default();

    let mark_mask = check.mark_mask(raw.mark_mask.map_or(defaults.mark_mask, |mask| Mark(mask.0)));
    if !(1..=MAX_SERVER_NUMBER).contains(&raw.server_number) {
        let expected = format!("a number from 1 to {MAX_SERVER_NUMBER}");
        check.reject("server-number", raw.server_number, expected);
    }
    let dead_after = check.duration("dead-after", raw.dead_after, defaults.dead_after, 1..=600);

    let gateways = check.required("gateways", raw.gateways).map(|raw| Gateways {
        listen: check.listen("gateways.listen", raw.listen.as_deref(), GATEWAY_PORT),
        names: check.gateway_names(&raw.names),
    });
    let raw_clients = check.problems.take(raw.clients.0);
    let clients = raw_clients.as_ref().map(|raw| Clients {
        listen: check.listen("clients.listen", raw.listen.as_deref(), CLIENT_PORT),
        mechanisms: check.mechanisms(raw.mechanisms.as_deref()),
    });
    if let (Some(gateways), Some(clients)) = (&gateways, &clients) {
        check.ports_differ(gateways, clients);
    }
    let tls = check.required("tls", raw.tls).map(|raw| Tls {
        certificate: check.path(&raw.certificate),
        key: check.path(&raw.key),
        ca: check.path(&raw.ca),
        crl: raw.crl.map(|crl| check.path(&crl)),
    });
    let raw_users = check.required("users", raw.users);
    let users = raw_users.as_ref().map(|raw| check.path(&raw.file));
    let raw_policy = check.required("policy", raw.policy);
    let policy = raw_policy.as_ref().map(|raw| check.path(&raw.file));
    let on_reload = on_end(raw_policy.and_then(|raw| raw.on_reload));
    let sessions = check.problems.take(raw.sessions.0).unwrap_or_default();
    let reject = check.problems.take(raw.reject.0).unwrap_or_default();
    let raw_log = check.problems.take(raw.log.0);
    let log = raw_log.as_ref().and_then(|raw| check.log(raw));
    let control = check.problems.take(raw.control.0).map(|raw| check.control(raw));
    let metrics = check.problems.take(raw.metrics.0);
    let metrics = metrics.and_then(|raw| check.place("metrics.listen", raw.listen));
    let privileges = check.problems.take(raw.privileges.0);
    let limits = check.problems.take(raw.limits.0);

    let engine = match (&raw_clients, &limits) {
        (Some(clients), Some(limits)) => {
            // Where the section cannot be read, what is wrong with the limits is still told.
            let log = raw_log.as_ref();
            let logged = log.map_or(defaults, |log| check.log_limits(log, &defaults));
            let base = engine::Limits {
                dead_after,
                mark_mask,
                on_reload,
                rejects: reject.rejects(),
                ..check.session_ends(&sessions, &logged)
            };
            Some(check.engine(clients, limits, &base))
        }
        _ => None,
    };
    let ports = limits.as_ref().map(|raw| check.port_limits(raw));
    let login = ports.map_or(GREETING_TIMEOUT, |ports| ports.greeting_timeout);
    let directories = raw_users.map(|raw| check.directories(raw, login));

    // A part that is missing has left its reason among the problems.
    match (
        gateways,
        clients,
        tls,
        users,
        directories,
        policy,
        log,
        control,
        privileges,
        ports,
        engine,
    ) {
        (
            Some(gateways),
            Some(clients),
            Some(tls),
            Some(users),
            Some(directories),
            Some(policy),
            Some(log),
            Some(control),
            Some(privileges),
            Some(ports),
            Some(engine),
        ) => check.problems.finish(ServerConfig {
            path: path.to_owned(),
            mark_mask,
            server_number: raw.server_number,
            dead_after,
            gateways,
            clients,
            tls,
            users,
            engine: engine::Limits {
                all_known: directories.all_known(),
                ..engine
            },
            directories,
            policy,
            rejects_by_default: reject.rejects_by_default(),
            log,
            control,
            metrics,
            privileges,
            ports,
        }),
        _ => Err(check
            .problems
            .finish(())
            .err()
            .unwrap_or_else(|| ConfigError::new(format!("{}: incomplete", path.display())))),
    }
}

struct Check<'a> {
    origins: &'a Origins,
    problems: Problems,
    dir: &'a Path,
}

impl Check<'_> {
    fn mark_mask(&mut self, mask: Mark) -> Mark {
        if mask.0 == 0 {
            self.reject("mark-mask", 0, "at least one bit for the users' numbers");
        }
        mask
    }

    fn reject(&mut self, key: &str, found: impl Display, expected: impl Display) {
        self.problems.push(self.origins.reject(key, found, expected));
    }

    fn required<T>(&mut self, key: &str, part: Option<Tried<T>>) -> Option<T> {
        let part = part.map_or_else(|| Err(self.origins.missing(key)), |part| part.0);
        self.problems.take(part)
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    fn duration(
        &mut self,
        key: &str,
        raw: Option<HumanDuration>,
        default: Duration,
        seconds: RangeInclusive<u64>,
    ) -> Duration {
        let Some(duration) = raw else {
            return default;
        };
        let range = Duration::from_secs(*seconds.start())..=Duration::from_secs(*seconds.end());
        if !range.contains(&duration.0) {
            let [low, high] = [*range.start(), *range.end()].map(HumanDuration);
            self.reject(key, duration, format_args!("a duration from {low} to {high}"));
        }
        duration.0
    }

    fn count(&mut self, key: &str, raw: Option<u32>, default: usize) -> usize {
        match raw {
            None => default,
            Some(0) => {
                self.reject(key, 0, "at least 1");
                default
            }
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }

    /// Both families by default.
    fn listen(&mut self, key: &str, raw: Option<&[String]>, port: u16) -> Vec<SocketAddr> {
        let Some(raw) = raw else {
            return vec![
                SocketAddr::from(([0; 4], port)),
                SocketAddr::from(([0_u16; 8], port)),
            ];
        };
        if raw.is_empty() {
            self.reject(key, "an empty list", "at least one address");
        }
        let mut addresses = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match text.parse::<SocketAddr>() {
                Ok(address) if addresses.contains(&address) => {
                    self.reject(&key, format_args!("\"{text}\" again"), "each address once");
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.reject(
                    &key,
                    format_args!("string \"{text}\""),
                    format_args!("an address with a port, such as \"0.0.0.0:{port}\" or \"[::]:{port}\""),
                ),
            }
        }
        addresses
    }

    fn gateway_names(&mut self, raw: &[String]) -> Vec<Arc<str>> {
        let key = "gateways.names";
        if raw.is_empty() {
            self.reject(key, "an empty list", "the name of at least one gateway");
        }
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for (index, name) in raw.iter().enumerate() {
            let key = format!("{key}[{index}]");
            if name.is_empty() || !is_host_name(name) || Text::<64>::new(name.as_str()).is_err() {
                self.reject(
                    &key,
                    format_args!("string \"{name}\""),
                    "a host name of at most 64 letters, digits, dots and hyphens",
                );
            } else if seen.insert(name.to_ascii_lowercase()) {
                names.push(Arc::from(name.as_str()));
            } else {
                self.reject(&key, format_args!("\"{name}\" again"), "each name once");
            }
        }
        names
    }

    fn mechanisms(&mut self, raw: Option<&[String]>) -> Vec<Mechanism> {
        let Some(raw) = raw else {
            return vec![Mechanism::External, Mechanism::Plain];
        };
        let key = "clients.mechanisms";
        if raw.is_empty() {
            self.reject(key, "an empty list", MECHANISMS);
        }
        let mut mechanisms = Vec::new();
        for (index, name) in raw.iter().enumerate() {
            let key = format!("{key}[{index}]");
            match Mechanism::parse(name) {
                Some(mechanism) if mechanisms.contains(&mechanism) => {
                    self.reject(&key, format_args!("\"{name}\" again"), "each mechanism once");
                }
                Some(mechanism) => mechanisms.push(mechanism),
                None => self.reject(&key, format_args!("string \"{name}\""), MECHANISMS),
            }
        }
        mechanisms
    }

    fn ports_differ(&mut self, gateways: &Gateways, clients: &Clients) {
        if let Some(both) = clients.listen.iter().find(|a| gateways.listen.contains(a)) {
            self.reject(
                "clients.listen",
                format_args!("{both}, where gateways are listened for"),
                "another address or port",
            );
        }
    }

    fn log(&mut self, raw: &RawLog) -> Option<Log> {
        let text = raw.database.as_deref().unwrap_or("sqlite:/var/lib/nufw/nulog.db");
        let location = Location::parse(text).and_then(|location| match location.file() {
            Some(file) if file.is_relative() => {
                Location::parse(&format!("sqlite:{}", self.path(file).display()))
            }
            _ => Ok(location),
        });
        let database = match location {
            Ok(location) => location,
            Err(error) => {
                // It may hold a password.
                let shown = match error {
                    StoreError::Location(shown) => shown,
                    _ => String::new(),
                };
                self.reject(
                    "log.database",
                    format_args!("string \"{shown}\""),
                    "a place such as \"sqlite:/var/lib/nufw/nulog.db\", \"postgres://user@host/database\" or \
                     \"mysql://user@host/database\"",
                );
                return None;
            }
        };
        let connect = self.duration(
            "log.connect-timeout",
            raw.connect_timeout,
            nulog::CONNECT_TIMEOUT,
            1..=60,
        );
        let transaction = self.duration(
            "log.transaction-timeout",
            raw.transaction_timeout,
            nulog::TRANSACTION_TIMEOUT,
            1..=60,
        );
        let mut database = database.with_timeouts(connect, transaction);
        if let Some(file) = &raw.password_file {
            let file = self.path(file);
            match database.with_password_file(&file) {
                Ok(with_password) => database = with_password,
                Err(error) => {
                    self.reject(
                        "log.password-file",
                        format_args!("{}: {error}", file.display()),
                        "a file whose first line is the password of the database account",
                    );
                    return None;
                }
            }
        }
        let (on_loss, spool) = self.spool(raw, database.file());
        Some(Log {
            database,
            password_file: raw.password_file.as_ref().map(|file| self.path(file)),
            on_loss,
            spool,
        })
    }

    fn log_limits(&mut self, raw: &RawLog, defaults: &engine::Limits) -> engine::Limits {
        let levels = raw.levels.as_ref().map_or(Levels::ALL, |raw| {
            raw.check(|key, found, expected| self.reject(key, found, expected))
        });
        engine::Limits {
            log_sync: raw.sync.unwrap_or(true),
            levels,
            commit_timeout: self.duration(
                "log.commit-timeout",
                raw.commit_timeout,
                defaults.commit_timeout,
                1..=60,
            ),
            on_overload: raw.on_overload.map_or(defaults.on_overload, OnOverload::from),
            adopt: raw.adopt.unwrap_or(defaults.adopt),
            ..*defaults
        }
    }

    /// What the end of a session means for its connections.
    fn session_ends(&mut self, raw: &RawSessions, base: &engine::Limits) -> engine::Limits {
        engine::Limits {
            on_session_end: on_end(raw.on_end),
            session_grace: self.duration("sessions.grace", raw.grace, base.session_grace, 0..=3600),
            on_removal: on_end(raw.on_removal),
            ..*base
        }
    }

    fn port_limits(&mut self, raw: &RawLimits) -> PortLimits {
        PortLimits {
            greetings: self.count("limits.greetings", raw.greetings, 1024),
            greeting_timeout: self.duration(
                "limits.greeting-timeout",
                raw.greeting_timeout,
                GREETING_TIMEOUT,
                1..=300,
            ),
            password_checks: self.count("limits.password-checks", raw.password_checks, 1),
        }
    }

    /// The empty path is for none.
    fn control(&self, raw: RawControl) -> Control {
        let configured = raw.socket.is_some();
        let socket = raw.socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Control {
            socket: (!socket.as_os_str().is_empty()).then(|| self.path(&socket)),
            configured,
        }
    }

    /// A place to listen at; none where it is absent or empty, and where it is wrong, which is told.
    fn place(&mut self, key: &str, raw: Option<String>) -> Option<Place> {
        let text = raw.filter(|text| !text.is_empty())?;
        let place = Place::parse(&text);
        if place.is_none() {
            let expected =
                "an address and port (\"127.0.0.1:9642\"), \"unix:/path/of/socket\", or \"\" for nowhere";
            self.reject(key, format_args!("{text:?}"), expected);
        }
        place
    }

    fn engine(&mut self, clients: &RawClients, limits: &RawLimits, base: &engine::Limits) -> engine::Limits {
        engine::Limits {
            pending_asks: self.count("limits.pending-asks", limits.pending_asks, base.pending_asks),
            packets_per_ask: self.count(
                "limits.packets-per-ask",
                limits.packets_per_ask,
                base.packets_per_ask,
            ),
            connections: self.count("limits.connections", limits.connections, base.connections),
            waiting_commits: self.count(
                "limits.waiting-commits",
                limits.waiting_commits,
                base.waiting_commits,
            ),
            waiting_async: self.count("limits.waiting-async", limits.waiting_async, base.waiting_async),
            sessions: self.count("clients.max-sessions", clients.max_sessions, base.sessions),
            sessions_per_address: self.count(
                "clients.max-sessions-per-address",
                clients.max_sessions_per_address,
                base.sessions_per_address,
            ),
            addresses_per_session: self.count(
                "clients.max-addresses",
                clients.max_addresses,
                base.addresses_per_session,
            ),
            recent_drops: self.count("limits.recent-drops", limits.recent_drops, base.recent_drops),
            drop_memory: self.duration(
                "limits.drop-memory",
                limits.drop_memory,
                base.drop_memory,
                1..=3600,
            ),
            drops_per_source: self.count(
                "limits.drops-per-source",
                limits.drops_per_source,
                base.drops_per_source,
            ),
            drops_per_gateway: self.count(
                "limits.drops-per-gateway",
                limits.drops_per_gateway,
                base.drops_per_gateway,
            ),
            drop_burst: self.duration("limits.drop-burst", limits.drop_burst, base.drop_burst, 1..=600),
            drop_sources: self.count("limits.drop-sources", limits.drop_sources, base.drop_sources),
            early_claims: self.count("limits.early-claims", limits.early_claims, base.early_claims),
            early_claim_age: self.duration(
                "limits.early-claim-age",
                limits.early_claim_age,
                base.early_claim_age,
                1..=60,
            ),
            ended_unseen: self.count("limits.ended-unseen", limits.ended_unseen, base.ended_unseen),
            ask_margin: self.duration("clients.ask-margin", clients.ask_margin, base.ask_margin, 1..=60),
            confirm_within: self.duration(
                "limits.confirm-within",
                limits.confirm_within,
                base.confirm_within,
                1..=3600,
            ),
            dump_interval: self.duration(
                "limits.dump-interval",
                limits.dump_interval,
                base.dump_interval,
                1..=86_400,
            ),
            counters_every: self.duration(
                "limits.counters-every",
                limits.counters_every,
                base.counters_every,
                0..=86_400,
            ),
            address_lease: self.duration(
                "clients.address-lease",
                clients.address_lease,
                base.address_lease,
                10..=86_400,
            ),
            ..*base
        }
    }
}

fn is_host_name(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}
