//! How one server's session is, told from its events: for `nutcpc status`.
//!
//! Pure: events and the time come in, words go out.

use crate::client::ClientError;
use crate::event::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

/// Most addresses that are shown; a session proves no more.
const MAX_ADDRESSES: usize = 64;

/// A session's state in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// The first attempt to log in is under way.
    Connecting,
    /// There is a session.
    LoggedIn,
    /// There is none; another attempt follows.
    Waiting,
    /// There is none, and no attempt follows.
    Failed,
    /// The user wanted it ended.
    LoggedOut,
}

impl Word {
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::LoggedIn => "logged in",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::LoggedOut => "logged out",
        }
    }
}

/// What is known of one server's session.
#[derive(Debug, Clone)]
pub(crate) struct State {
    word: Word,
    since: Instant,
    user: Option<String>,
    peer: Option<SocketAddr>,
    addresses: BTreeSet<String>,
    reason: Option<String>,
    retry_at: Option<Instant>,
    refused: u64,
}

/// The same for whoever asks; its keys are part of the command's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    /// Host and port, as they are configured.
    pub(crate) server: String,
    pub(crate) state: Word,
    /// For how long it has been so.
    pub(crate) for_ms: u64,
    /// The user, as the server knows it.
    pub(crate) user: Option<String>,
    /// The server's address.
    pub(crate) peer: Option<String>,
    /// The session's addresses, as the server sees them.
    pub(crate) addresses: Vec<String>,
    /// Why there is no session.
    pub(crate) reason: Option<String>,
    /// When it is tried again.
    pub(crate) retry_in_ms: Option<u64>,
    /// Refused connections that the server told of.
    pub(crate) refused: u64,
}

impl State {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            word: Word::Connecting,
            since: now,
            user: None,
            peer: None,
            addresses: BTreeSet::new(),
            reason: None,
            retry_at: None,
            refused: 0,
        }
    }

    /// Something happened.
    pub(crate) fn on(&mut self, event: &Event, now: Instant) {
        match event {
            Event::LoggedIn {
                user,
                server,
                address,
            } => {
                self.become_word(Word::LoggedIn, now);
                self.user = Some(user.clone());
                self.peer = Some(*server);
                self.addresses = BTreeSet::from([address.to_string()]);
            }
            Event::Proved { address } if self.addresses.len() < MAX_ADDRESSES => {
                self.addresses.insert(address.to_string());
            }
            Event::Withdrawn { address } => {
                self.addresses.remove(&address.to_string());
            }
            Event::Denied { untold, .. } => self.refused += 1 + u64::from(*untold),
            Event::Lost { reason, retry_in } => {
                self.become_word(Word::Waiting, now);
                self.reason = Some(reason.clone());
                self.retry_at = Some(now + *retry_in);
            }
            Event::Ended { reason, .. } => {
                self.become_word(Word::Failed, now);
                self.reason = Some(format!("the server ended the session: {reason}"));
            }
            Event::LoggedOut => self.become_word(Word::LoggedOut, now),
            Event::Proved { .. } | Event::NotProved { .. } | Event::Notice { .. } => {}
        }
    }

    /// No event follows.
    pub(crate) fn ended(&mut self, result: &Result<(), ClientError>, now: Instant) {
        match result {
            Ok(()) => self.become_word(Word::LoggedOut, now),
            Err(error) => {
                self.become_word(Word::Failed, now);
                self.reason = Some(error.to_string());
            }
        }
    }

    fn become_word(&mut self, word: Word, now: Instant) {
        if self.word != word {
            self.since = now;
        }
        self.word = word;
        self.reason = None;
        self.retry_at = None;
        if word != Word::LoggedIn {
            self.addresses.clear();
            self.peer = None;
        }
    }

    pub(crate) fn view(&self, server: &str, now: Instant) -> View {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        View {
            server: server.to_owned(),
            state: self.word,
            for_ms: millis(now.saturating_duration_since(self.since)),
            user: self.user.clone(),
            peer: self.peer.map(|peer| peer.to_string()),
            addresses: self.addresses.iter().cloned().collect(),
            reason: self.reason.clone(),
            retry_in_ms: self.retry_at.map(|at| millis(at.saturating_duration_since(now))),
            refused: self.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn logged_in() -> Event {
        Event::LoggedIn {
            user: "alice".to_owned(),
            server: "10.0.0.1:4129".parse().unwrap(),
            address: "10.0.0.5".parse().unwrap(),
        }
    }

    #[test]
    fn events_move_it_and_each_state_shows_what_belongs_to_it() {
        let mut now = nufw_common::clock::mono();
        let mut state = State::new(now);
        assert_eq!(state.view("fw:4129", now).state, Word::Connecting);

        now += Duration::from_secs(2);
        state.on(&logged_in(), now);
        let address = "fd00::5".parse().unwrap();
        state.on(&Event::Proved { address }, now);
        now += Duration::from_secs(5);
        let view = state.view("fw:4129", now);
        assert_eq!(
            (view.state, view.for_ms, view.retry_in_ms),
            (Word::LoggedIn, 5000, None)
        );
        assert_eq!(view.addresses, ["10.0.0.5", "fd00::5"]);
        state.on(&Event::Withdrawn { address }, now);
        assert_eq!(state.view("fw:4129", now).addresses, ["10.0.0.5"]);

        let (reason, retry_in) = ("connection lost".to_owned(), Duration::from_secs(3));
        state.on(&Event::Lost { reason, retry_in }, now);
        let view = state.view("fw:4129", now + Duration::from_secs(1));
        assert_eq!(
            (view.state, view.for_ms, view.retry_in_ms),
            (Word::Waiting, 1000, Some(2000))
        );
        assert_eq!(
            (view.reason.as_deref(), view.peer),
            (Some("connection lost"), None)
        );
        assert_eq!(view.addresses, [""; 0]);

        state.ended(&Err(ClientError::NotRoot), now);
        let view = state.view("fw:4129", now);
        assert_eq!((view.state, view.retry_in_ms), (Word::Failed, None));
        assert!(view.reason.unwrap().contains("--system"));
        state.ended(&Ok(()), now);
        assert_eq!(state.view("fw:4129", now).state, Word::LoggedOut);
    }

    #[test]
    fn every_refusal_counts_also_those_that_were_not_told() {
        let now = nufw_common::clock::mono();
        let mut state = State::new(now);
        for untold in [0, 4] {
            state.on(
                &Event::Denied {
                    seen: nufw_proto::Tuple::new(
                        "10.0.0.5".parse().unwrap(),
                        "10.0.0.6".parse().unwrap(),
                        nufw_proto::Transport::Tcp(nufw_proto::Ports { src: 1, dst: 2 }),
                    )
                    .unwrap(),
                    program: None,
                    rejected: false,
                    untold,
                },
                now,
            );
        }
        assert_eq!(state.view("x", now).refused, 6);
    }
}
