//! Accounting messages of RADIUS (RFC 2866), as an access point or a captive portal sends them: who is where, from when to when.
//!
//! Codec and bookkeeping; pure, the time is a parameter. What is not signed with the shared secret says nothing.

use super::Changes;
use crate::config::Radius;
use hmac::{Hmac, KeyInit as _, Mac as _};
use ipnet::{IpNet, Ipv6Net};
use md5::{Digest as _, Md5};
use nufw_proto::Addr;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Code, identifier, length, authenticator (RFC 2866 §3).
const HEADER: usize = 20;
const REQUEST: u8 = 4;
const RESPONSE: u8 = 5;
/// Attributes (RFC 2865 §5, 2866 §5, 2869 §5.14, 3162 §2.3, 6911 §3.1).
const USER_NAME: u8 = 1;
const FRAMED_IP_ADDRESS: u8 = 8;
const ACCT_STATUS_TYPE: u8 = 40;
const ACCT_SESSION_ID: u8 = 44;
const MESSAGE_AUTHENTICATOR: u8 = 80;
const FRAMED_IPV6_PREFIX: u8 = 97;
const FRAMED_IPV6_ADDRESS: u8 = 168;

/// Sessions at one time; the begin of a further one is not answered, so that it comes again.
const MAX_SESSIONS: usize = 65_536;
/// Prefixes at one time; further ones are left out.
const MAX_PREFIXES: usize = 4096;
/// Addresses of one session; further ones are left out.
const MAX_ADDRESSES: usize = 16;
/// How long a session that was stopped is remembered: an older message of it that comes late begins it no more.
const STOPPED_FOR: Duration = Duration::from_mins(5);

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("its sender is not among identify.radius.clients")]
    Stranger,
    #[error("it is no accounting request")]
    OtherCode,
    #[error("it is malformed")]
    Malformed,
    #[error("it is not signed with the shared secret")]
    Unsigned,
    #[error("there are {MAX_SESSIONS} sessions, which is the most")]
    Full,
}

/// What a session's messages say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Start,
    Stop,
    Interim,
    /// The sender has just begun, or is about to end: it has no sessions.
    OnOff,
    Other,
}

/// A message that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    identifier: u8,
    authenticator: [u8; 16],
    status: Status,
    session: Vec<u8>,
    user: Option<String>,
    addresses: Vec<Addr>,
    prefixes: Vec<Ipv6Net>,
}

/// What is to be done about a message.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) answer: Vec<u8>,
    pub(super) changes: Changes,
}

