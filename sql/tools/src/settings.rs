//! The settings of all three programs: `/etc/nufw/nulog.toml`, checked before anything is opened.
//!
//! Reads and checks only. Each program has a section of its own, and may have a database account of its own.

use crate::{clean, rotate, search};
use nufw_common::config::{ConfigError, HumanDuration, Loaded, Loader};
use nulog::{CONNECT_TIMEOUT, Location, TRANSACTION_TIMEOUT};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where the settings are when the command line does not say.
pub const DEFAULT_FILE: &str = "/etc/nufw/nulog.toml";
/// Where the server listens for requests about its log.
pub const DEFAULT_SOCKET: &str = "/run/nufw/nuauth.sock";

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {
    /// The log that all three use.
    pub log: RawLog,
    /// `clean-conntrack`.
    #[serde(default)]
    pub clean: clean::Raw,
    /// `ulog-rotate`.
    #[serde(default)]
    pub rotate: rotate::Raw,
    /// `nulog`.
    #[serde(default)]
    pub search: search::Raw,
}

/// Where the log is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RawLog {
    /// Its URL, as the server's `log.database`.
    pub database: String,
    /// A file whose first line is the account's password.
    pub password_file: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: Option<HumanDuration>,
    /// How long a transaction may take.
    pub transaction_timeout: Option<HumanDuration>,
    /// The socket of the running server.
    pub server_socket: PathBuf,
}

/// What the command line says about keys of the file: key, value, option.
pub type Overrides = Vec<(&'static str, String, &'static str)>;

/// Reads the settings. `file` must exist if it was named on the command line.
pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Loaded<Raw>, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let defaults = format!(
        "[log]\ndatabase = \"sqlite:/var/lib/nufw/nulog.db\"\nserver-socket = \"{DEFAULT_SOCKET}\"\n"
    );
    let mut layers = Loader::new("nulog")
        .defaults(defaults)
        .file(path, file.is_some())
        .conf_d(path.with_extension("d"))
        .env("NULOG");
    for (key, value, option) in overrides {
        layers = layers.override_key(key, value, option);
    }
    layers.load()
}

/// The log that `section` (`clean`, `rotate` or `search`) works on: its own `database` and `password-file` if it has them,
/// else those of `[log]`. `dir` is where the settings are, which relative paths start from.
pub fn location(
    loaded: &Loaded<Raw>,
    section: &str,
    own: (Option<&str>, Option<&Path>),
    dir: &Path,
) -> Result<Location, ConfigError> {
    let log = &loaded.value.log;
    let (key, database) = match own.0 {
        Some(database) => (format!("{section}.database"), database),
        None => ("log.database".to_owned(), log.database.as_str()),
    };
    let (password_key, password_file) = match own {
        (None, None) => ("log.password-file".to_owned(), log.password_file.as_deref()),
        (_, file) => (format!("{section}.password-file"), file),
    };
    let duration = |given: Option<HumanDuration>, default| given.map_or(default, |given| given.0);
    let location = Location::parse(database)
        .map_err(|error| loaded.reject(&key, format_args!("{database:?}"), error))?
        .with_timeouts(
            duration(log.connect_timeout, CONNECT_TIMEOUT),
            duration(log.transaction_timeout, TRANSACTION_TIMEOUT),
        );
    let Some(file) = password_file.map(|file| dir.join(file)) else {
        return Ok(location);
    };
    location.with_password_file(&file).map_err(|error| {
        loaded.reject(
            &password_key,
            format_args!("{}: {error}", file.display()),
            "a file whose first line is the password of the database account",
        )
    })
}
