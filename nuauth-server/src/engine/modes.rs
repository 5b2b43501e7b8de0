//! What is logged and what waits for it: the levels of the log, the modes of its rules, and what becomes of rows that
//! find no room.
//!
//! Words only; what they do is in `decide` and `sessions`.

use std::fmt;

/// Whether a decision is logged, and whether its packet waits for the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogMode {
    /// As the configuration says for rules that do not say it.
    #[default]
    Default,
    /// A packet is accepted only after its row is durable. A drop never waits.
    Sync,
    /// The same, and rows of the same tuple that the log still takes for live are closed with it.
    Strict,
    /// The packet is answered at once, its row follows.
    Async,
    /// No row.
    None,
}

impl LogMode {
    /// The word in the access lists; none for what is not written there.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Sync => Some("sync"),
            Self::Strict => Some("strict"),
            Self::Async => Some("async"),
            Self::None => Some("none"),
        }
    }
}

/// What becomes of a packet that need not wait for its row when too many such rows are not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOverload {
    /// It waits for its row like that of a synchronous rule.
    #[default]
    Wait,
    /// It is dropped.
    Drop,
}

/// Which rows are written at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Logins (`users`).
    pub sessions: bool,
    /// Refused packets.
    pub drops: bool,
    /// Accepted connections.
    pub connections: bool,
}

impl Levels {
    /// Everything.
    pub const ALL: Self = Self {
        sessions: true,
        drops: true,
        connections: true,
    };
    /// Nothing.
    pub const NONE: Self = Self {
        sessions: false,
        drops: false,
        connections: false,
    };
    /// The words of the configuration.
    pub const WORDS: [&str; 3] = ["sessions", "drops", "connections"];

    /// Adds the level of that name; `false` if there is none.
    pub fn add(&mut self, word: &str) -> bool {
        match word {
            "sessions" => self.sessions = true,
            "drops" => self.drops = true,
            "connections" => self.connections = true,
            _ => return false,
        }
        true
    }

    /// The levels of `nuauth_log_users`: 1 sessions, 2 drops, 4 new connections, 8 everything of packets. A row here is
    /// always a whole one, so that 4 means what 8 means of connections.
    pub fn from_nufw(bits: u8) -> Option<Self> {
        (bits <= 15).then_some(Self {
            sessions: bits & 1 != 0,
            drops: bits & (2 | 8) != 0,
            connections: bits & (4 | 8) != 0,
        })
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = [self.sessions, self.drops, self.connections];
        let words: Vec<&str> = Self::WORDS
            .into_iter()
            .zip(on)
            .filter_map(|(word, on)| on.then_some(word))
            .collect();
        if words.is_empty() {
            f.write_str("nothing")
        } else {
            f.write_str(&words.join(", "))
        }
    }
}
