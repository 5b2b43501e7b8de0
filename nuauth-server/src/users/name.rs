//! What a user's name may be, and when two spellings are one name: stated and enforced here alone.
//!
//! Knows of no user. A name that passes is compared byte by byte everywhere else.

use nufw_proto::Text;
use precis_profiles::precis_core::profile::Profile as _;
use precis_profiles::{UsernameCaseMapped, UsernameCasePreserved};
use unicode_security::{MixedScript as _, skeleton};

/// Longest name, bytes: what a message and a row have room for.
const MAX_NAME: usize = 255;

/// Whether `Alice` is `alice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// They are two names.
    #[default]
    Exact,
    /// They are one name, in lower case.
    Fold,
}

/// The rules for names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameRules {
    /// Whether case matters.
    pub case: Case,
    /// Where `alice@example.org` is `alice`; another realm is nobody's. Without it `@` is a letter as any other.
    pub realm: Option<String>,
}

/// Why something is no user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or too long.
    #[error("a name has 1 to {MAX_NAME} bytes")]
    Length,
    /// It has characters that names cannot have, or an order of directions that confuses.
    #[error("it has a character that RFC 8265 does not allow in a user name")]
    Characters,
    /// It mixes scripts, as a look-alike of another name does.
    #[error("it mixes scripts, as a look-alike of another name would")]
    Scripts,
    /// It is of another realm.
    #[error("it is of another realm than users.realm")]
    Realm,
}

impl NameRules {
    /// The one spelling under which a name is known here.
    pub fn apply(&self, name: &str) -> Result<String, NameError> {
        let local = match (&self.realm, name.rsplit_once('@')) {
            (Some(realm), Some((local, of))) if of.eq_ignore_ascii_case(realm) => local,
            (Some(_), Some(_)) => return Err(NameError::Realm),
            _ => name,
        };
        if local.is_empty() || local.len() > MAX_NAME {
            return Err(NameError::Length);
        }
        // RFC 8265, 3.1: parts that are joined by single spaces.
        let parts: Vec<String> = local
            .split(' ')
            .map(|part| self.part(part))
            .collect::<Result<_, _>>()?;
        let name = parts.join(" ");
        if Text::<MAX_NAME>::new(name.as_str()).is_err() {
            return Err(NameError::Length);
        }
        // UTS 39, 5.1: one script, beside what is common to all; Japanese and Korean are one with Han.
        if !name.as_str().is_single_script() {
            return Err(NameError::Scripts);
        }
        Ok(name)
    }

    fn part(&self, part: &str) -> Result<String, NameError> {
        match self.case {
            Case::Exact => UsernameCasePreserved::new().enforce(part),
            Case::Fold => UsernameCaseMapped::new().enforce(part),
        }
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| NameError::Characters)
    }
}

/// What a name looks like: names that people take for each other have the same.
pub(crate) fn looks(name: &str) -> String {
    skeleton(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(name: &str) -> Result<String, NameError> {
        NameRules::default().apply(name)
    }

    fn with(case: Case, realm: Option<&str>) -> NameRules {
        let realm = realm.map(str::to_owned);
        NameRules { case, realm }
    }

    #[test]
    fn one_name_has_one_spelling() {
        assert_eq!(exact("alice").unwrap(), "alice");
        assert_eq!(exact("Alice").unwrap(), "Alice", "case matters");
        assert_eq!(exact("ren\u{e9}").unwrap(), "ren\u{e9}");
        assert_eq!(exact("rene\u{301}").unwrap(), "ren\u{e9}", "composed");
        assert_eq!(exact("\u{ff41}lice").unwrap(), "alice", "full width");
        assert_eq!(exact("Anna Maria").unwrap(), "Anna Maria");
        assert_eq!(exact("alice@example.org").unwrap(), "alice@example.org");
        let fold = with(Case::Fold, None);
        assert_eq!(fold.apply("ALICE").unwrap(), "alice");
        assert_eq!(fold.apply("REN\u{c9}").unwrap(), "ren\u{e9}");
    }

    #[test]
    fn what_could_be_taken_for_another_name_is_refused() {
        // Cyrillic letters among Latin ones.
        assert_eq!(exact("\u{430}lice"), Err(NameError::Scripts));
        assert_eq!(exact("bo\u{432}"), Err(NameError::Scripts));
        // A name of one script stays one, and is another name than its look-alike.
        let (latin, cyrillic) = ("cape", "\u{441}\u{430}\u{440}\u{435}");
        assert_eq!(exact(cyrillic).unwrap(), cyrillic);
        assert_ne!(exact(cyrillic), exact(latin));
        assert_eq!(looks(cyrillic), looks(latin));
        assert_ne!(looks("alice"), looks("bob"));
        for wrong in [
            "al\u{ad}ice",
            "ali\u{200b}ce",
            "a\u{202e}b",
            "a\tb",
            " alice",
            "alice ",
            "a  b",
            "a\u{a0}b",
        ] {
            assert_eq!(exact(wrong), Err(NameError::Characters), "{wrong:?}");
        }
        assert_eq!(exact(""), Err(NameError::Length));
        assert_eq!(exact(&"x".repeat(255)).unwrap().len(), 255);
        assert_eq!(exact(&"x".repeat(256)), Err(NameError::Length));
    }

    #[test]
    fn a_name_of_our_realm_is_the_name_alone_and_another_realm_is_nobodys() {
        let ours = with(Case::Exact, Some("example.org"));
        assert_eq!(ours.apply("alice").unwrap(), "alice");
        assert_eq!(ours.apply("alice@example.org").unwrap(), "alice");
        assert_eq!(
            ours.apply("alice@EXAMPLE.ORG").unwrap(),
            "alice",
            "host names know no case"
        );
        assert_eq!(ours.apply("alice@example.com"), Err(NameError::Realm));
        assert_eq!(ours.apply("alice@example.org@example.com"), Err(NameError::Realm));
        assert_eq!(ours.apply("@example.org"), Err(NameError::Length));
    }
}
