//! What an administrator asks of a running server, and the answers: sessions, questions, connections, orders.
//!
//! Lists come a page at a time, since a line is bounded; ids are text, as everywhere in JSON.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Items of one page.
pub const PAGE: usize = 20;
/// Addresses of one session that are shown.
pub const ADDRESSES: usize = 32;

/// Which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Those of the user of this name.
    User(String),
    /// The one with this number.
    Session(u64),
    /// Those that hold this address.
    Address(IpAddr),
    /// Those of users whose name fits: `*` for any text, `?` for any character.
    Pattern(String),
}

impl Target {
    /// Whether a session is meant.
    pub fn means(&self, session: u64, user: &str, addresses: &[IpAddr]) -> bool {
        match self {
            Self::User(name) => name == user,
            Self::Session(number) => *number == session,
            Self::Address(address) => addresses.contains(&address.to_canonical()),
            Self::Pattern(pattern) => fits(pattern, user),
        }
    }
}

/// Whether a text fits a pattern with `*` and `?`.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // The last star, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Which connections are wanted; what is absent fits all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Wanted {
    /// Of this user.
    pub user: Option<String>,
    /// From or to this address.
    pub address: Option<IpAddr>,
    /// From or to this port.
    pub port: Option<u16>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number.
    pub session: String,
    /// The user's name.
    pub username: String,
    /// The user's number.
    pub user_id: String,
    /// How sure that is: `address`, `password` or `certificate`.
    pub quality: String,
    /// Its addresses; the login's first.
    pub addresses: Vec<IpAddr>,
    /// When it began, RFC 3339.
    pub since: String,
    /// Seconds in which nothing was granted to it.
    pub idle: u64,
    /// What the client says of its operating system.
    pub os: String,
}

/// A connection that waits for its decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingInfo {
    /// The question's number.
    pub question: String,
    /// The gateway.
    pub gateway: String,
    /// Protocol, by name where it has one.
    pub protocol: String,
    /// Source, with port.
    pub source: String,
    /// Destination, with port.
    pub destination: String,
    /// Packets that wait.
    pub packets: u64,
    /// Clients that have not answered.
    pub unanswered: u64,
    /// `asking`, or `writing` where it is granted and its row is being written.
    pub state: String,
    /// Milliseconds until it is given up.
    pub left_ms: u64,
}

/// A live connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its row's id.
    pub id: String,
    /// The gateway.
    pub gateway: String,
    /// The user's number, if it has a user.
    pub user_id: Option<String>,
    /// The user's name, where it is known.
    pub username: Option<String>,
    /// Protocol, by name where it has one.
    pub protocol: String,
    /// Source, with port.
    pub source: String,
    /// Destination, with port.
    pub destination: String,
    /// `open` or `established`.
    pub state: String,
    /// When its first packet came, RFC 3339.
    pub since: String,
    /// The program, as the client says.
    pub program: Option<String>,
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// Its name.
    pub gateway: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it tells what becomes of connections.
    pub relays_events: bool,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next part begins, if there is one.
    pub next: Option<u64>,
}

/// Who was thrown out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnected {
    /// The sessions' numbers, as many as fit a line.
    pub sessions: Vec<String>,
    /// How many there were.
    pub count: usize,
}

/// The access lists in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// The file.
    pub file: String,
    /// The first half of its SHA-256, hexadecimal.
    pub version: String,
    /// When it was read, RFC 3339.
    pub read: String,
    /// Reloads that succeeded since the start.
    pub reloads: u64,
    /// Whether the last reload failed: what is on disk is not what is in force.
    pub last_failed: bool,
}

/// What came of a request that gives a sentence for an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The sentence, or the value that was asked for.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_a_shell_would_say_it_fits() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "alice"),
            ("a*", "alice"),
            ("*e", "alice"),
            ("a*i*e", "alice"),
            ("al?ce", "alice"),
            ("**", "x"),
            ("*ab", "aab"),
            ("ü?", "üö"),
            ("", ""),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("?", ""),
            ("a", "A"),
            ("a*b", "abc"),
            ("?", "ab"),
            ("*b?", "ab"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        // Takes no time that grows with the stars.
        assert!(!fits(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn a_target_means_what_it_says() {
        let at = ["10.0.0.7".parse().unwrap()];
        let means = |target: Target| target.means(5, "alice", &at);
        assert!(means(Target::User("alice".into())) && !means(Target::User("alic".into())));
        assert!(means(Target::Session(5)) && !means(Target::Session(6)));
        assert!(means(Target::Address("::ffff:10.0.0.7".parse().unwrap())));
        assert!(!means(Target::Address("10.0.0.8".parse().unwrap())));
        assert!(means(Target::Pattern("al*".into())) && !means(Target::Pattern("bo*".into())));
    }
}
