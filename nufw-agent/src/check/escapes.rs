//! What in the host's rules works against the agent: packets that pass before the queue, packets that conntrack does not
//! follow, other users of the bits that we reserve, and flowtables.
//!
//! Reads the listings of iptables and nft; knows of each rule only what concerns these questions. A rule is named as it is
//! listed, so that it can be found.

use std::collections::BTreeMap;

/// Jumps within jumps that are followed.
const MAX_DEPTH: usize = 8;
/// Rules named for one question; of more only the number is said.
const MAX_NAMED: usize = 8;

/// The rules of each chain of one table.
type Table = BTreeMap<String, Vec<String>>;

/// What was found, each a sentence about one rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Escapes {
    /// Rules that let packets pass before the rule that queues them.
    pub(super) before_the_queue: Vec<String>,
    /// Rules that keep packets from conntrack.
    pub(super) untracked: Vec<String>,
    /// Rules that write bits of marks that we reserve.
    pub(super) marks: Vec<String>,
    /// Rules that take established connections past the hooks.
    pub(super) offloaded: Vec<String>,
}

impl Escapes {
    /// Reads what `iptables-save` or `ip6tables-save` prints; `command` is the one that changes these tables.
    pub(super) fn iptables(&mut self, command: &str, text: &str, reserved: u32) {
        for (table, chains) in tables(text) {
            let place = |chain: &str| format!("{command} -t {table} {chain}");
            for base in ["PREROUTING", "INPUT", "FORWARD", "OUTPUT"] {
                let rules = chains.get(base).map(Vec::as_slice).unwrap_or_default();
                let queue = rules
                    .iter()
                    .position(|rule| leads_to(&chains, rule, "NFQUEUE", 0).is_some());
                for rule in rules.iter().take(queue.unwrap_or(0)) {
                    if let Some(way) = passes(&chains, rule) {
                        self.before_the_queue.push(format!("{}: \"{way}\"", place(base)));
                    }
                }
            }
            let others = chains.iter().filter(|(chain, _)| !chain.starts_with("NUFW_"));
            for (chain, rule) in others.flat_map(|(chain, rules)| rules.iter().map(move |rule| (chain, rule)))
            {
                let named = || format!("{}: \"{rule}\"", place(chain));
                match target(rule) {
                    Some("NOTRACK") => self.untracked.push(named()),
                    Some("CT") if has(rule, "--notrack") => self.untracked.push(named()),
                    Some("FLOWOFFLOAD") => self.offloaded.push(named()),
                    Some("MARK" | "CONNMARK") if written(rule) & reserved != 0 => self.marks.push(named()),
                    _ => {}
                }
            }
        }
    }

    /// Reads what `nft list ruleset` prints. Tables for which `skips` says so, by family and name, are somebody else's to
    /// read.
    pub(super) fn nft(&mut self, text: &str, reserved: u32, skips: impl Fn(&str, &str) -> bool) {
        for (table, base, chains) in nft_tables(text, skips) {
            for (chain, rules) in &chains {
                let place = format!("nft {table} {chain}");
                let queue = base
                    .contains(chain)
                    .then(|| rules.iter().position(|rule| has(rule, "queue")))
                    .flatten();
                for rule in rules.iter().take(queue.unwrap_or(0)) {
                    if has(rule, "accept") && !is_never_new(rule) {
                        self.before_the_queue.push(format!("{place}: \"{rule}\""));
                    }
                }
                for rule in rules {
                    let named = || format!("{place}: \"{rule}\"");
                    if has(rule, "notrack") {
                        self.untracked.push(named());
                    }
                    if rule.contains("flow add @") || rule.contains("flow offload @") {
                        self.offloaded.push(named());
                    }
                    if nft_written(rule) & reserved != 0 {
                        self.marks.push(named());
                    }
                }
            }
        }
    }
}

/// A few of the rules, in one line.
pub(super) fn named(rules: &[String]) -> String {
    let mut few: Vec<_> = rules.iter().take(MAX_NAMED).cloned().collect();
    if rules.len() > MAX_NAMED {
        few.push(format!("and {} more", rules.len() - MAX_NAMED));
    }
    few.join("; ")
}

fn tables(text: &str) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            table.trim().clone_into(&mut name);
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let table = tables.entry(name.clone()).or_default();
            table.entry(chain.to_owned()).or_default().push(rule.to_owned());
        }
    }
    tables
}

