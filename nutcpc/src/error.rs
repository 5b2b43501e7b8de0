//! Why there is no session: each cause a sentence for the person who wants to log in.
//!
//! [`LoginError::remedy`] decides whether trying again can help.

use nufw_common::link::LinkError;
use nufw_common::tls::TlsError;
use nufw_proto::client::{Refusal, Refused};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What can be done about a [`LoginError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Trying again later may help.
    Retry,
    /// The credentials must be others.
    Credentials,
    /// The client's settings or the server's certificate must be others.
    Configuration,
    /// A ticket must be had first.
    Ticket,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The name of the server has no address.
    #[error("the server {host} has no address: {cause}")]
    Resolve {
        /// The name.
        host: String,
        /// The system's reason.
        cause: io::Error,
    },
    /// No TCP connection.
    #[error("cannot reach the server {server}: {cause}")]
    Connect {
        /// The server.
        server: SocketAddr,
        /// The system's reason.
        cause: io::Error,
    },
    /// No TLS session.
    #[error("{}", handshake(*server, cause))]
    Handshake {
        /// The server.
        server: SocketAddr,
        /// What TLS says.
        cause: io::Error,
    },
    /// What answers is not an authentication server for clients.
    #[error("{server} is not a server for clients: {cause}")]
    Protocol {
        /// The server.
        server: SocketAddr,
        /// What it speaks.
        cause: TlsError,
    },
    /// The server is too slow.
    #[error("the server {server} did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// The server.
        server: SocketAddr,
        /// How long was waited.
        limit: Duration,
    },
    /// The server does not offer the login that was asked for.
    #[error("the server does not offer {wanted} logins here (it offers: {offered})")]
    Mechanism {
        /// SASL mechanism.
        wanted: &'static str,
        /// What it offers.
        offered: String,
    },
    /// The server takes no tickets.
    #[error("the server takes no tickets")]
    NoTickets,
    /// The server said no.
    #[error("{}", refusal(*cause, reason))]
    Refused {
        /// Why, for programs.
        cause: Refusal,
        /// Why, in the server's words.
        reason: String,
    },
    /// The server does not keep to the mechanism, or could not prove that it knows the user.
    #[error("the server's part of the login is wrong: {0}")]
    Conversation(String),
    /// The Kerberos library has no ticket for the server.
    #[error("no Kerberos ticket for the server: {why}")]
    Kerberos {
        /// What it says.
        why: String,
        /// No KDC answered it.
        is_unreachable: bool,
    },
    /// The server said goodbye.
    #[error("the server ended the connection: {0}")]
    Goodbye(String),
    /// The server hung up.
    #[error("the server ended the connection without a word")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The server sent something that has no place there.
    #[error("the server broke the protocol: it sent {0}")]
    Unexpected(&'static str),
}

impl From<Refused> for LoginError {
    fn from(refused: Refused) -> Self {
        Self::Refused {
            cause: refused.cause,
            reason: refused.reason.into(),
        }
    }
}

impl LoginError {
    /// Tells TLS failures from those of the connection: with TLS 1.3 the server judges the client's certificate when
    /// the client's part of the handshake is over.
    pub(crate) fn of_link(server: SocketAddr, error: LinkError) -> Self {
        match error {
            LinkError::Io(cause) if tls_error(&cause).is_some() => Self::Handshake { server, cause },
            error => Self::Link(error),
        }
    }

    /// Whether the server could not find out at the moment whether the credentials are right.
    pub(crate) fn is_unsaid(&self) -> bool {
        let cause = Refusal::Unavailable;
        matches!(self, Self::Refused { cause: refused, .. } if *refused == cause)
    }

    /// Tells what can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Refused { cause, .. } => match cause {
                Refusal::Credentials | Refusal::Mechanism => Remedy::Credentials,
                Refusal::TooManyFailures
                | Refusal::UserFull
                | Refusal::AddressFull
                | Refusal::Hours
                | Refusal::Ticket
                | Refusal::Full
                | Refusal::Token
                | Refusal::Address
                | Refusal::Unavailable => Remedy::Retry,
            },
            Self::Mechanism { .. } => Remedy::Credentials,
            Self::Kerberos { is_unreachable, .. } if !is_unreachable => Remedy::Ticket,
            Self::Protocol { .. } | Self::Conversation(_) => Remedy::Configuration,
            Self::Handshake { cause, .. } if is_distrust(cause) => Remedy::Configuration,
            Self::Handshake { cause, .. } if is_distrusted(cause) => Remedy::Credentials,
            Self::NoTickets
            | Self::Kerberos { .. }
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::TimedOut { .. }
            | Self::Goodbye(_)
            | Self::Closed
            | Self::Link(_)
            | Self::Unexpected(_) => Remedy::Retry,
        }
    }
}

fn tls_error(cause: &io::Error) -> Option<&rustls::Error> {
    cause.get_ref().and_then(|inner| inner.downcast_ref())
}

fn handshake(server: SocketAddr, cause: &io::Error) -> String {
    let why = nufw_common::tls::explain(cause);
    if is_distrusted(cause) {
        format!("the server {server} does not accept our certificate: {why}")
    } else {
        format!("no secure connection to {server}: {why}")
    }
}

/// The server's certificate is not to be trusted, or it speaks another protocol: time does not mend that.
fn is_distrust(cause: &io::Error) -> bool {
    use rustls::{AlertDescription, Error};
    matches!(
        tls_error(cause),
        Some(
            Error::InvalidCertificate(_)
                | Error::NoApplicationProtocol
                | Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | Error::InvalidMessage(_)
        )
    )
}

/// The server does not accept our certificate, or wants one.
fn is_distrusted(cause: &io::Error) -> bool {
    use rustls::{AlertDescription as Alert, Error};
    matches!(
        tls_error(cause),
        Some(Error::AlertReceived(
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
        ))
    )
}

/// Each refusal as a sentence; the server's own words follow where they may say more (of credentials they never do).
pub(crate) fn refusal(cause: Refusal, reason: &str) -> String {
    let sentence = match cause {
        Refusal::Credentials => "the server refused the login: user name, password or certificate is wrong",
        Refusal::TooManyFailures => {
            "the server accepts no login from here at the moment: there were too many failed ones"
        }
        Refusal::Mechanism => "the server does not accept this way of logging in",
        Refusal::Full => "the server has as many sessions as it may have",
        Refusal::Token => "the server does not know this session any more",
        Refusal::Address => "this address belongs to another session, or this session has too many",
        Refusal::Unavailable => "the server cannot check logins at the moment",
        Refusal::UserFull => "this user has as many sessions as a user may have",
        Refusal::AddressFull => "there are as many sessions at this address as there may be",
        Refusal::Hours => "this user may not be logged in at this time of the day",
        Refusal::Ticket => "the ticket of the last session is not good any more",
    };
    if reason.is_empty() || cause == Refusal::Credentials {
        sentence.to_owned()
    } else {
        format!("{sentence} (\"{reason}\")")
    }
}
