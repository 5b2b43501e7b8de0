//! `nuauth-server db`: what an administrator does with the log's database.
//!
//! Says what was done; the schema and its versions are `nulog`'s business.

use crate::config::{Override, ServerConfig};
use anyhow::Context as _;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use std::io::Write;
use std::path::Path;

/// Brings the schema up to date.
pub(crate) fn migrate(path: &Path, overrides: &[Override], out: &mut dyn Write) -> Result<(), Failure> {
    let config = ServerConfig::load(path, overrides).or_exit(Exit::Config)?;
    let database = &config.log.database;
    let migrated = runtime()?
        .block_on(nulog::migrate(database))
        .map_err(Failure::from)?;
    let to = migrated.to;
    match migrated.from {
        Some(from) if from == to => writeln!(out, "{database}: schema {to}, nothing to do"),
        Some(from) => writeln!(out, "{database}: schema {from} is {to} now"),
        None => writeln!(out, "{database}: schema {to} was made"),
    }
    .or_exit(Exit::IoErr)
}

/// A runtime for one thing to be done.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .or_exit(Exit::OsErr)
}
