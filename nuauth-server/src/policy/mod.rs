//! The access lists: which user may open which connection.
//!
//! Pure: an order of search, rules, and a packet come to a decision; no rule means drop. Who the user is was settled before.
//! The index only leaves out what cannot match: a test compares it with a search through all rules.

mod bits;
mod explain;
mod index;
mod marks;
mod members;
mod normal;
mod overlap;
mod pattern;
mod period;
mod raw;
mod read;
mod rest;
mod rule;
mod sets;

pub use marks::{MarkField, MarkTable, MarkTables, Marks};
pub use members::REMEMBERED as REMEMBERED_MEMBERS;
pub use pattern::{BadPattern, Pattern};
pub use period::{Period, Within};
pub use raw::{MAX_ITEMS, MAX_RULES};
pub use rule::{DEVICES, Facts, Hash, Lack, Listed, Named, Rule, Who};
pub use sets::Addresses;

use crate::engine::{Decision, Judge, LogMode, Ruling, Subject};
use crate::users::Users;
use index::Index;
use members::{Groups, Members};
use nufw_common::config::ConfigError;
use nufw_proto::Mark;
use rest::Rests;
use std::path::Path;
use std::sync::Arc;

/// The name of the rule that drops what no other rule decides.
pub const DEFAULT_RULE: &str = "default";

/// Which of the rules that match decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The first one (`nuauth_prio_to_nok` 2).
    #[default]
    FirstMatch,
    /// The first that accepts; if there is none, the first (`nuauth_prio_to_nok` 0).
    AcceptWins,
    /// The first that does not accept; if there is none, the first (`nuauth_prio_to_nok` 1).
    DropWins,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FirstMatch, Self::AcceptWins, Self::DropWins];

    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::FirstMatch => "first-match",
            Self::AcceptWins => "accept-wins",
            Self::DropWins => "drop-wins",
        }
    }

    /// Whether a rule with that decision ends the search when it matches.
    pub fn ends_with(self, decision: Decision) -> bool {
        match self {
            Self::FirstMatch => true,
            Self::AcceptWins => decision == Decision::Accept,
            Self::DropWins => decision != Decision::Accept,
        }
    }
}

/// The access lists, in order.
#[derive(Debug)]
pub struct Policy {
    order: Order,
    rules: Vec<Rule>,
    index: Index,
    rests: Rests,
    members: Members,
    default: Ruling,
    marks: MarkTables,
    /// Whether some rule is for nobody.
    for_nobody: bool,
    /// Whether some rule looks at hashes of programs.
    for_hashes: bool,
    normal: Arc<str>,
    version: Arc<str>,
}

/// What the lists are read against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// The users.
    pub users: &'a Users,
    /// Whether there are no others: a rule for one that is not there is then an error, else it is noted.
    pub all_known: bool,
    /// Where bits of the mark stand.
    pub marks: &'a Marks,
}

/// Lists that were read, and what is odd about them without being wrong.
#[derive(Debug)]
pub struct ReadPolicy {
    /// The lists.
    pub policy: Policy,
    /// Sentences with file and line.
    pub notes: Vec<String>,
    /// Every file that they came from.
    pub files: Vec<std::path::PathBuf>,
}

impl Policy {
    /// Reads the file. A rule for a user that does not exist is refused where the users file names every user; else it is noted,
    /// as one for a group that nobody is in.
    pub fn load(path: &Path, known: &Against<'_>) -> Result<ReadPolicy, ConfigError> {
        read::load(path, known)
    }

    /// Lists that drop everything: what stands in where no policy can be trusted.
    pub fn deny_all() -> Self {
        Self::new(Parts::default())
    }

    fn new(parts: Parts) -> Self {
        let normal = normal::text(&parts);
        let Parts {
            order,
            rules,
            groups,
            marks,
            ..
        } = parts;
        Self {
            index: Index::new(&rules),
            rests: Rests::new(&rules),
            members: Members::new(groups, &rules),
            for_hashes: rules.iter().any(|rule| !rule.hashes.is_empty()),
            for_nobody: rules.iter().any(Rule::is_for_nobody),
            version: normal::version(&normal),
            normal: normal.into(),
            order,
            rules,
            marks,
            default: Ruling {
                decision: Decision::Drop,
                rule: DEFAULT_RULE.into(),
                prefix: DEFAULT_RULE.into(),
                log: LogMode::Default,
                expires: None,
                until: None,
                mark: Mark(0),
            },
        }
    }

