//! Which of the groups that rules name a user is in, as bits: worked out once for each user.
//!
//! A user's groups are compared with what they were then, so that an answer never outlives a change of them.

use crate::engine::Identity;
use hashbrown::HashMap;
use std::collections::HashMap as StdMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Users whose groups are remembered; those of a further one are worked out at each packet.
pub const REMEMBERED: usize = 131_072;

/// The groups that rules name, and their members as far as they have been seen.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: StdMap<Arc<str>, u32>,
    words: usize,
    members: RwLock<HashMap<u64, Member>>,
}

#[derive(Debug)]
struct Member {
    /// What the bits were made of.
    groups: Arc<[Arc<str>]>,
    bits: Box<[u64]>,
}

impl Groups {
    /// The number of a group; it gets one with its first rule.
    pub(super) fn number(&mut self, name: &Arc<str>) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(Arc::clone(name)).or_insert(next);
        self.words = self.numbers.len().div_ceil(64);
        number
    }

    /// Calls `ask` with the bits of a user's groups.
    pub(super) fn with<T>(&self, user: Option<&Identity>, ask: impl FnOnce(&[u64]) -> T) -> T {
        let Some(user) = user.filter(|_| self.words > 0) else {
            return ask(&[]);
        };
        {
            let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(member) = members.get(&user.user.id)
                && Arc::ptr_eq(&member.groups, &user.groups)
            {
                return ask(&member.bits);
            }
        }
        let bits = self.bits(user);
        let answer = ask(&bits);
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if members.len() < REMEMBERED || members.contains_key(&user.user.id) {
            let groups = Arc::clone(&user.groups);
            members.insert(user.user.id, Member { groups, bits });
        }
        answer
    }

    fn bits(&self, user: &Identity) -> Box<[u64]> {
        let mut bits = vec![0_u64; self.words];
        for number in user.groups.iter().filter_map(|group| self.numbers.get(group)) {
            super::bits::set(&mut bits, *number as usize);
        }
        bits.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::Mark;

    fn user(id: u64, groups: &[&str]) -> Identity {
        Identity {
            user: nulog::User {
                id,
                name: Arc::from("u"),
            },
            mark: Mark(1),
            groups: groups.iter().map(|group| Arc::from(*group)).collect(),
        }
    }

    #[test]
    fn a_user_whose_groups_change_is_not_what_it_was() {
        let mut groups = Groups::default();
        for number in 0..70 {
            assert_eq!(groups.number(&Arc::from(format!("g{number}"))), number);
        }
        let in_group = |user: &Identity, number: usize| {
            groups.with(Some(user), |bits| bits[number / 64] & (1 << (number % 64)) != 0)
        };
        let (before, after) = (user(u64::MAX, &["g3", "g69", "other"]), user(u64::MAX, &["g4"]));
        for _ in 0..2 {
            assert!(in_group(&before, 3) && in_group(&before, 69) && !in_group(&before, 4));
            assert!(in_group(&after, 4) && !in_group(&after, 3));
        }
        assert_eq!(groups.members.read().unwrap().len(), 1);
    }

    #[test]
    fn beyond_the_bound_a_user_is_asked_about_each_time() {
        let mut groups = Groups::default();
        groups.number(&Arc::from("staff"));
        for id in 0..=REMEMBERED as u64 {
            assert!(groups.with(Some(&user(id, &["staff"])), |bits| bits[0] == 1));
        }
        assert_eq!(groups.members.read().unwrap().len(), REMEMBERED);
    }
}
