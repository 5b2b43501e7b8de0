//! What is loaded, compared with what should be, in words for the administrator.
//!
//! Pure: reads listings. Of iptables each rule is compared; of nft, whose listings are written in another way than they are
//! read, the chains and the number of their rules.

use super::iptables::{Family, OURS, wanted};
use super::load::ours;
use super::{RulesOptions, nft};

/// How what `iptables-save` and `ip6tables-save` print, or `nft list ruleset`, differs from what the options ask for.
/// `None` where nothing of ours is loaded at all: then the rules are of the administrator's own making.
pub fn differences(
    options: &RulesOptions,
    v4: Option<&str>,
    v6: Option<&str>,
    nft: Option<&str>,
) -> Option<Vec<String>> {
    let tables = nft.and_then(our_table);
    let saved: Vec<_> = [(Family::V4, v4), (Family::V6, v6)]
        .into_iter()
        .filter_map(|(family, text)| Some((family, ours(text?))))
        .collect();
    let in_iptables = saved.iter().any(|(_, found)| !found.chains.is_empty());
    match (in_iptables, tables) {
        (false, None) => None,
        (false, Some(table)) => Some(of_nft(options, &table)),
        (true, Some(_)) => Some(vec![
            "they are loaded twice, by iptables and by nft: each packet is queued twice".to_owned(),
        ]),
        (true, None) => Some(
            saved
                .iter()
                .flat_map(|(family, found)| of_family(options, *family, found))
                .collect(),
        ),
    }
}

fn of_family(options: &RulesOptions, family: Family, found: &super::iptables::Wanted) -> Vec<String> {
    let wanted = wanted(options, family);
    let command = family.command();
    let mut differences = Vec::new();
    for (table, name) in OURS {
        let of = |all: &super::iptables::Wanted| {
            let chain = all
                .chains
                .iter()
                .find(|chain| chain.table == table && chain.name == name)?;
            Some(chain.rules.iter().map(|rule| canonical(rule)).collect::<Vec<_>>())
        };
        let place = format!("{command} -t {table}: {name}");
        match (of(&wanted), of(found)) {
            (None, None) => {}
            (None, Some(_)) => differences.push(format!("{place} is not needed")),
            (Some(_), None) => differences.push(format!("{place} is missing")),
            (Some(wanted), Some(found)) => {
                let lacks: Vec<_> = wanted.iter().filter(|rule| !found.contains(rule)).collect();
                let extra: Vec<_> = found.iter().filter(|rule| !wanted.contains(rule)).collect();
                for rule in &lacks {
                    differences.push(format!("{place} lacks \"{rule}\""));
                }
                for rule in &extra {
                    differences.push(format!("{place} has \"{rule}\", which is not ours"));
                }
                if lacks.is_empty() && extra.is_empty() && wanted != found {
                    differences.push(format!("{place} has its rules in another order"));
                }
            }
        }
    }
    for jump in &wanted.jumps {
        let is_there = found
            .jumps
            .iter()
            .any(|other| (&other.table, &other.from, &other.to) == (&jump.table, &jump.from, &jump.to));
        if !is_there {
            differences.push(format!(
                "{command} -t {}: {} does not call {}",
                jump.table, jump.from, jump.to
            ));
        }
    }
    differences
}

/// A rule in a form that does not depend on how it was written.
fn canonical(rule: &str) -> String {
    let words = rule.split_ascii_whitespace().map(|word| {
        let bare = word.strip_suffix("/32").or_else(|| word.strip_suffix("/128"));
        let mut parts: Vec<_> = bare.unwrap_or(word).split(',').map(number).collect();
        parts.sort_unstable();
        parts.join(",")
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `0x00ff` and `0xff`, `0` and `0x0`, alone or as value and mask, are the same.
fn number(word: &str) -> String {
    let one = |text: &str| {
        let value = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None if text == "0" => Some(0),
            None => None,
        };
        value.map_or_else(|| text.to_owned(), |value| format!("{value:#x}"))
    };
    match word.split_once('/') {
        Some((value, mask)) => format!("{}/{}", one(value), one(mask)),
        None => one(word),
    }
}

/// The chains of our table, with the number of rules of each.
type Table = Vec<(String, usize)>;

fn our_table(text: &str) -> Option<Table> {
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim_end() != "table inet nufw {");
    lines.next()?;
    let mut chains: Table = Vec::new();
    for line in lines.take_while(|line| *line != "}") {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["chain", name, "{"] => chains.push(((*name).to_owned(), 0)),
            [] | ["}"] | ["type", _, "hook", ..] => {}
            _ => {
                if let Some((_, rules)) = chains.last_mut() {
                    *rules += 1;
                }
            }
        }
    }
    Some(chains)
}

fn of_nft(options: &RulesOptions, found: &Table) -> Vec<String> {
    let wanted = nft::chains(options);
    let mut differences = Vec::new();
    for chain in &wanted {
        let rules = found
            .iter()
            .find(|(name, _)| *name == chain.name)
            .map(|(_, n)| *n);
        match rules {
            None => differences.push(format!("table inet nufw: chain {} is missing", chain.name)),
            Some(rules) if rules != chain.rules.len() => differences.push(format!(
                "table inet nufw: chain {} has {rules} rules, not {}",
                chain.name,
                chain.rules.len()
            )),
            Some(_) => {}
        }
    }
    for (name, _) in found {
        if !wanted.iter().any(|chain| chain.name == *name) {
            differences.push(format!("table inet nufw: chain {name} is not needed"));
        }
    }
    differences
}
