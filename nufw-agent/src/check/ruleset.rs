//! Finds in the text of a ruleset what the agent depends on.
//!
//! Reads the output of `iptables-save` and `nft list ruleset`; not a parser of either, only of the few statements that
//! matter. What it does not recognise it does not report.

use super::chains::Chains;
use nufw_proto::gateway::Hook;
use std::ops::RangeInclusive;

/// What a ruleset does for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleFacts {
    /// Queues that rules send to, and whether the rule lets packets pass when nobody reads.
    queues: Vec<(RangeInclusive<u16>, bool)>,
    /// A rule copies the packet's mark to the connection.
    pub saves_mark: bool,
    /// A rule restricts the events of connections.
    pub masks_events: bool,
    /// That rule leaves out the event of connections that others bring with them (`related`).
    pub masks_related: bool,
    chains: Chains,
}

impl RuleFacts {
    /// Whether a rule sends to the queue.
    pub fn queues(&self, number: u16) -> bool {
        self.queues.iter().any(|(range, _)| range.contains(&number))
    }

    /// Whether a rule that sends to the queue lets packets pass when nobody reads it.
    pub fn bypasses(&self, number: u16) -> bool {
        self.queues
            .iter()
            .any(|(range, bypass)| *bypass && range.contains(&number))
    }

    /// Whether a rule of the hook sends to the queue.
    pub fn queues_at(&self, number: u16, hook: Hook) -> bool {
        self.chains.queues(number, hook)
    }

    /// Whether every packet that comes back from the queue with the reject bit is surely refused later in the hook: a
    /// rule refuses by the bit alone, and nothing before it can let the packet pass or take the bit away.
    pub fn refuses(&self, number: u16, bit: u32, hook: Hook) -> bool {
        self.chains.refuses(number, bit, hook)
    }

    /// Whether every packet of a connection whose mark has the kill bit is surely refused in the hook.
    pub fn ends(&self, bit: u32, hook: Hook) -> bool {
        self.chains.ends(bit, hook)
    }

    /// Forgets those chains of `nft list ruleset` that are iptables' own, since `iptables-save` shows them better.
    pub fn forget_iptables_chains(&mut self) {
        self.chains.forget_iptables();
    }

    /// What this and another part of the rules do together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.queues.extend(other.queues);
        self.saves_mark |= other.saves_mark;
        self.masks_events |= other.masks_events;
        self.masks_related |= other.masks_related;
        self.chains.extend(other.chains);
        self
    }
}

/// Reads the output of `iptables-save` or `ip6tables-save`.
pub fn scan_iptables(text: &str) -> RuleFacts {
    let mut facts = RuleFacts {
        chains: Chains::iptables(text),
        ..RuleFacts::default()
    };
    for line in text.lines().filter(|line| line.starts_with("-A ")) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let value = |option: &str| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).copied()
        };
        match value("-j") {
            Some("NFQUEUE") => {
                let range = value("--queue-balance")
                    .and_then(|text| range(text, ':'))
                    .or_else(|| range(value("--queue-num").unwrap_or("0"), ':'));
                facts
                    .queues
                    .extend(range.map(|range| (range, words.contains(&"--queue-bypass"))));
            }
            Some("CONNMARK") => facts.saves_mark |= words.contains(&"--save-mark"),
            Some("CT") => {
                if let Some(mask) = value("--ctevents") {
                    facts.masks_events = true;
                    facts.masks_related |= lacks_related(mask);
                }
            }
            _ => {}
        }
    }
    facts
}

/// Reads the output of `nft list ruleset`, of which only tables of the given families (such as `inet`) count.
pub fn scan_nft(text: &str, families: &[&str]) -> RuleFacts {
    let mut facts = RuleFacts {
        chains: Chains::nft(text, families),
        ..RuleFacts::default()
    };
    let mut counts = false;
    for line in text.lines() {
        if let Some(table) = line.strip_prefix("table ") {
            counts = table
                .split_ascii_whitespace()
                .next()
                .is_some_and(|family| families.contains(&family));
        }
        if !counts {
            continue;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "queue") {
            let rest = words.get(at + 1..).unwrap_or_default();
            let bypass = rest
                .iter()
                .any(|word| word.split(',').any(|flag| flag == "bypass"));
            let number = rest.iter().find_map(|word| range(word, '-'));
            facts.queues.push((number.unwrap_or(0..=0), bypass));
        }
        let text = words.join(" ");
        facts.saves_mark |= text.contains("ct mark set ") && text.contains("meta mark");
        if let Some((_, mask)) = text.split_once("ct event set ") {
            facts.masks_events = true;
            facts.masks_related |= lacks_related(mask);
        }
    }
    facts
}

/// Whether a list of events, with commas and perhaps other words behind it, is without `related`.
fn lacks_related(mask: &str) -> bool {
    mask.split([',', ' ']).all(|event| event != "related")
}

/// `5`, or `5:7` with the given separator.
fn range(text: &str, separator: char) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(separator).unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iptables_rules_are_recognised() {
        let facts = scan_iptables(
            "*mangle\n:FORWARD ACCEPT [0:0]\n\
             -A NUFW_FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 7\n\
             -A X -j NFQUEUE --queue-balance 10:12 --queue-bypass\n\
             -A NUFW_SAVE -j CONNMARK --save-mark --nfmask 0xffffff --ctmask 0xffffff\n\
             COMMIT\n*raw\n-A NUFW_EVENTS -j CT --ctevents new,reply,destroy\nCOMMIT\n",
        );
        assert!(facts.queues(7) && !facts.bypasses(7));
        assert!(facts.queues(11) && facts.bypasses(11));
        assert!(!facts.queues(0) && !facts.queues(13));
        assert!(facts.saves_mark && facts.masks_events);
        let other =
            scan_iptables("-A PREROUTING -j CONNMARK --restore-mark\n# -A X -j NFQUEUE --queue-num 1\n");
        assert!(!other.queues(1) && !other.saves_mark && !other.masks_events);
    }

    #[test]
    fn nft_rules_are_recognised() {
        let facts = scan_nft(
            "table inet nufw {\n\tchain a {\n\t\tct state new queue to 3\n\t\tct mark set meta mark & 0x00ffffff\n\
             \t\tct event set new,reply,destroy\n\t}\n}\ntable ip x {\n\tqueue flags bypass to 5-6\n}\n",
            &["inet", "ip"],
        );
        assert!(facts.queues(3) && !facts.bypasses(3));
        assert!(facts.queues(6) && facts.bypasses(5));
        assert!(facts.saves_mark && facts.masks_events);
        assert!(!scan_nft("table ip6 x {\n\tqueue num 5\n}\n", &["ip"]).queues(5));
    }
}
