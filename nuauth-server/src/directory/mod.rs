//! Where users come from: back-ends in a configured order for three questions (is the password right? which id? which
//! groups?), and one answer, the engine's [`Identity`].
//!
//! "No" and "cannot say at the moment" are never mixed up. A back-end that hangs or lies costs the login that asked it
//! and nothing else: all but the users file are asked in processes of their own.

mod again;
mod cache;
mod calls;
mod hasher;
mod helper;
mod kerberos;
mod known;
mod ldap;
mod line;
mod remembered;
mod sources;
mod system;
mod wire;
mod worker;

pub(crate) use again::{AskedAgain, ask_again, keep_asking};
pub use hasher::Hasher;
pub(crate) use helper::run as run_helper;
pub use helper::{Helper, Launch};
pub(crate) use known::Known;
pub(crate) use remembered::Remembered;
pub(crate) use sources::{Sources, helper};
pub use wire::{KerberosSettings, LdapSettings, Settings, SystemSettings};
pub use worker::Kind;
pub(crate) use worker::run as run_worker;

use crate::auth::{Locked, Login, LoginError, Proof};
use crate::config::{Backend, Directories};
use crate::engine::Identity;
use crate::tickets;
use crate::users::scram::ScramKeys;
use crate::users::{PasswordCheck, Users};
use cache::Cache;
pub use calls::Calls;
use line::{Busy, Line};
use nufw_common::clock;
use nufw_common::config::HexOrInt;
use nufw_proto::{LoginBytes, Mark, Text};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::{Ask, Found, Reply};
use zeroize::Zeroizing;

/// Most groups of one user, all back-ends together; one with more is refused, since a rule for the rest would not count.
pub const MAX_GROUPS: usize = 4096;

/// How long a login waits to hear what its tickets are to be bound to.
const SOON: Duration = Duration::from_millis(500);
const TOO_LONG: &str = "the back-ends took too long";

/// Whether somebody has failed too often; asked right before a password is looked at.
pub type MayTry = Arc<dyn Fn() -> Result<(), Locked> + Send + Sync>;

/// Who is asked about how many passwords at one time. The others wait here, where it is seen who has failed meanwhile, for at
/// most half of what a login has: the other half is for the answer.
struct Lines {
    file: Line,
    ldap: Line,
    system: Line,
    kerberos: Line,
}

impl Lines {
    fn new(settings: &Directories, threads: usize, patience: Duration) -> Self {
        let ldap = settings.ldap.as_ref().map_or(1, |ldap| ldap.settings.connections);
        let system = settings
            .system
            .as_ref()
            .map_or(1, |system| system.settings.processes);
        let line = |at_once| Line::new(at_once, patience / 2);
        Self {
            file: line(threads),
            ldap: line(ldap),
            system: line(system),
            kerberos: line(1),
        }
    }

    fn of(&self, backend: Backend) -> &Line {
        match backend {
            Backend::File => &self.file,
            Backend::Ldap => &self.ldap,
            Backend::System => &self.system,
        }
    }
}

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

/// A Kerberos token that was accepted.
pub struct Accepted {
    /// The name of its principal.
    pub user: String,
    /// By what the server proves itself to the client.
    pub answer: Vec<u8>,
}

/// Every back-end, with what a reload may change about them.
pub struct Directory {
    users: Arc<Users>,
    settings: Directories,
    mask: Mark,
    hasher: Arc<Hasher>,
    remote: Option<Calls>,
    cache: Mutex<Cache>,
    lines: Lines,
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
            lines: Lines::new(&settings, hasher.threads(), patience),
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

    /// Finds out whether a login is true, and whose it is. `may_try` is asked when its turn has come to be checked.
    pub async fn login(&self, login: Login, may_try: MayTry) -> Result<Arc<Identity>, LoginError> {
        let name = login.name().to_owned();
        tokio::time::timeout(self.patience, self.verify(login, may_try))
            .await
            .unwrap_or_else(|_| {
                let why = TOO_LONG.to_owned();
                Err(LoginError::CannotSay { name, why })
            })
    }

