//! What can be wrong with the log, each kind as something an administrator can act on.
//!
//! The journal decides by these kinds what it tries again; nothing here retries.

use nufw_common::exit::{Exit, Failure};
use nufw_proto::ConnId;
use sqlx::mysql::MySqlDatabaseError;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the log could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location is of no known form.
    #[error(
        "log location {0:?} is not of the form sqlite:/path/to/file, postgres://user@host/database or mysql://user@host/database, or has an unknown parameter"
    )]
    Location(String),
    /// The server number is 0 or does not fit 14 bits.
    #[error("server number {0} is not between 1 and 16383")]
    ServerNumber(u16),
    /// The directory of the database is missing.
    #[error("the directory {0} of the log database does not exist: create it, owned by the server's user")]
    NoDirectory(PathBuf),
    /// There is no log to read.
    #[error("there is no log {0}: has the server been started?")]
    Missing(PathBuf),
    /// Upkeep was asked of a server whose log is not a file.
    #[error("the server's log is on a database server: do its upkeep there, with an account of its own")]
    NotAFile,
    /// Another program does the same upkeep.
    #[error("another {job} run is at work on {log}{holder}")]
    AtIt {
        /// The database.
        log: PathBuf,
        /// What it does.
        job: &'static str,
        /// Who it is, as far as it is known; begins with a blank.
        holder: String,
    },
    /// Another server has the log open.
    #[error("another server{} uses this log: it holds the lock on {lock}", pid.map(|p| format!(" (process {p})")).unwrap_or_default())]
    InUse {
        /// The lock file.
        lock: PathBuf,
        /// The process that wrote itself into it, if it can be read.
        pid: Option<u32>,
    },
    /// The file, its directory or its file system cannot be written.
    #[error(
        "the log database {0} is read-only: check its owner, its directory's owner and the mount options"
    )]
    ReadOnly(PathBuf),
    /// The permissions do not allow it.
    #[error("no permission to open {0}: it and its directory must belong to the server's user")]
    Denied(PathBuf),
    /// No space is left.
    #[error("the disk or quota of the log database {0} is full")]
    Full(PathBuf),
    /// The database is away, and there is nothing to begin without it.
    #[error(
        "{reason}; the server cannot start without the database before it has reached it once, since no row ids are kept in the spool yet"
    )]
    NoIds {
        /// Why the database cannot be reached.
        reason: String,
    },
    /// The database gave no answer for longer than a verdict may wait.
    #[error("the log database did not answer within {} ms (log.stall-after)", limit.as_millis())]
    Stalled {
        /// The time it had.
        limit: Duration,
    },
    /// The disk of the spool gave no answer.
    #[error("the disk of the spool did not answer within {} ms", limit.as_millis())]
    SpoolSlow {
        /// The time it had.
        limit: Duration,
    },
    /// The spool holds as much as it may.
    #[error(
        "the spool {path} has reached its limit of {limit} bytes (log.spool-limit) while the log database is away: packets that need a row are dropped until the database is back"
    )]
    SpoolFull {
        /// The spool's file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The spool was written in another form.
    #[error(
        "the spool {path} was written in form {found}, but this version knows form {known}: let the version that wrote it bring its rows to the database first"
    )]
    SpoolFormat {
        /// The spool's file.
        path: PathBuf,
        /// Its form.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file is something else than a database.
    #[error("{0} is not an SQLite database")]
    NotADatabase(PathBuf),
    /// The file is a database of something else.
    #[error("{0} is a database of another program: it has tables, but not those of the log")]
    Foreign(PathBuf),
    /// A newer version of the program has written the log.
    #[error(
        "the log {path} has schema {found}, newer than {known}, the newest that this version knows: update the program"
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// The schema was made by a migration that differs from the one of the same version here.
    #[error(
        "schema version {version} of the log {path} is not the one that this version knows by that number"
    )]
    AlteredSchema {
        /// The database.
        path: PathBuf,
        /// The migration's version.
        version: i64,
    },
    /// The schema is older than this version reads.
    #[error(
        "the log {0} has no schema yet or an older one: run `nuauth-server db migrate` to bring it up to date"
    )]
    OlderSchema(PathBuf),
    /// The log belongs to another server.
    #[error(
        "the log {path} belongs to server number {found}, but the configuration says {configured}: a server's number is permanent"
    )]
    OtherServer {
        /// The database.
        path: PathBuf,
        /// The number in the log.
        found: i64,
        /// The configured one.
        configured: u16,
    },
    /// The database file was removed or replaced while it was open.
    #[error("the log database {0} was removed or replaced while the server was using it: restart the server")]
    Gone(PathBuf),
    /// Somebody else kept the database locked for longer than the busy timeout.
    #[error("another program keeps the log database {0} locked")]
    Busy(PathBuf),
    /// The file system failed.
    #[error("input/output error on the log database {path}: {message}")]
    Io {
        /// The database.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// The database is damaged.
    #[error("the log database {path} is damaged: {message}")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// A new row's id exists with other content.
    #[error("row {id} exists already with another {what}: ids were given out twice")]
    Conflict {
        /// The id.
        id: ConnId,
        /// The first column that differs.
        what: &'static str,
    },
    /// A value does not fit its column.
    #[error("row {id} cannot be stored: its {what} does not fit")]
    Unstorable {
        /// The row.
        id: ConnId,
        /// The column.
        what: &'static str,
    },
    /// All sequence numbers of this server number were used.
    #[error("no row ids are left for this server number")]
    IdsExhausted,
    /// The database server cannot be reached.
    #[error("the log database {log} cannot be reached: {message}")]
    Unreachable {
        /// The database.
        log: PathBuf,
        /// What the system or the driver said.
        message: String,
    },
    /// The database server does not let us in.
    #[error("the log database {log} refuses the login: {message}")]
    Refused {
        /// The database.
        log: PathBuf,
        /// What it said.
        message: String,
    },
    /// The database server does not let us do something.
    #[error("the log database {log} does not allow it: {message}: give the account the rights of sql/grants")]
    Forbidden {
        /// The database.
        log: PathBuf,
        /// What it said.
        message: String,
    },
    /// The connection to the database server ended.
    #[error("the connection to the log database {log} was lost: {message}")]
    Lost {
        /// The database.
        log: PathBuf,
        /// What the system, the driver or the server said.
        message: String,
    },
    /// The database server did not answer in time.
    #[error("the log database {log} did not answer within {} ms", limit.as_millis())]
    TimedOut {
        /// The database.
        log: PathBuf,
        /// The time it had.
        limit: Duration,
    },
    /// Another server of the same number writes to the database.
    #[error(
        "another server of number {number} uses the log database {log}: {holder}; every server has a number of its own"
    )]
    NumberInUse {
        /// The database.
        log: PathBuf,
        /// The number.
        number: u16,
        /// What the database says of it.
        holder: String,
    },
    /// While the connection was away another server of the same number wrote to the database.
    #[error(
        "another server took over number {number} in the log database {log} while this one was cut off from it: stop one of them, then restart the other"
    )]
    TakenOver {
        /// The database.
        log: PathBuf,
        /// The number.
        number: u16,
    },
    /// Anything else that the database says.
    #[error("the log database {path}: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// What it said.
        source: sqlx::Error,
    },
}

