//! The section `[rotate]` of the settings, checked.
//!
//! Reads and checks only. How long rows are kept has no default: what is dropped is gone.

use crate::settings;
use nufw_common::config::{ConfigError, HumanDuration, Loaded, Problems};
use nulog::Location;
use nulog::rotate::Unit;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The shortest time that may be kept.
const LEAST_KEPT: Duration = Duration::from_hours(24);
/// The longest.
const MOST_KEPT: Duration = Duration::from_hours(24 * 36_500);
/// Partitions that are made ahead unless the settings say otherwise.
const DAYS_AHEAD: u32 = 7;
const MONTHS_AHEAD: u32 = 2;
/// Most of them: a look at the archive opens every one.
const MOST_AHEAD: u32 = 366;
/// How long a lock that others hold is tried for unless the settings say otherwise, and at most.
const PATIENCE: Duration = Duration::from_mins(1);
const MOST_PATIENCE: Duration = Duration::from_hours(24);

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {
    /// The log, where it is reached with another account than `[log]` says.
    pub database: Option<String>,
    /// A file whose first line is that account's password.
    pub password_file: Option<PathBuf>,
    /// How long rows are kept.
    pub keep: Option<HumanDuration>,
    /// `day` or `month`: how much is dropped at once.
    pub unit: Option<String>,
    /// Partitions that are made ahead.
    pub ahead: Option<u32>,
    /// A directory that rows are written to before they are dropped.
    pub export: Option<PathBuf>,
    /// `csv.gz` or `csv`.
    pub format: Option<String>,
    /// How long a lock that others hold is tried for.
    pub patience: Option<HumanDuration>,
}

/// How a file of exported rows is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    CsvGz,
}

impl Format {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::CsvGz => "csv.gz",
        }
    }
}

/// Where rows are written to before they are dropped.
#[derive(Debug, Clone)]
pub(super) struct Export {
    pub(super) directory: PathBuf,
    pub(super) format: Format,
}

/// What a run does.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) database: Location,
    pub(super) socket: PathBuf,
    /// Seconds; `None` where nothing is to be dropped, for a look.
    pub(super) keep: Option<i64>,
    pub(super) unit: Unit,
    pub(super) ahead: u32,
    pub(super) export: Option<Export>,
    pub(super) patience: Duration,
}

/// Reads the settings; `file` must exist if it was named.
pub(super) fn load(file: Option<&Path>, overrides: settings::Overrides) -> Result<Config, ConfigError> {
    let loaded = settings::load(file, overrides)?;
    let path = file.unwrap_or(Path::new(settings::DEFAULT_FILE));
    check(&loaded, path.parent().unwrap_or(Path::new(".")))
}

fn check(loaded: &Loaded<settings::Raw>, dir: &Path) -> Result<Config, ConfigError> {
    let raw = &loaded.value.rotate;
    let mut problems = Problems::default();
    let own = (raw.database.as_deref(), raw.password_file.as_deref());
    let database = problems.take(settings::location(loaded, "rotate", own, dir));
    let within = |key: &str, given: HumanDuration, least: Duration, most: Duration| {
        if (least..=most).contains(&given.0) {
            return Ok(given.0);
        }
        let bounds = format!("between {} and {}", HumanDuration(least), HumanDuration(most));
        Err(loaded.reject(key, given, bounds))
    };
    let keep = raw
        .keep
        .map(|keep| within("rotate.keep", keep, LEAST_KEPT, MOST_KEPT));
    let keep = keep.and_then(|keep| problems.take(keep));
    let patience = raw.patience.unwrap_or(HumanDuration(PATIENCE));
    let patience = problems.take(within("rotate.patience", patience, Duration::ZERO, MOST_PATIENCE));
    let unit = match raw.unit.as_deref() {
        None | Some("day") => Some(Unit::Day),
        Some("month") => Some(Unit::Month),
        Some(other) => problems.take(Err(loaded.reject(
            "rotate.unit",
            format_args!("{other:?}"),
            "\"day\" or \"month\"",
        ))),
    };
    let format = match raw.format.as_deref() {
        None | Some("csv.gz") => Some(Format::CsvGz),
        Some("csv") => Some(Format::Csv),
        Some(other) => problems.take(Err(loaded.reject(
            "rotate.format",
            format_args!("{other:?}"),
            "\"csv.gz\" or \"csv\"",
        ))),
    };
    let ahead = raw.ahead.unwrap_or(match unit {
        Some(Unit::Month) => MONTHS_AHEAD,
        _ => DAYS_AHEAD,
    });
    if !(1..=MOST_AHEAD).contains(&ahead) {
        problems.push(loaded.reject("rotate.ahead", ahead, format_args!("between 1 and {MOST_AHEAD}")));
    }
    problems.finish(())?;
    let (Some(database), Some(unit), Some(format), Some(patience)) = (database, unit, format, patience)
    else {
        return Err(ConfigError::new("the settings are not usable"));
    };
    Ok(Config {
        database,
        socket: loaded.value.log.server_socket.clone(),
        keep: keep.and_then(|keep| i64::try_from(keep.as_secs()).ok()),
        unit,
        ahead,
        export: raw.export.as_ref().map(|directory| Export {
            directory: dir.join(directory),
            format,
        }),
        patience,
    })
}
