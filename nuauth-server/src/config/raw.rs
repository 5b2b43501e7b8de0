//! The configuration as it is written, and its way to what the server uses.
//!
//! Every mistake found is reported, not only the first.

mod limits;
mod log;
mod places;
mod spool;
mod users;

use super::ends::{RawPolicyFile, RawReject, on_end};
use super::marks::RawMarks;
use super::sessions::{RawHooks, RawIdentify, RawSessions};
use super::{Clients, Gateways, ServerConfig, Tls};
use crate::engine;
use limits::RawLimits;
use log::RawLog;
use nufw_common::config::{ConfigError, HexOrInt, HumanDuration, Loaded, Origins, Problems, Tried};
use nufw_common::sandbox::Privileges;
use nufw_proto::{CLIENT_PORT, GATEWAY_PORT, Mark};
use serde::Deserialize;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest server number that leaves the sequence its bits.
const MAX_SERVER_NUMBER: u16 = 16_383;
/// What may be in `clients.mechanisms`.
const MECHANISMS: &str =
    "\"EXTERNAL\", \"GS2-KRB5-PLUS\" (Kerberos), \"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\" or \"PLAIN\"";
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
    marks: Tried<RawMarks>,
    #[serde(default)]
    sessions: Tried<RawSessions>,
    #[serde(default)]
    hooks: Tried<RawHooks>,
    #[serde(default)]
    identify: Tried<RawIdentify>,
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
    #[serde(default)]
    tell_refusals: bool,
    refusals_per_minute: Option<u32>,
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
struct RawControl {
    socket: Option<PathBuf>,
    #[serde(default)]
    readers: Vec<String>,
    #[serde(default)]
    admins: Vec<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawMetrics {
    listen: Option<String>,
}

/// Checks what was read and turns it into what the server uses.
#[expect(
    clippy::too_many_lines,
    reason = "each section once, in the order of the file"
)]
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
    let mut clients = raw_clients.as_ref().map(|raw| Clients {
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
    let watch = raw_policy.as_ref().and_then(|raw| raw.watch).unwrap_or(true);
    let on_reload = on_end(raw_policy.as_ref().and_then(|raw| raw.on_reload));
    let kernel_ends_after = check.kernel_ends_after(raw_policy.and_then(|raw| raw.kernel_ends_after));
    let raw_marks = check.problems.take(raw.marks.0).unwrap_or_default();
    let marks = raw_marks.check(mark_mask, |key, found, expected| {
        check.reject(key, found, expected);
    });
    let sessions = check.problems.take(raw.sessions.0).unwrap_or_default();
    let hours = check.hours(&sessions);
    let hooks = check.problems.take(raw.hooks.0).unwrap_or_default();
    let hooks = check.hooks(&hooks);
    let identify = check.problems.take(raw.identify.0).unwrap_or_default();
    let identify = check.identify(&identify);
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
                user_marks: marks.user,
                on_reload,
                kernel_ends_after,
                rejects: reject.rejects(),
                tells_sessions: hooks.is_some(),
                ..check.session_limits(&sessions, &logged)
            };
            Some(check.engine(clients, limits, &base))
        }
        _ => None,
    };
    let spool = log.as_ref().map_or(Path::new(""), |log| &log.spool.path);
    let tickets = check.tickets(&sessions, spool);
    let ports = limits.as_ref().map(|raw| check.port_limits(raw));
    let login = ports.map_or(GREETING_TIMEOUT, |ports| ports.greeting_timeout);
    let directories = raw_users.map(|raw| check.directories(raw, login));
    if let (Some(raw), Some(clients), Some(directories)) = (&raw_clients, &mut clients, &directories) {
        let offered = &mut clients.mechanisms;
        check.offers_kerberos(offered, raw.mechanisms.is_some(), directories.kerberos.is_some());
    }

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
            watch,
            marks,
            rejects_by_default: reject.rejects_by_default(),
            log,
            control,
            metrics,
            privileges,
            hours,
            tickets,
            hooks,
            identify,
            ports,
        }),
        _ => Err(check
            .problems
            .finish(())
            .err()
            .unwrap_or_else(|| ConfigError::new(format!("{}: incomplete", path.display())))),
    }
}

pub(super) struct Check<'a> {
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

    pub(super) fn reject(&mut self, key: &str, found: impl Display, expected: impl Display) {
        self.problems.push(self.origins.reject(key, found, expected));
    }

    fn required<T>(&mut self, key: &str, part: Option<Tried<T>>) -> Option<T> {
        let part = part.map_or_else(|| Err(self.origins.missing(key)), |part| part.0);
        self.problems.take(part)
    }

    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    pub(super) fn duration(
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

    pub(super) fn count(&mut self, key: &str, raw: Option<u32>, default: usize) -> usize {
        match raw {
            None => default,
            Some(0) => {
                self.reject(key, 0, "at least 1");
                default
            }
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }

    /// How much later than a rule the kernel ends a connection; 0 for never.
    fn kernel_ends_after(&mut self, raw: Option<HumanDuration>) -> Option<Duration> {
        let default = engine::Limits::default().kernel_ends_after.unwrap_or_default();
        let after = self.duration("policy.kernel-ends-after", raw, default, 0..=3600);
        (!after.is_zero()).then_some(after)
    }
}
