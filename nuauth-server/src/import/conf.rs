//! `nuauth.conf` as NuFW's `nuconfparser` reads it: `key=value`, sections, includes; the last definition wins.
//!
//! Syntax only.

use super::report::Place;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Files that include each other no deeper than this, as NuFW has it.
const MAX_DEPTH: usize = 10;
/// Settings of all files together.
const MAX_SETTINGS: usize = 10_000;

/// Why a configuration cannot be read.
#[derive(Debug, Error)]
pub(super) enum ConfError {
    /// A file is missing or cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Includes go round.
    #[error("{place}: files include each other more than {MAX_DEPTH} deep")]
    TooDeep { place: Place },
    /// More than anybody would write.
    #[error("{place}: more than {MAX_SETTINGS} settings")]
    TooMany { place: Place },
    /// A line that is none of NuFW's.
    #[error("{place}: found {line:?}, expected key=value, [section], include \"file\" or a comment")]
    Syntax { place: Place, line: String },
}

/// One definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Place,
}

/// Every key once, in the order of the last definitions.
#[derive(Debug, Default)]
pub(super) struct Conf {
    pub(super) settings: Vec<Setting>,
}

impl Conf {
    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}

/// Reads the file and those that it includes.
pub(super) fn read(path: &Path) -> Result<Conf, ConfError> {
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut all = Vec::new();
    file(path, &dir, 0, &mut all)?;
    let last: HashMap<String, usize> = all
        .iter()
        .enumerate()
        .map(|(index, setting): (usize, &Setting)| (setting.key.clone(), index))
        .collect();
    let settings = all
        .into_iter()
        .enumerate()
        .filter(|(index, setting)| last.get(&setting.key) == Some(index))
        .map(|(_, setting)| setting)
        .collect();
    Ok(Conf { settings })
}

fn file(path: &Path, dir: &Path, depth: usize, all: &mut Vec<Setting>) -> Result<(), ConfError> {
    let text = super::load(path).map_err(|failure| ConfError::Read {
        path: path.to_owned(),
        source: std::io::Error::other(format!("{:#}", failure.error)),
    })?;
    let mut section = String::new();
    for (index, raw) in text.lines().enumerate() {
        let place = Place::new(path, index + 1);
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{}/", name.trim());
        } else if let Some(name) = line
            .strip_prefix("include")
            .filter(|rest| rest.starts_with([' ', '\t', '"']))
        {
            if depth + 1 >= MAX_DEPTH {
                return Err(ConfError::TooDeep { place });
            }
            file(&dir.join(unquoted(name.trim())), dir, depth + 1, all)?;
        } else if let Some((key, value)) = line.split_once('=') {
            if all.len() >= MAX_SETTINGS {
                return Err(ConfError::TooMany { place });
            }
            all.push(Setting {
                key: format!("{section}{}", key.trim()),
                value: unquoted(value.trim()).to_owned(),
                place,
            });
        } else {
            return Err(ConfError::Syntax {
                place,
                line: line.chars().take(80).collect(),
            });
        }
    }
    Ok(())
}

/// A value without its quotes, or without the comment behind it.
fn unquoted(value: &str) -> &str {
    match value.strip_prefix('"') {
        Some(rest) => rest.split_once('"').map_or(rest, |(inside, _)| inside),
        None => value
            .split_once('#')
            .map_or(value, |(before, _)| before.trim_end()),
    }
}
