//! Logging in at the clients' port: which mechanisms are offered, one message or several, and how often somebody may try.
//!
//! Whether it is true, `directory` says; this asks, counts, and tells the log.

use super::{Admission, ClientPort, Peer, refused};
use crate::auth::scram::{Conversation, Keys, Step};
use crate::auth::{self, FailureLimiter, LoginError};
use crate::config::Mechanism;
use crate::directory::Directory;
use crate::engine::{Identity, SessionFacts};
use crate::hub::{Event, WAITING_FOR_PEER};
use crate::port::Cause;
use crate::users::scram::{KEY, ScramKeys};
use nufw_common::clock;
use nufw_proto::client::{Capabilities, Challenge, Hello, Login, Refusal, ToClient, ToServer, Welcome};
use nufw_proto::{Addr, Batch, MAX_BODY, SecretBytes, SessionId, Text};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// What this side can do beyond the first version of the protocol.
const OFFERED: Capabilities = Capabilities::CONVERSATION;

impl ClientPort {
    pub(super) async fn login(&self, peer: &mut Peer, hello: Hello) -> Result<Option<Admission>, String> {
        let directory = self.directory.load_full();
        let converses = hello.capabilities.has(Capabilities::CONVERSATION);
        let is_offered = |mechanism: &Mechanism| match mechanism {
            Mechanism::External => peer.certificate.is_some(),
            Mechanism::Plain => true,
            Mechanism::Scram => converses,
            Mechanism::ScramPlus => converses && peer.exported.is_some(),
        };
        let offered: Vec<Mechanism> = self.mechanisms.iter().copied().filter(is_offered).collect();
        let names: Vec<_> = offered
            .iter()
            .map(|mechanism| Text::lossy(mechanism.name()))
            .collect();
        let welcome = ToClient::Welcome(Welcome {
            software: Text::lossy(concat!("nuauth-server ", env!("CARGO_PKG_VERSION"))),
            capabilities: OFFERED,
            mechanisms: Batch::try_from(names).unwrap_or_default(),
        });
        peer.say(&welcome).await?;
        let ToServer::Login(login) = peer.next().await? else {
            return Err("the peer's second message was not a login".to_owned());
        };
        let mechanism = Mechanism::parse(&login.mechanism).filter(|mechanism| offered.contains(mechanism));
        let authenticated = match mechanism {
            None => Err(Refusal::Mechanism),
            Some(mechanism) if mechanism.is_scram() => {
                let is_bound = offered.contains(&Mechanism::ScramPlus);
                self.converse_login(peer, mechanism, is_bound, &login, &directory)
                    .await?
            }
            Some(_) => self.authenticate(peer, &login, &directory).await,
        };
        let identity = match authenticated {
            Ok(identity) => identity,
            Err(cause) => {
                peer.part(&refused(cause)).await;
                return Ok(None);
            }
        };
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (out, instructions) = mpsc::channel(WAITING_FOR_PEER);
        let facts = SessionFacts {
            identity,
            address: Addr::from(peer.address.ip()),
            os: hello.os,
        };
        let user = Arc::clone(&facts.identity.user.name);
        let _ = self.hub.send(Event::SessionUp { session, facts, out }).await;
        peer.reader.set_limit(MAX_BODY);
        Ok(Some(Admission {
            session,
            user,
            instructions,
        }))
    }

    /// Checks a login of one message.
    async fn authenticate(
        &self,
        peer: &Peer,
        login: &Login,
        directory: &Directory,
    ) -> Result<Arc<Identity>, Refusal> {
        let parsed = auth::Login::parse(
            &login.mechanism,
            login.response.expose(),
            peer.certificate.as_deref(),
        );
        match parsed {
            Ok(login) => self.check(peer, login, directory).await,
            Err(error) => Err(self.failed(peer, None, &error)),
        }
    }

