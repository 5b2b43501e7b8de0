//! Lists of addresses, ports and patterns, and the sets that lists name.
//!
//! A set in a file is one item a line; what is wrong in it is named by its own line.

use super::Reader;
use crate::policy::pattern::{BadPattern, Pattern};
use crate::policy::raw::{MAX_ITEMS, RawSet, TextOrNumber};
use crate::policy::rule::{Hash, Listed};
use crate::policy::sets::{Addresses, Item, Ranges, parse_ports, port_words};
use nufw_common::config::ConfigError;
use std::path::{Component, Path};
use std::sync::Arc;

/// A set that rules name.
#[derive(Debug, Clone)]
pub(in crate::policy) enum NamedSet {
    Addresses(Arc<Addresses>),
    Ports(Arc<Ranges<u16>>),
}

/// What a list says of a port that is none.
const A_PORT: &str = "a port from 0 to 65535 or a range such as \"8000-8080\"";

impl Reader<'_> {
    pub(super) fn named_set(&mut self, at: &str, raw: &RawSet) -> Option<NamedSet> {
        let name_key = format!("{at}.name");
        self.text(&name_key, &raw.name);
        let given = [
            raw.addresses.is_some(),
            raw.ports.is_some(),
            raw.address_file.is_some(),
            raw.port_file.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let expected = "exactly one of addresses, address-file, ports and port-file";
            self.reject(
                &name_key,
                format_args!("\"{}\" with none or several of them", raw.name),
                expected,
            );
            return None;
        }
        let set = if let Some(addresses) = &raw.addresses {
            let key = format!("{at}.addresses");
            self.list(&key, Some(addresses));
            NamedSet::Addresses(Arc::new(Addresses::of(self.items(&key, addresses))))
        } else if let Some(ports) = &raw.ports {
            let key = format!("{at}.ports");
            self.list(&key, Some(ports));
            NamedSet::Ports(Arc::new(Ranges::union(self.port_items(&key, ports))))
        } else if let Some(file) = &raw.address_file {
            let items = self.file(&format!("{at}.address-file"), file, Item::parse)?;
            NamedSet::Addresses(Arc::new(Addresses::of(items)))
        } else {
            let file = raw.port_file.as_deref().unwrap_or_default();
            let parse = |text: &str| parse_ports(text).ok_or_else(|| A_PORT.to_owned());
            let ports = self.file(&format!("{at}.port-file"), file, parse)?;
            NamedSet::Ports(Arc::new(Ranges::union(ports)))
        };
        if self.sets.insert(raw.name.clone(), set.clone()).is_some() {
            self.reject(
                &name_key,
                format_args!("\"{}\" again", raw.name),
                "each name once",
            );
        }
        Some(set)
    }

    /// The items of a file. It must be beside the lists or below: the running server may read nothing else.
    fn file<T>(
        &mut self,
        key: &str,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let relative = Path::new(name);
        let inside = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.is_empty() {
            let expected = "the name of a file in the directory of the access lists or below it";
            self.reject(key, format_args!("string {name:?}"), expected);
            return None;
        }
        let path = self.directory.join(relative);
        self.files.push(path.clone());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                self.reject(
                    key,
                    format_args!("{}: {error}", path.display()),
                    "a file that can be read",
                );
                return None;
            }
        };
        let mut items = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let item = line.split('#').next().unwrap_or_default().trim();
            if item.is_empty() {
                continue;
            }
            if self.too_many(key) {
                return None;
            }
            match parse(item) {
                Ok(item) => items.push(item),
                Err(expected) => {
                    let place = format!("{}:{number}", path.display());
                    let text = format!("found \"{item}\", expected {expected}");
                    self.problems.push(ConfigError::at(&place, text));
                }
            }
        }
        if items.is_empty() {
            let text = format_args!(
                "{} has no item: rules with this set match nothing",
                path.display()
            );
            self.note(key, text);
        }
        Some(items)
    }

    /// Counts an item; complains once when there are too many.
    fn too_many(&mut self, key: &str) -> bool {
        self.items += 1;
        if self.items == MAX_ITEMS + 1 {
            let expected = format!("at most {MAX_ITEMS} items in all sets together");
            self.reject(key, "more", expected);
        }
        self.items > MAX_ITEMS
    }

    fn items(&mut self, key: &str, raw: &[String]) -> Vec<Item> {
        let mut items = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            match Item::parse(text) {
                Ok(item) => items.push(item),
                Err(expected) => {
                    self.reject(
                        &format!("{key}[{index}]"),
                        format_args!("string \"{text}\""),
                        expected,
                    );
                }
            }
        }
        items
    }

    fn port_items(&mut self, key: &str, raw: &[TextOrNumber]) -> Vec<(u16, u16)> {
        let mut items = Vec::new();
        for (index, item) in raw.iter().enumerate() {
            items.extend(self.port_item(&format!("{key}[{index}]"), item));
        }
        items
    }

    fn port_item(&mut self, key: &str, item: &TextOrNumber) -> Option<(u16, u16)> {
        let (parsed, found) = match item {
            TextOrNumber::Text(text) => (parse_ports(text), format!("string \"{text}\"")),
            TextOrNumber::Number(number) => (
                u16::try_from(*number).ok().map(|port| (port, port)),
                format!("integer `{number}`"),
            ),
        };
        if parsed.is_none() {
            self.reject(key, found, A_PORT);
        }
        parsed
    }

    /// The set that an item such as `@servers` names.
    fn set_named(&mut self, key: &str, name: &str) -> Option<NamedSet> {
        let set = self.sets.get(name).cloned();
        if set.is_none() {
            self.reject(
                key,
                format_args!("string \"@{name}\""),
                "@ and the name of a [[set]] of this file",
            );
        }
        set
    }

    pub(super) fn addresses(&mut self, key: &str, raw: Option<&[String]>) -> Listed<Addresses> {
        let items = self.list(key, raw);
        if items.is_empty() {
            return Listed::Any;
        }
        let (mut plain, mut sets, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (index, text) in items.iter().enumerate() {
            let key = format!("{key}[{index}]");
            let Some(name) = text.strip_prefix('@') else {
                match Item::parse(text) {
                    Ok(item) => plain.push(item),
                    Err(expected) => self.reject(&key, format_args!("string \"{text}\""), expected),
                }
                continue;
            };
            match self.set_named(&key, name) {
                Some(NamedSet::Addresses(set)) => {
                    sets.push(set);
                    names.push(text.clone());
                }
                Some(NamedSet::Ports(_)) => {
                    self.reject(
                        &key,
                        format_args!("string \"{text}\", a set of ports"),
                        "a set of addresses",
                    );
                }
                None => {}
            }
        }
        let plain = Addresses::of(plain);
        let mut words = plain.words();
        names.sort_unstable();
        names.dedup();
        words.extend(names);
        let set = match &*sets {
            [only] if plain.is_empty() => Arc::clone(only),
            sets => Arc::new(sets.iter().fold(plain, |all, set| all.with(set))),
        };
        Listed::Of { set, words }
    }

    pub(super) fn ports(&mut self, key: &str, raw: Option<&[TextOrNumber]>) -> Listed<Ranges<u16>> {
        let items = self.list(key, raw);
        if items.is_empty() {
            return Listed::Any;
        }
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let name = match item {
                TextOrNumber::Text(text) => text.strip_prefix('@'),
                TextOrNumber::Number(_) => None,
            };
            let item_key = format!("{key}[{index}]");
            match name.map(|name| self.set_named(&item_key, name)) {
                Some(Some(NamedSet::Ports(set))) => {
                    names.push((item.to_string(), set));
                }
                Some(Some(NamedSet::Addresses(_))) => {
                    self.reject(
                        &item_key,
                        format_args!("string \"{item}\", a set of addresses"),
                        "a set of ports",
                    );
                }
                Some(None) => {}
                None => ports.extend(self.port_item(&item_key, item)),
            }
        }
        let plain = Ranges::union(ports);
        let mut words = port_words(&plain);
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        names.dedup_by(|a, b| a.0 == b.0);
        words.extend(names.iter().map(|(name, _)| name.clone()));
        let all = plain
            .iter()
            .chain(names.iter().flat_map(|(_, set)| set.iter()))
            .collect();
        Listed::Of {
            set: Arc::new(Ranges::union(all)),
            words,
        }
    }

    pub(super) fn programs(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Pattern> {
        self.patterns(key, raw, Pattern::path)
    }

    pub(super) fn hashes(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Hash> {
        let mut hashes = Vec::new();
        for (index, text) in self.list(key, raw).iter().enumerate() {
            if let Some(hash) = Hash::parse(text) {
                hashes.push(hash);
            } else {
                let expected = "64 hexadecimal digits, as sha256sum prints them";
                self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string {text:?}"),
                    expected,
                );
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    pub(super) fn systems(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Pattern> {
        self.patterns(key, raw, Pattern::os)
    }

    pub(super) fn devices(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Pattern> {
        self.patterns(key, raw, Pattern::device)
    }

    fn patterns(
        &mut self,
        key: &str,
        raw: Option<&[String]>,
        parse: impl Fn(&str) -> Result<Pattern, BadPattern>,
    ) -> Vec<Pattern> {
        let mut patterns: Vec<Pattern> = Vec::new();
        for (index, text) in self.list(key, raw).iter().enumerate() {
            let key = format!("{key}[{index}]");
            match parse(text) {
                Ok(_) if text.is_empty() => self.reject(&key, "an empty string", "a text or a pattern"),
                Ok(pattern) if patterns.contains(&pattern) => {}
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    self.reject(
                        &key,
                        format_args!("string {text:?}"),
                        format_args!("a pattern: {error}"),
                    );
                }
            }
        }
        patterns.sort_unstable_by(|a, b| a.text().cmp(b.text()));
        patterns
    }
}
