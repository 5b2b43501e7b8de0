//! Tickets: what a session may be had again with when its connection or the server was lost, without the password.
//!
//! Sealed by a key of this server alone, which lies in a file of its own and is replaced every day. A ticket counts for one
//! user, one address, one client certificate if there was one, one password, and a short time; and not for whoever was thrown
//! out or has logged out. No I/O but that file, and the time is a parameter.

use nufw_proto::{Addr, SecretBytes, Timestamp};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// How long a key seals; it opens what it has sealed for as long as a ticket lives after that.
const KEY_AGE: Duration = Duration::from_hours(24);
/// What must be remembered as worthless. One more, and every ticket is: the key is replaced.
const MAX_REVOKED: usize = 65_536;
/// A ticket from the future is taken for one of now up to so far: clocks are set.
const CLOCK_STEP: Duration = Duration::from_mins(5);
const KEY_BYTES: usize = 32;
const LABEL: &[u8] = b"nuauth-ticket/1";

/// What a ticket says of its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The user's name.
    pub(crate) user: String,
    /// The user's number: a name may go to somebody else.
    pub(crate) id: u64,
    /// Where it was given, and where it counts.
    pub(crate) address: Addr,
    /// Digest of the client certificate that was shown then.
    pub(crate) certificate: Option<String>,
    /// Digest of what the password was compared with.
    pub(crate) credential: String,
    /// One login by password and all that came of it by tickets.
    pub(crate) chain: u64,
    /// The session, and the run of the server it was in.
    pub(crate) session: u64,
    pub(crate) run: u64,
    /// When the password was shown, microseconds.
    pub(crate) shown: i64,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    facts: Facts,
    issued: i64,
}

/// A ticket of which only the password is still to be looked at.
#[must_use]
#[derive(Debug)]
pub(crate) struct Opened(Facts);

impl Opened {
    /// Whose it is.
    pub(crate) fn user(&self) -> &str {
        &self.0.user
    }

    /// What it says, if the user's password is compared with what it was compared with when the ticket was given.
    pub(crate) fn with_credential(self, credential: Option<&str>) -> Result<Facts, TicketError> {
        if credential == Some(&*self.0.credential) {
            Ok(self.0)
        } else {
            Err(TicketError::Credential)
        }
    }
}

/// Why a ticket is worth nothing: for our log. The client learns only that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TicketError {
    #[error("no key opens the ticket: it is another server's, or changed, or of a key that was replaced")]
    Unreadable,
    #[error("the ticket is too old")]
    Expired,
    #[error("the ticket was given to another address")]
    OtherAddress,
    #[error("the ticket was given to a client with another certificate")]
    OtherCertificate,
    #[error("the user is gone or has another password")]
    Credential,
    #[error("the ticket's session was ended, or its user has logged out")]
    Revoked,
}

/// A key as it lies in the file.
#[derive(Clone, Serialize, Deserialize)]
struct KeyFile {
    id: u32,
    made: i64,
    key: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    /// Newest first.
    keys: Vec<KeyFile>,
    /// Chains whose tickets of before that time are worthless, with the time.
    chains: HashMap<u64, i64>,
    /// Users likewise.
    users: HashMap<u64, i64>,
    /// Users of directories likewise, whose numbers were not known.
    #[serde(default)]
    names: HashMap<String, i64>,
}

/// All that is needed to give and to take tickets.
pub(crate) struct Tickets {
    path: PathBuf,
    lifetime: Duration,
    /// Tells this run's sessions from those of another.
    pub(crate) run: u64,
    state: Mutex<State>,
    changed: Notify,
}

