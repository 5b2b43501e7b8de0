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

    /// What a ticket says, if it counts for a client at this address with this certificate. `credential` gives the digest of
    /// what a user's password is compared with at this moment.
    pub(crate) fn accept(
        &self,
        ticket: &[u8],
        address: Addr,
        certificate: Option<&str>,
        credential: impl FnOnce(&str, u64) -> Option<String>,
        now: Timestamp,
    ) -> Result<Facts, TicketError> {
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
        if worthless(state.chains.get(&facts.chain)) || worthless(state.users.get(&facts.id)) {
            return Err(TicketError::Revoked);
        }
        if credential(&facts.user, facts.id).as_ref() != Some(&facts.credential) {
            return Err(TicketError::Credential);
        }
        Ok(facts)
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
        if self.chains.len() + self.users.len() > MAX_REVOKED {
            self.chains.retain(|_, at| lives(*at, lifetime));
            self.users.retain(|_, at| lives(*at, lifetime));
        }
        if self.chains.len() + self.users.len() > MAX_REVOKED {
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
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000)
    }

    const LIFETIME: Duration = Duration::from_mins(10);

    fn later(by: Duration) -> Timestamp {
        Timestamp::from_micros(now().micros() + micros(by))
    }

    fn facts(chain: u64) -> Facts {
        Facts {
            user: "alice".to_owned(),
            id: 7,
            address: "10.0.0.7".parse().unwrap(),
            certificate: None,
            credential: digest(b"hash"),
            chain,
            session: 1,
            run: 2,
            shown: now().micros(),
        }
    }

    struct Lab {
        tickets: Tickets,
        dir: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tickets = Tickets::open(&dir.path().join("tickets.key"), LIFETIME, now()).unwrap();
            Self { tickets, dir }
        }

        fn restarted(&self, at: Timestamp) -> Tickets {
            self.tickets.save().unwrap();
            Tickets::open(&self.dir.path().join("tickets.key"), LIFETIME, at).unwrap()
        }
    }

    fn accept(tickets: &Tickets, ticket: &SecretBytes, at: Timestamp) -> Result<Facts, TicketError> {
        accept_from(tickets, ticket, "10.0.0.7", None, at)
    }

    fn accept_from(
        tickets: &Tickets,
        ticket: &SecretBytes,
        address: &str,
        certificate: Option<&str>,
        at: Timestamp,
    ) -> Result<Facts, TicketError> {
        let address = address.parse().unwrap();
        let known = |name: &str, id| (name == "alice" && id == 7).then(|| digest(b"hash"));
        tickets.accept(ticket.expose(), address, certificate, known, at)
    }

    #[test]
    fn a_ticket_counts_after_a_restart_from_its_address_and_for_its_time() {
        let lab = Lab::new();
        let ticket = lab.tickets.issue(&facts(1), now()).unwrap();
        let tickets = lab.restarted(later(LIFETIME / 2));
        assert_eq!(accept(&tickets, &ticket, later(LIFETIME)), Ok(facts(1)));
        let over = later(LIFETIME + Duration::from_secs(1));
        assert_eq!(accept(&tickets, &ticket, over), Err(TicketError::Expired));
        let before = later(Duration::ZERO).micros() - micros(CLOCK_STEP) - 1;
        assert_eq!(
            accept(&tickets, &ticket, Timestamp::from_micros(before)),
            Err(TicketError::Expired),
            "nor long before it was given"
        );
        assert_eq!(
            accept_from(&tickets, &ticket, "10.0.0.8", None, now()),
            Err(TicketError::OtherAddress)
        );
    }

    #[test]
    fn a_ticket_given_to_a_certificate_counts_with_it_alone() {
        let lab = Lab::new();
        let with = Facts {
            certificate: Some("print".to_owned()),
            ..facts(1)
        };
        let ticket = lab.tickets.issue(&with, now()).unwrap();
        for (shown, expected) in [
            (Some("print"), Ok(with.clone())),
            (Some("other"), Err(TicketError::OtherCertificate)),
            (None, Err(TicketError::OtherCertificate)),
        ] {
            assert_eq!(
                accept_from(&lab.tickets, &ticket, "10.0.0.7", shown, now()),
                expected
            );
        }
    }

    #[test]
    fn a_changed_bit_anywhere_makes_it_unreadable_and_it_says_nothing_itself() {
        let lab = Lab::new();
        let ticket = lab.tickets.issue(&facts(1), now()).unwrap();
        let bytes = ticket.expose();
        assert!(!bytes.windows(5).any(|part| part == b"alice"));
        for index in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[index] ^= 1;
            let changed = SecretBytes::new(changed).unwrap();
            assert_eq!(
                accept(&lab.tickets, &changed, now()),
                Err(TicketError::Unreadable),
                "{index}"
            );
        }
        for cut in 0..bytes.len() {
            let cut = SecretBytes::new(bytes[..cut].to_vec()).unwrap();
            assert_eq!(accept(&lab.tickets, &cut, now()), Err(TicketError::Unreadable));
        }
        assert_eq!(
            accept(&Lab::new().tickets, &ticket, now()),
            Err(TicketError::Unreadable),
            "nor does another server read it"
        );
    }

    #[test]
    fn another_password_or_nobody_of_that_name_makes_it_worthless() {
        let lab = Lab::new();
        let ticket = lab.tickets.issue(&facts(1), now()).unwrap();
        let address = "10.0.0.7".parse().unwrap();
        for known in [None, Some(digest(b"another hash"))] {
            let accepted = lab
                .tickets
                .accept(ticket.expose(), address, None, |_, _| known, now());
            assert_eq!(accepted, Err(TicketError::Credential));
        }
    }

    #[test]
    fn what_was_revoked_stays_so_after_a_restart_and_hurts_nothing_later() {
        let lab = Lab::new();
        let [one, other] = [1, 2].map(|chain| lab.tickets.issue(&facts(chain), now()).unwrap());
        lab.tickets.revoke_chain(1, now());
        let tickets = lab.restarted(now());
        assert_eq!(accept(&tickets, &one, now()), Err(TicketError::Revoked));
        assert_eq!(accept(&tickets, &other, now()), Ok(facts(2)));
        tickets.revoke_user(7, now());
        assert_eq!(accept(&tickets, &other, now()), Err(TicketError::Revoked));
        let soon = later(Duration::from_secs(1));
        let new = tickets.issue(&facts(3), soon).unwrap();
        assert_eq!(accept(&tickets, &new, soon), Ok(facts(3)));
        tickets.revoke_all(soon);
        assert_eq!(accept(&tickets, &new, soon), Err(TicketError::Unreadable));
    }

    #[test]
    fn more_than_can_be_remembered_as_revoked_revokes_everything() {
        let lab = Lab::new();
        let ticket = lab.tickets.issue(&facts(0), now()).unwrap();
        for chain in 1..=u64::try_from(MAX_REVOKED).unwrap() {
            lab.tickets.revoke_chain(chain, now());
        }
        assert_eq!(accept(&lab.tickets, &ticket, now()), Ok(facts(0)));
        lab.tickets.revoke_chain(u64::MAX, now());
        assert_eq!(accept(&lab.tickets, &ticket, now()), Err(TicketError::Unreadable));
    }

    #[test]
    fn a_key_is_replaced_every_day_and_opens_its_last_tickets() {
        let lab = Lab::new();
        let last = later(KEY_AGE.saturating_sub(Duration::from_secs(1)));
        let ticket = lab.tickets.issue(&facts(1), last).unwrap();
        let next = later(KEY_AGE + Duration::from_secs(1));
        let newer = lab.tickets.issue(&facts(2), next).unwrap();
        assert_ne!(ticket.expose()[..4], newer.expose()[..4]);
        assert_eq!(accept(&lab.tickets, &ticket, next), Ok(facts(1)));
        lab.tickets
            .issue(&facts(3), later(KEY_AGE + LIFETIME + Duration::from_secs(1)))
            .unwrap();
        assert_eq!(accept(&lab.tickets, &ticket, last), Err(TicketError::Unreadable));
    }

    #[test]
    fn the_file_is_the_owners_alone_and_a_bad_one_is_an_error() {
        use std::os::unix::fs::PermissionsExt as _;
        let lab = Lab::new();
        let path = lab.dir.path().join("tickets.key");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "{}x").unwrap();
        let error = Tickets::open(&path, LIFETIME, now()).err().unwrap();
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
