//! What happens to a client, in a form that a program, a script or a person can be told.
//!
//! Only words: nothing here prints.

use nufw_proto::client::{Denied, EndCause};
use nufw_proto::{Addr, Tuple};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Something that the user may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session began.
    LoggedIn {
        /// Name of the user, as the server knows it.
        user: String,
        /// The server.
        server: SocketAddr,
        /// The client's address, as the server sees it.
        address: Addr,
    },
    /// A further address belongs to the session.
    Proved {
        /// The address, as the server sees it.
        address: Addr,
    },
    /// A further address could not be proven; it is tried again.
    NotProved {
        /// The address of this host.
        address: Addr,
        /// Why.
        reason: String,
    },
    /// The host lost an address.
    Withdrawn {
        /// The address, as the server saw it.
        address: Addr,
    },
    /// The server says something.
    Notice {
        /// A sentence.
        text: String,
    },
    /// The server refused a connection of this user's.
    Denied {
        /// The connection, as its socket sees it.
        seen: Tuple,
        /// The program that opened it, where it is known.
        program: Option<String>,
        /// The program was told at once; otherwise its packets are dropped silently.
        rejected: bool,
        /// Refusals before this one that the server did not tell of.
        untold: u32,
    },
    /// The server has ended the session, and another one is not wanted now.
    Ended {
        /// Why, for programs.
        cause: EndCause,
        /// Why, in the server's words.
        reason: String,
    },
    /// There is no session; another attempt follows.
    Lost {
        /// Why.
        reason: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The session was ended by this side.
    LoggedOut,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedIn {
                user,
                server,
                address,
            } => write!(f, "logged in as {user} on server {server} from {address}"),
            Self::Proved { address } => write!(f, "proved {address}"),
            Self::NotProved { address, reason } => write!(f, "could not prove {address}: {reason}"),
            Self::Withdrawn { address } => write!(f, "withdrew {address}"),
            Self::Notice { text } => write!(f, "server: {text}"),
            Self::Denied {
                seen,
                program,
                untold,
                ..
            } => {
                write!(f, "refused: {seen}")?;
                if let Some(program) = program {
                    write!(f, " of {program}")?;
                }
                match untold {
                    0 => Ok(()),
                    untold => write!(f, " (and {untold} before it)"),
                }
            }
            Self::Ended { reason, .. } => write!(f, "the server ended the session: {reason}"),
            Self::Lost { reason, retry_in } => {
                write!(f, "{reason}; trying again in {}", seconds(*retry_in))
            }
            Self::LoggedOut => f.write_str("logged out"),
        }
    }
}

impl Event {
    /// One JSON object; its keys are part of the command's interface.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::json;
        match self {
            Self::LoggedIn {
                user,
                server,
                address,
            } => json!({
                "event": "logged-in", "user": user, "server": server.to_string(), "address": address.to_string(),
            }),
            Self::Proved { address } => json!({"event": "proved", "address": address.to_string()}),
            Self::NotProved { address, reason } => {
                json!({"event": "not-proved", "address": address.to_string(), "reason": reason})
            }
            Self::Withdrawn { address } => json!({"event": "withdrawn", "address": address.to_string()}),
            Self::Notice { text } => json!({"event": "notice", "text": text}),
            Self::Lost { reason, retry_in } => {
                json!({"event": "lost", "reason": reason, "retry_in_ms": u64::try_from(retry_in.as_millis()).ok()})
            }
            Self::Denied {
                seen,
                program,
                rejected,
                untold,
            } => json!({
                "event": "refused", "connection": seen.to_string(), "program": program, "rejected": rejected,
                "untold": untold,
            }),
            Self::Ended { cause, reason } => {
                json!({"event": "ended", "cause": cause_word(*cause), "reason": reason})
            }
            Self::LoggedOut => json!({"event": "logged-out"}),
        }
    }
}

impl From<Denied> for Event {
    fn from(denied: Denied) -> Self {
        Self::Denied {
            seen: denied.mine.seen,
            program: denied.mine.program.map(Into::into),
            rejected: denied.rejected,
            untold: denied.untold,
        }
    }
}

fn cause_word(cause: EndCause) -> &'static str {
    match cause {
        EndCause::Ordered => "ordered",
        EndCause::Removed => "removed",
        EndCause::Replaced => "replaced",
        EndCause::Idle => "idle",
        EndCause::Expired => "expired",
        EndCause::Hours => "hours",
        EndCause::Misbehaved => "misbehaved",
    }
}

fn seconds(delay: Duration) -> String {
    if delay < Duration::from_secs(1) {
        format!("{} ms", delay.as_millis())
    } else {
        format!("{:.0} s", delay.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_sentences_and_as_json() {
        let event = Event::LoggedIn {
            user: "alice".to_owned(),
            server: "10.0.0.1:4129".parse().unwrap(),
            address: "10.0.0.5".parse().unwrap(),
        };
        assert_eq!(
            event.to_string(),
            "logged in as alice on server 10.0.0.1:4129 from 10.0.0.5"
        );
        assert_eq!(
            event.to_json().to_string(),
            r#"{"address":"10.0.0.5","event":"logged-in","server":"10.0.0.1:4129","user":"alice"}"#
        );
        let event = Event::Lost {
            reason: "connection lost".to_owned(),
            retry_in: Duration::from_millis(1900),
        };
        assert_eq!(event.to_string(), "connection lost; trying again in 2 s");
        assert_eq!(event.to_json()["retry_in_ms"], 1900);
    }
}
