//! `clean-conntrack`: moves dead rows from the live table to the archive, and sees to it that old live rows are live.
//!
//! Reads arguments and settings and reports; what is done to the log is the library's, and what is live the server's to say.

mod cli;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod worker;

pub use cli::{command, main};

use crate::settings::{self, DEFAULT_FILE, Overrides};
use nufw_common::config::{ConfigError, HumanDuration, Loaded};
use nulog::Location;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Dead rows younger than this stay, unless the settings say otherwise.
const GRACE: Duration = Duration::from_mins(5);
/// Live rows older than this are doubted, unless the settings say otherwise.
const TIMEOUT: Duration = Duration::from_hours(24);
/// A gateway that is taken for lost is watched for so long first: more than two of a server's heartbeats.
const WATCH: Duration = Duration::from_secs(65);

/// The section `[clean]` of the settings, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {
    /// The cleaner's own account, instead of `log.database`.
    pub database: Option<String>,
    /// The first line is the password of that account.
    pub password_file: Option<PathBuf>,
    /// Dead rows younger than this stay in the live table.
    pub grace: Option<HumanDuration>,
    /// Live rows older than this are doubted.
    pub timeout: Option<HumanDuration>,
    /// How long a gateway is watched before its rows are closed.
    pub watch: Option<HumanDuration>,
}

/// What a run needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The log.
    pub(crate) location: Location,
    /// The running server's socket.
    pub(crate) socket: PathBuf,
    pub(crate) grace: Duration,
    pub(crate) timeout: Duration,
    pub(crate) watch: Duration,
    pub(crate) dry_run: bool,
    /// Whether somebody watches.
    pub(crate) bar: bool,
    /// When to stop although there is more.
    pub(crate) at_most: Option<Duration>,
}

impl Settings {
    /// Reads and checks the file and what the command line says beside it.
    pub(crate) fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let loaded = settings::load(file, overrides)?;
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let dir = path.parent().unwrap_or(Path::new("."));
        let raw = &loaded.value.clean;
        let own = (raw.database.as_deref(), raw.password_file.as_deref());
        let week = Duration::from_hours(24 * 7);
        Ok(Self {
            location: settings::location(&loaded, "clean", own, dir)?,
            socket: dir.join(&loaded.value.log.server_socket),
            grace: bounded(
                &loaded,
                "clean.grace",
                raw.grace,
                GRACE,
                (Duration::ZERO, week * 52),
            )?,
            timeout: bounded(
                &loaded,
                "clean.timeout",
                raw.timeout,
                TIMEOUT,
                (Duration::from_mins(5), week * 52),
            )?,
            watch: bounded(&loaded, "clean.watch", raw.watch, WATCH, (Duration::ZERO, week))?,
            dry_run: false,
            bar: false,
            at_most: None,
        })
    }
}

fn bounded(
    loaded: &Loaded<settings::Raw>,
    key: &str,
    given: Option<HumanDuration>,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Result<Duration, ConfigError> {
    match given {
        None => Ok(default),
        Some(HumanDuration(time)) if (least..=most).contains(&time) => Ok(time),
        Some(given) => Err(loaded.reject(
            key,
            given,
            format_args!("a time from {} to {}", HumanDuration(least), HumanDuration(most)),
        )),
    }
}
