//! Which rules are for a user, and which of the groups that rules name it is in: worked out once for each user.
//!
//! A user's groups are compared with what they were then, so that an answer never outlives a change of them.

use super::bits::{Block, Plain, RULES, insert};
use super::rule::{Rule, Who};
use crate::engine::Identity;
use hashbrown::HashMap;
use std::collections::HashMap as StdMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Users that are remembered, in at most 8 bytes a rule of 64 or 4 bytes a rule of theirs, whichever is less; those of a
/// further one are worked out at each packet.
pub const REMEMBERED: usize = 131_072;

/// The groups that rules name, by number.
#[derive(Debug, Default)]
pub(super) struct Groups(StdMap<Arc<str>, u32>);

impl Groups {
    /// The number of a group; it gets one with its first rule.
    pub(super) fn number(&mut self, name: &Arc<str>) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(Arc::clone(name)).or_insert(next)
    }

    fn of<'a>(&'a self, user: &'a Identity) -> impl Iterator<Item = u32> + 'a {
        user.groups.iter().filter_map(|group| self.0.get(group).copied())
    }
}

/// Which rules are for whom.
#[derive(Debug, Default)]
pub(super) struct Members {
    groups: Groups,
    /// Rules for whoever is logged in, and for whoever is not.
    authenticated: Plain,
    strangers: Plain,
    /// Rules that name somebody.
    by_id: StdMap<u64, Vec<u32>>,
    by_name: StdMap<Arc<str>, Vec<u32>>,
    by_group: Vec<Vec<u32>>,
    remembered: RwLock<HashMap<u64, Member>>,
}

#[derive(Debug)]
struct Member {
    /// What the rest was made of.
    name: Arc<str>,
    groups: Arc<[Arc<str>]>,
    bits: Box<[u64]>,
    rules: Named,
}

/// Rules that name somebody; those that everybody has come to them.
#[derive(Debug)]
enum Named {
    /// Their numbers, in order.
    Few(Box<[u32]>),
    /// With those that everybody has.
    Many(Plain),
}

/// The rules of one user, block by block from the first on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    common: &'a [Block],
    few: &'a [u32],
}

impl Whose<'_> {
    /// Each block must be asked for once, in order.
    #[inline]
    pub(super) fn block(&mut self, at: usize) -> Block {
        let mut block = self.common[at];
        while let Some((&rule, later)) = self.few.split_first()
            && rule as usize / RULES <= at
        {
            insert(&mut block, rule as usize);
            self.few = later;
        }
        block
    }
}

impl Members {
    pub(super) fn new(groups: Groups, rules: &[Rule]) -> Self {
        let mut members = Self {
            authenticated: Plain::none(rules.len()),
            strangers: Plain::none(rules.len()),
            by_group: vec![Vec::new(); groups.0.len()],
            groups,
            ..Self::default()
        };
        for (place, rule) in rules.iter().enumerate() {
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            if matches!(rule.who, Who::Authenticated | Who::Anyone) {
                members.authenticated.insert(place);
            }
            if rule.is_for_nobody() {
                members.strangers.insert(place);
            }
            let Who::Named(named) = &rule.who else { continue };
            for id in &named.ids {
                members.by_id.entry(*id).or_default().push(number);
            }
            for name in &named.names {
                members.by_name.entry(Arc::clone(name)).or_default().push(number);
            }
            for (_, group) in &named.groups {
                members.by_group[*group as usize].push(number);
            }
        }
        members
    }

