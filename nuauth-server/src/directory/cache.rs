//! What back-ends said of late: who users are, for a bounded time, of a bounded number. Never whether a password was right.
//!
//! Pure: the time is a parameter.

use crate::engine::Identity;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Remembered {
    identity: Arc<Identity>,
    until: Instant,
    /// Which place in the order of age is this answer's.
    turn: u64,
}

/// Identities by name. At its limit the oldest answer is forgotten: its user is asked about again.
pub(super) struct Cache {
    by_name: HashMap<Arc<str>, Remembered>,
    /// Names by id: two names with one id would be one user to the log.
    by_id: HashMap<u64, Arc<str>>,
    order: VecDeque<(u64, Arc<str>)>,
    turn: u64,
    age: Duration,
    most: usize,
}

impl Cache {
    pub(super) fn new(age: Duration, most: usize) -> Self {
        Self {
            by_name: HashMap::new(),
            by_id: HashMap::new(),
            order: VecDeque::new(),
            turn: 0,
            age,
            most,
        }
    }

    /// What was said of a user, unless it is too long ago.
    pub(super) fn get(&self, name: &str, now: Instant) -> Option<Arc<Identity>> {
        let remembered = self.by_name.get(name)?;
        (now < remembered.until).then(|| Arc::clone(&remembered.identity))
    }

    /// Remembers an answer, unless the id is known as that of another name, which is given then.
    pub(super) fn put(&mut self, identity: &Arc<Identity>, now: Instant) -> Result<(), Arc<str>> {
        self.forget_old(now);
        let (id, name) = (identity.user.id, &identity.user.name);
        if let Some(other) = self.by_id.get(&id).filter(|other| *other != name) {
            return Err(Arc::clone(other));
        }
        self.forget(name);
        if self.most == 0 || self.age.is_zero() {
            return Ok(());
        }
        while self.by_name.len() >= self.most {
            self.forget_oldest();
        }
        self.turn += 1;
        self.order.push_back((self.turn, Arc::clone(name)));
        self.by_id.insert(id, Arc::clone(name));
        let remembered = Remembered {
            identity: Arc::clone(identity),
            until: now + self.age,
            turn: self.turn,
        };
        self.by_name.insert(Arc::clone(name), remembered);
        Ok(())
    }

    /// Forgets everything; gives of how many users.
    pub(super) fn clear(&mut self) -> usize {
        let known = self.by_name.len();
        *self = Self::new(self.age, self.most);
        known
    }

    fn forget(&mut self, name: &str) {
        if let Some(old) = self.by_name.remove(name) {
            self.by_id.remove(&old.identity.user.id);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((turn, name)) = self.order.pop_front()
            && self.by_name.get(&name).is_some_and(|known| known.turn == turn)
        {
            self.forget(&name);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((turn, name)) = self.order.front() {
            match self.by_name.get(name) {
                Some(known) if known.turn == *turn && now < known.until => break,
                _ => self.forget_oldest(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::Mark;

    fn identity(name: &str, id: u64) -> Arc<Identity> {
        Arc::new(Identity {
            user: nulog::User {
                id,
                name: Arc::from(name),
            },
            mark: Mark(1),
            groups: Arc::from([]),
        })
    }

    #[test]
    fn an_answer_counts_for_its_time_and_not_longer() {
        let start = clock();
        let mut cache = Cache::new(Duration::from_mins(1), 10);
        cache.put(&identity("alice", 1), start).unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(cache.get("alice", at(59)).unwrap().user.id, 1);
        assert!(cache.get("alice", at(60)).is_none());
        assert!(cache.get("bob", at(0)).is_none());
        // Said again, it counts again.
        cache.put(&identity("alice", 1), at(50)).unwrap();
        assert!(cache.get("alice", at(109)).is_some());
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let start = clock();
        let mut cache = Cache::new(Duration::from_mins(1), 3);
        for n in 1..=100 {
            cache.put(&identity(&format!("u{n}"), n), start).unwrap();
            assert!(cache.by_name.len() <= 3 && cache.by_id.len() <= 3);
        }
        assert!(cache.get("u97", start).is_none());
        for n in 98..=100 {
            assert!(cache.get(&format!("u{n}"), start).is_some());
        }
        // Answers that are said again and again leave nothing behind.
        for _ in 0..1000 {
            cache.put(&identity("u100", 100), start).unwrap();
        }
        cache
            .put(&identity("x", 7), start + Duration::from_secs(61))
            .unwrap();
        assert_eq!((cache.by_name.len(), cache.order.len()), (1, 1));
    }

    #[test]
    fn one_id_is_one_name() {
        let start = clock();
        let mut cache = Cache::new(Duration::from_mins(1), 10);
        cache.put(&identity("alice", 1), start).unwrap();
        assert_eq!(cache.put(&identity("mallory", 1), start), Err(Arc::from("alice")));
        // When that is long ago, the id may have been given anew.
        cache
            .put(&identity("bob", 1), start + Duration::from_secs(61))
            .unwrap();
        // An id that changed leaves the old one free.
        cache
            .put(&identity("bob", 2), start + Duration::from_secs(61))
            .unwrap();
        cache
            .put(&identity("carol", 1), start + Duration::from_secs(61))
            .unwrap();
    }

    #[test]
    fn without_a_time_or_a_number_nothing_is_remembered() {
        for (age, most) in [(0, 10), (60, 0)] {
            let mut cache = Cache::new(Duration::from_secs(age), most);
            cache.put(&identity("alice", 1), clock()).unwrap();
            assert!(cache.get("alice", clock()).is_none());
        }
    }

    fn clock() -> Instant {
        nufw_common::clock::mono()
    }
}
