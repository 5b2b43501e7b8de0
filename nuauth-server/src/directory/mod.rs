//! Where users come from: back-ends in a configured order for three questions (is the password right? which id? which
//! groups?), and one answer, the engine's [`Identity`].
//!
//! "No" and "cannot say at the moment" are never mixed up. A back-end that hangs or lies costs the login that asked it
//! and nothing else: all but the users file are asked in processes of their own.

mod cache;
mod calls;
mod hasher;
mod helper;
mod known;
mod ldap;
mod remembered;
mod system;
mod wire;
mod worker;

pub use hasher::Hasher;
pub(crate) use helper::run as run_helper;
pub use helper::{Helper, Launch};
pub(crate) use known::Known;
pub(crate) use remembered::Remembered;
pub use wire::{LdapSettings, Settings, SystemSettings};
pub use worker::Kind;
pub(crate) use worker::run as run_worker;

use crate::auth::{Login, LoginError, Proof};
use crate::config::{Backend, Directories};
use crate::engine::Identity;
use crate::users::scram::ScramKeys;
use crate::users::{PasswordCheck, Users};
use cache::Cache;
pub use calls::Calls;
use nufw_common::clock;
use nufw_common::config::HexOrInt;
use nufw_proto::{Mark, SecretBytes, Text};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::{Ask, Found, Reply};
use zeroize::Zeroizing;

/// Most groups of one user, all back-ends together; one with more is refused, since a rule for the rest would not count.
pub const MAX_GROUPS: usize = 4096;

/// What a back-end says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Answer<T> {
    /// This.
    Known(T),
    /// There is no such user.
    Unknown,
    /// It does not answer, or its answer cannot be used: a sentence for the log.
    CannotSay(String),
}

/// Every back-end, with what a reload may change about them.
pub struct Directory {
    users: Arc<Users>,
    settings: Directories,
    mask: Mark,
    hasher: Arc<Hasher>,
    remote: Option<Calls>,
    cache: Mutex<Cache>,
    /// How long all questions of one login may take together.
    patience: Duration,
}

impl Directory {
    /// Puts back-ends together. `patience` must end before the client is given up.
    pub fn new(
        users: Arc<Users>,
        settings: Directories,
        mask: Mark,
        hasher: Arc<Hasher>,
        remote: Option<Calls>,
        patience: Duration,
    ) -> Self {
        Self {
            cache: Mutex::new(Cache::new(settings.cache_for, settings.cache_entries)),
            users,
            settings,
            mask,
            hasher,
            remote,
            patience,
        }
    }

    /// The one spelling of a name.
    pub(crate) fn name(&self, name: &str) -> Result<String, LoginError> {
        self.settings.names.apply(name).map_err(|why| LoginError::Name {
            name: Text::<255>::lossy(name).to_string(),
            why,
        })
    }

    /// What a user of the users file can log in with by SCRAM-SHA-256; no other back-end keeps such keys.
    pub(crate) fn scram(&self, name: &str) -> Option<ScramKeys> {
        let name = self.name(name).ok()?;
        let asks_file = self.settings.password.contains(&Backend::File);
        self.users.by_name(&name).filter(|_| asks_file)?.scram().cloned()
    }

    /// Finds out whether a login is true, and whose it is.
    pub async fn login(&self, login: Login) -> Result<Arc<Identity>, LoginError> {
        let name = login.name().to_owned();
        tokio::time::timeout(self.patience, self.verify(login))
            .await
            .unwrap_or_else(|_| {
                let why = "the back-ends took too long".to_owned();
                Err(LoginError::CannotSay { name, why })
            })
    }

