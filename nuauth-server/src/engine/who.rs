//! Who is behind the live connections: each user and program once, however many connections they have.
//!
//! Kept for the connections that others bring with them, whose rows name the same user, and for judging live connections again.
//! As many as there are connections at
//! most, since one that nobody has any more is forgotten. Nothing here decides.

use super::quality::Quality;
use hashbrown::HashTable;
use nulog::User;
use slab::Slab;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;

/// What a row says of its user, and what else access lists look at beside the tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// `None`: a rule for nobody granted it.
    pub(super) user: Option<User>,
    pub(super) os: Option<Arc<str>>,
    pub(super) app: Option<Arc<str>>,
    pub(super) hash: Option<[u8; 32]>,
    /// It is from a row of before a restart, and rows have no hash.
    pub(super) hash_is_forgotten: bool,
    pub(super) in_dev: Arc<str>,
    pub(super) out_dev: Arc<str>,
    pub(super) phys_in: Arc<str>,
    pub(super) phys_out: Arc<str>,
    pub(super) quality: Quality,
}

fn hash_of(hasher: &RandomState, who: &Who) -> u64 {
    hasher.hash_one((who.user.as_ref().map(|user| user.id), &who.app))
}

/// A place in the table, valid until it was released as often as it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WhoId(NonZeroU32);

impl WhoId {
    fn new(place: usize) -> Option<Self> {
        let number = u32::try_from(place).ok()?.checked_add(1)?;
        NonZeroU32::new(number).map(Self)
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Default)]
pub(super) struct WhoTable {
    entries: Slab<(Who, u32)>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl WhoTable {
    /// Finds or adds it, for one connection more.
    pub(super) fn keep(&mut self, who: Who) -> Option<WhoId> {
        let Self {
            entries,
            index,
            hasher,
        } = self;
        let hash = hash_of(hasher, &who);
        if let Some(&place) = index.find(hash, |&place| entries[place as usize].0 == who) {
            entries[place as usize].1 += 1;
            return WhoId::new(place as usize);
        }
        let place = entries.insert((who, 1));
        let number = u32::try_from(place).ok()?;
        index.insert_unique(hash, number, |&place| hash_of(hasher, &entries[place as usize].0));
        WhoId::new(place)
    }

    pub(super) fn get(&self, id: WhoId) -> Option<&Who> {
        self.entries.get(id.place()).map(|(who, _)| who)
    }

    /// One connection less.
    pub(super) fn release(&mut self, id: WhoId) {
        let Some((who, connections)) = self.entries.get_mut(id.place()) else {
            return;
        };
        *connections -= 1;
        if *connections > 0 {
            return;
        }
        let hash = hash_of(&self.hasher, who);
        if let Ok(entry) = self.index.find_entry(hash, |&place| place as usize == id.place()) {
            entry.remove();
        }
        self.entries.remove(id.place());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str, app: &str) -> Who {
        Who {
            user: Some(User {
                id: 7,
                name: Arc::from(name),
            }),
            os: None,
            app: Some(Arc::from(app)),
            hash: None,
            hash_is_forgotten: false,
            in_dev: Arc::from("eth0"),
            out_dev: Arc::from("eth1"),
            phys_in: Arc::from(""),
            phys_out: Arc::from(""),
            quality: Quality::default(),
        }
    }

    #[test]
    fn the_same_is_kept_once_and_forgotten_with_its_last_connection() {
        let mut table = WhoTable::default();
        let first = table.keep(who("alice", "ftp")).unwrap();
        let second = table.keep(who("alice", "ftp")).unwrap();
        let other = table.keep(who("alice", "curl")).unwrap();
        assert_eq!(first, second);
        assert_ne!(first, other);
        table.release(first);
        assert_eq!(table.get(second), Some(&who("alice", "ftp")));
        table.release(second);
        assert_eq!(table.get(second), None);
        assert_eq!((table.entries.len(), table.index.len()), (1, 1));
        assert_eq!(table.get(other), Some(&who("alice", "curl")));
    }
}