    /// A login of several messages. What breaks the protocol is an error, as everywhere.
    async fn converse_login(
        &self,
        peer: &mut Peer,
        mechanism: Mechanism,
        is_bound: bool,
        login: &Login,
        directory: &Arc<Directory>,
    ) -> Result<Result<Arc<Identity>, Refusal>, String> {
        let keys = Arc::new(FileKeys {
            directory: Arc::clone(directory),
            secret: self.scram_secret,
        });
        let exported = peer.exported.unwrap_or_default();
        let mut conversation = match Conversation::begin(mechanism, is_bound, exported, keys) {
            Ok(conversation) => conversation,
            Err(error) => return Ok(Err(self.failed(peer, None, &error))),
        };
        let mut response = login.response.clone();
        loop {
            let step = conversation.step(response.expose());
            // All spellings of a name count together.
            let name = conversation
                .name()
                .map(|name| directory.name(&name).unwrap_or(name));
            if let Some(name) = &name
                && let Err(refusal) = self.may_try(peer, name)
            {
                return Ok(Err(refusal));
            }
            let (said, is_proven) = match step {
                Ok(Step::Challenge(said)) => (said, false),
                Ok(Step::Proven(said)) => (said, true),
                Ok(Step::Wrong) => {
                    let error = LoginError::WrongPassword(name.clone().unwrap_or_default());
                    return Ok(Err(self.failed(peer, name.as_deref(), &error)));
                }
                Err(error) => return Ok(Err(self.failed(peer, name.as_deref(), &error))),
            };
            let challenge = SecretBytes::new(said).map_err(|error| error.to_string())?;
            peer.say(&ToClient::Challenge(Challenge { challenge })).await?;
            let ToServer::Respond(next) = peer.next().await? else {
                return Err("the peer did not go on with its login".to_owned());
            };
            response = next.response;
            if let (true, Some(name)) = (is_proven, name) {
                return Ok(self.check(peer, auth::Login::proven(name), directory).await);
            }
        }
    }

    /// Finds out whether a login is true, bounded in rate.
    async fn check(
        &self,
        peer: &Peer,
        login: auth::Login,
        directory: &Directory,
    ) -> Result<Arc<Identity>, Refusal> {
        // All spellings of a name count together.
        let name = directory
            .name(login.name())
            .unwrap_or_else(|_| login.name().to_owned());
        self.may_try(peer, &name)?;
        match directory.login(login).await {
            Ok(identity) => {
                self.failures().succeeded(&name);
                self.known.learn(&identity);
                Ok(identity)
            }
            Err(error) => Err(self.failed(peer, Some(&name), &error)),
        }
    }

    fn failures(&self) -> MutexGuard<'_, FailureLimiter> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody may try to log in at this moment.
    fn may_try(&self, peer: &Peer, name: &str) -> Result<(), Refusal> {
        let source = Addr::from(peer.address.ip());
        let locked = self.failures().check(clock::mono(), source, name);
        locked.map_err(|locked| {
            let what = format!("login of {name:?} not even looked at: {locked}");
            self.complaints.tell("clients", peer.address, Cause::Login, &what);
            Refusal::TooManyFailures
        })
    }

    /// Tells the log why a login failed, and counts it against its source and name where the credentials were wrong.
    fn failed(&self, peer: &Peer, name: Option<&str>, error: &LoginError) -> Refusal {
        let what = format!("login failed: {error}");
        self.complaints.tell("clients", peer.address, Cause::Login, &what);
        let refusal = error.refusal();
        if let (Some(name), Refusal::Credentials) = (name, refusal) {
            let source = Addr::from(peer.address.ip());
            self.failures().failed(clock::mono(), source, name);
        }
        refusal
    }
}

/// Keys of the users file, where it is asked for passwords.
struct FileKeys {
    directory: Arc<Directory>,
    secret: [u8; KEY],
}

impl Keys for FileKeys {
    fn of(&self, name: &str) -> Option<ScramKeys> {
        self.directory.scram(name)
    }

    fn secret(&self) -> &[u8; KEY] {
        &self.secret
    }
}