/// The digest that stands in a ticket for something longer.
pub(crate) fn digest(of: &[u8]) -> String {
    hex(&ring::digest::digest(&ring::digest::SHA256, of).as_ref()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl KeyFile {
    fn new(now: Timestamp) -> Self {
        Self {
            id: rand::random(),
            made: now.micros(),
            key: hex(Zeroizing::new(rand::random::<[u8; KEY_BYTES]>()).as_ref()),
        }
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let bytes = unhex(&self.key)?;
        UnboundKey::new(&AES_256_GCM, bytes.as_ref())
            .ok()
            .map(LessSafeKey::new)
    }
}

impl Tickets {
    /// Reads the file, or begins with a key of its own and makes it.
    pub(crate) fn open(path: &Path, lifetime: Duration, now: Timestamp) -> io::Result<Self> {
        let mut state = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&Zeroizing::new(bytes)).map_err(|_| {
                let what = "it is no file of ticket keys; remove it, and every ticket is worthless";
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error),
        };
        state.tidy(now, lifetime);
        let tickets = Self {
            path: path.to_path_buf(),
            lifetime,
            run: rand::random(),
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        tickets.save()?;
        Ok(tickets)
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket for a session; none when it cannot be made.
    pub(crate) fn issue(&self, facts: &Facts, now: Timestamp) -> Option<SecretBytes> {
        let mut state = self.state();
        if state.tidy(now, self.lifetime) {
            self.changed.notify_one();
        }
        let key = state.keys.first()?;
        let sealed = Sealed {
            facts: facts.clone(),
            issued: now.micros(),
        };
        let mut body = serde_json::to_vec(&sealed).ok()?;
        let nonce: [u8; NONCE_LEN] = rand::random();
        let id = key.id.to_be_bytes();
        key.cipher()?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from([LABEL, id.as_slice()].concat()),
                &mut body,
            )
            .ok()?;
        SecretBytes::new([id.as_slice(), &nonce, &body].concat()).ok()
    }

    /// What a ticket says, if it counts for a client at this address with this certificate and the user's password is still
    /// the one that was shown.
    pub(crate) fn open_ticket(
        &self,
        ticket: &[u8],
        address: Addr,
        certificate: Option<&str>,
        now: Timestamp,
    ) -> Result<Opened, TicketError> {
        let state = self.state();
        let Sealed { facts, issued } = state.unseal(ticket).ok_or(TicketError::Unreadable)?;
        let age = now.micros().saturating_sub(issued);
        if age > micros(self.lifetime) || age < -micros(CLOCK_STEP) {
            return Err(TicketError::Expired);
        }
        if facts.address != address {
            return Err(TicketError::OtherAddress);
        }
        if facts
            .certificate
            .as_deref()
            .is_some_and(|shown| Some(shown) != certificate)
        {
            return Err(TicketError::OtherCertificate);
        }
        let worthless = |at: Option<&i64>| at.is_some_and(|&at| issued <= at);
        if worthless(state.chains.get(&facts.chain))
            || worthless(state.users.get(&facts.id))
            || worthless(state.names.get(&facts.user))
        {
            return Err(TicketError::Revoked);
        }
        Ok(Opened(facts))
    }

    /// Whoever came of this login cannot come back without a password.
    pub(crate) fn revoke_chain(&self, chain: u64, now: Timestamp) {
        let mut state = self.state();
        state.chains.insert(chain, now.micros());
        self.revoked(&mut state, now);
    }

    /// Nor can this user, from wherever.
    pub(crate) fn revoke_user(&self, id: u64, now: Timestamp) {
        let mut state = self.state();
        state.users.insert(id, now.micros());
        self.revoked(&mut state, now);
    }

    /// Nor can somebody of that name, whose number nobody knows.
    pub(crate) fn revoke_name(&self, name: &str, now: Timestamp) {
        let mut state = self.state();
        state.names.insert(name.to_owned(), now.micros());
        self.revoked(&mut state, now);
    }

    /// Nor can anybody.
    pub(crate) fn revoke_all(&self, now: Timestamp) {
        let mut state = self.state();
        *state = State::default();
        self.revoked(&mut state, now);
    }

    fn revoked(&self, state: &mut State, now: Timestamp) {
        state.tidy(now, self.lifetime);
        self.changed.notify_one();
    }

    /// Writes the file whenever something has changed; to be dropped at the end, after which [`Self::save`] is due.
    pub(crate) async fn keep_saved(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let tickets = Arc::clone(&self);
            let saved = tokio::task::spawn_blocking(move || tickets.save()).await;
            if let Ok(Err(error)) = saved {
                tracing::warn!(file = %self.path.display(), %error, "ticket keys cannot be kept: after a restart tickets that were revoked may count, or none");
            }
        }
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn save(&self) -> io::Result<()> {
        let bytes = Zeroizing::new(serde_json::to_vec(&*self.state()).map_err(io::Error::from)?);
        let next = self.path.with_extension("next");
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)
    }
}

impl State {
    /// Forgets what counts no more and makes a key where one is due; tells whether it did. Too much that is revoked revokes all.
    fn tidy(&mut self, now: Timestamp, lifetime: Duration) -> bool {
        let before = (self.keys.first().map(|key| key.id), self.keys.len());
        let now_micros = now.micros();
        let lives = |at: i64, age: Duration| at.saturating_add(micros(age)) > now_micros;
        let revoked = |state: &Self| state.chains.len() + state.users.len() + state.names.len();
        if revoked(self) > MAX_REVOKED {
            self.chains.retain(|_, at| lives(*at, lifetime));
            self.users.retain(|_, at| lives(*at, lifetime));
            self.names.retain(|_, at| lives(*at, lifetime));
        }
        if revoked(self) > MAX_REVOKED {
            *self = Self::default();
        }
        self.keys
            .retain(|key| lives(key.made, KEY_AGE + lifetime) && key.made <= now_micros + micros(CLOCK_STEP));
        if self.keys.first().is_none_or(|key| !lives(key.made, KEY_AGE)) {
            self.keys.insert(0, KeyFile::new(now));
        }
        before != (self.keys.first().map(|key| key.id), self.keys.len())
    }

    fn unseal(&self, ticket: &[u8]) -> Option<Sealed> {
        let (id, rest) = ticket.split_first_chunk::<4>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.id == u32::from_be_bytes(*id))?;
        let mut body = body.to_vec();
        let opened = key
            .cipher()?
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from([LABEL, id.as_slice()].concat()),
                &mut body,
            )
            .ok()?;
        serde_json::from_slice(opened).ok()
    }
}

#[cfg(test)]
mod tests;