impl StoreError {
    /// The row that makes every attempt fail, when the error is about one row: without it the others can be applied.
    pub fn spoiled_row(&self) -> Option<ConnId> {
        match self {
            Self::Conflict { id, .. } | Self::Unstorable { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// Whether the log may be in order and only be out of reach for now, so that a server may start without it.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Lost { .. }
                | Self::TimedOut { .. }
                | Self::Busy(_)
                | Self::Full(_)
        )
    }

    /// Classifies what `SQLite` said by its primary result code (<https://www.sqlite.org/rescode.html>).
    pub(crate) fn from_sqlx(path: &Path, source: sqlx::Error) -> Self {
        let code = source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok());
        let path = path.to_path_buf();
        let message = || source.to_string();
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => Self::Busy(path),
            Some(8) => Self::ReadOnly(path),
            Some(10 | 14) => Self::Io {
                path,
                message: message(),
            },
            Some(11) => Self::Corrupt {
                path,
                message: message(),
            },
            Some(13) => Self::Full(path),
            Some(26) => Self::NotADatabase(path),
            _ => Self::Database { path, source },
        }
    }

    /// Classifies what a database server or its driver said.
    pub(crate) fn from_server(log: &Path, source: sqlx::Error) -> Self {
        let log = log.to_path_buf();
        let message = source.to_string();
        let Some(error) = source.as_database_error() else {
            return match source {
                sqlx::Error::Io(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed => Self::Lost { log, message },
                sqlx::Error::Tls(_) => Self::Unreachable { log, message },
                source => Self::Database { path: log, source },
            };
        };
        let message = error.message().to_owned();
        let mysql = error
            .try_downcast_ref::<MySqlDatabaseError>()
            .map(MySqlDatabaseError::number);
        let code = error.code().unwrap_or_default().into_owned();
        match (mysql, code.as_str()) {
            (Some(1044 | 1045 | 1049 | 1698), _) | (None, "28000" | "28P01" | "3D000") => {
                Self::Refused { log, message }
            }
            (Some(1142 | 1143 | 1227 | 1290 | 1370 | 1836 | 1792), _) | (None, "42501" | "25006") => {
                Self::Forbidden { log, message }
            }
            (Some(1205 | 1213 | 1020), _) | (None, "40001" | "40P01" | "55P03") => Self::Busy(log),
            (Some(1021 | 1114), _) | (None, "53100") => Self::Full(log),
            // Shutting down, being started, in recovery, too many connections, a statement that was cut off.
            (Some(1040 | 1053 | 1077 | 1152 | 1203 | 1927 | 1969), _) => Self::Lost { log, message },
            (None, code) if code.starts_with("57") || code.starts_with("08") || code == "53300" => {
                Self::Lost { log, message }
            }
            _ => Self::Database { path: log, source },
        }
    }

    /// Classifies what was said when a connection was to be made.
    pub(crate) fn from_connect(log: &Path, source: sqlx::Error) -> Self {
        match Self::from_server(log, source) {
            Self::Lost { log, message } => Self::Unreachable { log, message },
            Self::Database { path, source } => Self::Unreachable {
                log: path,
                message: source.to_string(),
            },
            other => other,
        }
    }

    /// Classifies what the system said when a file of the log was opened.
    pub(crate) fn from_io(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.to_path_buf();
        match error.kind() {
            ErrorKind::PermissionDenied => Self::Denied(path),
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(path),
            ErrorKind::NotFound => Self::NoDirectory(path),
            _ => Self::Io {
                path,
                message: error.to_string(),
            },
        }
    }
}