    /// What no rule decides is rejected: its sender is told.
    #[must_use]
    pub fn rejecting(mut self, rejects: bool) -> Self {
        if rejects {
            self.default.decision = Decision::Reject;
        }
        self
    }

    /// The rule that decides, by its place; `None` if none matches.
    pub fn search(&self, subject: &Subject<'_>) -> Option<usize> {
        self.members.with(subject.user, |whose, _| {
            let mut search = self.rests.search(&self.rules, subject);
            let candidates = self.index.candidates(subject.tuple, whose);
            self.decisive(candidates, |place| search.matches(place))
        })
    }

    /// The same by a look at every rule.
    pub fn search_all(&self, subject: &Subject<'_>) -> Option<usize> {
        self.members.with(subject.user, |_, groups| {
            let facts = Facts { subject, groups };
            self.decisive(0..self.rules.len(), |place| {
                self.rules[place].lack(&facts).is_none()
            })
        })
    }

    fn decisive(
        &self,
        candidates: impl Iterator<Item = usize>,
        mut matches: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut first = None;
        for place in candidates {
            // Where the first one decides, its rule need not even be fetched.
            let ends =
                self.order == Order::FirstMatch || self.order.ends_with(self.rules[place].ruling.decision);
            // One that would not change the answer need not be asked.
            if (ends || first.is_none()) && matches(place) {
                if ends {
                    return Some(place);
                }
                first = Some(place);
            }
        }
        first
    }

    /// Decides.
    pub fn decide(&self, subject: &Subject<'_>) -> Ruling {
        self.ruled(self.search(subject), subject)
    }

    /// What the rule at that place says of a packet.
    pub fn ruled(&self, place: Option<usize>, subject: &Subject<'_>) -> Ruling {
        let Some(rule) = place.map(|place| &self.rules[place]) else {
            return self.default.clone();
        };
        let mut ruling = rule.ruled(subject);
        if ruling.decision == Decision::Accept {
            ruling.mark = Mark(ruling.mark.0 | self.marks.of(subject).0);
        }
        ruling
    }

    /// What the packet lacks for a rule, if anything.
    pub fn lack(&self, place: usize, subject: &Subject<'_>) -> Option<Lack> {
        self.members.with(subject.user, |_, groups| {
            self.rules[place].lack(&Facts { subject, groups })
        })
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Which of those that match decides.
    pub fn order(&self) -> Order {
        self.order
    }

    /// What stands where no rule decides.
    pub fn default_ruling(&self) -> &Ruling {
        &self.default
    }

    /// What identifies the lists in a row: the beginning of the hash of their normal form.
    pub fn version_text(&self) -> &str {
        &self.version
    }

    /// The lists in their normal form, which says all that they depend on and can be read again.
    pub fn normal(&self) -> &Arc<str> {
        &self.normal
    }
}

/// What lists are made of.
#[derive(Debug, Default)]
struct Parts {
    order: Order,
    rules: Vec<Rule>,
    groups: Groups,
    periods: Vec<Arc<Period>>,
    sets: Vec<(Arc<str>, read::NamedSet)>,
    marks: MarkTables,
    rule_field: Option<MarkField>,
}

impl Judge for Policy {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        self.decide(subject)
    }

    fn judge_stranger(&self, subject: &Subject<'_>) -> Option<Ruling> {
        if !self.for_nobody {
            return None;
        }
        let place = self.search(subject)?;
        Some(self.ruled(Some(place), subject))
    }

    fn judges_strangers(&self) -> bool {
        self.for_nobody
    }

    fn looks_at_hashes(&self) -> bool {
        self.for_hashes
    }

    fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }
}

/// The word for a decision, as the file has it.
pub fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Accept => "accept",
        Decision::Drop => "drop",
        Decision::Reject => "reject",
    }
}

#[cfg(test)]
mod tests;
