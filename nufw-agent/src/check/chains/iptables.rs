//! The chains of `iptables-save`.
//!
//! A rule is understood when each of its words is; a target that is not known to be harmless lets the packet pass.

use super::{Action, Base, Chains, Condition, Rule, States, hook, number, states, unquoted};
use nufw_proto::gateway::Hook;

/// Targets after which the packet goes on to the next rule with its mark.
const HARMLESS: [&str; 16] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "TRACE",
    "AUDIT",
    "CLASSIFY",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
    "TCPMSS",
    "CHECKSUM",
    "RATEEST",
    "IDLETIMER",
    "LED",
    "TEE",
];

pub(super) fn read(text: &str) -> Chains {
    let mut chains = Chains::default();
    let mut table = String::new();
    let mut kind = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            kind = name.trim();
            table = format!("iptables {kind}");
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split_ascii_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else {
                continue;
            };
            // Chains of the administrator's have no policy.
            let base = hook(name).filter(|_| policy != "-").map(|hook| base(kind, hook));
            chains.chain(&table, name).base = base;
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let line = unquoted(rest);
            let mut words = line.split_ascii_whitespace();
            if let Some(name) = words.next() {
                let rule = rule(&words.collect::<Vec<_>>());
                chains.chain(&table, name).rules.push(rule);
            }
        }
    }
    chains
}

fn base(table: &str, hook: Hook) -> Base {
    let priority = match (table, hook) {
        ("raw", _) => Some(-300),
        ("mangle", _) => Some(-150),
        ("nat", Hook::Prerouting | Hook::Output) => Some(-100),
        ("nat", _) => Some(100),
        ("filter", _) => Some(0),
        ("security", _) => Some(50),
        _ => None,
    };
    Base { hook, priority }
}

fn rule(words: &[&str]) -> Rule {
    let target = words.iter().position(|word| matches!(*word, "-j" | "-g"));
    let (matches, target) = words.split_at(target.unwrap_or(words.len()));
    let (when, states) = conditions(matches);
    Rule {
        when,
        states,
        action: action(target),
    }
}

fn conditions(words: &[&str]) -> (Condition, States) {
    let (mut when, mut of) = (Condition::Always, States::Any);
    let mut rest = words;
    loop {
        rest = match rest {
            [] => return (when, of),
            ["-m", "comment", "--comment", _, rest @ ..] => rest,
            ["-m", "mark", "--mark", mark, rest @ ..] => {
                when = match (when, bits(mark)) {
                    (Condition::Always, Some(bits)) => Condition::Bits(bits),
                    _ => Condition::Sometimes,
                };
                rest
            }
            ["-m", "connmark", "--mark", mark, rest @ ..] => {
                when = match (when, bits(mark)) {
                    (Condition::Always, Some(bits)) => Condition::OfConnection(bits),
                    _ => Condition::Sometimes,
                };
                rest
            }
            [
                "-m",
                "conntrack" | "state",
                "--ctstate" | "--state",
                list,
                rest @ ..,
            ] => {
                when = Condition::Sometimes;
                of = states(list);
                rest
            }
            [_, rest @ ..] => {
                when = Condition::Sometimes;
                rest
            }
        };
    }
}

/// `0x1000000/0x1000000`: these bits are set, whatever the others.
fn bits(text: &str) -> Option<u32> {
    let (value, mask) = text.split_once('/')?;
    let (value, mask) = (number(value)?, number(mask)?);
    (value == mask && value != 0).then_some(value)
}

fn action(words: &[&str]) -> Action {
    let (how, target, options) = match words {
        [how, target, options @ ..] => (*how, *target, options),
        // Such a rule only counts.
        _ => return Action::Nothing,
    };
    match target {
        "REJECT" => Action::Refuse,
        "ACCEPT" => Action::Pass,
        "RETURN" => Action::Return,
        "MARK" => Action::Remark,
        "CONNMARK" if options.contains(&"--restore-mark") => Action::Remark,
        "CONNMARK" => Action::RemarkConnection(changed(options)),
        "DROP" => Action::Nothing,
        "NFQUEUE" => Action::Queue(queue(options)),
        harmless if HARMLESS.contains(&harmless) => Action::Nothing,
        chain if how == "-g" => Action::Goto(chain.to_owned()),
        // A target that is not known is a chain that is not there: it lets packets pass.
        chain => Action::Jump(chain.to_owned()),
    }
}

/// The bits that a CONNMARK rule may change: those of `--ctmask 0xff`, or of `--set-xmark 0x1/0xff`; else any.
fn changed(options: &[&str]) -> u32 {
    let mask = |options: &[&str]| match options {
        ["--ctmask", mask] => number(mask),
        ["--set-xmark" | "--set-mark", mark] => number(mark.split_once('/')?.1),
        _ => None,
    };
    options.windows(2).find_map(mask).unwrap_or(u32::MAX)
}

fn queue(options: &[&str]) -> std::ops::RangeInclusive<u16> {
    let value = |name: &str| {
        let at = options.iter().position(|word| *word == name)?;
        options.get(at + 1).copied()
    };
    let text = value("--queue-balance")
        .or_else(|| value("--queue-num"))
        .unwrap_or("0");
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => first..=last,
        _ => 0..=u16::MAX,
    }
}
