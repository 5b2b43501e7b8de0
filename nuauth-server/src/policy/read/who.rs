//! Whom a rule is for: users, groups, and names that look like others.
//!
//! Names are compared byte for byte, as logins are after `SASLprep`: `Alice` is not `alice`, and a Cyrillic `а` is no Latin `a`.

use super::Reader;
use crate::policy::raw::{RawRule, RawWho, TextOrNumber};
use crate::policy::rule::{Named, Who};
use nufw_proto::Text;
use std::sync::Arc;

impl Reader<'_> {
    pub(super) fn who(&mut self, at: &str, raw: &RawRule) -> Who {
        let named = raw.users.is_some() || raw.groups.is_some();
        let who = match raw.who {
            None if named => {
                let mut named = Named::default();
                self.user_names(&format!("{at}.users"), raw.users.as_deref(), &mut named);
                self.group_names(&format!("{at}.groups"), raw.groups.as_deref(), &mut named);
                return Who::Named(named);
            }
            None | Some(RawWho::Authenticated) => Who::Authenticated,
            Some(RawWho::Nobody) => Who::Nobody,
            Some(RawWho::Anyone) => Who::Anyone,
        };
        let key = format!("{at}.who");
        if named {
            let expected = "either who, or users and groups";
            self.reject(&key, "users or groups beside it", expected);
        }
        if who == Who::Nobody {
            let claimed = [
                (raw.min_auth.is_some(), "min-auth"),
                (raw.programs.is_some(), "programs"),
                (raw.program_sha256.is_some(), "program-sha256"),
                (raw.os.is_some(), "os"),
            ];
            for (_, key) in claimed.into_iter().filter(|(is_there, _)| *is_there) {
                let expected =
                    "no such key with who = \"nobody\": it is the client that tells, and there is none";
                self.reject(&format!("{at}.{key}"), format_args!("\"{key}\""), expected);
            }
        }
        who
    }

    fn user_names(&mut self, key: &str, raw: Option<&[TextOrNumber]>, named: &mut Named) {
        for (index, user) in self.list(key, raw).iter().enumerate() {
            let key = format!("{key}[{index}]");
            match user {
                TextOrNumber::Number(id) => {
                    let Ok(id) = u64::try_from(*id) else {
                        self.reject(&key, format_args!("integer `{id}`"), "an id from 0 to 2^63 - 1");
                        continue;
                    };
                    let is_there = self.known_ids.contains(&id);
                    self.expect_user(
                        &key,
                        is_there,
                        format_args!("{id}"),
                        "the id of a user of the users file",
                    );
                    named.ids.push(id);
                }
                TextOrNumber::Text(name) => {
                    let is_there = self.users.by_name(name).is_some();
                    let mut expected = "the name of a user of the users file".to_owned();
                    if let Some(other) = self.other_case(name).filter(|_| !is_there) {
                        expected = format!("{expected}; there is \"{other}\", and case counts");
                    }
                    self.expect_user(&key, is_there, format_args!("\"{name}\""), &expected);
                    self.look_alike(&key, name);
                    named.names.push(Arc::from(name.as_str()));
                }
            }
        }
        named.ids.sort_unstable();
        named.ids.dedup();
        named.names.sort_unstable();
        named.names.dedup();
    }

    fn expect_user(&mut self, key: &str, is_there: bool, found: std::fmt::Arguments<'_>, expected: &str) {
        if is_there {
            return;
        }
        if self.all_known {
            self.reject(key, found, expected);
        } else {
            self.note(
                key,
                format_args!("{found} is not known, at least not before the first login"),
            );
        }
    }

    fn other_case(&self, name: &str) -> Option<String> {
        let folded = name.to_lowercase();
        let mut others = self.users.iter().map(|user| user.name().to_string());
        others.find(|other| other.to_lowercase() == folded)
    }

    /// A Latin name with letters of another alphabet among them is seldom meant.
    fn look_alike(&mut self, key: &str, name: &str) {
        let latin = name.chars().any(|c| c.is_ascii_alphabetic());
        // Greek, Cyrillic, Armenian.
        let other = name
            .chars()
            .find(|c| ('\u{370}'..='\u{58f}').contains(c) && c.is_alphabetic());
        if let Some(letter) = other.filter(|_| latin) {
            self.note(
                key,
                format_args!(
                    "\"{name}\" mixes alphabets: its U+{:04X} is not the Latin letter that it looks like",
                    u32::from(letter)
                ),
            );
        }
    }

    fn group_names(&mut self, key: &str, raw: Option<&[TextOrNumber]>, named: &mut Named) {
        for (index, group) in self.list(key, raw).iter().enumerate() {
            let key = format!("{key}[{index}]");
            // A group that has a number only is called by it.
            let name = group.to_string();
            // Groups of directories are not known before somebody logs in.
            if self.all_known && !self.known_groups.contains(name.as_str()) {
                self.note(&key, format_args!("nobody is in group \"{name}\""));
            }
            self.look_alike(&key, &name);
            let name: Arc<str> = Arc::from(name);
            let number = self.groups.number(&name);
            if !named.groups.iter().any(|(_, known)| *known == number) {
                named.groups.push((name, number));
            }
        }
        named.groups.sort_unstable();
    }

    pub(super) fn gateways(&mut self, key: &str, raw: Option<&[String]>) -> Vec<Arc<str>> {
        let mut gateways = Vec::new();
        for (index, name) in self.list(key, raw).iter().enumerate() {
            if name.is_empty() || Text::<64>::new(name.as_str()).is_err() {
                let expected = "the name of a gateway, as gateways.names of nuauth.toml has it";
                self.reject(
                    &format!("{key}[{index}]"),
                    format_args!("string {name:?}"),
                    expected,
                );
            }
            gateways.push(Arc::from(name.to_ascii_lowercase()));
        }
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    }
}
