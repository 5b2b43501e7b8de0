//! The users: names, numbers, groups, password hashes, certificates, from one TOML file.
//!
//! Read whole and replaced whole; nothing here changes a user. What a user may do is the policy's business.

mod hash;
pub mod name;
pub(crate) mod scram;

use crate::engine::Identity;
use argon2::Params;
use hash::Hash;
use name::NameRules;
use nufw_common::config::{ConfigError, HexOrInt, Loader, Origins, Problems, Tried};
use nufw_proto::{Mark, Text};
use scram::ScramKeys;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Salt and hash of nobody's password: what an unknown user's attempt is compared with.
const NOBODY: &str = "bm9ib2R5J3Mgc2FsdA$Z9x3G7q2mVx0Zr1fB8sP4tLwYk6uJc5hQe0aDnRoTiU";

/// One user.
#[derive(Debug, Clone)]
pub struct User {
    /// Name, id, mark and groups, as the engine knows them.
    pub identity: Arc<Identity>,
    /// The common name of the certificate that logs the user in by EXTERNAL.
    pub certificate: String,
    password: Option<Hash>,
    scram: Option<ScramKeys>,
}

/// Every user.
#[derive(Debug, Clone)]
pub struct Users {
    by_name: HashMap<Arc<str>, Arc<User>>,
    by_certificate: HashMap<String, Arc<User>>,
    by_id: HashMap<u64, Arc<User>>,
    by_mark: HashMap<Mark, Arc<User>>,
    nobody: Option<Hash>,
}

impl User {
    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.identity.user.name
    }

    /// What a password is compared with: changes when the password does.
    pub fn credential(&self) -> Option<String> {
        let password = self.password.as_ref().map(ToString::to_string);
        let scram = self.scram.as_ref().map(ToString::to_string);
        match (password, scram) {
            (None, None) => None,
            (password, scram) => Some(format!(
                "{} {}",
                password.unwrap_or_default(),
                scram.unwrap_or_default()
            )),
        }
    }

    /// Whether a password can log the user in.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// What the user can log in with by SCRAM-SHA-256.
    pub(crate) fn scram(&self) -> Option<&ScramKeys> {
        self.scram.as_ref()
    }

    /// The kind of the password's hash, where it is too weak to be kept.
    pub fn weakness(&self) -> Option<&'static str> {
        self.password.as_ref().and_then(Hash::weakness)
    }
}

impl Users {
    /// Reads the file; `mask` is the bits that a mark may have. Names are as the usual rules want them.
    pub fn load(path: &Path, mask: Mark) -> Result<Self, ConfigError> {
        Self::load_with(path, mask, &NameRules::default())
    }

    /// The same with rules for names.
    pub fn load_with(path: &Path, mask: Mark, rules: &NameRules) -> Result<Self, ConfigError> {
        let loaded = Loader::new("users").file(path, true).load::<RawUsers>()?;
        let mut reader = Reader {
            origins: &loaded.origins,
            mask,
            rules,
            problems: Problems::default(),
            names: HashSet::new(),
            looks: HashMap::new(),
            ids: HashMap::new(),
            marks: HashMap::new(),
            certificates: HashMap::new(),
        };
        let mut users = Vec::new();
        for (index, raw) in loaded.value.user.into_iter().enumerate() {
            if let Some(raw) = reader.problems.take(raw.0) {
                users.push(reader.user(&format!("user[{index}]"), raw));
            }
        }
        reader.problems.finish(())?;
        Ok(Self::new(&users))
    }

    fn new(users: &[Arc<User>]) -> Self {
        let costliest = users
            .iter()
            .filter_map(|user| user.password.as_ref()?.argon2_params())
            .max_by_key(|params| u64::from(params.m_cost()) * u64::from(params.t_cost()))
            .unwrap_or_default();
        Self {
            by_name: by(users, |user| Arc::clone(user.name())),
            by_certificate: by(users, |user| user.certificate.clone()),
            by_id: by(users, |user| user.identity.user.id),
            by_mark: by(users, |user| user.identity.mark),
            nobody: nobody(&costliest),
        }
    }

    /// The user of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user whom a certificate with that common name logs in.
    pub fn by_certificate(&self, common_name: &str) -> Option<&Arc<User>> {
        self.by_certificate.get(common_name)
    }

    /// A user of another name that has this id or this mark.
    pub fn other_with(&self, name: &str, id: u64, mark: Mark) -> Option<&Arc<User>> {
        let with_id = self.by_id.get(&id).into_iter();
        with_id
            .chain(self.by_mark.get(&mark))
            .find(|user| &**user.name() != name)
    }

    /// Every user, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every group that somebody is in.
    pub fn groups(&self) -> BTreeSet<&str> {
        self.iter()
            .flat_map(|user| user.identity.groups.iter().map(AsRef::as_ref))
            .collect()
    }

