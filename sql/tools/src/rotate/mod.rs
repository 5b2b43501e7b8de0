//! `ulog-rotate`: Keeps the archive bounded.
//!
//! Reads arguments and settings and reports; what is done to the log is the library's.

use serde::Deserialize;

/// The section `[rotate]` of the settings, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {}
