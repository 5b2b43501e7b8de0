//! One layer of a configuration: TOML text, environment or options, as values that know their origin.
//!
//! Knows nothing of what keys there should be, save to find the words in an environment variable's name.

use super::ConfigError;
use super::origins::join;
use ::config::{Format, Map, Value, ValueKind};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The values of one layer, and where its tables begin (a merge keeps only the origins of leaves).
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub(super) values: Map<String, Value>,
    pub(super) tables: BTreeMap<String, String>,
}

/// What values from the environment and from options have in common: they are text, whatever their type.
const TEXT_ORIGINS: [&str; 2] = ["environment ", "option "];

/// Whether a value came as mere text, which may stand for a number, a boolean or a list.
pub(super) fn is_text(value: &Value) -> bool {
    value
        .origin()
        .is_some_and(|origin| TEXT_ORIGINS.iter().any(|prefix| origin.starts_with(prefix)))
}

impl Layer {
    pub(super) fn from_environment(variables: &[(String, String, String)], fields: &[&str]) -> Self {
        let mut layer = Self::default();
        for (rest, value, name) in variables {
            layer.set(&key_of(rest, fields), value, &format!("environment {name}"));
        }
        layer
    }

    pub(super) fn from_options(options: &[(String, String, String)]) -> Self {
        let mut layer = Self::default();
        for (key, value, option) in options {
            layer.set(key, value, &format!("option {option}"));
        }
        layer
    }

    fn set(&mut self, key: &str, value: &str, origin: &str) {
        let value = Value::new(Some(&origin.to_owned()), value);
        self.values.insert(key.to_owned(), value);
    }
}

/// `queue-max-pending` is `queue.max-pending` if there is a table `queue`; `mark-mask` is itself.
fn key_of(rest: &str, fields: &[&str]) -> String {
    if fields.contains(&rest) {
        return rest.to_owned();
    }
    fields
        .iter()
        .filter_map(|field| {
            let inner = rest.strip_prefix(field)?.strip_prefix('-')?;
            Some((field.len(), format!("{field}.{inner}")))
        })
        .max()
        .map_or_else(|| rest.to_owned(), |(_, key)| key)
}

/// Reads a file's text as a layer.
pub(super) fn file_layer(path: &Path, bytes: Vec<u8>) -> Result<Layer, ConfigError> {
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..good].split(|b| *b == b'\n').skip(1).count();
        ConfigError::at(&format!("{name}:{line}"), "the file is not UTF-8 text")
    })?;
    layer(&name, &text)
}

/// Reads TOML as a layer; every syntax error is reported.
pub(super) fn layer(name: &str, text: &str) -> Result<Layer, ConfigError> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let place = Place {
        name,
        lines: line_starts(text),
    };
    if !errors.is_empty() {
        let mut lines: Vec<(usize, String)> = errors
            .iter()
            .map(|error| {
                let start = error.span().map_or(0, |span| span.start);
                let origin = place.origin(start);
                (start, format!("{origin}: not valid TOML: {}", error.message()))
            })
            .collect();
        lines.sort();
        lines.dedup_by(|a, b| place.line(a.0) == place.line(b.0));
        let text: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        return Err(ConfigError::new(text.join("\n")));
    }
    let mut tables = BTreeMap::new();
    let values = place.table("", table.into_inner(), &mut tables)?;
    Ok(Layer { values, tables })
}

/// The format that the `config` crate is given: TOML whose values say where they are.
#[derive(Debug, Clone, Copy)]
pub struct TomlWithOrigins;

impl Format for TomlWithOrigins {
    fn parse(
        &self,
        uri: Option<&String>,
        text: &str,
    ) -> Result<Map<String, Value>, Box<dyn Error + Send + Sync>> {
        let name = uri.map_or("configuration", String::as_str);
        Ok(layer(name, text)?.values)
    }
}

struct Place<'a> {
    name: &'a str,
    lines: Vec<usize>,
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect()
}

impl Place<'_> {
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    fn origin(&self, offset: usize) -> String {
        if self.name.starts_with("built-in") {
            self.name.to_owned()
        } else {
            format!("{}:{}", self.name, self.line(offset))
        }
    }

    fn table(
        &self,
        path: &str,
        table: DeTable<'_>,
        tables: &mut BTreeMap<String, String>,
    ) -> Result<Map<String, Value>, ConfigError> {
        let mut values = Map::new();
        for (key, value) in table {
            let offset = key.span().start;
            let name = key.into_inner().into_owned();
            let value = self.value(&join(path, &name), offset, value, tables)?;
            values.insert(name, value);
        }
        Ok(values)
    }

    /// `offset` is where the key is; the items of a list have their own places.
    fn value(
        &self,
        path: &str,
        offset: usize,
        value: Spanned<DeValue<'_>>,
        tables: &mut BTreeMap<String, String>,
    ) -> Result<Value, ConfigError> {
        let origin = self.origin(offset);
        let reject = |found: &str, expected: &str| {
            ConfigError::at(
                &origin,
                format_args!("key {path}: found {found}, expected {expected}"),
            )
        };
        let kind = match value.into_inner() {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Boolean(truth) => ValueKind::Boolean(truth),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map(ValueKind::I64)
                .map_err(|_| reject(integer.as_str(), "an integer of at most 64 bits"))?,
            DeValue::Float(float) => float
                .as_str()
                .parse()
                .map(ValueKind::Float)
                .map_err(|_| reject(float.as_str(), "a number"))?,
            DeValue::Array(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    let start = item.span().start;
                    values.push(self.value(&format!("{path}[{index}]"), start, item, tables)?);
                }
                ValueKind::Array(values)
            }
            DeValue::Table(table) => {
                tables.insert(path.to_owned(), origin.clone());
                ValueKind::Table(self.table(path, table, tables)?)
            }
        };
        Ok(Value::new(Some(&origin), kind))
    }
}
