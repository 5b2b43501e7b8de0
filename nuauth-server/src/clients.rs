//! The clients' port: TLS, login or the proof of an address, then questions and claims.
//!
//! Who a user is, `auth` says; whose connection it is, the engine. This module only lets the right peers speak, and in
//! time.

mod kerberos;
mod login;
mod renewal;
mod voice;

use crate::auth::scram::{EXPORTED, Exported};
use crate::auth::{self, FailureLimiter};
use crate::config::{CertificateName, Mechanism};
use crate::directory::{Directory, Known};
use crate::engine::Leaving;
use crate::hub::{Event, ToSession};
use crate::paced::paced;
use crate::port::{Blame, Cause, Complaints};
use crate::revocation::{self, Revoked, Serial};
use crate::tickets::{self, Tickets};
use crate::users::scram::KEY;
use arc_swap::ArcSwap;
use login::Means;
use nufw_common::clock;
use nufw_common::lifecycle::Shutdown;
use nufw_common::link::{FrameReader, FrameWriter, LinkError, Read};
use nufw_common::tls;
use nufw_proto::client::{Capabilities, EndCause, LoggedIn, Prove, Proven, Refusal, ToClient, ToServer};
use nufw_proto::{Addr, CLIENT_ALPN, MAX_GREETING_BODY, SecretBytes, SessionId, Text};
use renewal::{Renewing, Word};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
pub(crate) use voice::renew;
use voice::{Spoken, TicketSource, Voice, refused};

/// How long a refused client is kept waiting for its answer's fate before the connection is ended.
const PARTING_TIME: Duration = Duration::from_secs(1);
/// Bytes of a session token; it is as good as a password while the session lasts.
const TOKEN_BYTES: usize = 32;

type Token = [u8; TOKEN_BYTES];
type Stream = TlsStream<TcpStream>;
type Reader = FrameReader<ReadHalf<Stream>>;
type Writer = FrameWriter<WriteHalf<Stream>>;

/// What every connection of the port needs.
pub(crate) struct ClientPort {
    /// Replaced at a reload; counts for connections from then on.
    pub(crate) tls: ArcSwap<rustls::ServerConfig>,
    pub(crate) directory: ArcSwap<Directory>,
    pub(crate) known: Arc<Known>,
    pub(crate) hub: mpsc::Sender<Event>,
    pub(crate) revoked: watch::Receiver<Arc<Revoked>>,
    pub(crate) mechanisms: Vec<Mechanism>,
    /// Which name of a certificate is a user's.
    pub(crate) certificate: Vec<CertificateName>,
    pub(crate) dead_after: Duration,
    pub(crate) greeting_timeout: Duration,
    pub(crate) address_lease: Duration,
    pub(crate) failures: Arc<Mutex<FailureLimiter>>,
    /// What makes up keys for users who have none.
    pub(crate) scram_secret: [u8; KEY],
    pub(crate) complaints: Complaints,
    pub(crate) tokens: Mutex<HashMap<Token, SessionId>>,
    pub(crate) next_session: AtomicU64,
    /// With what sessions are had again, if they are.
    pub(crate) tickets: Option<Arc<Tickets>>,
    /// Whether clients that want it hear of refusals.
    pub(crate) tells_refusals: bool,
    /// What handshakes take to go on.
    pub(crate) steps: Arc<Semaphore>,
}

/// A connection after TLS.
struct Peer {
    address: SocketAddr,
    /// The name of its certificate that is to be a user's, if it showed one.
    certificate: Option<String>,
    /// What binds a login to its connection.
    exported: Option<Exported>,
    serial: Option<Serial>,
    /// Digest of the certificate it showed, whoever's that is.
    fingerprint: Option<String>,
    reader: Reader,
    writer: Writer,
}