/// The exit code of what was wrong with the log.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::AtIt { .. } => Exit::TempFail,
            StoreError::Unreachable { .. }
            | StoreError::NoIds { .. }
            | StoreError::Lost { .. }
            | StoreError::TimedOut { .. }
            | StoreError::InUse { .. }
            | StoreError::NumberInUse { .. }
            | StoreError::TakenOver { .. }
            | StoreError::Busy(_) => Exit::Unavailable,
            StoreError::Refused { .. } | StoreError::Forbidden { .. } | StoreError::Denied(_) => Exit::NoPerm,
            StoreError::OlderSchema(_)
            | StoreError::NewerSchema { .. }
            | StoreError::AlteredSchema { .. }
            | StoreError::Foreign(_)
            | StoreError::SpoolFormat { .. }
            | StoreError::OtherServer { .. } => Exit::Config,
            _ => Exit::CantCreate,
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_has_its_exit_code() {
        let log = || PathBuf::from("postgres://u@db/n");
        let message = || "no".to_owned();
        let (unreachable, refused) = (
            StoreError::Unreachable {
                log: log(),
                message: message(),
            },
            StoreError::Refused {
                log: log(),
                message: message(),
            },
        );
        for (error, exit) in [
            (StoreError::OlderSchema(log()), Exit::Config),
            (unreachable, Exit::Unavailable),
            (refused, Exit::NoPerm),
        ] {
            assert_eq!(Failure::from(error).exit, exit);
        }
    }
}
