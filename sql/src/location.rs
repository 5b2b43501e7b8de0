//! Where a log is, as the configuration says it.
//!
//! Only the form is checked here; whether anything is there is seen when it is opened.

use crate::StoreError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The place of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    path: PathBuf,
}

impl Location {
    /// Reads `sqlite:/path/to/file` (also `sqlite:///path/to/file`).
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let path = text
            .strip_prefix("sqlite:")
            .map(|rest| rest.strip_prefix("//").unwrap_or(rest))
            .filter(|path| !path.is_empty() && !path.starts_with(':') && !path.ends_with('/'))
            .ok_or_else(|| StoreError::Location(text.to_owned()))?;
        Ok(Self {
            path: PathBuf::from(path),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::parse(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite:{}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_file() {
        for text in ["sqlite:/var/lib/nufw/nulog.db", "sqlite:///var/lib/nufw/nulog.db"] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.path(), Path::new("/var/lib/nufw/nulog.db"));
            assert_eq!(location.to_string(), "sqlite:/var/lib/nufw/nulog.db");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in [
            "",
            "sqlite:",
            "sqlite::memory:",
            "postgres://x/y",
            "/var/lib/nulog.db",
            "sqlite:/var/lib/",
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
