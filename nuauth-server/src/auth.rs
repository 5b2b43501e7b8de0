//! Logging in: what a SASL response says, whether it is true, and how often somebody may try.
//!
//! No I/O. The password check is expensive on purpose: callers run [`Login::verify`] on a blocking thread, a bounded
//! number at a time, and ask the [`FailureLimiter`] right before it.

mod limiter;
mod sasl;

pub use limiter::{FailureLimiter, Locked};
pub use sasl::Login;
pub(crate) use sasl::{prepared_name, prepared_password};

use crate::users::{User, Users};
use nufw_common::tls::PeerNames;
use nufw_proto::client::Refusal;
use std::sync::Arc;

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
}

impl LoginError {
    /// What the client is told: never which part of the credentials is wrong.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Mechanism(_) => Refusal::Mechanism,
            _ => Refusal::Credentials,
        }
    }
}

/// Parses and verifies in one step; blocks for the time of a password check.
pub fn authenticate(
    users: &Users,
    mechanism: &str,
    response: &[u8],
    certificate_cn: Option<&str>,
) -> Result<Arc<User>, LoginError> {
    Login::parse(mechanism, response, certificate_cn)?.verify(users)
}

/// The common name by which a verified certificate may log a user in: never that of a server or gateway, which carry
/// host names.
pub fn certificate_user(names: &PeerNames) -> Option<&str> {
    if names.dns.is_empty() {
        names.common_name.as_deref()
    } else {
        None
    }
}

#[cfg(test)]
#[path = "auth/tests.rs"]
mod tests;