impl Packet {
    /// Reads a message and looks at its signatures.
    pub(super) fn parse(bytes: &[u8], secret: &[u8]) -> Result<Self, Fault> {
        let (header, _) = bytes.split_first_chunk::<HEADER>().ok_or(Fault::Malformed)?;
        if header[0] != REQUEST {
            return Err(Fault::OtherCode);
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        // What is behind the length is padding (RFC 2865 §3).
        let message = bytes
            .get(..length)
            .filter(|message| (HEADER..=super::MAX_MESSAGE).contains(&message.len()))
            .ok_or(Fault::Malformed)?;
        let mut authenticator = [0; 16];
        authenticator.copy_from_slice(&header[4..HEADER]);
        let mut bare = message.to_vec();
        bare[4..HEADER].fill(0);
        let signature: [u8; 16] = Md5::new()
            .chain_update(&bare)
            .chain_update(secret)
            .finalize()
            .into();
        if !same(&signature, &authenticator) {
            return Err(Fault::Unsigned);
        }
        let mut packet = Self {
            identifier: header[1],
            authenticator,
            status: Status::Other,
            session: Vec::new(),
            user: None,
            addresses: Vec::new(),
            prefixes: Vec::new(),
        };
        let mut at = HEADER;
        while at < message.len() {
            let (kind, length) = match message.get(at..at + 2) {
                Some(&[kind, length]) if length >= 2 => (kind, usize::from(length)),
                _ => return Err(Fault::Malformed),
            };
            let value = message.get(at + 2..at + length).ok_or(Fault::Malformed)?;
            if kind == MESSAGE_AUTHENTICATOR {
                Self::check_message(&bare, at, value, secret)?;
            } else {
                packet.attribute(kind, value)?;
            }
            at += length;
        }
        Ok(packet)
    }

    /// HMAC-MD5 over the message with both signatures left out.
    fn check_message(bare: &[u8], at: usize, value: &[u8], secret: &[u8]) -> Result<(), Fault> {
        let mut bare = bare.to_vec();
        bare.get_mut(at + 2..at + 18).ok_or(Fault::Malformed)?.fill(0);
        let mut mac = Hmac::<Md5>::new_from_slice(secret).map_err(|_| Fault::Unsigned)?;
        mac.update(&bare);
        mac.verify_slice(value).map_err(|_| Fault::Unsigned)
    }

    fn attribute(&mut self, kind: u8, value: &[u8]) -> Result<(), Fault> {
        match kind {
            USER_NAME => {
                let name = std::str::from_utf8(value).map_err(|_| Fault::Malformed)?;
                self.user = Some(name.to_owned());
            }
            ACCT_STATUS_TYPE => {
                let number = <[u8; 4]>::try_from(value).map_err(|_| Fault::Malformed)?;
                self.status = match u32::from_be_bytes(number) {
                    1 => Status::Start,
                    2 => Status::Stop,
                    3 => Status::Interim,
                    7 | 8 => Status::OnOff,
                    _ => Status::Other,
                };
            }
            ACCT_SESSION_ID => self.session = value.to_vec(),
            FRAMED_IP_ADDRESS => {
                let octets = <[u8; 4]>::try_from(value).map_err(|_| Fault::Malformed)?;
                let address = Ipv4Addr::from(octets);
                // Two values say that the user or the sender chooses (RFC 2865 §5.8).
                if address != Ipv4Addr::BROADCAST && octets != [255, 255, 255, 254] {
                    self.address(IpAddr::V4(address));
                }
            }
            FRAMED_IPV6_ADDRESS => {
                let octets = <[u8; 16]>::try_from(value).map_err(|_| Fault::Malformed)?;
                self.address(IpAddr::V6(Ipv6Addr::from(octets)));
            }
            FRAMED_IPV6_PREFIX => {
                let prefix = prefix(value).ok_or(Fault::Malformed)?;
                if prefix.prefix_len() == 128 {
                    self.address(IpAddr::V6(prefix.addr()));
                } else if self.prefixes.len() < MAX_ADDRESSES {
                    self.prefixes.push(prefix);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn address(&mut self, address: IpAddr) {
        if self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push(Addr::from(address));
        }
    }

    /// The answer that says that the message is noted.
    fn answer(&self, secret: &[u8]) -> Vec<u8> {
        let mut answer = vec![RESPONSE, self.identifier, 0, 20];
        let signature = Md5::new()
            .chain_update(&answer)
            .chain_update(self.authenticator)
            .chain_update(secret)
            .finalize();
        answer.extend_from_slice(&signature);
        answer
    }
}

/// Reserved octet, length of the prefix, as many octets as it needs or more (RFC 3162 §2.3).
fn prefix(value: &[u8]) -> Option<Ipv6Net> {
    let (&[_, length], octets) = value.split_first_chunk::<2>()?;
    let mut address = [0; 16];
    address.get_mut(..octets.len())?.copy_from_slice(octets);
    if octets.len() * 8 < usize::from(length) || length == 0 {
        return None;
    }
    Ipv6Net::new(Ipv6Addr::from(address), length)
        .ok()
        .map(|net| net.trunc())
}

/// Takes as long whatever differs.
fn same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// A session is known by who tells of it and by the name it gives it.
type Key = (IpAddr, Vec<u8>);

#[derive(Debug)]
struct Entry {
    user: Arc<str>,
    addresses: Vec<Addr>,
    prefixes: Vec<Ipv6Net>,
    heard: Instant,
}

/// What is known by accounting.
pub(super) struct Accounting {
    settings: Radius,
    sessions: HashMap<Key, Entry>,
    /// Which session has an address: the one that took it last.
    at: HashMap<Addr, Key>,
    prefixes: HashMap<Ipv6Net, Key>,
    stopped: HashMap<Key, Instant>,
    /// The same by time.
    stops: BTreeSet<(Instant, Key)>,
}

impl Accounting {
    pub(super) fn new(settings: Radius) -> Self {
        Self {
            settings,
            sessions: HashMap::new(),
            at: HashMap::new(),
            prefixes: HashMap::new(),
            stopped: HashMap::new(),
            stops: BTreeSet::new(),
        }
    }

    /// Takes a message.
    pub(super) fn hear(&mut self, from: IpAddr, bytes: &[u8], now: Instant) -> Result<Heard, Fault> {
        let from = from.to_canonical();
        if !self.settings.clients.iter().any(|client| client.contains(&from)) {
            return Err(Fault::Stranger);
        }
        let packet = Packet::parse(bytes, self.settings.secret.as_bytes())?;
        let answer = packet.answer(self.settings.secret.as_bytes());
        let changes = self.note(from, packet, now)?;
        Ok(Heard { answer, changes })
    }

    fn note(&mut self, from: IpAddr, packet: Packet, now: Instant) -> Result<Changes, Fault> {
        let mut changes = Changes::default();
        let key = (from, packet.session.clone());
        match packet.status {
            Status::OnOff => {
                let over: Vec<Key> = self
                    .sessions
                    .keys()
                    .filter(|(of, _)| *of == from)
                    .cloned()
                    .collect();
                for key in over {
                    self.end(&key, &mut changes);
                }
            }
            Status::Stop => {
                self.end(&key, &mut changes);
                self.remember_stop(key, now);
            }
            // One that was overtaken by its stop.
            Status::Start | Status::Interim if self.stopped.contains_key(&key) => {}
            Status::Start | Status::Interim => self.begin(key, packet, now, &mut changes)?,
            Status::Other => {}
        }
        Ok(changes)
    }

    fn begin(&mut self, key: Key, packet: Packet, now: Instant, changes: &mut Changes) -> Result<(), Fault> {
        let known = self.sessions.get_mut(&key);
        // A message of a known session may say less than its first one; where it says more, that counts.
        let said = packet.user.as_deref().filter(|user| !user.is_empty());
        let user: Arc<str> = match (said, &known) {
            (Some(user), Some(entry)) if *user == *entry.user => Arc::clone(&entry.user),
            (Some(user), _) => Arc::from(user),
            (None, Some(entry)) => Arc::clone(&entry.user),
            (None, None) => return Ok(()),
        };
        let nowhere = packet.addresses.is_empty() && packet.prefixes.is_empty();
        if let Some(entry) = known {
            entry.heard = now;
            let same = *entry.user == *user
                && (nowhere || (entry.addresses == packet.addresses && entry.prefixes == packet.prefixes));
            if same {
                return Ok(());
            }
        } else if self.sessions.len() >= MAX_SESSIONS {
            return Err(Fault::Full);
        }
        let former = self.end(&key, changes);
        let (addresses, prefixes) = match former {
            Some(entry) if nowhere => (entry.addresses, entry.prefixes),
            _ => (packet.addresses, packet.prefixes),
        };
        for &address in &addresses {
            self.at.insert(address, key.clone());
            changes.addresses.push((address, Some(Arc::clone(&user))));
        }
        for &prefix in &prefixes {
            if self.prefixes.len() < MAX_PREFIXES || self.prefixes.contains_key(&prefix) {
                self.prefixes.insert(prefix, key.clone());
                changes.networks = true;
            }
        }
        let entry = Entry {
            user,
            addresses,
            prefixes,
            heard: now,
        };
        self.sessions.insert(key, entry);
        Ok(())
    }

    /// Forgets a session, and gives back the addresses that are still its own.
    fn end(&mut self, key: &Key, changes: &mut Changes) -> Option<Entry> {
        let entry = self.sessions.remove(key)?;
        for address in &entry.addresses {
            if self.at.get(address) == Some(key) {
                self.at.remove(address);
                changes.addresses.push((*address, None));
            }
        }
        for prefix in &entry.prefixes {
            if self.prefixes.get(prefix) == Some(key) {
                self.prefixes.remove(prefix);
                changes.networks = true;
            }
        }
        Some(entry)
    }

    fn remember_stop(&mut self, key: Key, now: Instant) {
        if let Some(before) = self.stopped.insert(key.clone(), now) {
            self.stops.remove(&(before, key.clone()));
        }
        self.stops.insert((now, key));
        while self.stops.len() > MAX_SESSIONS
            || self
                .stops
                .first()
                .is_some_and(|&(at, _)| now.saturating_duration_since(at) > STOPPED_FOR)
        {
            let Some((_, key)) = self.stops.pop_first() else {
                break;
            };
            self.stopped.remove(&key);
        }
    }

    /// Ends what was not heard of for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let timeout = self.settings.timeout;
        let over: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, entry)| now.saturating_duration_since(entry.heard) >= timeout)
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.end(&key, &mut changes);
        }
        changes
    }

    /// The prefixes of all sessions, with their users.
    pub(super) fn networks(&self) -> Vec<(IpNet, Arc<str>)> {
        let mut networks: Vec<(IpNet, Arc<str>)> = self
            .prefixes
            .iter()
            .filter_map(|(prefix, key)| Some((IpNet::V6(*prefix), Arc::clone(&self.sessions.get(key)?.user))))
            .collect();
        networks.sort_unstable();
        networks
    }
}

#[cfg(test)]
#[path = "radius_tests.rs"]
pub(super) mod tests;
