//! Proves that the host's other addresses are the session's: which, when, and how.
//!
//! One short TLS connection from each address; refreshed long before the server forgets it. Bounded in number and in
//! how many run at once.

use crate::connect::Dialer;
use crate::error::LoginError;
use nufw_common::link::{FrameReader, FrameWriter, Read};
use nufw_proto::client::{Prove, ToClient, ToServer};
use nufw_proto::{Addr, MAX_GREETING_BODY, SecretBytes};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Most addresses of a host that are proven, its session's own not counted; further ones are left out and counted in
/// the log.
pub(crate) const MAX_ADDRESSES: usize = 32;
/// Most proofs that run at once.
const MAX_RUNNING: usize = 4;
/// How long one proof may take.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// An address that could not be proven is tried again after this time; it may have had no route yet.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// What every proof of a session needs.
#[derive(Clone)]
pub(crate) struct Prover {
    pub(crate) dialer: Dialer,
    /// Addresses of the server; the first of a family that accepts is used.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) token: SecretBytes,
}

/// One address of the host.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When the next proof is due; `None` while one runs.
    due: Option<Instant>,
    /// The address as the server sees it, once proven.
    proven: Option<Addr>,
    retry: Duration,
    /// A failure was told to the user.
    is_told: bool,
}

/// What a finished proof means to the user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The address (of this host; as the server sees it) belongs to the session for the first time.
    Proved(Addr, Addr),
    /// It could not be proven, for the first time.
    Failed(Addr, String),
    /// The server was told of an address that the host does not have any more.
    Withdraw(Addr),
    /// Nothing new.
    Nothing,
}

/// The proofs of one session.
pub(crate) struct Proofs {
    prover: Prover,
    refresh: Duration,
    /// The session's own address, of this host and as the server sees it.
    session: [Addr; 2],
    entries: BTreeMap<Addr, Entry>,
    running: JoinSet<(Addr, Result<Addr, LoginError>)>,
}

impl Proofs {
    /// No address yet. An address is proven again at a third of its lease.
    pub(crate) fn new(prover: Prover, lease: Duration, local: Addr, seen: Addr) -> Self {
        Self {
            prover,
            refresh: (lease / 3).max(Duration::from_secs(1)),
            session: [local, seen],
            entries: BTreeMap::new(),
            running: JoinSet::new(),
        }
    }

    /// Takes the host's addresses; answers those (as the server sees them) that must be withdrawn.
    pub(crate) fn set_addresses(&mut self, addresses: &BTreeSet<Addr>, now: Instant) -> Vec<Addr> {
        let wanted: BTreeSet<Addr> = addresses
            .iter()
            .copied()
            .filter(|address| *address != self.session[0] && self.has_server_for(*address))
            .collect();
        let gone: Vec<Addr> = self
            .entries
            .keys()
            .copied()
            .filter(|known| !wanted.contains(known))
            .collect();
        let mut withdrawn = Vec::new();
        for address in gone {
            if let Some(Entry {
                proven: Some(proven), ..
            }) = self.entries.remove(&address)
                && !self.is_needed(proven)
            {
                withdrawn.push(proven);
            }
        }
        let mut left_out = 0;
        for address in wanted {
            let is_full = self.entries.len() >= MAX_ADDRESSES;
            if let std::collections::btree_map::Entry::Vacant(place) = self.entries.entry(address) {
                if is_full {
                    left_out += 1;
                    continue;
                }
                place.insert(Entry {
                    due: Some(now),
                    proven: None,
                    retry: FIRST_RETRY,
                    is_told: false,
                });
            }
        }
        if left_out > 0 {
            tracing::warn!(
                left_out,
                max = MAX_ADDRESSES,
                "this host has more addresses than can be proven"
            );
        }
        withdrawn
    }

    /// Starts what is due.
    pub(crate) fn start_due(&mut self, now: Instant) {
        for (&address, entry) in &mut self.entries {
            if self.running.len() >= MAX_RUNNING {
                return;
            }
            if entry.due.is_some_and(|due| due <= now) {
                entry.due = None;
                let prover = self.prover.clone();
                self.running
                    .spawn(async move { (address, prover.prove(address).await) });
            }
        }
    }

    /// When [`Self::start_due`] has something to start, if a proof is not waited for first.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// Waits for a proof to end; for ever while none runs. Cancel-safe.
    pub(crate) async fn finished(&mut self) -> (Addr, Result<Addr, LoginError>) {
        loop {
            match self.running.join_next().await {
                Some(Ok(result)) => return result,
                // A task that was aborted has no result; tasks end with the session only.
                Some(Err(_)) => {}
                None => std::future::pending::<()>().await,
            }
        }
    }

    /// Takes the result of a proof.
    pub(crate) fn on_finished(
        &mut self,
        address: Addr,
        result: Result<Addr, LoginError>,
        now: Instant,
    ) -> Outcome {
        let Some(entry) = self.entries.get_mut(&address) else {
            return match result {
                Ok(proven) if !self.is_needed(proven) => Outcome::Withdraw(proven),
                _ => Outcome::Nothing,
            };
        };
        match result {
            Ok(proven) => {
                let is_new = entry.proven != Some(proven);
                *entry = Entry {
                    due: Some(now + self.refresh),
                    proven: Some(proven),
                    retry: FIRST_RETRY,
                    is_told: false,
                };
                if is_new {
                    Outcome::Proved(address, proven)
                } else {
                    Outcome::Nothing
                }
            }
            Err(error) => {
                entry.due = Some(now + entry.retry.min(self.refresh));
                entry.retry = (entry.retry * 2).min(self.refresh.max(FIRST_RETRY));
                if std::mem::replace(&mut entry.is_told, true) {
                    Outcome::Nothing
                } else {
                    Outcome::Failed(address, error.to_string())
                }
            }
        }
    }