    async fn verify(&self, login: Login) -> Result<Arc<Identity>, LoginError> {
        let Login { name, proof } = login;
        let is_certificate = matches!(proof, Proof::Certificate);
        let name = match proof {
            Proof::Password(password) => {
                let name = self.name(&name)?;
                self.password(&name, password).await?;
                name
            }
            Proof::Keys => self.name(&name)?,
            Proof::Certificate => {
                if let Some(user) = self.users.by_certificate(&name) {
                    user.name().to_string()
                } else {
                    let known = self.name(&name)?;
                    // A user of the file whose certificate is another one.
                    if self
                        .users
                        .by_name(&known)
                        .is_some_and(|user| user.certificate != known)
                    {
                        return Err(LoginError::UnknownCertificate(name));
                    }
                    known
                }
            }
        };
        match self.identify(&name, true).await {
            Answer::Known(identity) => Ok(identity),
            Answer::Unknown if is_certificate => Err(LoginError::UnknownCertificate(name)),
            Answer::Unknown => Err(LoginError::UnknownUser(name)),
            Answer::CannotSay(why) => Err(LoginError::CannotSay { name, why }),
        }
    }

    /// The first back-end that has a password of the user decides. One that cannot say whether it has one ends the login:
    /// whom it knows must not be let in by the password of a namesake.
    async fn password(&self, name: &str, password: Zeroizing<Vec<u8>>) -> Result<(), LoginError> {
        let mut in_file = false;
        for &backend in &self.settings.password {
            let reply = match backend {
                Backend::File => match self.file_password(name, &password).await {
                    Some(PasswordCheck::Right(_)) => Reply::Right,
                    Some(PasswordCheck::Wrong) => Reply::Wrong,
                    Some(PasswordCheck::NoPassword) => {
                        in_file = true;
                        Reply::Unknown
                    }
                    Some(PasswordCheck::Unknown) => Reply::Unknown,
                    None => Reply::CannotSay("the server is being stopped".to_owned()),
                },
                Backend::Ldap | Backend::System => match SecretBytes::new(password.to_vec()) {
                    Ok(password) => self.ask(backend, Ask::Password, name, Some(password)).await,
                    Err(_) => Reply::Wrong,
                },
            };
            match reply {
                Reply::Right => return Ok(()),
                Reply::Unknown => {}
                Reply::Wrong => return Err(LoginError::WrongPassword(name.to_owned())),
                reply => {
                    return Err(LoginError::CannotSay {
                        name: name.to_owned(),
                        why: because(backend, reply),
                    });
                }
            }
        }
        Err(if in_file {
            LoginError::NoPassword(name.to_owned())
        } else {
            LoginError::UnknownUser(name.to_owned())
        })
    }

    async fn file_password(&self, name: &str, password: &Zeroizing<Vec<u8>>) -> Option<PasswordCheck> {
        let (users, name, password) = (Arc::clone(&self.users), name.to_owned(), password.clone());
        self.hasher
            .run(move || users.check_password(&name, &password))
            .await
    }

