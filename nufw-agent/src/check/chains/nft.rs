//! The chains of `nft list ruleset`.
//!
//! A rule is understood when it begins with words that are known; of the rest only what may let the packet pass, or
//! change its mark, is looked for.

use super::{Action, Base, Chains, Condition, Rule, States, hook, number, states, unquoted};
use std::ops::RangeInclusive;

/// Words of rules after which a packet may not come to the next rule and yet pass.
const LETS_PASS: [&str; 12] = [
    "accept",
    "jump",
    "goto",
    "vmap",
    "xt",
    "fwd",
    "tproxy",
    "synproxy",
    "snat",
    "dnat",
    "masquerade",
    "redirect",
];

/// Where the reader is.
#[derive(Default)]
struct Place {
    /// The table, if its family counts.
    table: Option<String>,
    chain: Option<String>,
    /// Open braces.
    depth: usize,
}

pub(super) fn read(text: &str, families: &[&str]) -> Chains {
    let mut chains = Chains::default();
    let mut place = Place::default();
    for line in text.lines() {
        let line = unquoted(line);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (opened, closed) = (line.matches('{').count(), line.matches('}').count());
        match words.as_slice() {
            ["table", family, name, ..] if place.depth == 0 => {
                place.table = families.contains(family).then(|| format!("nft {family} {name}"));
            }
            ["chain", name, ..] if place.depth == 1 => {
                place.chain = Some((*name).to_owned());
                if let Some(table) = &place.table {
                    chains.chain(table, name);
                }
            }
            // A dormant table's chains are not entered.
            ["flags", flags, ..] if place.depth == 1 && flags.contains("dormant") => {
                if let Some(table) = place.table.take() {
                    chains.0.retain(|(of, _), _| *of != table);
                }
            }
            [] | ["}"] => {}
            words => {
                if let (Some(table), Some(name)) = (&place.table, &place.chain) {
                    statement(&mut chains, table, name, words);
                }
            }
        }
        place.depth = (place.depth + opened).saturating_sub(closed);
        if place.depth < 2 {
            place.chain = None;
        }
    }
    chains
}

fn statement(chains: &mut Chains, table: &str, name: &str, words: &[&str]) {
    let chain = chains.chain(table, name);
    match words {
        ["type", _, "hook", at, rest @ ..] => {
            chain.base = hook(at).map(|hook| Base {
                hook,
                priority: priority(rest),
            });
        }
        ["policy" | "comment", ..] => {}
        words => chain.rules.push(rule(words)),
    }
}

/// `priority filter - 1; policy accept;`
fn priority(words: &[&str]) -> Option<i32> {
    let at = words.iter().position(|word| *word == "priority")?;
    let mut text: Vec<&str> = Vec::new();
    for word in words.get(at + 1..)? {
        text.push(word.trim_end_matches(';'));
        if word.ends_with(';') {
            break;
        }
    }
    let base = |word: &str| match word {
        "raw" => Some(-300),
        "mangle" => Some(-150),
        "dstnat" => Some(-100),
        "filter" => Some(0),
        "security" => Some(50),
        "srcnat" => Some(100),
        number => number.parse::<i32>().ok(),
    };
    match text.as_slice() {
        [word] => base(word),
        [word, "+", more] => base(word)?.checked_add(more.parse().ok()?),
        [word, "-", less] => base(word)?.checked_sub(less.parse().ok()?),
        _ => None,
    }
}

