//! A mistake in a configuration on its way out of the reader: it learns its place at the value that it is about.
//!
//! Only words; nothing is read here.

use super::origins::join;
use serde::de::{self, Expected, Unexpected};
use std::fmt::{self, Display};

/// Where a mistake is.
pub(super) struct Place<'a> {
    pub(super) path: String,
    pub(super) origin: &'a str,
}

/// What is wrong, and, once it has passed the value it is about, where.
#[derive(Debug)]
pub(super) struct Fault {
    text: FaultText,
    placed: bool,
}

#[derive(Debug)]
pub(super) enum FaultText {
    /// A text of its own.
    Custom(String),
    /// Something was found where something else was expected.
    Found(String),
    /// A key that the struct does not have.
    UnknownKey(String),
    /// A key that the struct needs.
    Missing(String),
    /// The whole sentence, with its place.
    Whole(String),
}

impl Fault {
    pub(super) fn new(text: FaultText) -> Self {
        Self { text, placed: false }
    }

    pub(super) fn found(found: impl Display, expected: impl Display) -> Self {
        Self::new(FaultText::Found(format!("found {found}, expected {expected}")))
    }

    pub(super) fn at(self, node: &Place<'_>) -> Self {
        if self.placed {
            return self;
        }
        let Place { path, origin } = node;
        let key = if path.is_empty() {
            String::new()
        } else {
            format!("key {path}: ")
        };
        let text = match self.text {
            FaultText::Custom(text) | FaultText::Found(text) => format!("{origin}: {key}{text}"),
            FaultText::UnknownKey(text) => format!("{origin}: unknown key {path}{text}"),
            FaultText::Missing(name) => format!("{origin}: key {} is missing", join(path, &name)),
            FaultText::Whole(text) => text,
        };
        Self {
            text: FaultText::Whole(text),
            placed: true,
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            FaultText::Custom(text)
            | FaultText::Found(text)
            | FaultText::UnknownKey(text)
            | FaultText::Missing(text)
            | FaultText::Whole(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::new(FaultText::Custom(text.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::found(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::found(found, expected)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
        Self::found(
            format_args!("string \"{found}\""),
            format_args!("one of {}", known.join(", ")),
        )
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        let text = match closest(found, known) {
            Some(close) => format!("; did you mean {close}?"),
            None => format!(", expected one of {}", known.join(", ")),
        };
        Self::new(FaultText::UnknownKey(text))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(FaultText::Missing(name.to_owned()))
    }
}

/// The known name that a mistyped one is nearest to, if it is near at all.
fn closest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = known.iter().map(|name| (edits(found, name), *name)).min()?;
    (distance <= 1 + found.len() / 4).then_some(name)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