impl ClientPort {
    fn failures(&self) -> MutexGuard<'_, FailureLimiter> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        stranger: OwnedSemaphorePermit,
    ) {
        self.complaints.connected();
        // In a box, which is gone after it: a session would keep its room for as long as it lasts.
        let greeting = Box::pin(self.greet(stream, address));
        let greeted = tokio::time::timeout(self.greeting_timeout, greeting).await;
        let guest = match greeted {
            Ok(Ok(Some(guest))) => guest,
            Ok(Ok(None)) => return,
            Ok(Err(Blame { cause, why })) => return self.complaints.tell("clients", address, cause, &why),
            Err(_) => {
                let what = "the peer did not log in in time";
                return self.complaints.tell("clients", address, Cause::Late, what);
            }
        };
        drop(stranger);
        self.session(guest).await;
    }

    /// TLS, then a login or the proof of an address. `None` when the connection has served its purpose.
    async fn greet(&self, stream: TcpStream, address: SocketAddr) -> Result<Option<Box<Guest>>, Blame> {
        let acceptor = TlsAcceptor::from(self.tls.load_full());
        let stream = paced(&self.steps, acceptor.accept(stream))
            .await
            .map_err(|error| Blame::tls(tls::explain(&error)))?;
        let session = stream.get_ref().1;
        tls::require_alpn(session.alpn_protocol(), CLIENT_ALPN)
            .map_err(|error| Blame::tls(error.to_string()))?;
        let certificate = match session.peer_certificates() {
            None => None,
            Some(chain) => {
                let names = tls::peer_names(chain).map_err(|error| Blame::tls(error.to_string()))?;
                auth::certificate_user(&names, &self.certificate).map(str::to_owned)
            }
        };
        let exported = session
            .export_keying_material(Exported::default(), EXPORTED, None)
            .ok();
        let serial = revocation::serial(session.peer_certificates());
        let fingerprint = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| tickets::digest(certificate));
        let (read, write) = tokio::io::split(stream);
        let mut peer = Peer {
            address,
            certificate,
            exported,
            serial,
            fingerprint,
            reader: FrameReader::new(read, MAX_GREETING_BODY),
            writer: FrameWriter::new(write),
        };
        match peer.next().await? {
            ToServer::Prove(proof) => {
                self.prove_address(peer, &proof).await?;
                Ok(None)
            }
            ToServer::Hello(hello) => {
                let admission = self.login(&mut peer, hello).await?;
                Ok(admission.map(|admission| Box::new(Guest { peer, admission })))
            }
            _ => Err(Blame::from(
                "the peer's first message was neither a hello nor a proof".to_owned(),
            )),
        }
    }

    async fn prove_address(&self, mut peer: Peer, proof: &Prove) -> Result<(), String> {
        let session = Token::try_from(proof.token.expose()).ok().and_then(|token| {
            self.tokens
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&token)
                .copied()
        });
        let result = match session {
            None => Err(Refusal::Token),
            Some(session) => {
                let (answer, result) = oneshot::channel();
                let address = Addr::from(peer.address.ip());
                let _ = self
                    .hub
                    .send(Event::Prove {
                        session,
                        address,
                        answer,
                    })
                    .await;
                result.await.unwrap_or(Err(Refusal::Unavailable))
            }
        };
        match result {
            Ok(address) => peer.part(&ToClient::Proven(Proven { address })).await,
            Err(cause) => peer.part(&refused(cause, Capabilities::default())).await,
        }
        Ok(())
    }

    /// From the login to the end.
    async fn session(&self, mut guest: Box<Guest>) {
        let Guest { peer, admission } = &mut *guest;
        let cause = match admission.instructions.recv().await {
            Some(ToSession::Admitted) => None,
            Some(ToSession::Refused(cause)) => Some(cause),
            Some(ToSession::Say(_) | ToSession::End { .. }) | None => Some(Refusal::Unavailable),
        };
        if let Some(cause) = cause {
            return peer.part(&refused(cause, admission.agreed)).await;
        }
        let session = admission.session;
        let token: Token = rand::random();
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token, session);
        tracing::info!(peer = %peer.address, session = session.0, by = admission.by, "client logged in");
        tracing::debug!(user = &*admission.user, session = session.0, "session begins");
        let chain = admission.ticket.as_ref().map(TicketSource::chain);
        let Left { why, leaving, cause } = self.converse(guest, token).await;
        self.tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&token);
        let thrown_out = matches!(
            cause,
            Some(EndCause::Ordered | EndCause::Removed | EndCause::Replaced | EndCause::Misbehaved)
        );
        if let (Some(tickets), Some(chain)) = (&self.tickets, chain)
            && (thrown_out || leaving != Leaving::Lost)
        {
            tickets.revoke_chain(chain, clock::wall());
        }
        let _ = self.hub.send(Event::SessionDown { session, leaving }).await;
        tracing::info!(session = session.0, "client gone: {why}");
    }

    async fn converse(&self, guest: Box<Guest>, token: Token) -> Left {
        let Guest { mut peer, admission } = *guest;
        let Admission {
            session,
            user,
            id,
            agreed,
            ticket,
            means,
            instructions,
            ..
        } = admission;
        let Ok(token) = SecretBytes::new(token.to_vec()) else {
            return Left::lost("no token".to_owned());
        };
        let logged_in = ToClient::LoggedIn(LoggedIn {
            session,
            user: Text::lossy(&user),
            address: Addr::from(peer.address.ip()),
            token,
            address_lease_ms: millis(self.address_lease),
            dead_after_ms: millis(self.dead_after),
        });
        if let Err(why) = peer.say(&logged_in).await {
            return Left::lost(why);
        }
        let Peer {
            address,
            serial,
            reader,
            writer,
            ..
        } = peer;
        // A channel has room for 32 of what it carries, however few may wait: of boxes that is little for each session.
        let (again, renewals) = mpsc::channel(1);
        let (words, own_words) = mpsc::channel(1);
        let renewing = Renewing {
            session,
            id,
            address,
            means,
            shown: ticket.as_ref().map(TicketSource::shown),
        };
        let mut voice = Voice {
            writer,
            instructions,
            own_words,
            agreed,
            ticket,
            dead_after: self.dead_after,
        };
        tokio::select! {
            ended = self.listen(session, address, reader, again) => ended,
            spoken = voice.speak(revocation::revoked(self.revoked.clone(), serial)) => Left::by_us(spoken),
            () = self.renew(renewing, renewals, words) => Left::lost("it cannot be listened to".to_owned()),
        }
    }

    async fn listen(
        &self,
        session: SessionId,
        peer: SocketAddr,
        mut reader: Reader,
        again: mpsc::Sender<Box<Word>>,
    ) -> Left {
        loop {
            let mut messages = Vec::new();
            match tokio::time::timeout(self.dead_after, reader.read_batch(&mut messages)).await {
                Err(_) => return Left::lost("nothing came from it for too long".to_owned()),
                Ok(Err(error @ (LinkError::Cut | LinkError::Io(_)))) => return Left::lost(error.to_string()),
                Ok(Err(error)) => {
                    let what = error.to_string();
                    self.complaints.tell("clients", peer, Cause::Protocol, &what);
                    return Left::lost(what);
                }
                Ok(Ok(Read::Closed)) => return Left::logged_out("it ended the connection".to_owned()),
                Ok(Ok(Read::Messages)) => {}
            }
            let leaving = messages.iter().find_map(|message| match message {
                ToServer::Goodbye(goodbye) => Some(goodbye.reason.to_string()),
                _ => None,
            });
            messages.retain(|message| match message {
                ToServer::Again(login) => {
                    // One is being checked: a client that does not wait for the answer gets one all the same.
                    let _ = again.try_send(Box::new(Word::Again(login.clone())));
                    false
                }
                ToServer::Respond(respond) => {
                    let _ = again.try_send(Box::new(Word::Respond(respond.response.clone())));
                    false
                }
                _ => true,
            });
            let only_heartbeats = messages
                .iter()
                .all(|message| matches!(message, ToServer::Heartbeat(_)));
            if !only_heartbeats
                && self
                    .hub
                    .send(Event::ClientSaid { session, messages })
                    .await
                    .is_err()
            {
                return Left::lost("the server ends".to_owned());
            }
            if let Some(reason) = leaving {
                return Left::logged_out(reason);
            }
        }
    }
}

