//! Logging in: what a SASL response says, whether it is true, and how often somebody may try.
//!
//! No I/O: `directory` asks whether it is true, and the port asks the [`FailureLimiter`] right before that.

mod limiter;
mod sasl;
pub(crate) mod scram;

pub use limiter::{FailureLimiter, Locked};
pub use sasl::Login;
pub(crate) use sasl::{Proof, prepared_name, prepared_password};

use crate::config::CertificateName;
use crate::users::name::NameError;
use nufw_common::tls::PeerNames;
use nufw_proto::client::Refusal;

/// Why a login failed: for our log. The client only learns [`LoginError::refusal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The mechanism does not exist here.
    #[error("mechanism \"{0}\" is not offered")]
    Mechanism(String),
    /// The response is not of the mechanism's form.
    #[error("the {mechanism} response is malformed: {why}")]
    Malformed {
        /// The mechanism.
        mechanism: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Somebody wants to be somebody else.
    #[error("{name} asked to act as another user")]
    OtherIdentity {
        /// Who asked.
        name: String,
    },
    /// It is no name that a user can have.
    #[error("\"{name}\" is no user's name: {why}")]
    Name {
        /// What was said.
        name: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// Whoever is asked does not answer, or the answer cannot be used: nothing is known about the credentials.
    #[error("login of \"{name}\" cannot be checked: {why}")]
    CannotSay {
        /// Who wanted to log in.
        name: String,
        /// Why.
        why: String,
    },
    /// So many others wait to be checked that its turn would come too late.
    #[error("login of \"{0}\" cannot be checked yet: too many others wait for their turn")]
    Busy(String),
    /// Others have failed too often before.
    #[error("login of \"{name}\" not even looked at: {locked}")]
    Locked {
        /// Who wanted to log in.
        name: String,
        /// For how long.
        locked: Locked,
    },
    /// There is no such user.
    #[error("there is no user \"{0}\"")]
    UnknownUser(String),
    /// The password is wrong.
    #[error("wrong password for user \"{0}\"")]
    WrongPassword(String),
    /// The user cannot log in by password.
    #[error("user \"{0}\" has no password")]
    NoPassword(String),
    /// EXTERNAL without a certificate of a user.
    #[error("EXTERNAL without a user's certificate")]
    NoCertificate,
    /// The certificate is nobody's.
    #[error("the certificate for \"{0}\" is no user's")]
    UnknownCertificate(String),
    /// The Kerberos library does not accept the ticket.
    #[error("the Kerberos ticket is not accepted: {0}")]
    Ticket(String),
    /// The ticket is good, and its principal no user.
    #[error("the Kerberos principal \"{principal}\" is no user: {why}")]
    Principal {
        /// The principal.
        principal: String,
        /// Why.
        why: &'static str,
    },
    /// Whoever takes tickets does not answer.
    #[error("a Kerberos ticket cannot be checked: {0}")]
    TicketUnsaid(String),
}

impl LoginError {
    /// What the client is told: never which part of the credentials is wrong.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Mechanism(_) => Refusal::Mechanism,
            Self::CannotSay { .. } | Self::TicketUnsaid(_) | Self::Busy(_) => Refusal::Unavailable,
            Self::Locked { .. } => Refusal::TooManyFailures,
            _ => Refusal::Credentials,
        }
    }
}

/// The name by which a verified certificate may log a user in: the first of the wanted kinds of which it has exactly one.
/// The common name of one with host names is that of a server or gateway, and nobody's.
pub fn certificate_user<'a>(names: &'a PeerNames, wanted: &[CertificateName]) -> Option<&'a str> {
    let one = |names: &'a [String]| match names {
        [name] => Some(name.as_str()),
        _ => None,
    };
    wanted.iter().find_map(|kind| match kind {
        CertificateName::CommonName if names.dns.is_empty() => names.common_name.as_deref(),
        CertificateName::CommonName => None,
        CertificateName::Email => one(&names.emails),
        CertificateName::Upn => one(&names.principals),
        CertificateName::Dns => one(&names.dns),
    })
}

#[cfg(test)]
#[path = "auth/tests.rs"]
mod tests;
