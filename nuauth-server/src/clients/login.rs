//! Logging in at the clients' port: which mechanisms are offered, one message or several, tickets, and how often somebody may try.
//!
//! Whether it is true, `directory` and `tickets` say; this asks, counts, and tells the log.

use super::voice::{TicketSource, refused};
use super::{Admission, ClientPort, Peer};
use crate::auth::scram::{Conversation, Exported, Keys, Step};
use crate::auth::{self, Locked, LoginError};
use crate::config::Mechanism;
use crate::directory::{Answer, Directory};
use crate::engine::{Identity, Quality, SessionFacts};
use crate::hub::{Event, WAITING_FOR_PEER};
use crate::port::Cause;
use crate::tickets::{Facts, TicketError};
use crate::users::scram::{KEY, ScramKeys};
use nufw_common::clock;
use nufw_proto::client::{
    CONVERSATION, Capabilities, Challenge, Hello, Login, PROGRAM_HASHES, REASONS, REFUSALS, Refusal, Resume,
    TICKETS, ToClient, ToServer, Welcome,
};
use nufw_proto::{Addr, Batch, LoginBytes, MAX_BODY, MAX_TICKET_BODY, SecretBytes, SessionId, Text};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// What a connection can log in by.
#[derive(Clone)]
pub(super) struct Means {
    /// The mechanisms that it was offered.
    pub(super) offered: Vec<Mechanism>,
    /// The name of its certificate that is to be a user's.
    pub(super) certificate: Option<String>,
    /// What binds a login to it.
    pub(super) exported: Exported,
}

impl Means {
    /// The mechanism of that name, if it was offered.
    fn mechanism(&self, name: &str) -> Option<Mechanism> {
        Mechanism::parse(name).filter(|mechanism| self.offered.contains(mechanism))
    }
}

/// The other side of a login of several messages.
pub(super) trait Talk {
    /// Says this and hears the answer. What breaks the protocol is an error.
    async fn ask(&mut self, challenge: Challenge) -> Result<LoginBytes, String>;
}

impl Talk for Peer {
    async fn ask(&mut self, challenge: Challenge) -> Result<LoginBytes, String> {
        self.say(&ToClient::Challenge(challenge)).await?;
        match self.next().await? {
            ToServer::Respond(next) => Ok(next.response),
            _ => Err("the peer did not go on with its login".to_owned()),
        }
    }
}

impl ClientPort {
    pub(super) async fn login(&self, peer: &mut Peer, hello: Hello) -> Result<Option<Admission>, String> {
        let means = self.means(peer, hello.capabilities);
        let names: Vec<_> = means
            .offered
            .iter()
            .map(|mechanism| Text::lossy(mechanism.name()))
            .collect();
        let tickets = self.tickets.as_ref().map_or(Capabilities::default(), |_| TICKETS);
        let refusals = if self.tells_refusals {
            REFUSALS
        } else {
            Capabilities::default()
        };
        let capabilities = PROGRAM_HASHES
            .and(REASONS)
            .and(CONVERSATION)
            .and(tickets)
            .and(refusals);
        let welcome = ToClient::Welcome(Welcome {
            software: Text::lossy(concat!("nuauth-server ", env!("CARGO_PKG_VERSION"))),
            capabilities,
            mechanisms: Batch::try_from(names).unwrap_or_default(),
        });
        peer.say(&welcome).await?;
        if means.offered.contains(&Mechanism::Kerberos) {
            peer.reader.set_limit(MAX_TICKET_BODY);
        }
        let agreed = hello.capabilities.common(capabilities);
        let directory = self.directory.load_full();
        let shown = match peer.next().await? {
            ToServer::Login(login) => {
                let address = peer.address;
                match self.prove(address, peer, &means, &login, &directory).await? {
                    Ok(login) => self.check(address, login, &directory).await,
                    Err(refusal) => Err(refusal),
                }
                .map(|identity| Shown::now(identity, &login))
            }
            ToServer::Resume(resume) if agreed.has(TICKETS) => self.resume(peer, &resume, &directory).await,
            _ => return Err("the peer's second message was not a login".to_owned()),
        };
        let shown = match shown {
            Ok(shown) => shown,
            Err(cause) => {
                peer.part(&refused(cause, agreed)).await;
                return Ok(None);
            }
        };
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (out, instructions) = mpsc::channel(WAITING_FOR_PEER);
        let user = Arc::clone(&shown.identity.user.name);
        let id = shown.identity.user.id;
        let (by, at) = (shown.by, shown.at);
        let ticket = if agreed.has(TICKETS) {
            self.ticket_source(peer, session, &shown, &directory).await
        } else {
            None
        };
        let facts = SessionFacts {
            quality: shown.quality,
            age: Duration::from_micros(
                u64::try_from(clock::wall().micros().saturating_sub(at)).unwrap_or_default(),
            ),
            renewable: agreed.has(REASONS),
            hashes: agreed.has(PROGRAM_HASHES),
            hears_refusals: agreed.has(REFUSALS),
            replaces: shown.replaces,
            ..SessionFacts::new(shown.identity, Addr::from(peer.address.ip()), hello.os)
        };
        let _ = self.hub.send(Event::SessionUp { session, facts, out }).await;
        peer.reader.set_limit(MAX_BODY);
        peer.writer.set_kept(0);
        Ok(Some(Admission {
            session,
            user,
            id,
            by,
            agreed,
            ticket,
            means,
            instructions,
        }))
    }