    /// Who a user is. What was learnt less than `users.cache-for` ago counts where `cached`.
    pub async fn identify(&self, name: &str, cached: bool) -> Answer<Arc<Identity>> {
        let remembered = cached.then(|| self.cache().get(name, clock::mono())).flatten();
        if let Some(identity) = remembered {
            return Answer::Known(identity);
        }
        let found = match self.found(name).await {
            Answer::Known(found) => found,
            Answer::Unknown => return Answer::Unknown,
            Answer::CannotSay(why) => return Answer::CannotSay(why),
        };
        let groups = match self.groups(name).await {
            Ok(groups) => groups,
            Err(why) => return Answer::CannotSay(why),
        };
        let identity = match self.checked(name, &found, groups) {
            Ok(identity) => Arc::new(identity),
            Err(why) => return Answer::CannotSay(why),
        };
        match self.cache().put(&identity, clock::mono()) {
            Ok(()) => Answer::Known(identity),
            Err(other) => Answer::CannotSay(format!(
                "it has the id {} of user \"{other}\": give each user an id of its own",
                identity.user.id
            )),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Id and mark, from the first back-end that knows the user.
    async fn found(&self, name: &str) -> Answer<Found> {
        for &backend in &self.settings.identity {
            let reply = match backend {
                Backend::File => self.users.by_name(name).map_or(Reply::Unknown, |user| {
                    Reply::Found(Found {
                        id: user.identity.user.id,
                        mark: Some(user.identity.mark.0.into()),
                        names: vec![name.to_owned()],
                    })
                }),
                Backend::Ldap | Backend::System => self.ask(backend, Ask::Identity, name, None).await,
            };
            match reply {
                Reply::Found(found) if self.is_called(&found, name) => return Answer::Known(found),
                // Somebody whom the back-end takes for the user, and whose name is another one here.
                Reply::Found(_) | Reply::Unknown => {}
                reply => return Answer::CannotSay(because(backend, reply)),
            }
        }
        Answer::Unknown
    }

    fn is_called(&self, found: &Found, name: &str) -> bool {
        found
            .names
            .iter()
            .any(|called| self.settings.names.apply(called).as_deref() == Ok(name))
    }

    /// The groups that any back-end puts the user in, each once, in the order of the back-ends. All must answer: a group
    /// that is missing could allow as well as forbid.
    async fn groups(&self, name: &str) -> Result<Vec<Arc<str>>, String> {
        let mut all: Vec<Arc<str>> = Vec::new();
        for &backend in &self.settings.groups {
            let groups = match backend {
                Backend::File => {
                    let user = self.users.by_name(name);
                    user.map_or_else(Vec::new, |user| user.identity.groups.to_vec())
                }
                Backend::Ldap | Backend::System => match self.ask(backend, Ask::Groups, name, None).await {
                    Reply::Groups(names) => names.into_iter().map(Arc::from).collect(),
                    Reply::Unknown => Vec::new(),
                    reply => return Err(because(backend, reply)),
                },
            };
            for group in groups {
                if Text::<255>::new(&*group).is_err() || group.is_empty() {
                    return Err(format!(
                        "{}: a group's name is empty, too long or has control characters",
                        backend.name()
                    ));
                }
                if !all.contains(&group) {
                    all.push(group);
                }
            }
            if all.len() > MAX_GROUPS {
                return Err(format!(
                    "{}: it is in more than {MAX_GROUPS} groups",
                    backend.name()
                ));
            }
        }
        Ok(all)
    }

    /// What the engine and the log may rely on.
    fn checked(&self, name: &str, found: &Found, groups: Vec<Arc<str>>) -> Result<Identity, String> {
        let &Found { id, mark, .. } = found;
        if id == 0 {
            return Err("its id is 0, which is root's on every system".to_owned());
        }
        if i64::try_from(id).is_err() {
            return Err(format!("its id {id} is not below 2^63"));
        }
        let allowed = HexOrInt(self.mask.0);
        let wanted = mark
            .or_else(|| id.checked_sub(self.settings.mark_base))
            .unwrap_or(0);
        let fitting = u32::try_from(wanted)
            .ok()
            .filter(|mark| *mark != 0 && mark & !allowed.0 == 0);
        let Some(mark) = fitting else {
            return Err(format!(
                "its mark {wanted} (id {id}) is 0 or not within mark-mask {allowed}: see users.mark-base and users.ldap.mark"
            ));
        };
        let of_other = self.users.iter().find(|user| {
            let other = &user.identity;
            &*other.user.name != name && (other.user.id == id || other.mark.0 == mark)
        });
        if let Some(other) = of_other {
            return Err(format!(
                "its id {id} or mark {mark} is that of user \"{}\" of the users file",
                other.name()
            ));
        }
        Ok(Identity {
            user: nulog::User {
                id,
                name: Arc::from(name),
            },
            mark: Mark(mark),
            groups: groups.into(),
        })
    }

    async fn ask(
        &self,
        backend: Backend,
        ask: fn(String) -> Ask,
        name: &str,
        password: Option<SecretBytes>,
    ) -> Reply {
        match &self.remote {
            Some(calls) => calls.ask(backend, ask(name.to_owned()), password).await,
            None => Reply::CannotSay("its helper process does not run".to_owned()),
        }
    }
}

/// Why a back-end's reply is no answer.
fn because(backend: Backend, reply: Reply) -> String {
    let why = match reply {
        Reply::CannotSay(why) => why,
        _ => "it answers another question than it was asked".to_owned(),
    };
    format!("{}: {why}", backend.name())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