    /// Their names, by id.
    pub fn names(&self) -> HashMap<u64, Arc<str>> {
        self.iter()
            .map(|user| (user.identity.user.id, Arc::clone(user.name())))
            .collect()
    }

    /// What the engine needs to know, by name.
    pub fn identities(&self) -> HashMap<Arc<str>, Arc<Identity>> {
        self.by_name
            .iter()
            .map(|(name, user)| (Arc::clone(name), Arc::clone(&user.identity)))
            .collect()
    }

    /// Those whose password's hash is too weak to be kept, with its kind, by name.
    pub fn weak(&self) -> Vec<(&Arc<str>, &'static str)> {
        let mut weak: Vec<_> = self
            .iter()
            .filter_map(|user| Some((user.name(), user.weakness()?)))
            .collect();
        weak.sort_unstable();
        weak
    }

    /// Checks a password; expensive on purpose, so never on a thread that has something else to do.
    ///
    /// An unknown name, a user without password, and one whose hash is none of argon2id, cost what the costliest user
    /// costs: the time says nothing of who exists.
    pub fn check_password(&self, name: &str, password: &[u8]) -> PasswordCheck {
        let user = self.by_name(name);
        let hash = user.and_then(|user| user.password.as_ref());
        let matches = hash.is_some_and(|hash| hash.verify(password));
        if hash.is_none_or(|hash| hash.argon2_params().is_none()) {
            let _ = self.nobody.as_ref().is_some_and(|nobody| nobody.verify(password));
        }
        match (user, hash, matches) {
            (Some(user), Some(_), true) => PasswordCheck::Right(Arc::clone(user)),
            (Some(_), Some(_), false) => PasswordCheck::Wrong,
            (Some(_), None, _) => PasswordCheck::NoPassword,
            (None, ..) => PasswordCheck::Unknown,
        }
    }
}

/// What a password check found. Only the log may tell the last three apart.
#[derive(Debug, Clone)]
#[must_use]
pub enum PasswordCheck {
    /// The password is the user's.
    Right(Arc<User>),
    /// It is not.
    Wrong,
    /// The user has none.
    NoPassword,
    /// There is no such user.
    Unknown,
}

fn by<K: Eq + std::hash::Hash>(users: &[Arc<User>], key: impl Fn(&User) -> K) -> HashMap<K, Arc<User>> {
    users.iter().map(|user| (key(user), Arc::clone(user))).collect()
}

fn nobody(params: &Params) -> Option<Hash> {
    let text = format!(
        "$argon2id$v=19$m={},t={},p={}${NOBODY}",
        params.m_cost(),
        params.t_cost(),
        params.p_cost()
    );
    Hash::parse(&text).ok()
}

#[derive(Deserialize)]
struct RawUsers {
    #[serde(default)]
    user: Vec<Tried<RawUser>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawUser {
    name: String,
    id: u64,
    mark: Option<HexOrInt>,
    #[serde(default)]
    groups: Vec<String>,
    password: Option<Unshown>,
    scram: Option<Unshown>,
    certificate: Option<String>,
}

/// A string that no error message may repeat: somebody may have put the password itself there.
struct Unshown(String);

impl<'de> Deserialize<'de> for Unshown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Quiet;

        impl Visitor<'_> for Quiet {
            type Value = Unshown;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Unshown, E> {
                Ok(Unshown(text.to_owned()))
            }

            // Integers and the like: not a hash either way, and refused as one.
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Unshown, E> {
                Ok(Unshown(String::new()))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Unshown, E> {
                Ok(Unshown(String::new()))
            }
        }

        deserializer.deserialize_any(Quiet)
    }
}

struct Reader<'a> {
    origins: &'a Origins,
    mask: Mark,
    rules: &'a NameRules,
    problems: Problems,
    names: HashSet<String>,
    /// Names by what they look like.
    looks: HashMap<String, String>,
    ids: HashMap<u64, String>,
    marks: HashMap<u32, String>,
    certificates: HashMap<String, String>,
}

