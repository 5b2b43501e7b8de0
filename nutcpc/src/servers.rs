//! A session with each of several servers, none of which another one's failure disturbs.
//!
//! Each has a thread and a runtime of its own: one that waits for a password on the terminal, or looks through many
//! processes, holds up no other. What happens is told to whoever owns [`Servers`]; nothing is printed here.

use crate::client::{Client, ClientError, Command, Options};
use crate::credentials::{Login, Password};
use crate::event::Event;
use crate::state::{State, View};
use nufw_common::clock;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Events that may wait for the owner; one more is not told to it (the state knows it all the same).
const WAITING_EVENTS: usize = 256;
/// Commands that may wait for one session.
const WAITING_COMMANDS: usize = 4;

/// What a server's thread says.
#[derive(Debug)]
pub(crate) enum What {
    /// Something happened.
    Event(Event),
    /// It is over.
    Ended(Result<(), ClientError>),
}

/// What is wanted with one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the server is called.
    pub(crate) label: String,
    pub(crate) options: Options,
}

struct One {
    /// Tells the words of this thread from those of another one for the same server.
    number: u64,
    wanted: Wanted,
    state: Arc<Mutex<State>>,
    commands: mpsc::Sender<Command>,
    runs: bool,
    /// It is on its way out, and nobody shows it any more.
    leaves: bool,
}

/// All of them.
pub(crate) struct Servers {
    each: Vec<One>,
    next: u64,
    words: mpsc::Receiver<(u64, What)>,
    out: mpsc::Sender<(u64, What)>,
}

impl Servers {
    pub(crate) fn start(wanted: Vec<Wanted>) -> Self {
        let (out, words) = mpsc::channel(WAITING_EVENTS);
        let mut servers = Self {
            each: Vec::new(),
            next: 0,
            words,
            out,
        };
        for wanted in wanted {
            servers.add(wanted);
        }
        servers
    }

    fn add(&mut self, wanted: Wanted) {
        let (commands, receiver) = mpsc::channel(WAITING_COMMANDS);
        self.next += 1;
        let one = One {
            number: self.next,
            state: Arc::new(Mutex::new(State::new(clock::mono()))),
            wanted,
            commands,
            runs: true,
            leaves: false,
        };
        let session = Session {
            number: one.number,
            state: Arc::clone(&one.state),
            out: self.out.clone(),
        };
        let options = one.wanted.options.clone();
        let thread = std::thread::Builder::new().name("session".to_owned());
        if let Err(error) = thread.spawn(move || session.run(options, receiver)) {
            let ended = What::Ended(Err(ClientError::Runtime(error)));
            // As many as there are servers find room.
            let _ = self.out.try_send((one.number, ended));
        }
        self.each.push(one);
    }

    /// What happens next, and at which server. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (String, What) {
        loop {
            // The channel does not end: one sender is kept here.
            let Some((number, what)) = self.words.recv().await else {
                return std::future::pending().await;
            };
            let Some(at) = self.each.iter().position(|one| one.number == number) else {
                continue;
            };
            let label = self.each[at].wanted.label.clone();
            if let What::Ended(_) = what {
                self.each[at].runs = false;
                if self.each[at].leaves {
                    self.each.remove(at);
                }
            }
            return (label, what);
        }
    }

    /// Whether any of them goes on.
    pub(crate) fn any_runs(&self) -> bool {
        self.each.iter().any(|one| one.runs)
    }

    /// Whether this server's session goes on.
    pub(crate) fn runs(&self, label: &str) -> bool {
        self.each.iter().any(|one| one.runs && one.wanted.label == label)
    }

    /// What the servers are called.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        let shown = self.each.iter().filter(|one| !one.leaves);
        shown.map(|one| one.wanted.label.as_str())
    }

    /// Whether it must be said which one is meant.
    pub(crate) fn are_several(&self) -> bool {
        self.labels().nth(1).is_some()
    }

    /// How they are.
    pub(crate) fn views(&self) -> Vec<View> {
        let now = clock::mono();
        let shown = self.each.iter().filter(|one| !one.leaves);
        shown
            .map(|one| lock(&one.state).view(&one.wanted.label, now))
            .collect()
    }

    /// Ends one session, or all.
    pub(crate) fn stop(&self, label: Option<&str>) {
        for one in &self.each {
            if label.is_none_or(|label| one.wanted.label == label) {
                // A full channel has a command to stop in it, or a session that does not listen and is not waited for.
                let _ = one.commands.try_send(Command::Stop);
            }
        }
    }

    /// The configuration was read again. What is as it was reads its credentials again; what is not there any more leaves;
    /// what is there for the first time, is different, or had ended, is tried.
    pub(crate) fn change(&mut self, wanted: Vec<Wanted>) {
        for one in &mut self.each {
            let stays = one.runs && !one.leaves && wanted.contains(&one.wanted);
            let _ = one
                .commands
                .try_send(if stays { Command::Reload } else { Command::Stop });
            one.leaves |= !stays;
        }
        self.each.retain(|one| one.runs);
        for wanted in wanted {
            if !self.each.iter().any(|one| !one.leaves && one.wanted == wanted) {
                self.add(wanted);
            }
        }
    }

    /// The password, not in a file, with which a user logs in at a server already.
    pub(crate) fn known_password(&self, label: &str, user: &str) -> Option<Password> {
        self.each.iter().find_map(|one| match &one.wanted.options.login {
            Login::Password {
                user: known,
                password,
            } if known == user && one.wanted.label == label && !matches!(password, Password::File(_)) => {
                Some(password.clone())
            }
            _ => None,
        })
    }
}

/// What a thread needs.
struct Session {
    number: u64,
    state: Arc<Mutex<State>>,
    out: mpsc::Sender<(u64, What)>,
}

impl Session {
    fn run(self, options: Options, mut commands: mpsc::Receiver<Command>) {
        let result = self.serve(options, &mut commands);
        lock(&self.state).ended(&result, clock::mono());
        // Outside of every runtime: waiting for room holds up nobody.
        let _ = self.out.blocking_send((self.number, What::Ended(result)));
    }

    fn serve(&self, options: Options, commands: &mut mpsc::Receiver<Command>) -> Result<(), ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ClientError::Runtime)?;
        runtime.block_on(async {
            let client = Client::new(options)?;
            let mut emit = |event: Event| {
                lock(&self.state).on(&event, clock::mono());
                if self.out.try_send((self.number, What::Event(event))).is_err() {
                    tracing::debug!("an event is not told: too many wait");
                }
            };
            client.run(commands, &mut emit).await
        })
    }
}

/// A thread that panicked left a state that can be read all the same.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