    fn means(&self, peer: &Peer, theirs: Capabilities) -> Means {
        let converses = theirs.has(CONVERSATION);
        let is_offered = |mechanism: &Mechanism| match mechanism {
            Mechanism::External => peer.certificate.is_some(),
            Mechanism::Plain => true,
            Mechanism::Scram => converses,
            Mechanism::ScramPlus | Mechanism::Kerberos => converses && peer.exported.is_some(),
        };
        Means {
            offered: self.mechanisms.iter().copied().filter(is_offered).collect(),
            certificate: peer.certificate.clone(),
            exported: peer.exported.unwrap_or_default(),
        }
    }

    /// What the session's tickets say. There are none where a certificate does without a password anyway, and none where
    /// nobody could tell later that the password was changed.
    async fn ticket_source(
        &self,
        peer: &Peer,
        session: SessionId,
        shown: &Shown,
        directory: &Directory,
    ) -> Option<TicketSource> {
        let tickets = Arc::clone(self.tickets.as_ref()?);
        if shown.quality != Quality::Password {
            return None;
        }
        let user = &shown.identity.user;
        let Answer::Known(credential) = directory.credential_soon(&user.name).await else {
            return None;
        };
        let facts = Facts {
            user: user.name.to_string(),
            id: user.id,
            address: Addr::from(peer.address.ip()),
            certificate: peer.fingerprint.clone(),
            credential,
            chain: shown.chain,
            session: session.0,
            run: tickets.run,
            shown: shown.at,
        };
        Some(TicketSource::new(tickets, facts))
    }

    /// Takes a ticket in the place of a password. Only one that this server has sealed makes anybody look a user up, so that a
    /// flood of others costs nothing.
    async fn resume(&self, peer: &Peer, resume: &Resume, directory: &Directory) -> Result<Shown, Refusal> {
        let worthless = |error: TicketError| {
            let what = format!("not logged in by ticket: {error}");
            self.complaints.tell("clients", peer.address, Cause::Login, &what);
            Refusal::Ticket
        };
        let tickets = self.tickets.as_ref().ok_or(Refusal::Ticket)?;
        let opened = tickets
            .open_ticket(
                resume.ticket.expose(),
                Addr::from(peer.address.ip()),
                peer.fingerprint.as_deref(),
                clock::wall(),
            )
            .map_err(worthless)?;
        let unsaid = |why: &str| {
            let what = format!("a ticket cannot be checked: {why}");
            self.complaints.tell("clients", peer.address, Cause::Login, &what);
            Refusal::Unavailable
        };
        let (facts, identity) = match directory.again(opened.user()).await {
            Answer::Known((credential, identity)) => {
                let facts = opened.with_credential(Some(&credential)).map_err(worthless)?;
                if identity.user.id != facts.id {
                    return Err(worthless(TicketError::Credential));
                }
                (facts, identity)
            }
            Answer::Unknown => return Err(worthless(TicketError::Credential)),
            Answer::CannotSay(why) => return Err(unsaid(&why)),
        };
        self.known.learn(&identity);
        Ok(Shown {
            identity,
            quality: Quality::Password,
            by: "ticket",
            at: facts.shown,
            chain: facts.chain,
            replaces: (facts.run == tickets.run).then_some(SessionId(facts.session)),
        })
    }

    /// Hears a login to its end. A conversation has proven its name then; a password and a certificate are still to be checked.
    /// What breaks the protocol is an error, as everywhere.
    pub(super) async fn prove(
        &self,
        address: SocketAddr,
        talk: &mut impl Talk,
        means: &Means,
        login: &Login,
        directory: &Arc<Directory>,
    ) -> Result<Result<auth::Login, Refusal>, String> {
        let Some(mechanism) = means.mechanism(&login.mechanism) else {
            return Ok(Err(Refusal::Mechanism));
        };
        if mechanism == Mechanism::Kerberos {
            return self.kerberos_login(address, talk, means, login, directory).await;
        }
        if mechanism.is_scram() {
            return self
                .converse_login(address, talk, mechanism, means, login, directory)
                .await;
        }
        let parsed = auth::Login::parse(
            &login.mechanism,
            login.response.expose(),
            means.certificate.as_deref(),
        );
        Ok(parsed.map_err(|error| self.failed(address, None, &error)))
    }

