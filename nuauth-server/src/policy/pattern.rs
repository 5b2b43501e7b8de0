//! Patterns of text: paths of programs, operating systems, interfaces.
//!
//! What is matched may come from a client that wishes us ill: a pattern takes time in proportion to the text.

use globset::{GlobBuilder, GlobMatcher};
use std::fmt;
use std::sync::Arc;

/// A pattern as it was written, and how to match it.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    matcher: Matcher,
}

/// What is more than itself in a glob.
const SPECIAL: [char; 5] = ['*', '?', '[', '{', '\\'];

#[derive(Debug, Clone)]
enum Matcher {
    Exact(Arc<str>),
    Glob {
        /// What every text begins with that matches.
        begins: Arc<str>,
        glob: Arc<GlobMatcher>,
    },
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum BadPattern {
    /// The syntax of globs says no.
    #[error("{0}")]
    Glob(String),
    /// No client could ever tell such a text.
    #[error("it has control characters, which clients tell as U+FFFD: write * in their place")]
    Control,
}

impl Pattern {
    /// A path of a program: `*` and `?` (any byte) do not match a `/`, `**` does.
    pub fn path(text: &str) -> Result<Self, BadPattern> {
        Self::new(text, text, true, false)
    }

    /// The name of an interface.
    pub fn device(text: &str) -> Result<Self, BadPattern> {
        Self::new(text, text, false, false)
    }

    /// An operating system as `NuFW` writes it: `name`, `name;release` or `name;release;version`, in any case, compared with
    /// what rows have, `name-version-release`.
    pub fn os(text: &str) -> Result<Self, BadPattern> {
        let mut parts = text.splitn(3, ';').map(str::trim);
        let mut part = || parts.next().filter(|part| !part.is_empty()).unwrap_or("*");
        let (name, release, version) = (part(), part(), part());
        Self::new(text, &format!("{name}-{version}-{release}"), false, true)
    }

    fn new(text: &str, glob: &str, is_path: bool, any_case: bool) -> Result<Self, BadPattern> {
        if text.chars().any(char::is_control) {
            return Err(BadPattern::Control);
        }
        let plain = !any_case && !glob.contains(SPECIAL);
        let matcher = if plain {
            Matcher::Exact(Arc::from(glob))
        } else {
            let literal = if any_case { "" } else { glob };
            let begins = literal.split(SPECIAL).next().unwrap_or_default();
            let glob = GlobBuilder::new(glob)
                .literal_separator(is_path)
                .case_insensitive(any_case)
                .build()
                .map_err(|error| BadPattern::Glob(error.kind().to_string()))?;
            Matcher::Glob {
                begins: Arc::from(begins),
                glob: Arc::new(glob.compile_matcher()),
            }
        };
        Ok(Self {
            text: Arc::from(text),
            matcher,
        })
    }

    /// Whether it matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => **exact == *text,
            Matcher::Glob { begins, glob } => text.starts_with(&**begins) && glob.is_match(text),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_of_a_path_ends_at_a_slash_and_two_do_not() {
        let matches = |pattern: &str, path: &str| Pattern::path(pattern).unwrap().matches(path);
        assert!(matches("/usr/bin/ssh", "/usr/bin/ssh"));
        assert!(!matches("/usr/bin/ssh", "/usr/bin/ssh2"));
        assert!(matches("/usr/bin/*", "/usr/bin/ssh"));
        assert!(!matches("/usr/bin/*", "/usr/bin/x/ssh"));
        assert!(matches("/usr/**/ssh", "/usr/local/x/ssh"));
        assert!(matches("/opt/{a,b}/run", "/opt/b/run"));
        assert!(
            matches("/tmp/a*b", "/tmp/a\u{fffd}b"),
            "a newline as clients tell it"
        );
        assert!(matches("/tmp/*", "/tmp/a\nb"), "and should one come through");
        assert!(matches("/tmp/*", "/tmp/.hidden"));
    }

    #[test]
    fn systems_are_compared_part_by_part_in_any_case() {
        let row = "Linux-#1 SMP PREEMPT-6.12.3-amd64";
        for pattern in [
            "linux",
            "Linux;6.*",
            "LINUX;*;#1*",
            "linux;;*smp*",
            "Linux;6.12.3-amd64;#1 SMP PREEMPT",
        ] {
            assert!(Pattern::os(pattern).unwrap().matches(row), "{pattern}");
        }
        for pattern in ["Lin", "Windows", "Linux;5.*", "Linux;*;#2*"] {
            assert!(!Pattern::os(pattern).unwrap().matches(row), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        assert!(matches!(Pattern::path("/a\nb"), Err(BadPattern::Control)));
        assert!(matches!(Pattern::path("/a[b"), Err(BadPattern::Glob(_))));
    }

    #[test]
    fn a_long_path_made_against_many_stars_is_answered() {
        let pattern = Pattern::path("/*a*a*a*a*a*a*a*b").unwrap();
        assert!(!pattern.matches(&format!("/{}/", "a".repeat(1022))));
    }
}
