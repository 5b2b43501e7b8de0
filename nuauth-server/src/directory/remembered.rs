//! Who has logged in whom the users file does not know, or knows in part: what a reload must not take for gone.
//!
//! Pure. The hub keeps it, so that no login can fall between two looks.

use crate::engine::Identity;
use crate::hub::Asked;
use nufw_proto::SessionId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Users without a session who are remembered, for the sake of their connections; the one who left first is forgotten.
const MOST_WITHOUT_SESSION: usize = 65_536;

type ByName = HashMap<Arc<str>, Arc<Identity>>;

struct User {
    identity: Arc<Identity>,
    sessions: usize,
}

/// Users by name.
pub(crate) struct Remembered {
    /// What the users file says.
    in_file: ByName,
    users: HashMap<Arc<str>, User>,
    sessions: HashMap<SessionId, Arc<str>>,
    left: VecDeque<Arc<str>>,
}

impl Remembered {
    /// Nobody has logged in yet.
    pub(crate) fn new(in_file: ByName) -> Self {
        Self {
            in_file,
            users: HashMap::new(),
            sessions: HashMap::new(),
            left: VecDeque::new(),
        }
    }

    pub(crate) fn logged_in(&mut self, session: SessionId, identity: &Arc<Identity>) {
        let name = &identity.user.name;
        self.sessions.insert(session, Arc::clone(name));
        let user = self.users.entry(Arc::clone(name)).or_insert_with(|| User {
            identity: Arc::clone(identity),
            sessions: 0,
        });
        user.identity = Arc::clone(identity);
        user.sessions += 1;
    }

    pub(crate) fn logged_out(&mut self, session: SessionId) {
        let Some(name) = self.sessions.remove(&session) else {
            return;
        };
        let Some(user) = self.users.get_mut(&name) else {
            return;
        };
        user.sessions = user.sessions.saturating_sub(1);
        if user.sessions == 0 {
            self.left.push_back(name);
        }
        while self.left.len() > MOST_WITHOUT_SESSION {
            if let Some(name) = self.left.pop_front()
                && self.users.get(&name).is_some_and(|user| user.sessions == 0)
            {
                self.users.remove(&name);
            }
        }
    }

    /// Everybody.
    pub(crate) fn all(&self) -> Vec<Arc<Identity>> {
        self.users
            .values()
            .map(|user| Arc::clone(&user.identity))
            .collect()
    }

    /// The users file was read again: nobody is gone before the other back-ends have said so.
    pub(crate) fn read(&mut self, in_file: ByName) -> ByName {
        self.in_file = in_file;
        self.known()
    }

    /// Other back-ends have been asked again.
    pub(crate) fn asked(&mut self, answers: Vec<Asked>) -> ByName {
        for answer in answers {
            match answer {
                Asked::Known(identity) => {
                    if let Some(user) = self.users.get_mut(&identity.user.name) {
                        user.identity = identity;
                    }
                }
                Asked::Gone(name) => {
                    self.users.remove(&name);
                    // Until the next reload: the file alone does not make somebody a user.
                    self.in_file.remove(&name);
                }
            }
        }
        self.known()
    }

    fn known(&self) -> ByName {
        let mut known = self.in_file.clone();
        let others = self.users.iter();
        known.extend(others.map(|(name, user)| (Arc::clone(name), Arc::clone(&user.identity))));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::Mark;

    fn identity(name: &str, id: u64, group: &str) -> Arc<Identity> {
        Arc::new(Identity {
            user: nulog::User {
                id,
                name: Arc::from(name),
            },
            mark: Mark(1),
            groups: Arc::from([Arc::from(group)]),
        })
    }

    fn file(users: &[&Arc<Identity>]) -> ByName {
        users
            .iter()
            .map(|user| (Arc::clone(&user.user.name), Arc::clone(user)))
            .collect()
    }

    #[test]
    fn a_reload_takes_nobody_for_gone_whom_another_back_end_may_know() {
        let (alice, bob) = (identity("alice", 1, "staff"), identity("bob", 2, "guests"));
        let mut remembered = Remembered::new(file(&[&alice]));
        remembered.logged_in(SessionId(1), &bob);
        let known = remembered.read(file(&[&alice]));
        assert_eq!(known.len(), 2);
        assert_eq!(known["bob"], bob);
        // Groups of theirs are not the file's to say.
        let merged = identity("alice", 1, "of-the-directory");
        remembered.logged_in(SessionId(2), &merged);
        assert_eq!(remembered.read(file(&[&alice]))["alice"], merged);
        let asked = vec![Asked::Known(identity("bob", 2, "staff"))];
        assert_eq!(&*remembered.asked(asked)["bob"].groups[0], "staff");
        let known = remembered.asked(vec![Asked::Gone(Arc::from("bob"))]);
        assert!(!known.contains_key("bob") && known.contains_key("alice"));
    }

    #[test]
    fn whoever_has_left_is_remembered_within_bounds() {
        let mut remembered = Remembered::new(HashMap::new());
        for n in 1..=(MOST_WITHOUT_SESSION as u64 + 10) {
            let session = SessionId(n);
            remembered.logged_in(session, &identity(&format!("u{n}"), n, "g"));
            remembered.logged_out(session);
        }
        assert_eq!(remembered.all().len(), MOST_WITHOUT_SESSION);
        assert!(!remembered.known().contains_key("u1"));
        // Somebody with a session is never forgotten.
        let stays = identity("stays", 1, "g");
        remembered.logged_in(SessionId(1), &stays);
        for n in 2..=(MOST_WITHOUT_SESSION as u64 + 10) {
            remembered.logged_in(SessionId(n), &identity(&format!("v{n}"), n, "g"));
            remembered.logged_out(SessionId(n));
        }
        assert!(remembered.known().contains_key("stays"));
    }

    #[test]
    fn two_sessions_of_one_user_are_two() {
        let alice = identity("alice", 1, "g");
        let mut remembered = Remembered::new(HashMap::new());
        remembered.logged_in(SessionId(1), &alice);
        remembered.logged_in(SessionId(2), &alice);
        remembered.logged_out(SessionId(1));
        remembered.logged_out(SessionId(1));
        assert!(remembered.left.is_empty());
        remembered.logged_out(SessionId(2));
        assert_eq!(remembered.left.len(), 1);
    }
}