    async fn converse_login(
        &self,
        address: SocketAddr,
        talk: &mut impl Talk,
        mechanism: Mechanism,
        means: &Means,
        login: &Login,
        directory: &Arc<Directory>,
    ) -> Result<Result<auth::Login, Refusal>, String> {
        let keys = Arc::new(FileKeys {
            directory: Arc::clone(directory),
            secret: self.scram_secret,
        });
        let is_bound = means.offered.contains(&Mechanism::ScramPlus);
        let mut conversation = match Conversation::begin(mechanism, is_bound, means.exported, keys) {
            Ok(conversation) => conversation,
            Err(error) => return Ok(Err(self.failed(address, None, &error))),
        };
        let mut response = login.response.clone();
        loop {
            let step = conversation.step(response.expose());
            // All spellings of a name count together.
            let name = conversation
                .name()
                .map(|name| directory.name(&name).unwrap_or(name));
            // Between this and the count of a failure nobody else can try.
            if let Some(name) = &name
                && let Err(locked) = self.may_try(address, name)
            {
                let error = LoginError::Locked {
                    name: name.clone(),
                    locked,
                };
                return Ok(Err(self.failed(address, None, &error)));
            }
            let (said, is_proven) = match step {
                Ok(Step::Challenge(said)) => (said, false),
                Ok(Step::Proven(said)) => (said, true),
                Ok(Step::Wrong) => {
                    let error = LoginError::WrongPassword(name.clone().unwrap_or_default());
                    return Ok(Err(self.failed(address, name.as_deref(), &error)));
                }
                Err(error) => return Ok(Err(self.failed(address, name.as_deref(), &error))),
            };
            let challenge = SecretBytes::new(said).map_err(|error| error.to_string())?;
            response = talk.ask(Challenge { challenge }).await?;
            if let (true, Some(name)) = (is_proven, name) {
                return Ok(Ok(auth::Login::proven(name)));
            }
        }
    }

    /// Finds out whether a login is true, bounded in number and rate.
    pub(super) async fn check(
        &self,
        address: SocketAddr,
        login: auth::Login,
        directory: &Directory,
    ) -> Result<Arc<Identity>, Refusal> {
        // All spellings of a name count together.
        let name = directory
            .name(login.name())
            .unwrap_or_else(|_| login.name().to_owned());
        let (failures, counted) = (Arc::clone(&self.failures), name.clone());
        let source = Addr::from(address.ip());
        // Attempts that wait for their turn must not outrun the limiter: it is asked when the turn has come.
        let may_try = Arc::new(move || {
            let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.check(clock::mono(), source, &counted)
        });
        match directory.login(login, may_try).await {
            Ok(identity) => {
                self.failures().succeeded(source, &name);
                self.known.learn(&identity);
                Ok(identity)
            }
            Err(error) => Err(self.failed(address, Some(&name), &error)),
        }
    }

    /// Whether somebody may try to log in at this moment.
    fn may_try(&self, address: SocketAddr, name: &str) -> Result<(), Locked> {
        self.failures()
            .check(clock::mono(), Addr::from(address.ip()), name)
    }

    /// Tells the log why a login failed, and counts it against its source and name where the credentials were wrong.
    pub(super) fn failed(&self, address: SocketAddr, name: Option<&str>, error: &LoginError) -> Refusal {
        if let LoginError::Busy(_) = error {
            let what = "logins are sent away to come again: too many wait for their turn to be checked";
            self.complaints.tell_of_all("clients", Cause::Busy, what);
            return error.refusal();
        }
        let what = format!("login failed: {error}");
        self.complaints.tell("clients", address, Cause::Login, &what);
        let refusal = error.refusal();
        if refusal == Refusal::Credentials {
            let (now, source) = (clock::mono(), Addr::from(address.ip()));
            match name {
                Some(name) => self.failures().failed(now, source, name),
                None => self.failures().failed_nameless(now, source),
            }
        }
        refusal
    }
}

/// What a client has shown of who it is.
struct Shown {
    identity: Arc<Identity>,
    quality: Quality,
    /// By what, for the log.
    by: &'static str,
    /// When credentials were shown, microseconds.
    at: i64,
    /// The login that this is, or came of.
    chain: u64,
    /// The session that had the ticket, if it may still be here.
    replaces: Option<SessionId>,
}

impl Shown {
    fn now(identity: Arc<Identity>, login: &Login) -> Self {
        let (quality, by) = match Mechanism::parse(&login.mechanism) {
            Some(Mechanism::External) => (Quality::Certificate, "certificate"),
            Some(Mechanism::Kerberos) => (Quality::Password, "kerberos"),
            _ => (Quality::Password, "password"),
        };
        Self {
            identity,
            quality,
            by,
            at: clock::wall().micros(),
            chain: rand::random(),
            replaces: None,
        }
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
