//! How the user shows who they are: a password or a certificate, as SASL's one message or what a conversation begins with.
//!
//! Passwords are read here and nowhere shown; where one comes from is the command's choice.

use crate::kerberos::Ticket;
use crate::sasl::Mechanism;
use nufw_proto::LoginBytes;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest password, bytes.
pub const MAX_PASSWORD: usize = 1024;

/// A password, or a user name that cannot be sent with one, is not usable.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The password's file cannot be read.
    #[error("cannot read the password from {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// Everybody on the host may read the password.
    #[error("password file {} is readable by everybody; run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The password is empty, too long or holds a NUL.
    #[error("the password {0}")]
    Password(&'static str),
    /// The user name is empty, too long or holds a NUL.
    #[error("the user name {0}")]
    User(&'static str),
}

/// Where the password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// In a file, whose first line it is; read again when credentials are reloaded.
    File(PathBuf),
    /// Here, as typed or as read from a descriptor.
    Given(Zeroizing<String>),
    /// In the user's head: asked for on the terminal, with these words, when it is needed.
    Asked(String),
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// SASL PLAIN.
    Password {
        /// Name of the user.
        user: String,
        /// The password.
        password: Password,
    },
    /// A Kerberos ticket, as the system's library finds it.
    Kerberos {
        /// The name of the server's host.
        host: String,
        /// Name of the user, if it shall be checked against the ticket's.
        user: Option<String>,
    },
    /// SASL EXTERNAL: the client certificate of the TLS connection says who it is.
    Certificate {
        /// Name of the user, if it shall be checked against the certificate's.
        user: Option<String>,
    },
}

/// Credentials that were read.
#[derive(Clone)]
pub(crate) enum Ready {
    /// A password, and whose it is.
    Password {
        user: String,
        password: Zeroizing<String>,
    },
    /// A certificate, with the one message that it needs.
    Certificate(LoginBytes),
    /// A ticket, which is looked for when it is needed.
    Ticket(Ticket),
}

impl Login {
    /// SASL names of the mechanisms that these credentials are for, best first.
    pub fn mechanisms(&self) -> &'static [Mechanism] {
        match self {
            Self::Password { .. } => &[Mechanism::ScramPlus, Mechanism::Scram, Mechanism::Plain],
            Self::Certificate { .. } => &[Mechanism::External],
            Self::Kerberos { .. } => &[Mechanism::Kerberos],
        }
    }

    /// Name of the user, if it is known here.
    pub(crate) fn user(&self) -> Option<&String> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::Certificate { user } | Self::Kerberos { user, .. } => user.as_ref(),
        }
    }

    /// Whether somebody must be asked for it.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(
            self,
            Self::Password {
                password: Password::Asked(_),
                ..
            }
        )
    }

    /// Reads what has to be read, once.
    pub(crate) fn read(&self) -> Result<Ready, CredentialError> {
        if let Some(user) = self.user() {
            check_user(user)?;
        }
        Ok(match self {
            Self::Password { user, password } => Ready::Password {
                user: user.clone(),
                password: password.read()?,
            },
            Self::Certificate { user } => {
                Ready::Certificate(secret(user.clone().unwrap_or_default().into_bytes())?)
            }
            Self::Kerberos { host, user } => Ready::Ticket(Ticket {
                host: host.clone(),
                user: user.clone(),
            }),
        })
    }
}

/// RFC 4616: no authorisation identity, NUL, user, NUL, password.
pub(crate) fn plain(user: &str, password: &str) -> Result<LoginBytes, CredentialError> {
    let mut bytes = Vec::with_capacity(user.len() + password.len() + 2);
    bytes.push(0);
    bytes.extend_from_slice(user.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(password.as_bytes());
    secret(bytes)
}

fn secret(bytes: Vec<u8>) -> Result<LoginBytes, CredentialError> {
    LoginBytes::new(bytes).map_err(|_| CredentialError::Password("is too long"))
}

impl Password {
    fn read(&self) -> Result<Zeroizing<String>, CredentialError> {
        match self {
            Self::Given(password) => {
                check_password(password)?;
                Ok(password.clone())
            }
            Self::Asked(words) => {
                let unreadable = |cause| CredentialError::Unreadable {
                    path: PathBuf::from("the terminal"),
                    cause,
                };
                let password = rpassword::prompt_password(words).map_err(unreadable)?;
                check_password(&password)?;
                Ok(Zeroizing::new(password))
            }
            Self::File(path) => {
                let unreadable = |cause| CredentialError::Unreadable {
                    path: path.clone(),
                    cause,
                };
                let file = std::fs::File::open(path).map_err(unreadable)?;
                let meta = file.metadata().map_err(unreadable)?;
                if meta.is_file() && meta.permissions().mode() & 0o007 != 0 {
                    return Err(CredentialError::Exposed { path: path.clone() });
                }
                read_password(file, path)
            }
        }
    }
}

/// Reads a password up to the end of the first line.
pub(crate) fn read_password(from: impl Read, path: &Path) -> Result<Zeroizing<String>, CredentialError> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_PASSWORD + 2));
    let limit = u64::try_from(MAX_PASSWORD + 2).unwrap_or(u64::MAX);
    from.take(limit)
        .read_to_string(&mut text)
        .map_err(|cause| CredentialError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
    let line = text.split('\n').next().unwrap_or_default();
    let password = Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned());
    check_password(&password)?;
    Ok(password)
}

fn check_password(password: &str) -> Result<(), CredentialError> {
    match password {
        "" => Err(CredentialError::Password("is empty")),
        long if long.len() > MAX_PASSWORD => Err(CredentialError::Password("is longer than 1024 bytes")),
        nul if nul.contains('\0') => Err(CredentialError::Password("holds a NUL character")),
        _ => Ok(()),
    }
}

fn check_user(user: &str) -> Result<(), CredentialError> {
    match user {
        "" => Err(CredentialError::User("is empty")),
        long if long.len() > 255 => Err(CredentialError::User("is longer than 255 bytes")),
        bad if bad.chars().any(char::is_control) => Err(CredentialError::User("holds a control character")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(user: &str, password: &str) -> Login {
        Login::Password {
            user: user.to_owned(),
            password: Password::Given(Zeroizing::new(password.to_owned())),
        }
    }

    #[test]
    fn plain_is_as_rfc_4616_wants_it() {
        assert_eq!(
            super::plain("tim", "tanstaaftanstaaf").unwrap().expose(),
            b"\0tim\0tanstaaftanstaaf"
        );
    }

    #[test]
    fn what_would_change_the_meaning_is_refused() {
        for (user, password) in [("", "x"), ("a\0b", "x"), ("a", ""), ("a", "b\0c")] {
            assert!(plain(user, password).read().is_err(), "{user:?} {password:?}");
        }
        assert!(plain("a", &"x".repeat(MAX_PASSWORD + 1)).read().is_err());
    }

    #[test]
    fn a_file_gives_its_first_line_and_must_not_be_open_to_everybody() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pass word\r\nnot this\n").unwrap();
        let login = Login::Password {
            user: "a".to_owned(),
            password: Password::File(file.path().to_owned()),
        };
        let read = login.read().unwrap();
        assert!(matches!(read, Ready::Password { password, .. } if *password == "pass word"));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(login.read().err().unwrap().to_string().contains("chmod 600"));
    }

    #[test]
    fn nothing_shows_the_password() {
        let shown = format!("{:?}", super::plain("tim", "secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