/// The tables with the names of their base chains in forward, input, output and prerouting.
fn nft_tables(text: &str, skips: impl Fn(&str, &str) -> bool) -> Vec<(String, Vec<String>, Table)> {
    let mut tables: Vec<(String, Vec<String>, Table)> = Vec::new();
    let (mut counts, mut chain) = (false, None);
    for line in text.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, "{"] => {
                let is_ours = (*family, *name) == ("inet", "nufw");
                counts = !is_ours && !skips(family, name);
                if counts {
                    tables.push((format!("{family} {name}"), Vec::new(), Table::new()));
                }
                chain = None;
            }
            ["chain", name, "{"] => chain = Some((*name).to_owned()),
            ["}"] => chain = None,
            words if counts => {
                let (Some(chain), Some((_, base, table))) = (&chain, tables.last_mut()) else {
                    continue;
                };
                match words {
                    ["type", _, "hook", ..] => base.push(chain.clone()),
                    [] | ["policy" | "comment", ..] => {}
                    words => table.entry(chain.clone()).or_default().push(words.join(" ")),
                }
            }
            _ => {}
        }
    }
    tables
}

fn has(rule: &str, wanted: &str) -> bool {
    rule.split_ascii_whitespace().any(|word| word == wanted)
}

fn value<'a>(rule: &'a str, option: &str) -> Option<&'a str> {
    let mut words = rule.split_ascii_whitespace().skip_while(|word| *word != option);
    words.nth(1)
}

fn target(rule: &str) -> Option<&str> {
    value(rule, "-j").or_else(|| value(rule, "-g"))
}

/// Whether the first packet of a connection is surely not meant, or only what the host says to itself.
fn is_never_new(rule: &str) -> bool {
    let states = value(rule, "--ctstate")
        .or_else(|| value(rule, "--state"))
        .or_else(|| rule.split_once("ct state ").map(|(_, rest)| rest));
    let never = states.is_some_and(|states| {
        let list = states
            .split([' ', '{'])
            .find(|word| !word.is_empty())
            .unwrap_or_default();
        list.split(',').all(|state| {
            matches!(
                state.to_ascii_lowercase().as_str(),
                "established" | "related" | "invalid"
            )
        })
    });
    never || has(rule, "lo") || rule.contains("\"lo\"")
}

/// The way from a rule to a target, as the rules are listed.
fn leads_to(chains: &Table, rule: &str, wanted: &str, depth: usize) -> Option<String> {
    let target = target(rule)?;
    if target == wanted {
        return Some(rule.to_owned());
    }
    if depth > MAX_DEPTH {
        return None;
    }
    let below = chains.get(target)?;
    below.iter().find_map(|inner| {
        if wanted == "ACCEPT" && is_never_new(inner) {
            return None;
        }
        let way = leads_to(chains, inner, wanted, depth + 1)?;
        Some(format!("{rule}\" → \"{way}"))
    })
}

fn passes(chains: &Table, rule: &str) -> Option<String> {
    (!is_never_new(rule))
        .then(|| leads_to(chains, rule, "ACCEPT", 0))
        .flatten()
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The bits of a mark that a rule of iptables writes.
fn written(rule: &str) -> u32 {
    if let Some(text) = value(rule, "--set-xmark").or_else(|| value(rule, "--set-mark")) {
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        return number(value).unwrap_or(u32::MAX) | number(mask).unwrap_or(u32::MAX);
    }
    let mask = |option| value(rule, option).map_or(u32::MAX, |text| number(text).unwrap_or(u32::MAX));
    if has(rule, "--restore-mark") {
        mask("--nfmask")
    } else if has(rule, "--save-mark") {
        mask("--ctmask")
    } else {
        0
    }
}

/// The bits of a mark that a rule of nft writes, in the form in which it lists them.
fn nft_written(rule: &str) -> u32 {
    let words: Vec<_> = rule.split_ascii_whitespace().collect();
    let Some(at) = words.windows(2).position(|two| two == ["mark", "set"]) else {
        return 0;
    };
    let of_connection = |before: Option<&&str>| before == Some(&"ct");
    let written = of_connection(at.checked_sub(1).and_then(|before| words.get(before)));
    let mut rest: Vec<_> = words[at + 2..].to_vec();
    if of_connection(rest.first()) != written {
        // What the other mark has takes the place of the whole.
        return u32::MAX;
    }
    rest.retain(|word| !matches!(*word, "meta" | "ct"));
    match rest.as_slice() {
        ["mark", "|" | "or", bits, ..] => number(bits).unwrap_or(u32::MAX),
        ["mark", "&" | "and", kept, "|" | "or" | "^" | "xor", bits, ..] => {
            !number(kept).unwrap_or(0) | number(bits).unwrap_or(u32::MAX)
        }
        ["mark", "&" | "and", kept, ..] => !number(kept).unwrap_or(0),
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests;
