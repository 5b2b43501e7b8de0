//! The client as a whole: sessions one after the other, with ever longer pauses between attempts that fail.
//!
//! Never tries again with credentials that were refused, and never accepts a server that it cannot verify.

use crate::addresses::AddressWatch;
use crate::connect::{Dialer, resolve};
use crate::credentials::{CredentialError, Login, Ready};
use crate::error::{LoginError, Remedy};
use crate::event::Event;
use crate::kerberos;
use crate::owner::{OwnerError, SocketOwner};
use crate::sasl::Mechanism;
use crate::session::{Ended, Session, Shown, Tools};
use crate::tickets::Tickets;
use nufw_common::backoff::Backoff;
use nufw_common::exit::Exit;
use nufw_common::tls::{self, ClientTls, TlsError};
use nufw_common::{clock, lifecycle};
use nufw_proto::client::{
    CONVERSATION, Capabilities, EndCause, Hello, OsInfo, PROGRAM_HASHES, REASONS, REFUSALS, Refusal, TICKETS,
};
use nufw_proto::{CLIENT_ALPN, Text};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// The first pause between two attempts is at most this long.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// No pause between two attempts is longer.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A session that lasted so long was a good one: the next attempt follows after a short pause.
const GOOD_SESSION: Duration = Duration::from_secs(30);

/// What a client needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Name or address of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// Further addresses of the same server, as for the other address family.
    pub also: Vec<SocketAddr>,
    /// The name that the server's certificate must prove; the host by default.
    pub name: Option<String>,
    /// Certificate authorities, PEM.
    pub ca: PathBuf,
    /// Their revocation lists, PEM.
    pub crl: Option<PathBuf>,
    /// Own certificate and its key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How to log in.
    pub login: Login,
    /// Log in by this mechanism alone; by the best that the server offers when `None`.
    pub mechanism: Option<Mechanism>,
    /// Whose sockets are claimed: this user's, by number; the caller's own when `None`.
    pub system_uid: Option<u32>,
    /// End when there is no session, instead of trying again.
    pub once: bool,
    /// Log in again also when the server has ended the session.
    pub stay: bool,
    /// Where the ticket for the next login is kept, beside memory.
    pub ticket_file: Option<PathBuf>,
    /// Be told of refused connections, where the server tells of them.
    pub hears_refusals: bool,
}

/// Why a client ends.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no session, and trying again is no use or not wanted.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// A session ended, and another one is not wanted.
    #[error("{0}")]
    Lost(String),
    /// The server ended the session, and wants no other one now.
    #[error("the server ended the session: {0}")]
    Ended(String),
    /// The password is not usable.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A certificate, key or name is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The kernel does not answer about sockets.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The kernel does not tell of addresses.
    #[error("the addresses of this host cannot be watched (rtnetlink): {0}")]
    Addresses(io::Error),
    /// The system gives no thread or no runtime.
    #[error("the session cannot be started: {0}")]
    Runtime(io::Error),
    /// Another user's sockets can be seen only by root.
    #[error("claiming another user's sockets (--system) needs root: run it by the service manager")]
    NotRoot,
}

impl ClientError {
    /// The exit code of a command that ends so.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Login(error) => match error.remedy() {
                // The server is there, and may be able to say later.
                Remedy::Retry if error.is_unsaid() => Exit::TempFail,
                Remedy::Retry => Exit::Unavailable,
                Remedy::Credentials | Remedy::Ticket => Exit::NoPerm,
                Remedy::Configuration => Exit::Config,
            },
            Self::Lost(_) => Exit::Unavailable,
            Self::Ended(_) => Exit::TempFail,
            Self::Credentials(_) | Self::Tls(_) => Exit::Config,
            Self::Owner(_) | Self::Addresses(_) | Self::Runtime(_) => Exit::OsErr,
            Self::NotRoot => Exit::NoPerm,
        }
    }
}

/// What a running client can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Say goodbye and end.
    Stop,
    /// Read password and certificates again for the next connection.
    Reload,
}

/// A client of one user.
pub struct Client {
    options: Options,
    dialer: Dialer,
    secrets: Secrets,
    tickets: Tickets,
    owner: SocketOwner,
    watch: AddressWatch,
    reload: bool,
}

/// How to log in, and what has been read of it.
pub(crate) struct Secrets {
    login: Login,
    ready: Option<Ready>,
}

impl Secrets {
    /// What there is to show, without asking anybody.
    pub(crate) fn known(&mut self) -> Option<&Ready> {
        if self.ready.is_none() && !self.login.is_asked() {
            self.ready = self.login.read().ok();
        }
        self.ready.as_ref()
    }

