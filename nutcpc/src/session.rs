//! One session: login, then claims, proofs and heartbeats until one side ends it.
//!
//! The loop that owns the connection. It never waits for the server to read, and never claims anything that
//! [`SocketOwner`] did not find.

mod showing;

use crate::addresses::{AddressWatch, usable_addresses};
use crate::client::{Command, Secrets};
use crate::connect::Dialer;
use crate::credentials::Ready;
use crate::error::LoginError;
use crate::event::Event;
use crate::owner::SocketOwner;
use crate::proofs::{Outcome, Proofs, Prover};
use crate::sasl::{self, Conversation, EXPORTED, Exported, Mechanism};
use crate::tickets::Tickets;
use nufw_common::clock;
use nufw_common::link::{FrameReader, FrameWriter, LinkError, Liveness, Read};
use nufw_proto::client::{
    Announce, CONVERSATION, ClaimRequest, EndCause, Goodbye, Heartbeat, Hello, LoggedIn,
    Login as LoginMessage, Respond, Resume, TICKETS, ToClient, ToServer, Withdraw,
};
use nufw_proto::{Addr, Batch, LoginBytes, MAX_BODY, MAX_GREETING_BODY, SecretBytes, Text};
use showing::{Beginning, begun, go_on};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

/// From the first byte to the end of the login. A server that many clients return to at once checks their passwords
/// one after the other.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the farewell may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Claims in one frame: with the longest program paths they just fit it.
const CLAIMS_PER_FRAME: usize = 200;
/// A server that promises less than this between two signs of life would be lost at every hiccup.
const MIN_DEAD_AFTER: Duration = Duration::from_millis(500);

/// A session that has logged in.
pub(crate) struct Session {
    reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: FrameWriter<WriteHalf<TlsStream<TcpStream>>>,
    inbox: Vec<ToClient>,
    pub(crate) logged_in: LoggedIn,
    pub(crate) server: SocketAddr,
    /// By what credentials are shown again, if they must be.
    mechanism: Option<Mechanism>,
    exported: Exported,
    /// Credentials that are about to be shown again.
    beginning: Option<Beginning>,
    /// Credentials that are being shown again in several messages.
    aside: Option<Conversation>,
    local: Addr,
    /// The server wants hashes of programs.
    hashes_programs: bool,
    /// The local address is among the host's global ones (it may be a loopback address).
    local_was_seen: bool,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// This side wanted it.
    Stopped,
    /// The connection or the server failed, for this reason.
    Lost(String),
    /// The server wants it.
    Over {
        /// Why, for programs.
        cause: EndCause,
        /// Why, in its words.
        reason: String,
    },
    /// The credentials, shown again, were refused.
    Refused(LoginError),
}

/// What is shown at a login.
pub(crate) enum Shown {
    /// What an earlier session was given.
    Ticket(SecretBytes),
    /// Credentials, by the best mechanism that both sides have.
    Login(Ready),
}

/// What a session works with.
pub(crate) struct Tools<'a> {
    pub(crate) owner: &'a mut SocketOwner,
    pub(crate) watch: &'a mut AddressWatch,
    pub(crate) commands: &'a mut mpsc::Receiver<Command>,
    pub(crate) emit: &'a mut (dyn FnMut(Event) + Send),
    /// New credentials are wanted for the next connection.
    pub(crate) reload: &'a mut bool,
    pub(crate) tickets: &'a mut Tickets,
    pub(crate) secrets: &'a mut Secrets,
}

