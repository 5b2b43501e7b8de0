//! `nuauth-server import-nufw`: the files of a NuFW 2.4 server in, ours and a report out.
//!
//! Reads and writes files only; what a key means is `keys`' business. What has no equivalent is named, never guessed.

mod acls;
mod conf;
mod keys;
mod periods;
mod report;
mod rules;
mod users;
mod write;

#[cfg(test)]
mod tests;

use anyhow::{Context as _, anyhow};
use nufw_common::exit::{Exit, Failure, OrExit as _};
use report::Report;
use rules::Order;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Largest file that is read, bytes; NuFW's are a few hundred kilobytes at most.
const MAX_FILE: u64 = 16 << 20;

/// The files of the old server.
#[derive(Debug)]
pub(crate) struct Old<'a> {
    /// `nuauth.conf`; what it includes is read with it.
    pub(crate) conf: &'a Path,
    /// `acls.nufw`.
    pub(crate) acls: Option<&'a Path>,
    /// `users.nufw`.
    pub(crate) users: Option<&'a Path>,
    /// `periods.xml`.
    pub(crate) periods: Option<&'a Path>,
}

/// Reads the old files, writes ours into `dir`, and the report to `out`.
///
/// Nothing is written unless every file could be read; a file that is there is replaced only with `force`.
pub(crate) fn run(
    old: &Old<'_>,
    dir: &Path,
    force: bool,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut report = Report::default();
    let files = convert(old, &mut report)?;
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| dir.join(name)).collect();
    if let Some(there) = paths.iter().find(|path| !force && path.exists()) {
        let error = anyhow!("{} exists; --force replaces it", there.display());
        return Err(Failure::new(Exit::CantCreate, error));
    }
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make {}", dir.display()))
        .or_exit(Exit::CantCreate)?;
    for ((_, text), path) in files.iter().zip(&paths) {
        write::private(path, text)
            .with_context(|| format!("cannot write {}", path.display()))
            .or_exit(Exit::CantCreate)?;
    }
    report.print(&paths, json, out).or_exit(Exit::IoErr)
}

/// What becomes of the old files: names and texts of ours.
fn convert(old: &Old<'_>, report: &mut Report) -> Result<Vec<(&'static str, String)>, Failure> {
    let conf = conf::read(old.conf).or_exit(Exit::DataErr)?;
    let mut files = vec![("nuauth.toml", keys::convert(&conf, report))];
    let periods = match old.periods {
        Some(path) => periods::read(path, &load(path)?, report).or_exit(Exit::DataErr)?,
        None => Vec::new(),
    };
    if let Some(path) = old.acls {
        let acls = acls::read(path, &load(path)?, report);
        let order = Order::of(&conf, report);
        let periods = (old.periods.unwrap_or(Path::new("")), &periods[..]);
        files.push(("policy.toml", rules::convert(path, &acls, periods, order, report)));
    }
    if let Some(path) = old.users {
        files.push(("users.toml", users::convert(path, &load(path)?, report)));
    }
    Ok(files)
}

/// A whole file as text; bytes that are not UTF-8 are taken for Latin-1, which NuFW's installations used.
fn load(path: &Path) -> Result<String, Failure> {
    let context = || format!("cannot read {}", path.display());
    let length = std::fs::metadata(path)
        .with_context(context)
        .or_exit(Exit::NoInput)?
        .len();
    if length > MAX_FILE {
        let error = anyhow!(
            "{} has {length} bytes; at most {MAX_FILE} are read",
            path.display()
        );
        return Err(Failure::new(Exit::DataErr, error));
    }
    let bytes = std::fs::read(path).with_context(context).or_exit(Exit::NoInput)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| error.as_bytes().iter().copied().map(char::from).collect()))
}
