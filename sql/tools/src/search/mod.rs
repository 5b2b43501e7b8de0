//! `nulog`: looks connections up, in the live table and the archive.
//!
//! Reads arguments and settings and shows what was found; every statement is the library's.

mod ask;
mod cli;
mod find;
mod show;
mod when;
mod whois;

pub use cli::{command, main};

use nufw_common::config::HumanDuration;
use serde::Deserialize;
use std::path::PathBuf;

/// The section `[search]` of the settings, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {
    /// The log, with an account that may read: instead of `log.database`.
    pub database: Option<String>,
    /// A file whose first line is that account's password.
    pub password_file: Option<PathBuf>,
    /// How long one statement may take on a database server.
    pub statement_timeout: Option<HumanDuration>,
    /// By how much clocks may differ, for `whois`.
    pub clock_error: Option<HumanDuration>,
}
