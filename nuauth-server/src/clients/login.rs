//! Logging in: password, certificate or ticket, and the credentials shown again.
//!
//! What is true, `auth` and `tickets` say; here it is asked, bounded in number and rate.

use super::voice::{TicketSource, refused};
use super::{Admission, ClientPort, Peer};
use crate::auth;
use crate::config::Mechanism;
use crate::engine::{Identity, Quality, SessionFacts};
use crate::hub::{Event, ToSession, WAITING_FOR_PEER};
use crate::port::Cause;
use crate::tickets::{self, Facts};
use crate::users::Users;
use nufw_common::clock;
use nufw_proto::client::{
    Capabilities, Hello, Login, PROGRAM_HASHES, REASONS, REFUSALS, Refusal, Renewed, Resume, TICKETS,
    ToClient, ToServer, Welcome,
};
use nufw_proto::{Addr, Batch, MAX_BODY, SessionId, Text};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

impl ClientPort {
    pub(super) async fn login(&self, peer: &mut Peer, hello: Hello) -> Result<Option<Admission>, String> {
        let mechanisms: Vec<_> = self
            .mechanisms
            .iter()
            .filter(|&&mechanism| mechanism != Mechanism::External || peer.certificate.is_some())
            .map(|mechanism| Text::lossy(mechanism.name()))
            .collect();
        let tickets = self.tickets.as_ref().map_or(Capabilities::default(), |_| TICKETS);
        let refusals = if self.tells_refusals {
            REFUSALS
        } else {
            Capabilities::default()
        };
        let capabilities = PROGRAM_HASHES.and(REASONS).and(tickets).and(refusals);
        let welcome = ToClient::Welcome(Welcome {
            software: Text::lossy(concat!("nuauth-server ", env!("CARGO_PKG_VERSION"))),
            capabilities,
            mechanisms: Batch::try_from(mechanisms.clone()).unwrap_or_default(),
        });
        peer.say(&welcome).await?;
        let agreed = hello.capabilities.common(capabilities);
        let shown = match peer.next().await? {
            ToServer::Login(login) if mechanisms.contains(&login.mechanism) => {
                let certificate = peer.certificate.as_deref();
                self.authenticate(peer.address, certificate, &login)
                    .await
                    .map(|identity| Shown::now(identity, &login))
            }
            ToServer::Login(_) => Err(Refusal::Mechanism),
            ToServer::Resume(resume) if agreed.has(TICKETS) => self.resume(peer, &resume),
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
        let ticket = self.ticket_source(peer, session, &shown);
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
        Ok(Some(Admission {
            session,
            user,
            id,
            by,
            agreed,
            ticket: ticket.filter(|_| agreed.has(TICKETS)),
            instructions,
        }))
    }

    /// What the session's tickets say. There are none where a certificate does without a password anyway.
    fn ticket_source(&self, peer: &Peer, session: SessionId, shown: &Shown) -> Option<TicketSource> {
        let tickets = Arc::clone(self.tickets.as_ref()?);
        if shown.quality != Quality::Password {
            return None;
        }
        let user = &shown.identity.user;
        let credential = credential(&self.users.load(), &user.name, user.id)?;
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

    /// Takes a ticket in the place of a password: nothing is computed that a flood could make dear.
    fn resume(&self, peer: &Peer, resume: &Resume) -> Result<Shown, Refusal> {
        let tickets = self.tickets.as_ref().ok_or(Refusal::Ticket)?;
        let users = self.users.load();
        let facts = tickets
            .accept(
                resume.ticket.expose(),
                Addr::from(peer.address.ip()),
                peer.fingerprint.as_deref(),
                |name, id| credential(&users, name, id),
                clock::wall(),
            )
            .map_err(|error| {
                let what = format!("not logged in by ticket: {error}");
                self.complaints.tell("clients", peer.address, Cause::Login, &what);
                Refusal::Ticket
            })?;
        let user = users.by_name(&facts.user).ok_or(Refusal::Ticket)?;
        Ok(Shown {
            identity: Arc::clone(&user.identity),
            quality: Quality::Password,
            by: "ticket",
            at: facts.shown,
            chain: facts.chain,
            replaces: (facts.run == tickets.run).then_some(SessionId(facts.session)),
        })
    }

    /// Checks a login, bounded in number and rate.
    async fn authenticate(
        &self,
        peer: SocketAddr,
        certificate: Option<&str>,
        login: &Login,
    ) -> Result<Arc<Identity>, Refusal> {
        let complain = |what: &str| {
            self.complaints.tell("clients", peer, Cause::Login, what);
        };
        let source = Addr::from(peer.ip());
        let limiter = || self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let login =
            auth::Login::parse(&login.mechanism, login.response.expose(), certificate).map_err(|error| {
                complain(&format!("login failed: {error}"));
                error.refusal()
            })?;
        let name = login.name().to_owned();
        // Attempts that wait for their turn must not outrun the limiter: it is asked when the turn has come.
        let Ok(_turn) = self.password_checks.acquire().await else {
            return Err(Refusal::Unavailable);
        };
        if let Err(locked) = limiter().check(clock::mono(), source, &name) {
            complain(&format!("login of {name:?} not even looked at: {locked}"));
            return Err(Refusal::TooManyFailures);
        }
        let users = self.users.load_full();
        match tokio::task::spawn_blocking(move || login.verify(&users)).await {
            Ok(Ok(user)) => {
                limiter().succeeded(&name);
                Ok(Arc::clone(&user.identity))
            }
            Ok(Err(error)) => {
                limiter().failed(clock::mono(), source, &name);
                complain(&format!("login failed: {error}"));
                Err(error.refusal())
            }
            Err(_) => Err(Refusal::Unavailable),
        }
    }

    /// Checks the credentials that a client shows again, one after the other.
    pub(super) async fn renew(
        &self,
        renewing: Renewing,
        mut renewals: mpsc::Receiver<Login>,
        words: mpsc::Sender<ToSession>,
    ) {
        let Renewing {
            session,
            id,
            address,
            certificate,
            shown,
        } = renewing;
        while let Some(login) = renewals.recv().await {
            let checked = match Mechanism::parse(&login.mechanism) {
                Some(mechanism) if self.mechanisms.contains(&mechanism) => {
                    self.authenticate(address, certificate.as_deref(), &login).await
                }
                _ => Err(Refusal::Mechanism),
            };
            let word = match checked {
                Ok(identity) if identity.user.id == id => {
                    if let Some(shown) = &shown {
                        shown.store(clock::wall().micros(), Ordering::Relaxed);
                    }
                    let _ = self.hub.send(Event::Renewed { session }).await;
                    ToSession::Say(ToClient::Renewed(Renewed))
                }
                Ok(_) => ToSession::Refused(Refusal::Credentials),
                Err(cause) => ToSession::Refused(cause),
            };
            if words.send(word).await.is_err() {
                break;
            }
        }
        // The listener ends with its channel, and says how.
        std::future::pending::<()>().await;
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
        let external = Mechanism::parse(&login.mechanism) == Some(Mechanism::External);
        Self {
            identity,
            quality: if external {
                Quality::Certificate
            } else {
                Quality::Password
            },
            by: if external { "certificate" } else { "password" },
            at: clock::wall().micros(),
            chain: rand::random(),
            replaces: None,
        }
    }
}

/// Digest of what a user's password is compared with; `None` where there is no such user or password.
fn credential(users: &Users, name: &str, id: u64) -> Option<String> {
    let user = users.by_name(name).filter(|user| user.identity.user.id == id)?;
    user.credential().map(|text| tickets::digest(text.as_bytes()))
}

/// Whose credentials are checked again.
pub(super) struct Renewing {
    pub(super) session: SessionId,
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) certificate: Option<String>,
    /// What the session's tickets say of when they were shown.
    pub(super) shown: Option<Arc<AtomicI64>>,
}