impl Session {
    /// Connects to one address of the server and logs in.
    pub(crate) async fn open(
        dialer: &Dialer,
        server: SocketAddr,
        hello: Hello,
        mechanisms: &[Mechanism],
        shown: Shown,
    ) -> Result<Self, LoginError> {
        let opening = async {
            let stream = dialer.dial(server, None, LOGIN_TIMEOUT).await?;
            let local = stream.get_ref().0.local_addr();
            let local = local.map_err(|cause| LoginError::Connect { server, cause })?;
            let tls = stream.get_ref().1;
            let exported = tls
                .export_keying_material(Exported::default(), EXPORTED, None)
                .ok();
            let (read, write) = tokio::io::split(stream);
            let mut reader = FrameReader::new(read, MAX_GREETING_BODY);
            let mut writer = FrameWriter::new(write);
            let mut inbox = Vec::new();

            writer.queue(&ToServer::Hello(hello))?;
            // If the server has hung up, its last words say why.
            let sent = writer.flush().await;
            let answer = match next(server, &mut reader, &mut inbox).await {
                Err(LoginError::Handshake { server, cause }) => {
                    return Err(LoginError::Handshake { server, cause });
                }
                answer => {
                    sent?;
                    answer?
                }
            };
            let welcome = match answer {
                ToClient::Welcome(welcome) => welcome,
                other => return Err(instead_of(other, "something else than its welcome")),
            };
            tracing::debug!(software = %welcome.software, "the server answers");
            let converses = welcome.capabilities.has(CONVERSATION) && exported.is_some();
            let exported = exported.unwrap_or_default();
            // Kept for the credentials that may have to be shown again.
            let mechanism = sasl::choose(mechanisms, &welcome, converses);
            let by = mechanism.as_ref().ok().copied();
            let mut conversation = None;
            let message = match shown {
                Shown::Ticket(ticket) if welcome.capabilities.has(TICKETS) => {
                    ToServer::Resume(Resume { ticket })
                }
                Shown::Ticket(_) => return Err(LoginError::NoTickets),
                Shown::Login(ready) => {
                    let mechanism = mechanism?;
                    tracing::debug!(%mechanism, "logging in");
                    let (begun, response) = match sasl::begin(mechanism, ready, exported).await {
                        Ok(begun) => begun,
                        Err(error) => {
                            // So that the server does not take it for a connection that broke.
                            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, writer.close()).await;
                            return Err(error);
                        }
                    };
                    conversation = begun;
                    ToServer::Login(login_message(mechanism, response))
                }
            };
            writer.queue(&message)?;
            writer.flush().await?;
            while let Some(current) = conversation.as_mut().filter(|current| !current.is_over()) {
                let challenge = match next(server, &mut reader, &mut inbox).await? {
                    ToClient::Challenge(challenge) => challenge.challenge,
                    other => return Err(instead_of(other, "something else than more of the login")),
                };
                let response = sasl::secret(current.answer(challenge.expose())?)?;
                if current.is_over() {
                    // Questions may follow the end of the login in one read.
                    reader.set_limit(MAX_BODY);
                }
                writer.queue(&ToServer::Respond(Respond { response }))?;
                writer.flush().await?;
            }
            // Questions may follow the login in one read.
            reader.set_limit(MAX_BODY);
            let logged_in = match next(server, &mut reader, &mut inbox).await? {
                ToClient::LoggedIn(logged_in) => logged_in,
                other => return Err(instead_of(other, "something else than the answer to the login")),
            };
            Ok(Self {
                reader,
                writer,
                inbox,
                logged_in,
                server,
                mechanism: by,
                exported,
                beginning: None,
                aside: None,
                local: local.ip().into(),
                hashes_programs: false,
                local_was_seen: false,
            })
        };
        let timed_out = LoginError::TimedOut {
            server,
            limit: LOGIN_TIMEOUT,
        };
        tokio::time::timeout(LOGIN_TIMEOUT, opening)
            .await
            .unwrap_or(Err(timed_out))
    }

    /// Serves until one side ends it. `further` are the server's addresses for proofs of the other family.
    pub(crate) async fn run(
        mut self,
        dialer: &Dialer,
        further: &[SocketAddr],
        mut tools: Tools<'_>,
    ) -> Ended {
        match self.serve(dialer, further, &mut tools).await {
            Ok(ended) => ended,
            Err(error) => Ended::Lost(format!("connection lost: {error}")),
        }
    }

    async fn serve(
        &mut self,
        dialer: &Dialer,
        further: &[SocketAddr],
        tools: &mut Tools<'_>,
    ) -> Result<Ended, LinkError> {
        let dead_after = Duration::from_millis(u64::from(self.logged_in.dead_after_ms)).max(MIN_DEAD_AFTER);
        let mut liveness = Liveness::new(dead_after, clock::mono());
        let mut proofs = self.proofs(dialer, further);
        self.announce(self.local, tools.owner)?;
        let mut is_watching = true;
        self.follow_addresses(&mut proofs, tools);
        // What came in one read with the login.
        if let Some(ended) = self.handle(tools)? {
            return Ok(ended);
        }
        loop {
            let now = clock::mono();
            if liveness.is_dead(now) {
                let silence = dead_after.as_secs_f64();
                return Ok(Ended::Lost(format!(
                    "connection lost: the server was silent for {silence} s"
                )));
            }
            if liveness.due_to_send(now) {
                self.writer.queue(&ToServer::Heartbeat(Heartbeat))?;
                liveness.on_sent(now);
            }
            proofs.start_due(now);
            let wake = liveness.next_check();
            let wake = proofs.next_due().map_or(wake, |due| due.min(wake));
            tokio::select! {
                read = self.reader.read_batch(&mut self.inbox) => {
                    if read? == Read::Closed {
                        return Ok(Ended::Lost("connection lost: the server ended it".to_owned()));
                    }
                    liveness.on_traffic(clock::mono());
                    if let Some(ended) = self.handle(tools)? {
                        return Ok(ended);
                    }
                }
                sent = self.writer.flush(), if self.writer.waiting() > 0 => {
                    sent?;
                    liveness.on_sent(clock::mono());
                }
                (address, result) = proofs.finished() => {
                    self.on_proof(proofs.on_finished(address, result, clock::mono()), tools)?;
                }
                changed = tools.watch.changed(), if is_watching => {
                    if let Err(error) = changed {
                        tracing::warn!(%error, "the kernel tells of no more address changes in this session");
                        is_watching = false;
                    }
                    if let Some(ended) = self.follow_addresses(&mut proofs, tools) {
                        return Ok(ended);
                    }
                }
                begun = begun(&mut self.beginning) => {
                    if let Some(ended) = self.go_on_showing(begun, tools)? {
                        return Ok(ended);
                    }
                }
                command = tools.commands.recv() => match command {
                    Some(Command::Reload) => *tools.reload = true,
                    Some(Command::Stop) | None => return Ok(self.say_goodbye().await),
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn proofs(&self, dialer: &Dialer, further: &[SocketAddr]) -> Proofs {
        // Other addresses of this family may be other servers, to whom the token says nothing.
        let other_family = further
            .iter()
            .filter(|server| server.is_ipv4() != self.server.is_ipv4());
        let prover = Prover {
            dialer: dialer.clone(),
            servers: std::iter::once(&self.server)
                .chain(other_family)
                .copied()
                .collect(),
            token: self.logged_in.token.clone(),
        };
        let lease = Duration::from_millis(u64::from(self.logged_in.address_lease_ms));
        Proofs::new(prover, lease, self.local, self.logged_in.address)
    }

    /// Deals with everything that has been read; all questions share one look.
    fn handle(&mut self, tools: &mut Tools<'_>) -> Result<Option<Ended>, LinkError> {
        let mut questions: Vec<ClaimRequest> = Vec::new();
        let mut again = false;
        let mut ended = None;
        for message in self.inbox.drain(..) {
            match message {
                ToClient::ClaimRequests(batch) => questions.extend(batch),
                ToClient::Notice(notice) => (tools.emit)(Event::Notice {
                    text: notice.text.into(),
                }),
                ToClient::Heartbeat(_) => {}
                ToClient::Ticket(ticket) => tools.tickets.keep(ticket),
                ToClient::Denied(denied) => (tools.emit)(denied.into()),
                ToClient::Renew(_) => again = true,
                ToClient::Renewed(_) => tracing::debug!("the server has seen the credentials again"),
                ToClient::Ended(over) => {
                    ended = Some(Ended::Over {
                        cause: over.cause,
                        reason: over.reason.into(),
                    });
                    break;
                }
                ToClient::Refused(refused) => {
                    ended = Some(Ended::Refused(refused.into()));
                    break;
                }
                ToClient::HashPrograms(hash) => self.hashes_programs = hash.wanted,
                ToClient::Goodbye(goodbye) => {
                    ended = Some(Ended::Lost(format!(
                        "the server ended the session: {}",
                        goodbye.reason
                    )));
                    break;
                }
                ToClient::Challenge(challenge) if self.aside.is_some() => {
                    match go_on(&mut self.aside, challenge.challenge.expose()) {
                        Ok(response) => self.writer.queue(&ToServer::Respond(Respond { response }))?,
                        Err(error) => {
                            ended = Some(Ended::Lost(format!("connection lost: {error}")));
                            break;
                        }
                    }
                }
                ToClient::Welcome(_)
                | ToClient::LoggedIn(_)
                | ToClient::Proven(_)
                | ToClient::Challenge(_) => {
                    let what = LoginError::Unexpected("a second welcome or login");
                    ended = Some(Ended::Lost(format!("connection lost: {what}")));
                    break;
                }
            }
        }
        if ended.is_none() && again {
            self.show_again(Duration::ZERO, tools);
        }
        if ended.is_none() && !questions.is_empty() {
            let claims = tools.owner.claims(&questions);
            tracing::trace!(questions = questions.len(), "answering");
            for claims in claims.chunks(CLAIMS_PER_FRAME) {
                if self.hashes_programs {
                    // They count for the claims that come next.
                    self.queue_batch(&tools.owner.hashes(claims), ToServer::ProgramHashes)?;
                }
                self.queue_batch(claims, ToServer::Claims)?;
            }
        }
        Ok(ended)
    }

    /// Claims the connections that were being opened from an address before the server could ask about it.
    fn announce(&mut self, from: Addr, owner: &mut SocketOwner) -> Result<(), LinkError> {
        let mut announced = Vec::new();
        for mine in owner.opening() {
            if mine.seen.src() == from {
                announced.push(Announce { mine });
            }
        }
        for announced in announced.chunks(CLAIMS_PER_FRAME) {
            self.queue_batch(announced, ToServer::Announce)?;
        }
        Ok(())
    }

    fn queue_batch<T: Clone>(
        &mut self,
        items: &[T],
        message: fn(Batch<T>) -> ToServer,
    ) -> Result<(), LinkError> {
        // A chunk is smaller than a batch may be.
        let batch = Batch::try_from(items.to_vec()).unwrap_or_default();
        self.writer.queue(&message(batch))
    }

    /// Takes the host's addresses as they are. The session ends when its own is gone: its connection is dead, though
    /// nothing would say so for a while.
    fn follow_addresses(&mut self, proofs: &mut Proofs, tools: &mut Tools<'_>) -> Option<Ended> {
        let addresses = match usable_addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                tracing::warn!(%error, "the addresses of this host cannot be read; keeping those known");
                return None;
            }
        };
        for address in proofs.set_addresses(&addresses, clock::mono()) {
            if let Some(event) = self.withdraw(address) {
                (tools.emit)(event);
            }
        }
        let is_there = addresses.contains(&self.local);
        let is_lost = self.local_was_seen && !is_there;
        self.local_was_seen |= is_there;
        is_lost.then(|| {
            Ended::Lost(format!(
                "connection lost: this host lost its address {}",
                self.local
            ))
        })
    }

    fn withdraw(&mut self, address: Addr) -> Option<Event> {
        match self.writer.queue(&ToServer::Withdraw(Withdraw { address })) {
            Ok(()) => Some(Event::Withdrawn { address }),
            Err(error) => {
                tracing::warn!(%error, "an address could not be withdrawn; the server forgets it with its lease");
                None
            }
        }
    }

    fn on_proof(&mut self, outcome: Outcome, tools: &mut Tools<'_>) -> Result<(), LinkError> {
        match outcome {
            Outcome::Proved(local, address) => {
                (tools.emit)(Event::Proved { address });
                self.announce(local, tools.owner)?;
            }
            Outcome::Failed(address, reason) => (tools.emit)(Event::NotProved { address, reason }),
            Outcome::Withdraw(address) => {
                if let Some(event) = self.withdraw(address) {
                    (tools.emit)(event);
                }
            }
            Outcome::Nothing => {}
        }
        Ok(())
    }

    async fn say_goodbye(&mut self) -> Ended {
        let reason = Text::lossy("the client was stopped");
        let farewell = async {
            self.writer.queue(&ToServer::Goodbye(Goodbye { reason }))?;
            self.writer.close().await
        };
        if !matches!(tokio::time::timeout(GOODBYE_TIMEOUT, farewell).await, Ok(Ok(()))) {
            tracing::debug!("the server did not hear the goodbye; it will notice the silence");
        }
        Ended::Stopped
    }
}

fn login_message(mechanism: Mechanism, response: LoginBytes) -> LoginMessage {
    LoginMessage {
        mechanism: Text::lossy(mechanism.name()),
        response,
    }
}

/// The next message; what came with it stays in the inbox.
async fn next(
    server: SocketAddr,
    reader: &mut FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    inbox: &mut Vec<ToClient>,
) -> Result<ToClient, LoginError> {
    loop {
        if !inbox.is_empty() {
            match inbox.remove(0) {
                ToClient::Heartbeat(_) => continue,
                message => return Ok(message),
            }
        }
        let read = reader.read_batch(inbox).await;
        if read.map_err(|error| LoginError::of_link(server, error))? == Read::Closed {
            return Err(LoginError::Closed);
        }
    }
}

fn instead_of(message: ToClient, what: &'static str) -> LoginError {
    match message {
        ToClient::Refused(refused) => refused.into(),
        ToClient::Goodbye(goodbye) => LoginError::Goodbye(goodbye.reason.into()),
        _ => LoginError::Unexpected(what),
    }
}