    async fn verify(&self, login: Login, may_try: MayTry) -> Result<Arc<Identity>, LoginError> {
        let Login { name, proof } = login;
        if !matches!(proof, Proof::Password(_)) {
            may_try().map_err(|locked| LoginError::Locked {
                name: name.clone(),
                locked,
            })?;
        }
        let is_certificate = matches!(proof, Proof::Certificate);
        let name = match proof {
            Proof::Password(password) => {
                let name = self.name(&name)?;
                self.password(&name, password, &may_try).await?;
                name
            }
            Proof::Conversation => self.name(&name)?,
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
    async fn password(
        &self,
        name: &str,
        password: Zeroizing<Vec<u8>>,
        may_try: &MayTry,
    ) -> Result<(), LoginError> {
        let locked = |locked| LoginError::Locked {
            name: name.to_owned(),
            locked,
        };
        let busy = |Busy| LoginError::Busy(name.to_owned());
        let mut in_file = false;
        for &backend in &self.settings.password {
            // Also before: whoever guesses must not take the places in the line from the others.
            may_try().map_err(locked)?;
            let _turn = self.lines.of(backend).turn().await.map_err(busy)?;
            let reply = match backend {
                Backend::File => match self.file_password(name, &password, may_try).await {
                    Some(Err(why)) => return Err(locked(why)),
                    Some(Ok(PasswordCheck::Right(_))) => Reply::Right,
                    Some(Ok(PasswordCheck::Wrong)) => Reply::Wrong,
                    Some(Ok(PasswordCheck::NoPassword)) => {
                        in_file = true;
                        Reply::Unknown
                    }
                    Some(Ok(PasswordCheck::Unknown)) => Reply::Unknown,
                    None => Reply::CannotSay("the server is being stopped".to_owned()),
                },
                Backend::Ldap | Backend::System => {
                    may_try().map_err(locked)?;
                    match LoginBytes::new(password.to_vec()) {
                        Ok(password) => self.ask(backend, Ask::Password, name, Some(password)).await,
                        Err(_) => Reply::Wrong,
                    }
                }
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

    /// Whose a Kerberos token is, that is bound to these bytes; and what the client is told in return.
    pub async fn accept_ticket(&self, token: LoginBytes, binding: Vec<u8>) -> Result<Accepted, LoginError> {
        tokio::time::timeout(self.patience, self.ticket_reply(token, binding))
            .await
            .unwrap_or_else(|_| Err(LoginError::TicketUnsaid(TOO_LONG.to_owned())))
    }

    async fn ticket_reply(&self, token: LoginBytes, binding: Vec<u8>) -> Result<Accepted, LoginError> {
        let unsaid = |why: &str| LoginError::TicketUnsaid(why.to_owned());
        let settings = self.settings.kerberos.as_ref();
        let settings = settings.ok_or_else(|| unsaid("there is no section users.kerberos"))?;
        let turn = self.lines.kerberos.turn().await;
        let _turn = turn.map_err(|Busy| LoginError::Busy("a Kerberos principal".to_owned()))?;
        match self.call(Kind::Kerberos, Ask::Ticket(binding), Some(token)).await {
            Reply::Principal(principal, answer) => match kerberos::user(&principal, &settings.realms) {
                Ok(user) => Ok(Accepted {
                    user: user.to_owned(),
                    answer,
                }),
                Err(why) => Err(LoginError::Principal {
                    principal: Text::<255>::lossy(&principal).to_string(),
                    why,
                }),
            },
            Reply::Refused(why) => Err(LoginError::Ticket(Text::<255>::lossy(&why).to_string())),
            reply => Err(unsaid(&Text::<255>::lossy(&unanswered(reply)))),
        }
    }

    async fn file_password(
        &self,
        name: &str,
        password: &Zeroizing<Vec<u8>>,
        may_try: &MayTry,
    ) -> Option<Result<PasswordCheck, Locked>> {
        let (users, name, password) = (Arc::clone(&self.users), name.to_owned(), password.clone());
        let may_try = Arc::clone(may_try);
        self.hasher
            .run(move || may_try().map(|()| users.check_password(&name, &password)))
            .await
    }

    /// Something that is another one when the user's password is, from whoever would be asked about the password. Nothing that
    /// was said before counts. `Unknown` where nobody tells.
    pub(crate) async fn credential(&self, name: &str) -> Answer<String> {
        for &backend in &self.settings.password {
            let said = match backend {
                Backend::File => match self.users.by_name(name).and_then(|user| user.credential()) {
                    Some(credential) => Reply::Credential(Some(credential)),
                    None => Reply::Unknown,
                },
                Backend::Ldap => self.ask(backend, Ask::Credential, name, None).await,
                Backend::System => Reply::Credential(None),
            };
            match said {
                Reply::Credential(Some(said)) => {
                    let with_source = format!("{} {said}", backend.name());
                    return Answer::Known(tickets::digest(with_source.as_bytes()));
                }
                Reply::Credential(None) => return Answer::Unknown,
                Reply::Unknown => {}
                reply => return Answer::CannotSay(because(backend, reply)),
            }
        }
        Answer::Unknown
    }

    /// The same within the time that a login has left when its password was right.
    pub(crate) async fn credential_soon(&self, name: &str) -> Answer<String> {
        tokio::time::timeout(SOON, self.credential(name))
            .await
            .unwrap_or_else(|_| Answer::CannotSay(TOO_LONG.to_owned()))
    }

    /// The same with who the user is, for somebody who comes back.
    pub(crate) async fn again(&self, name: &str) -> Answer<(String, Arc<Identity>)> {
        let both = async {
            let credential = match self.credential(name).await {
                Answer::Known(credential) => credential,
                Answer::Unknown => return Answer::Unknown,
                Answer::CannotSay(why) => return Answer::CannotSay(why),
            };
            match self.identify(name, true).await {
                Answer::Known(identity) => Answer::Known((credential, identity)),
                Answer::Unknown => Answer::Unknown,
                Answer::CannotSay(why) => Answer::CannotSay(why),
            }
        };
        tokio::time::timeout(self.patience, both)
            .await
            .unwrap_or_else(|_| Answer::CannotSay(TOO_LONG.to_owned()))
    }

    /// How long after the last time everybody who has logged in is asked about again, if at all.
    pub(crate) fn ask_again_after(&self) -> Option<Duration> {
        Some(self.settings.ask_again).filter(|time| !time.is_zero())
    }

    /// Forgets what back-ends said: everybody is asked about anew. Gives of how many users something was known.
    pub(crate) fn forget(&self) -> usize {
        self.cache().clear()
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
        if let Some(other) = self.users.other_with(name, id, Mark(mark)) {
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
        password: Option<LoginBytes>,
    ) -> Reply {
        match backend.worker() {
            Some(kind) => self.call(kind, ask(name.to_owned()), password).await,
            None => Reply::CannotSay("the users file is the server's own".to_owned()),
        }
    }

    async fn call(&self, kind: Kind, ask: Ask, secret: Option<LoginBytes>) -> Reply {
        match &self.remote {
            Some(calls) => calls.ask(kind, ask, secret).await,
            None => Reply::CannotSay("its helper process does not run".to_owned()),
        }
    }
}

/// Why a back-end's reply is no answer.
fn because(backend: Backend, reply: Reply) -> String {
    format!("{}: {}", backend.name(), unanswered(reply))
}

/// The same without whose it is.
fn unanswered(reply: Reply) -> String {
    match reply {
        Reply::CannotSay(why) => why,
        _ => "it answers another question than it was asked".to_owned(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
