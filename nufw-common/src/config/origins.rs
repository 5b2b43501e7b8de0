//! Where each value of a configuration was set.
//!
//! Keys are written as in TOML with positions: `queue.number`, `rule[3].ports[0]`.

use super::ConfigError;
use super::parse::Layer;
use ::config::{Value, ValueKind};
use std::collections::BTreeMap;
use std::fmt;

/// The origin of every key: `nuauth.toml:12`, `environment NUAUTH_MARK_MASK`, `option -q`, `built-in default`.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    by_key: BTreeMap<String, String>,
    fallback: String,
}

impl Origins {
    pub(super) fn new(fallback: String) -> Self {
        Self {
            by_key: BTreeMap::new(),
            fallback,
        }
    }

    /// Where a key was set; for one that is not set, where its table begins, or the file's name.
    pub fn of(&self, key: &str) -> &str {
        let mut key = key;
        loop {
            if let Some(origin) = self.by_key.get(key) {
                return origin;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return &self.fallback,
            }
        }
    }

    /// Whether a key was set by anything but a built-in default.
    pub fn is_set(&self, key: &str) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|origin| !origin.starts_with("built-in"))
    }

    /// An error at a key: where it was set, what was found and what was expected.
    pub fn reject(&self, key: &str, found: impl fmt::Display, expected: impl fmt::Display) -> ConfigError {
        ConfigError::at(
            self.of(key),
            format_args!("key {key}: found {found}, expected {expected}"),
        )
    }

    /// An error at a key that is better said in a sentence of its own.
    pub fn complain(&self, key: &str, text: impl fmt::Display) -> ConfigError {
        ConfigError::at(self.of(key), format_args!("key {key}: {text}"))
    }

    /// An error at a key that must be set and is not.
    pub fn missing(&self, key: &str) -> ConfigError {
        ConfigError::at(self.of(key), format_args!("key {key} is missing"))
    }

    pub(super) fn add_tables(&mut self, layer: &Layer) {
        self.by_key.extend(layer.tables.clone());
    }

    pub(super) fn add_values(&mut self, key: &str, value: &Value) {
        if let Some(origin) = value.origin() {
            self.by_key.insert(key.to_owned(), origin.to_owned());
        }
        match &value.kind {
            ValueKind::Table(table) => {
                for (name, value) in table {
                    self.add_values(&join(key, name), value);
                }
            }
            ValueKind::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.add_values(&format!("{key}[{index}]"), value);
                }
            }
            _ => {}
        }
    }
}

pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}