    /// The same; whoever is at the terminal may have to be asked.
    fn had(&mut self) -> Result<&Ready, CredentialError> {
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => self.login.read()?,
        };
        Ok(self.ready.insert(ready))
    }
}

impl Client {
    /// Reads certificates and password and opens what the kernel is asked by; within a tokio runtime. Connects to
    /// nothing yet.
    pub fn new(options: Options) -> Result<Self, ClientError> {
        let own = rustix::process::geteuid();
        if options.system_uid.is_some() && !own.is_root() {
            return Err(ClientError::NotRoot);
        }
        let dialer = load(&options)?;
        let server = format!("{}:{}", options.host, options.port);
        let user = options.login.user().cloned();
        let tickets = Tickets::open(server, user, options.ticket_file.clone());
        let mut secrets = Secrets {
            login: options.login.clone(),
            ready: None,
        };
        if tickets.current().is_none() {
            // What is wrong with them is told before anything is connected to.
            secrets.had()?;
        }
        Ok(Self {
            owner: SocketOwner::open(options.system_uid.unwrap_or(own.as_raw()))?,
            watch: AddressWatch::open().map_err(ClientError::Addresses)?,
            options,
            dialer,
            secrets,
            tickets,
            reload: false,
        })
    }

    /// Logs in and serves, again and again, until told to stop (or until the sender of `commands` is gone).
    pub async fn run(
        mut self,
        commands: &mut mpsc::Receiver<Command>,
        emit: &mut (dyn FnMut(Event) + Send),
    ) -> Result<(), ClientError> {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        let mut has_logged_in = false;
        loop {
            let mut reload = false;
            let attempt = tokio::select! {
                attempt = self.attempt() => attempt,
                () = stopped(commands, &mut reload) => return Ok(()),
            };
            self.reload |= reload;
            let mut least_pause = Duration::ZERO;
            let reason = match attempt {
                Ok((session, servers)) => {
                    has_logged_in = true;
                    let began = clock::mono();
                    match self.serve(session, &servers, commands, emit).await {
                        Ended::Stopped => {
                            self.tickets.forget();
                            emit(Event::LoggedOut);
                            return Ok(());
                        }
                        Ended::Refused(error) => return Err(error.into()),
                        Ended::Over { cause, reason } => {
                            // A session that grew too old is had again by the credentials.
                            self.tickets.forget();
                            if cause != EndCause::Expired && !self.options.stay {
                                emit(Event::Ended {
                                    cause,
                                    reason: reason.clone(),
                                });
                                return Err(ClientError::Ended(reason));
                            }
                            if self.options.once {
                                return Err(ClientError::Lost(reason));
                            }
                            if cause != EndCause::Expired {
                                least_pause = MAX_PAUSE;
                            }
                            format!("the server ended the session: {reason}")
                        }
                        Ended::Lost(reason) => {
                            if clock::mono() >= began + GOOD_SESSION {
                                backoff.reset();
                            }
                            if self.options.once {
                                return Err(ClientError::Lost(reason));
                            }
                            reason
                        }
                    }
                }
                Err(AttemptError::Credentials(error)) => return Err(error.into()),
                Err(AttemptError::Login(error)) => {
                    let is_final = match error.remedy() {
                        Remedy::Credentials => true,
                        // Once the settings have worked, what is wrong is on the way to the server; and a ticket that has run
                        // out is had again by somebody or something else.
                        Remedy::Configuration | Remedy::Ticket => !has_logged_in,
                        Remedy::Retry => false,
                    };
                    if is_final || self.options.once {
                        return Err(error.into());
                    }
                    if let LoginError::Refused {
                        cause: Refusal::TooManyFailures,
                        ..
                    } = error
                    {
                        least_pause = MAX_PAUSE;
                    }
                    error.to_string()
                }
            };
            let retry_in = backoff.next().max(least_pause);
            emit(Event::Lost { reason, retry_in });
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                command = commands.recv() => match command {
                    // Whoever says that the credentials are new wants them tried.
                    Some(Command::Reload) => self.reload = true,
                    Some(Command::Stop) | None => return Ok(()),
                },
            }
        }
    }

    /// Tries every address of the server until one takes the login. The first failure is the one that is told: it is
    /// of the address that the resolver thinks best.
    async fn attempt(&mut self) -> Result<(Session, Vec<SocketAddr>), AttemptError> {
        if std::mem::take(&mut self.reload) {
            self.load_again();
        }
        let servers = resolve(&self.options.host, self.options.port, &self.options.also).await?;
        let mut first = None;
        for &server in &servers {
            match self.log_in(server).await {
                Ok(session) => return Ok((session, servers)),
                Err(AttemptError::Login(error)) if error.remedy() == Remedy::Credentials => {
                    return Err(error.into());
                }
                // At another address of the server the ticket would be worthless, and forgotten.
                Err(AttemptError::Login(error)) if error.is_unsaid() && self.tickets.current().is_some() => {
                    return Err(error.into());
                }
                Err(error @ AttemptError::Credentials(_)) => return Err(error),
                Err(AttemptError::Login(error)) => {
                    tracing::debug!(%server, %error, "no login there");
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or(LoginError::Closed).into())
    }

    /// By the ticket, if there is one; where it is not good, at once by the credentials.
    async fn log_in(&mut self, server: SocketAddr) -> Result<Session, AttemptError> {
        let wanted = self.options.mechanism;
        let mechanisms = wanted
            .as_ref()
            .map_or_else(|| self.options.login.mechanisms(), std::slice::from_ref);
        if let Some(ticket) = self.tickets.current().cloned() {
            let shown = Shown::Ticket(ticket);
            match Session::open(&self.dialer, server, self.hello(), mechanisms, shown).await {
                Err(LoginError::Refused {
                    cause: Refusal::Ticket,
                    ..
                }) => {
                    tracing::debug!("the ticket is not good any more");
                    self.tickets.forget();
                }
                // Kept: a server of before an update may be followed by one that takes it.
                Err(LoginError::NoTickets) => {}
                result => return Ok(result?),
            }
        }
        let hello = self.hello();
        let ready = self.secrets.had()?.clone();
        if let Ready::Ticket(_) = ready {
            // Before a server is troubled.
            kerberos::look().await?;
        }
        let shown = Shown::Login(ready);
        Ok(Session::open(&self.dialer, server, hello, mechanisms, shown).await?)
    }

    fn load_again(&mut self) {
        let loaded = load(&self.options);
        let ready = if self.options.login.is_asked() {
            Ok(self.secrets.ready.clone())
        } else {
            self.options.login.read().map(Some)
        };
        match (loaded, ready) {
            (Ok(dialer), Ok(ready)) => {
                self.dialer = dialer;
                self.secrets.ready = ready;
                // Whoever has new credentials wants them shown.
                self.tickets.forget();
            }
            (Err(error), _) => tracing::warn!(%error, "keeping the old credentials"),
            (_, Err(error)) => tracing::warn!(%error, "keeping the old credentials"),
        }
    }

    async fn serve(
        &mut self,
        session: Session,
        servers: &[SocketAddr],
        commands: &mut mpsc::Receiver<Command>,
        emit: &mut (dyn FnMut(Event) + Send),
    ) -> Ended {
        emit(Event::LoggedIn {
            user: session.logged_in.user.to_string(),
            server: session.server,
            address: session.logged_in.address,
        });
        lifecycle::notify_ready();
        let tools = Tools {
            owner: &mut self.owner,
            watch: &mut self.watch,
            commands,
            emit,
            reload: &mut self.reload,
            tickets: &mut self.tickets,
            secrets: &mut self.secrets,
        };
        session.run(&self.dialer, servers, tools).await
    }

    fn refusals(&self) -> Capabilities {
        if self.options.hears_refusals {
            REFUSALS
        } else {
            Capabilities::default()
        }
    }

    fn hello(&self) -> Hello {
        let uname = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        Hello {
            software: Text::lossy(concat!("nutcpc ", env!("CARGO_PKG_VERSION"))),
            capabilities: PROGRAM_HASHES
                .and(REASONS)
                .and(TICKETS)
                .and(CONVERSATION)
                .and(self.refusals()),
            os: OsInfo {
                name: Text::lossy(&text(uname.sysname())),
                release: Text::lossy(&text(uname.release())),
                version: Text::lossy(&text(uname.version())),
            },
            system: self.options.system_uid.is_some(),
        }
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

fn load(options: &Options) -> Result<Dialer, ClientError> {
    let config = tls::client_config(&ClientTls {
        ca: options.ca.clone(),
        crl: options.crl.clone(),
        cert_key: options.certificate.clone(),
        alpn: CLIENT_ALPN.to_vec(),
    })?;
    let name = tls::server_name(options.name.as_deref().unwrap_or(&options.host))?;
    Ok(Dialer::new(config, name))
}

/// Waits for the command to stop, and notes one to reload.
async fn stopped(commands: &mut mpsc::Receiver<Command>, reload: &mut bool) {
    while let Some(Command::Reload) = commands.recv().await {
        *reload = true;
    }
}
