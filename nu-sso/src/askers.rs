//! Who may ask over which place.
//!
//! Judges the peer; sockets are `nufw_common::listen`'s.

use crate::config::{Asker, Serve};
use ipnet::IpNet;
use nufw_common::listen::Peer;

/// Who may ask.
#[derive(Debug, Clone)]
pub(crate) struct Askers {
    uids: Vec<u32>,
    networks: Vec<IpNet>,
    /// Names of no account.
    pub(crate) unknown: Vec<String>,
}

impl Askers {
    /// Those of the configuration, root, and `own`.
    pub(crate) fn new(serve: &Serve, own: u32) -> Self {
        let mut askers = Self {
            uids: vec![0, own],
            networks: serve.allow_from.clone(),
            unknown: Vec::new(),
        };
        for asker in &serve.allow_users {
            match (asker.uid(), asker) {
                (Some(uid), _) => askers.uids.push(uid),
                (None, Asker::Name(name)) => askers.unknown.push(name.clone()),
                (None, Asker::Uid(_)) => {}
            }
        }
        askers
    }

    pub(crate) fn may_ask(&self, peer: Peer) -> bool {
        match peer {
            Peer::User(uid) => uid.is_some_and(|uid| self.uids.contains(&uid)),
            Peer::Host(address) => self.networks.iter().any(|network| network.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_on_the_lists_may_ask() {
        let askers = Askers {
            uids: vec![0, 33],
            networks: vec!["127.0.0.1/32".parse().unwrap(), "fd00::/8".parse().unwrap()],
            unknown: Vec::new(),
        };
        for (peer, may) in [
            (Peer::User(Some(33)), true),
            (Peer::User(Some(1000)), false),
            (Peer::User(None), false),
            (Peer::Host("127.0.0.1".parse().unwrap()), true),
            (Peer::Host("127.0.0.2".parse().unwrap()), false),
            (Peer::Host("fd00::1".parse().unwrap()), true),
            (Peer::Host("2001:db8::1".parse().unwrap()), false),
        ] {
            assert_eq!(askers.may_ask(peer), may, "{peer:?}");
        }
    }
}
