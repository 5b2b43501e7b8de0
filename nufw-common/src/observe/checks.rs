//! What was looked at to say whether a daemon is well, and what was found.
//!
//! A report is for machines by its status and for people by its sentences.

use serde::{Deserialize, Serialize};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name: one word.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found: a sentence without names of users and addresses of traffic.
    pub detail: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether all of it is as it should be.
    pub ok: bool,
    /// Each thing.
    pub checks: Vec<Check>,
}

impl Report {
    /// Nothing looked at yet, and nothing wrong.
    pub fn new() -> Self {
        Self {
            ok: true,
            checks: Vec::new(),
        }
    }

    /// Adds what one look found.
    #[must_use]
    pub fn with(mut self, name: &str, ok: bool, detail: impl Into<String>) -> Self {
        self.ok &= ok;
        self.checks.push(Check {
            name: name.to_owned(),
            ok,
            detail: detail.into(),
        });
        self
    }

    /// Whether everything is as it should be.
    pub fn is_ok(&self) -> bool {
        self.ok
    }

    /// One line of JSON.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