fn rule(words: &[&str]) -> Rule {
    let (mut when, mut of) = (Condition::Always, States::Any);
    let mut rest = words;
    // Conditions that are understood, then what the rule does.
    loop {
        rest = match rest {
            ["counter", "packets", _, "bytes", _, rest @ ..] | ["counter", rest @ ..] => rest,
            [
                "meta",
                "mark",
                "&" | "and",
                mask,
                how @ ("==" | "!="),
                value,
                rest @ ..,
            ] => {
                when = match (when, bits(mask, how, value)) {
                    (Condition::Always, Some(bits)) => Condition::Bits(bits),
                    _ => Condition::Sometimes,
                };
                rest
            }
            [
                "ct",
                "mark",
                "&" | "and",
                mask,
                how @ ("==" | "!="),
                value,
                rest @ ..,
            ] => {
                when = match (when, bits(mask, how, value)) {
                    (Condition::Always, Some(bits)) => Condition::OfConnection(bits),
                    _ => Condition::Sometimes,
                };
                rest
            }
            ["ct", "state", list, rest @ ..] if list.starts_with(|c: char| c.is_ascii_lowercase()) => {
                when = Condition::Sometimes;
                if *list != "vmap" {
                    of = states(list);
                }
                rest
            }
            _ => break,
        };
    }
    let action = match rest {
        ["reject", ..] => Action::Refuse,
        ["accept", ..] => Action::Pass,
        ["return", ..] => Action::Return,
        ["jump", chain, ..] if !chain.contains('{') => Action::Jump((*chain).to_owned()),
        ["goto", chain, ..] if !chain.contains('{') => Action::Goto((*chain).to_owned()),
        _ => {
            when = Condition::Sometimes;
            other(rest)
        }
    };
    Rule {
        when,
        states: of,
        action,
    }
}

/// The worst that a rule with other words in it can do.
fn other(words: &[&str]) -> Action {
    let has = |wanted: &str| {
        words
            .iter()
            .any(|word| word.trim_matches([',', ';', '{', '}']) == wanted)
    };
    if let Some(at) = words.iter().position(|word| *word == "queue") {
        return Action::Queue(queue(words.get(at + 1..).unwrap_or_default()));
    }
    let marks = words.windows(3).enumerate().any(|(at, three)| {
        // `ct mark set` is about the connection; older versions leave out `meta`.
        matches!(three, ["mark", "set", _])
            && at
                .checked_sub(1)
                .and_then(|before| words.get(before))
                .is_none_or(|word| *word != "ct")
    });
    if marks || (has("xt") && words.iter().any(|word| word.contains("MARK"))) {
        return Action::Remark;
    }
    if words
        .windows(3)
        .any(|three| matches!(three, ["ct", "mark", "set"]))
    {
        return Action::RemarkConnection(u32::MAX);
    }
    match words {
        [.., how @ ("jump" | "goto"), chain] if !has("vmap") => {
            let chain = (*chain).to_owned();
            if *how == "jump" {
                Action::Jump(chain)
            } else {
                Action::Goto(chain)
            }
        }
        _ if LETS_PASS.iter().any(|word| has(word)) => Action::Pass,
        _ if has("return") || has("continue") => Action::Return,
        // Refusing, dropping, counting, logging: nothing passes by it.
        _ => Action::Nothing,
    }
}

/// `& 0x01000000 == 0x01000000`, or `!= 0x00000000` of a single bit: these bits are set, whatever the others.
fn bits(mask: &str, how: &str, value: &str) -> Option<u32> {
    let (mask, value) = (number(mask)?, number(value)?);
    let is_set = match how {
        "==" => value == mask,
        _ => value == 0 && mask.is_power_of_two(),
    };
    (is_set && mask != 0).then_some(mask)
}

fn queue(words: &[&str]) -> RangeInclusive<u16> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    // Anything computed may lead anywhere.
    let plain = |word: &&str| {
        matches!(*word, "num" | "to" | "flags" | "comment" | "\"")
            || word.split(',').all(|flag| matches!(flag, "bypass" | "fanout"))
    };
    let numbers: Vec<_> = words.iter().filter(|word| !plain(word)).collect();
    match numbers.as_slice() {
        [] => 0..=0,
        [one] => range(one).unwrap_or(0..=u16::MAX),
        _ => 0..=u16::MAX,
    }
}