    /// Whether an address that the server sees still stands for one that the host has: behind address translation
    /// several may look like one.
    fn is_needed(&self, seen: Addr) -> bool {
        self.session[1] == seen || self.entries.values().any(|entry| entry.proven == Some(seen))
    }

    fn has_server_for(&self, address: Addr) -> bool {
        self.prover
            .servers
            .iter()
            .any(|server| server.is_ipv4() == address.is_ipv4())
    }
}

impl Prover {
    async fn prove(&self, address: Addr) -> Result<Addr, LoginError> {
        let mut failure = LoginError::Closed;
        for &server in self
            .servers
            .iter()
            .filter(|server| server.is_ipv4() == address.is_ipv4())
        {
            let attempt = self.prove_to(server, address);
            match tokio::time::timeout(PROOF_TIMEOUT, attempt).await {
                Ok(Ok(proven)) => return Ok(proven),
                Ok(Err(error)) => failure = error,
                Err(_) => {
                    failure = LoginError::TimedOut {
                        server,
                        limit: PROOF_TIMEOUT,
                    };
                }
            }
        }
        Err(failure)
    }

    async fn prove_to(&self, server: SocketAddr, address: Addr) -> Result<Addr, LoginError> {
        let stream = self
            .dialer
            .dial(server, Some(address.ip()), PROOF_TIMEOUT)
            .await?;
        let (read, write) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read, MAX_GREETING_BODY);
        let mut writer = FrameWriter::new(write);
        writer.queue(&ToServer::Prove(Prove {
            token: self.token.clone(),
        }))?;
        writer.flush().await?;
        let mut messages = Vec::new();
        let proven = loop {
            if reader.read_batch(&mut messages).await? == Read::Closed {
                return Err(LoginError::Closed);
            }
            match messages
                .drain(..)
                .find(|message| !matches!(message, ToClient::Welcome(_)))
            {
                Some(ToClient::Proven(proven)) => break proven.address,
                Some(ToClient::Refused(refused)) => return Err(refused.into()),
                Some(ToClient::Goodbye(goodbye)) => return Err(LoginError::Goodbye(goodbye.reason.into())),
                Some(_) => {
                    return Err(LoginError::Unexpected(
                        "something else than the answer to a proof",
                    ));
                }
                None => {}
            }
        };
        // The server has its answer out: how the connection ends is not important.
        let _ = writer.close().await;
        Ok(proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const LEASE: Duration = Duration::from_mins(5);

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn set(texts: &[&str]) -> BTreeSet<Addr> {
        texts.iter().map(|text| addr(text)).collect()
    }

    /// A session from 10.0.0.5, which the server sees as 192.0.2.1; the server has an IPv4 address only.
    fn proofs() -> Proofs {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = nufw_common::tls::server_name("fw.test").unwrap();
        let prover = Prover {
            dialer: Dialer::new(Arc::new(config), name),
            servers: vec!["192.0.2.9:4129".parse().unwrap()],
            token: SecretBytes::new(vec![1]).unwrap(),
        };
        Proofs::new(prover, LEASE, addr("10.0.0.5"), addr("192.0.2.1"))
    }

    #[test]
    fn only_addresses_that_the_server_can_be_reached_from_are_proven_and_not_too_many() {
        let mut proofs = proofs();
        let now = nufw_common::clock::mono();
        proofs.set_addresses(&set(&["10.0.0.5", "fd00::5"]), now);
        assert_eq!(proofs.entries.len(), 0);
        let many: BTreeSet<Addr> = (1..=200).map(|i| addr(&format!("10.7.0.{i}"))).collect();
        proofs.set_addresses(&many, now);
        assert_eq!(proofs.entries.len(), MAX_ADDRESSES);
        assert_eq!(proofs.next_due(), Some(now));
    }

    #[test]
    fn what_the_server_sees_is_withdrawn_when_no_address_stands_for_it() {
        let mut proofs = proofs();
        let now = nufw_common::clock::mono();
        let [one, two, three] = ["10.0.0.6", "10.0.0.7", "10.0.0.8"].map(addr);
        proofs.set_addresses(&BTreeSet::from([one, two, three]), now);
        // Behind address translation: two look like one, and the third like the session's own.
        let (nat, own) = (addr("192.0.2.2"), addr("192.0.2.1"));
        assert_eq!(proofs.on_finished(one, Ok(nat), now), Outcome::Proved(one, nat));
        assert_eq!(proofs.on_finished(one, Ok(nat), now), Outcome::Nothing);
        proofs.on_finished(two, Ok(nat), now);
        proofs.on_finished(three, Ok(own), now);
        assert_eq!(proofs.set_addresses(&BTreeSet::from([two]), now), []);
        assert_eq!(proofs.set_addresses(&BTreeSet::new(), now), [nat]);
        // A proof that ends after its address is gone.
        assert_eq!(proofs.on_finished(one, Ok(nat), now), Outcome::Withdraw(nat));
        assert_eq!(proofs.on_finished(three, Ok(own), now), Outcome::Nothing);
    }

    #[test]
    fn a_failed_proof_is_tried_again_later_and_later_but_never_less_often_than_it_is_refreshed() {
        let mut proofs = proofs();
        let mut now = nufw_common::clock::mono();
        let one = addr("10.0.0.6");
        proofs.set_addresses(&BTreeSet::from([one]), now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            proofs.on_finished(one, Err(LoginError::Closed), now);
            let due = proofs.next_due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 100, 100, 100]);
        proofs.on_finished(one, Ok(one), now);
        assert_eq!(proofs.next_due(), Some(now + LEASE / 3));
    }
}