    /// Calls `ask` with the rules and the groups' bits of a user.
    pub(super) fn with<T>(&self, user: Option<&Identity>, ask: impl FnOnce(Whose<'_>, &[u64]) -> T) -> T {
        let Some(user) = user else {
            let whose = Whose {
                common: self.strangers.blocks(),
                few: &[],
            };
            return ask(whose, &[]);
        };
        {
            let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(member) = remembered.get(&user.user.id)
                && Arc::ptr_eq(&member.groups, &user.groups)
                && member.name == user.user.name
            {
                return ask(self.whose(&member.rules), &member.bits);
            }
        }
        let member = self.member(user);
        let answer = ask(self.whose(&member.rules), &member.bits);
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() < REMEMBERED || remembered.contains_key(&user.user.id) {
            remembered.insert(user.user.id, member);
        }
        answer
    }

    fn whose<'a>(&'a self, rules: &'a Named) -> Whose<'a> {
        match rules {
            Named::Few(few) => Whose {
                common: self.authenticated.blocks(),
                few,
            },
            Named::Many(many) => Whose {
                common: many.blocks(),
                few: &[],
            },
        }
    }

    /// The rules that may be for everybody whom this one is for: those that one of them has.
    pub(super) fn like(&self, rule: &Rule) -> (Plain, Vec<u32>) {
        let Who::Named(named) = &rule.who else {
            let all = match rule.who {
                Who::Authenticated => &self.authenticated,
                _ => &self.strangers,
            };
            return (all.clone(), Vec::new());
        };
        let of_group = named
            .groups
            .first()
            .map(|(_, group)| &self.by_group[*group as usize]);
        let of_id = named.ids.first().and_then(|id| self.by_id.get(id));
        let of_name = named.names.first().and_then(|name| self.by_name.get(name));
        let rules = of_group.or(of_id).or(of_name).cloned().unwrap_or_default();
        (self.authenticated.clone(), rules)
    }

    fn member(&self, user: &Identity) -> Member {
        let mut bits = vec![0_u64; self.by_group.len().div_ceil(64)];
        let of_id = self.by_id.get(&user.user.id).into_iter().flatten();
        let of_name = self.by_name.get(&user.user.name).into_iter().flatten();
        let mut rules: Vec<u32> = of_id.chain(of_name).copied().collect();
        for group in self.groups.of(user) {
            bits[group as usize / 64] |= 1 << (group % 64);
            rules.extend(&self.by_group[group as usize]);
        }
        rules.sort_unstable();
        rules.dedup();
        let whole = self.authenticated.blocks();
        let rules = if size_of_val(&*rules) < size_of_val(whole) {
            Named::Few(rules.into())
        } else {
            let mut many = self.authenticated.clone();
            for rule in rules {
                many.insert(rule as usize);
            }
            Named::Many(many)
        };
        Member {
            name: Arc::clone(&user.user.name),
            groups: Arc::clone(&user.groups),
            bits: bits.into(),
            rules,
        }
    }
}

impl<'a> Whose<'a> {
    /// Of what [`Members::like`] gives.
    pub(super) fn like((common, few): &'a (Plain, Vec<u32>)) -> Self {
        Self {
            common: common.blocks(),
            few,
        }
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

    fn members(groups: u32) -> Members {
        let mut numbers = Groups::default();
        for number in 0..groups {
            assert_eq!(numbers.number(&Arc::from(format!("g{number}"))), number);
        }
        Members::new(numbers, &[])
    }

    #[test]
    fn a_user_whose_groups_change_is_not_what_it_was() {
        let members = members(70);
        let in_group = |user: &Identity, number: usize| {
            members.with(Some(user), |_, bits| {
                bits[number / 64] & (1 << (number % 64)) != 0
            })
        };
        let (before, after) = (user(u64::MAX, &["g3", "g69", "other"]), user(u64::MAX, &["g4"]));
        for _ in 0..2 {
            assert!(in_group(&before, 3) && in_group(&before, 69) && !in_group(&before, 4));
            assert!(in_group(&after, 4) && !in_group(&after, 3));
        }
        assert_eq!(members.remembered.read().unwrap().len(), 1);
    }

    #[test]
    fn beyond_the_bound_a_user_is_asked_about_each_time() {
        let members = members(1);
        for id in 0..=REMEMBERED as u64 {
            assert!(members.with(Some(&user(id, &["g0"])), |_, bits| bits[0] == 1));
        }
        assert_eq!(members.remembered.read().unwrap().len(), REMEMBERED);
    }
}