/// Who has logged in, and by what. In a box from hand to hand: each that has it would need the room for as long as it lasts.
struct Guest {
    peer: Peer,
    admission: Admission,
}

/// How a session ended.
struct Left {
    /// A sentence for the log.
    why: String,
    leaving: Leaving,
    /// Why this side ended it, if it did.
    cause: Option<EndCause>,
}

impl Left {
    fn lost(why: String) -> Self {
        Self {
            why,
            leaving: Leaving::Lost,
            cause: None,
        }
    }

    fn logged_out(why: String) -> Self {
        Self {
            leaving: Leaving::LoggedOut,
            ..Self::lost(why)
        }
    }

    fn by_us(Spoken { why, cause }: Spoken) -> Self {
        let leaving = match cause {
            // The engine knows of the others, having ended them itself.
            Some(EndCause::Removed) => Leaving::Removed,
            _ => Leaving::Lost,
        };
        Self { why, leaving, cause }
    }
}

/// A login that the engine has been told of.
struct Admission {
    session: SessionId,
    user: Arc<str>,
    id: u64,
    by: &'static str,
    agreed: Capabilities,
    ticket: Option<TicketSource>,
    means: Means,
    instructions: mpsc::Receiver<ToSession>,
}

impl Peer {
    /// The next message of a peer that has not logged in; one at a time, since it must wait for each answer.
    async fn next(&mut self) -> Result<ToServer, String> {
        let mut messages = Vec::new();
        match self
            .reader
            .read_batch(&mut messages)
            .await
            .map_err(|error| error.to_string())?
        {
            Read::Closed => return Err("the peer ended the connection before it had logged in".to_owned()),
            Read::Messages => {}
        }
        match <[ToServer; 1]>::try_from(messages) {
            Ok([message]) => Ok(message),
            Err(_) => Err("the peer did not wait for an answer".to_owned()),
        }
    }

    async fn say(&mut self, message: &ToClient) -> Result<(), String> {
        self.writer.queue(message).map_err(|error| error.to_string())?;
        self.writer.flush().await.map_err(|error| error.to_string())
    }

    /// Says a last word.
    async fn part(&mut self, message: &ToClient) {
        let _ = tokio::time::timeout(PARTING_TIME, async {
            let _ = self.say(message).await;
            let _ = self.writer.close().await;
        })
        .await;
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Takes clients until the shutdown.
pub(crate) fn run(
    port: &Arc<ClientPort>,
    listeners: Vec<TcpListener>,
    strangers: usize,
    shutdown: &Shutdown,
) {
    let places = Arc::new(Semaphore::new(strangers));
    for listener in listeners {
        let port = Arc::clone(port);
        let steps = Arc::clone(&port.steps);
        let serve = move |stream, peer, stranger| Arc::clone(&port).serve(stream, peer, stranger);
        tokio::spawn(crate::port::accept(
            listener,
            Arc::clone(&places),
            steps,
            shutdown.clone(),
            serve,
        ));
    }
}
