//! Names of users by their ids, for those who ask whose a connection is: the users file's, and whoever has logged in since.
//!
//! Bounded. At the limit a name is forgotten that the file does not have.

use crate::engine::Identity;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Most names that are known of those who are not in the users file.
const MOST: usize = 1 << 20;

#[derive(Default)]
struct Names {
    in_file: HashMap<u64, Arc<str>>,
    others: HashMap<u64, Arc<str>>,
}

/// The names.
#[derive(Default)]
pub(crate) struct Known(RwLock<Names>);

impl Known {
    /// The users file was read (again).
    pub(crate) fn read(&self, names: HashMap<u64, Arc<str>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).in_file = names;
    }

    /// Somebody has logged in.
    pub(crate) fn learn(&self, identity: &Identity) {
        let (id, name) = (identity.user.id, &identity.user.name);
        if self.get(id).as_ref() == Some(name) {
            return;
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.others.len() >= MOST
            && let Some(some) = names.others.keys().next().copied()
        {
            names.others.remove(&some);
        }
        names.others.insert(id, Arc::clone(name));
    }

    /// The id of a user; one pass over all names.
    pub(crate) fn id(&self, name: &str) -> Option<u64> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = names.in_file.iter().chain(&names.others);
        all.find(|(_, known)| &***known == name).map(|(&id, _)| id)
    }

    /// The name of a user.
    pub(crate) fn get(&self, id: u64) -> Option<Arc<str>> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.in_file.get(&id).or_else(|| names.others.get(&id)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::Mark;

    #[test]
    fn who_has_logged_in_is_known_after_a_reload_too() {
        let known = Known::default();
        known.read(HashMap::from([(1, Arc::from("alice"))]));
        known.learn(&Identity {
            user: nulog::User {
                id: 2,
                name: Arc::from("bob"),
            },
            mark: Mark(2),
            groups: Arc::from([]),
        });
        known.read(HashMap::from([(3, Arc::from("carol"))]));
        let name = |id| known.get(id).map(|name| name.to_string());
        assert_eq!(
            (name(1), name(2), name(3)),
            (None, Some("bob".to_owned()), Some("carol".to_owned()))
        );
    }
}
