//! What the configuration says of a time without the log's database.
//!
//! Whether the file can be written is seen when the server opens it, and by `check`.

use super::super::OnLoss;
use super::{Check, RawLog};
use crate::journal::SpoolSettings;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the spool is when the log is not a file.
const SPOOL: &str = "/var/lib/nufw/spool.db";
/// What the spool may hold unless told otherwise.
const SPOOL_LIMIT: u64 = 1 << 30;
/// Less would be full before an administrator has read the warning.
const LEAST_SPOOL_LIMIT: u64 = 1 << 20;
/// How long a verdict waits for the database before its row goes to the spool.
const STALL_AFTER: Duration = Duration::from_secs(1);

impl Check<'_> {
    pub(super) fn spool(&mut self, raw: &RawLog, database: Option<&Path>) -> (OnLoss, SpoolSettings) {
        let on_loss = match raw.on_database_loss.as_deref() {
            None | Some("spool") => OnLoss::Spool,
            Some("drop") => OnLoss::Drop,
            Some(other) => {
                self.reject(
                    "log.on-database-loss",
                    format_args!("string \"{other}\""),
                    "\"spool\" or \"drop\"",
                );
                OnLoss::Spool
            }
        };
        let path = match (&raw.spool, database) {
            (Some(path), _) => self.path(path),
            (None, Some(file)) => file.with_file_name("spool.db"),
            (None, None) => PathBuf::from(SPOOL),
        };
        if database == Some(path.as_path()) {
            let found = format_args!("{}, which is the log", path.display()).to_string();
            self.reject("log.spool", found, "a file of its own");
        }
        let limit = raw.spool_limit.map_or(SPOOL_LIMIT, |limit| limit.0);
        if limit < LEAST_SPOOL_LIMIT {
            self.reject("log.spool-limit", limit, "at least \"1MiB\"");
        }
        let stall_after = self.duration("log.stall-after", raw.stall_after, STALL_AFTER, 1..=60);
        let settings = SpoolSettings {
            path,
            limit,
            stall_after,
        };
        (on_loss, settings)
    }
}