impl Reader<'_> {
    /// With a problem the user is not fit for use, and [`Users::load`] fails.
    fn user(&mut self, at: &str, raw: RawUser) -> Arc<User> {
        self.name(&format!("{at}.name"), &raw.name);
        let name = raw.name.as_str();
        let id_key = format!("{at}.id");
        if raw.id == 0 {
            self.reject(&id_key, 0, "an id other than 0, which is root's on every system");
        } else if i64::try_from(raw.id).is_err() {
            self.reject(&id_key, raw.id, "an id below 2^63");
        } else if let Some(other) = self.ids.insert(raw.id, name.to_owned()) {
            self.reject(
                &id_key,
                format_args!("{}, the id of user {other}", raw.id),
                "an id of its own",
            );
        }
        let mark = self.mark(at, name, &raw);
        let groups = self.groups(at, &raw.groups);
        let password = raw.password.and_then(|text| {
            let key = format!("{at}.password");
            Hash::parse(&text.0)
                .map_err(|(found, expected)| self.reject(&key, found, expected))
                .ok()
        });
        let scram = raw.scram.and_then(|text| {
            let key = format!("{at}.scram");
            ScramKeys::parse(&text.0)
                .map_err(|(found, expected)| self.reject(&key, found, expected))
                .ok()
        });
        let certificate = raw.certificate.unwrap_or_else(|| raw.name.clone());
        if let Some(other) = self.certificates.insert(certificate.clone(), name.to_owned()) {
            self.reject(
                &format!("{at}.certificate"),
                format_args!("\"{certificate}\", the certificate of user {other}"),
                "a common name of its own",
            );
        }
        Arc::new(User {
            identity: Arc::new(Identity {
                user: nulog::User {
                    id: raw.id,
                    name: Arc::from(name),
                },
                mark,
                groups: groups.into(),
            }),
            certificate,
            password,
            scram,
        })
    }

    fn reject(&mut self, key: &str, found: impl fmt::Display, expected: impl fmt::Display) {
        self.problems.push(self.origins.reject(key, found, expected));
    }

    fn name(&mut self, key: &str, name: &str) {
        if name.is_empty() || Text::<255>::new(name).is_err() {
            self.reject(
                key,
                format_args!("string {name:?}"),
                "a name of 1 to 255 bytes without control characters",
            );
        } else if crate::auth::prepared_name(name).as_deref() != Some(name) {
            self.reject(
                key,
                format_args!("string \"{name}\""),
                "a name that SASLprep (RFC 4013) leaves as it is; no login could match this one",
            );
        } else if let Some((found, expected)) = self.misspelt(name) {
            self.reject(key, found, expected);
        } else if !self.names.insert(name.to_owned()) {
            self.reject(key, format_args!("\"{name}\" again"), "each name once");
        } else if let Some(other) = self
            .looks
            .insert(name::looks(name), name.to_owned())
            // Between ASCII letters people tell by themselves: there have always been user1 and userl.
            .filter(|other| !(name.is_ascii() && other.is_ascii()))
        {
            self.reject(
                key,
                format_args!("\"{name}\", which people take for \"{other}\""),
                "a name that looks like no other",
            );
        }
    }

    /// What is wrong with a name that no login could match.
    fn misspelt(&self, name: &str) -> Option<(String, String)> {
        let found = format!("string \"{name}\"");
        match self.rules.apply(name) {
            Ok(known) if known == name => None,
            Ok(known) => Some((found, format!("\"{known}\", as it is known here"))),
            Err(error) => Some((
                format!("{found}: {error}"),
                "a name that somebody can log in with".to_owned(),
            )),
        }
    }

    fn mark(&mut self, at: &str, name: &str, raw: &RawUser) -> Mark {
        let allowed = HexOrInt(self.mask.0);
        let wanted = raw.mark.map_or(raw.id, |mark| u64::from(mark.0));
        // Without a mark of its own the id is the mark, and the id's line is where it is set.
        let (key, what) = if raw.mark.is_some() {
            (format!("{at}.mark"), "")
        } else {
            (format!("{at}.id"), ", which is also the mark")
        };
        let fitting = u32::try_from(wanted).ok().filter(|mark| mark & !allowed.0 == 0);
        let Some(mark) = fitting else {
            let expected = format!("a mark within mark-mask {allowed}; give the user a mark of its own");
            self.reject(&key, format_args!("{wanted}{what}"), expected);
            return Mark(0);
        };
        if mark == 0 {
            let expected = "a mark other than 0, which stands for packets of nobody";
            self.reject(&key, format_args!("0{what}"), expected);
        } else if let Some(other) = self.marks.insert(mark, name.to_owned()) {
            self.reject(
                &key,
                format_args!("{mark}{what}, the mark of user {other}"),
                "a mark of its own",
            );
        }
        Mark(mark)
    }

    fn groups(&mut self, at: &str, raw: &[String]) -> Vec<Arc<str>> {
        let mut groups: Vec<Arc<str>> = Vec::new();
        for (index, group) in raw.iter().enumerate() {
            let key = format!("{at}.groups[{index}]");
            if group.is_empty() || Text::<255>::new(group.as_str()).is_err() {
                let expected = "a name of 1 to 255 bytes without control characters";
                self.reject(&key, format_args!("string {group:?}"), expected);
            } else if groups.iter().any(|known| **known == **group) {
                self.reject(&key, format_args!("\"{group}\" again"), "each group once");
            } else {
                groups.push(Arc::from(group.as_str()));
            }
        }
        groups
    }
}

#[cfg(test)]
#[path = "users_tests.rs"]
pub(crate) mod tests;
