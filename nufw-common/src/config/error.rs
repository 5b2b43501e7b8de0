//! What is wrong with a configuration: one line a problem, each with its place.
//!
//! Says nothing about how a program ends because of it.

use std::fmt;

/// One or more problems of a configuration, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    lines: Vec<String>,
}

impl ConfigError {
    /// One problem; `text` names its place.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            lines: text.into().lines().map(str::to_owned).collect(),
        }
    }

    /// One problem at a place such as `nuauth.toml:12`.
    pub fn at(origin: &str, text: impl fmt::Display) -> Self {
        Self::new(format!("{origin}: {text}"))
    }

    /// The problems, one a line.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Gathers problems, so that an administrator sees all of them at once.
#[derive(Debug, Default)]
pub struct Problems {
    lines: Vec<String>,
}

impl Problems {
    /// Adds what is wrong.
    pub fn push(&mut self, error: ConfigError) {
        self.lines.extend(error.lines);
    }

    /// Keeps a result's problem and hands its value on.
    pub fn take<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// `value` if nothing is wrong, else everything that is.
    pub fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.lines.is_empty() {
            Ok(value)
        } else {
            Err(ConfigError { lines: self.lines })
        }
    }
}
