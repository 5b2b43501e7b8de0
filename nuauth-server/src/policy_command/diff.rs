//! Two lists compared by their normal forms, section by section: what reads the same is the same.

use crate::cli::Next;
use crate::policy::Policy;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;

/// What became of a section.
#[derive(Debug, PartialEq, Eq)]
enum Change<'a> {
    Added(&'a str),
    Removed(&'a str),
    Changed(&'a str, &'a str),
    /// The same, but at another place among those that both have; only rules have places.
    Moved,
}

/// Kind and name.
type Name<'a> = (&'a str, &'a str);

/// The sections of a normal form in order, the head as one without a name.
fn sections(normal: &str) -> Vec<(Name<'_>, &str)> {
    normal
        .split("\n\n")
        .map(|section| {
            let section = section.trim_end();
            let kind = section.lines().next().unwrap_or_default();
            let name = section
                .lines()
                .find_map(|line| line.strip_prefix("name = "))
                .unwrap_or_default();
            let kind = if kind.starts_with("[[") {
                kind.trim_matches(['[', ']'])
            } else {
                "search"
            };
            ((kind, name.trim_matches('"')), section)
        })
        .collect()
}

fn compare<'a>(old: &'a str, new: &'a str) -> Vec<(Name<'a>, Change<'a>)> {
    let [old, new] = [old, new].map(sections);
    let [olds, news]: [BTreeMap<_, _>; 2] = [&old, &new].map(|all| all.iter().copied().collect());
    let mut changes = Vec::new();
    for (name, text) in &old {
        match news.get(name) {
            None => changes.push((*name, Change::Removed(text))),
            Some(now) if now != text => changes.push((*name, Change::Changed(text, now))),
            Some(_) => {}
        }
    }
    let common = |all: &[(Name<'a>, &str)]| -> Vec<Name<'a>> {
        all.iter()
            .map(|(name, _)| *name)
            .filter(|name| name.0 == "rule" && olds.contains_key(name) && news.contains_key(name))
            .collect()
    };
    let kept = longest_common(&common(&old), &common(&new));
    for (name, text) in &new {
        if !olds.contains_key(name) {
            changes.push((*name, Change::Added(text)));
        } else if name.0 == "rule" && !kept.contains(name) {
            changes.push((*name, Change::Moved));
        }
    }
    changes
}

/// Names that keep their order: those of a longest increasing sequence of places.
fn longest_common<'a>(old: &[Name<'a>], new: &[Name<'a>]) -> std::collections::BTreeSet<Name<'a>> {
    let places: BTreeMap<Name<'a>, usize> = old.iter().copied().zip(0..).collect();
    // The smallest last place of a sequence of each length, and what came before each.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; new.len()];
    let place = |at: usize| places.get(&new[at]).copied().unwrap_or(usize::MAX);
    for (at, shorter_end) in before.iter_mut().enumerate() {
        let length = ends.partition_point(|&end| place(end) < place(at));
        *shorter_end = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    std::iter::successors(ends.last().copied(), |&at| before[at])
        .map(|at| new[at])
        .collect()
}

pub(super) fn run(old: &Policy, new: &Policy, as_json: bool, out: &mut dyn Write) -> Result<Next, Failure> {
    let changes = compare(old.normal(), new.normal());
    let written = if as_json {
        let list: Vec<_> = changes
            .iter()
            .map(|((kind, name), change)| {
                let (what, from, to) = match change {
                    Change::Added(text) => ("added", None, Some(text)),
                    Change::Removed(text) => ("removed", Some(text), None),
                    Change::Changed(from, to) => ("changed", Some(from), Some(to)),
                    Change::Moved => ("moved", None, None),
                };
                json!({ "kind": kind, "name": name, "change": what, "old": from, "new": to })
            })
            .collect();
        let object = json!({ "old": old.version_text(), "new": new.version_text(), "changes": list });
        writeln!(out, "{object}")
    } else {
        changes.iter().try_for_each(|(name, change)| {
            lines(*name, change)
                .iter()
                .try_for_each(|line| writeln!(out, "{line}"))
        })
    };
    written.or_exit(Exit::IoErr)?;
    Ok(if changes.is_empty() {
        Next::Done
    } else {
        Next::Differs
    })
}

fn lines((kind, name): Name<'_>, change: &Change<'_>) -> Vec<String> {
    let label = if name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind} \"{name}\"")
    };
    let all = |sign: &str, text: &str| {
        text.lines()
            .map(|line| format!("{sign} {line}"))
            .collect::<Vec<_>>()
    };
    match change {
        Change::Added(text) => [vec![format!("{label} is added")], all("+", text)].concat(),
        Change::Removed(text) => [vec![format!("{label} is removed")], all("-", text)].concat(),
        Change::Changed(from, to) => {
            let missing = |sign: &str, some: &str, others: &str| {
                let others: Vec<&str> = others.lines().collect();
                some.lines()
                    .filter(|line| !others.contains(line))
                    .map(|line| format!("{sign} {line}"))
                    .collect::<Vec<_>>()
            };
            [
                vec![format!("{label} is changed")],
                missing("-", from, to),
                missing("+", to, from),
            ]
            .concat()
        }
        Change::Moved => vec![format!("{label} is at another place")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rules: &[(&str, &str)]) -> String {
        let rules: Vec<String> = rules
            .iter()
            .map(|(name, decision)| format!("\n[[rule]]\nname = \"{name}\"\ndecision = \"{decision}\"\n"))
            .collect();
        format!("order = \"first-match\"\n{}", rules.concat())
    }

    #[test]
    fn what_is_added_removed_changed_and_moved_is_told_once() {
        let old = text(&[("a", "accept"), ("b", "drop"), ("c", "drop"), ("d", "drop")]);
        let new = text(&[("c", "drop"), ("a", "accept"), ("b", "reject"), ("e", "drop")]);
        let changes = compare(&old, &new);
        let told: Vec<(&str, String)> = changes
            .iter()
            .map(|((_, name), change)| {
                let change = format!("{change:?}");
                (*name, change.split('(').next().unwrap_or_default().to_owned())
            })
            .collect();
        let word = |name, word: &str| (name, word.to_owned());
        assert_eq!(
            told,
            [
                word("b", "Changed"),
                word("d", "Removed"),
                word("c", "Moved"),
                word("e", "Added")
            ]
        );
        assert_eq!(compare(&old, &old), []);
    }
}
