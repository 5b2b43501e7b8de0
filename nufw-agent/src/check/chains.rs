//! The chains of a ruleset, as far as they tell whether a packet that carries the reject bit is surely refused.
//!
//! Errs on one side only: what is not understood counts as letting the packet pass. Nothing here looks at the host.

mod iptables;
mod nft;

use nufw_proto::gateway::Hook;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Rules looked at for one answer; a larger ruleset counts as not understood.
const MAX_STEPS: usize = 200_000;
/// Jumps within jumps; the kernel allows 16.
const MAX_DEPTH: usize = 32;

/// When a rule applies to a packet that carries the reject bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    /// When these bits of the mark are set.
    Bits(u32),
    /// When these bits of the connection's mark are set.
    OfConnection(u32),
    /// Nobody knows.
    Sometimes,
}

/// Which states of connections a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum States {
    Any,
    OnlyNew,
    NeverNew,
    /// Of another connection, or an error about one.
    OnlyRelated,
}

/// What a rule does to a packet that it applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Nothing,
    Refuse,
    /// The packet leaves the chain, or something happens that is not understood.
    Pass,
    Return,
    /// The bit may be lost.
    Remark,
    /// These bits of the connection's mark may change.
    RemarkConnection(u32),
    Queue(RangeInclusive<u16>),
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    when: Condition,
    states: States,
    action: Action,
}

/// Where the kernel enters a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Base {
    hook: Hook,
    /// `None`: written in a way that is not understood.
    priority: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Chain {
    base: Option<Base>,
    rules: Vec<Rule>,
}

/// The chains, by table and name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chains(BTreeMap<(String, String), Chain>);

/// What becomes of the packets that a chain gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All of them are refused.
    Refused,
    /// They come back to the caller; `leaks` if some may be accepted instead.
    Back { leaks: bool },
    /// The bit may be lost.
    Remarked,
}

/// One question to the chains.
struct Walk<'a> {
    chains: &'a Chains,
    bit: u32,
    /// It is the connection that has the bit, and not the packet.
    of_connection: bool,
    /// Only first packets of connections are queued.
    only_new: bool,
    steps: usize,
}

fn hook(name: &str) -> Option<Hook> {
    Some(match name.to_ascii_lowercase().as_str() {
        "prerouting" => Hook::Prerouting,
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        "postrouting" => Hook::Postrouting,
        _ => return None,
    })
}

/// Which states a list such as `NEW,RELATED` is for.
fn states(list: &str) -> States {
    let mut words = list.split(',').map(str::to_ascii_lowercase);
    if list.eq_ignore_ascii_case("new") {
        States::OnlyNew
    } else if list.eq_ignore_ascii_case("related") {
        States::OnlyRelated
    } else if words.all(|word| matches!(word.as_str(), "established" | "related" | "invalid")) {
        States::NeverNew
    } else {
        States::Any
    }
}

/// A number as both languages write it.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A line without what is between quotes, which may be anything.
fn unquoted(line: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::with_capacity(line.len()), false, false);
    for c in line.chars() {
        if quoted {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                quoted = false;
            }
        } else if c == '"' {
            quoted = true;
            out.push('"');
        } else {
            out.push(c);
        }
    }
    out
}

impl Chains {
    /// Reads the output of `iptables-save` or `ip6tables-save`.
    pub(super) fn iptables(text: &str) -> Self {
        iptables::read(text)
    }

    /// Reads the output of `nft list ruleset`, of which only tables of the given families count.
    pub(super) fn nft(text: &str, families: &[&str]) -> Self {
        nft::read(text, families)
    }

    fn chain(&mut self, table: &str, name: &str) -> &mut Chain {
        self.0.entry((table.to_owned(), name.to_owned())).or_default()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Forgets the tables of nftables that are really iptables', which `iptables-save` shows better.
    pub(super) fn forget_iptables(&mut self) {
        let is_iptables = |table: &str| {
            ["nft ip ", "nft ip6 "]
                .iter()
                .find_map(|family| table.strip_prefix(family))
                .is_some_and(|name| matches!(name, "raw" | "mangle" | "nat" | "filter" | "security"))
        };
        self.0.retain(|(table, _), _| !is_iptables(table));
    }

    fn bases(&self, at: Hook) -> impl Iterator<Item = (&str, &Chain, Base)> {
        self.0.iter().filter_map(move |((table, _), chain)| {
            let base = chain.base.filter(|base| base.hook == at)?;
            Some((table.as_str(), chain, base))
        })
    }

    /// Whether a rule of the hook sends to the queue.
    pub(super) fn queues(&self, number: u16, at: Hook) -> bool {
        let mut steps = MAX_STEPS;
        self.bases(at).any(|(table, chain, _)| {
            self.queue_below(table, chain, number, false, &mut steps, 0)
                .is_some()
        })
    }

    /// Whether a packet that comes back from the queue with the bit is refused, whatever else it is, before it passes
    /// the hook.
    pub(super) fn refuses(&self, number: u16, bit: u32, at: Hook) -> bool {
        let (mut queued_at, mut only_new) = (None, true);
        for (table, chain, base) in self.bases(at) {
            // An unknown order proves nothing.
            let Some(priority) = base.priority else {
                return false;
            };
            let mut steps = MAX_STEPS;
            if let Some(new) = self.queue_below(table, chain, number, false, &mut steps, 0) {
                queued_at = queued_at.max(Some(priority));
                only_new &= new;
            }
            if steps == 0 {
                return false;
            }
        }
        let Some(queued_at) = queued_at else { return false };
        let mut walk = Walk {
            chains: self,
            bit,
            of_connection: false,
            only_new,
            steps: MAX_STEPS,
        };
        // The verdict of the queue leads to the next hook function: the rest of its own chain is never seen.
        let later = self
            .bases(at)
            .filter_map(|(table, chain, base)| Some((base.priority?, table, chain)))
            .filter(|(priority, ..)| *priority > queued_at);
        walk.refused(later)
    }

    /// Whether every packet of a connection whose mark has the bit is refused in the hook.
    pub(super) fn ends(&self, bit: u32, at: Hook) -> bool {
        let mut walk = Walk {
            chains: self,
            bit,
            of_connection: true,
            only_new: false,
            steps: MAX_STEPS,
        };
        if self.bases(at).any(|(_, _, base)| base.priority.is_none()) {
            return false;
        }
        walk.refused(
            self.bases(at)
                .filter_map(|(table, chain, base)| Some((base.priority?, table, chain))),
        )
    }

    fn get(&self, table: &str, name: &str) -> Option<&Chain> {
        self.0.get(&(table.to_owned(), name.to_owned()))
    }

    /// Whether the chain or one below it sends to the queue, and if so, whether only first packets are sent.
    fn queue_below(
        &self,
        table: &str,
        chain: &Chain,
        number: u16,
        only_new: bool,
        steps: &mut usize,
        depth: usize,
    ) -> Option<bool> {
        let mut found: Option<bool> = None;
        for rule in &chain.rules {
            *steps = steps.saturating_sub(1);
            if *steps == 0 || depth > MAX_DEPTH {
                *steps = 0;
                return found;
            }
            let only_new = only_new || rule.states == States::OnlyNew;
            let here = match &rule.action {
                Action::Queue(range) => range.contains(&number).then_some(only_new),
                Action::Jump(to) | Action::Goto(to) => self
                    .get(table, to)
                    .and_then(|chain| self.queue_below(table, chain, number, only_new, steps, depth + 1)),
                _ => None,
            };
            if let Some(new) = here {
                found = Some(found.unwrap_or(true) && new);
            }
        }
        found
    }
}

impl Walk<'_> {
    /// Whether packets are refused by one of these chains, before the bit may be lost.
    fn refused<'c>(&mut self, chains: impl Iterator<Item = (i32, &'c str, &'c Chain)>) -> bool {
        let fates: Vec<_> = chains
            .map(|(priority, table, chain)| (priority, self.fate(table, chain, 0)))
            .collect();
        let first = |fate| {
            fates
                .iter()
                .filter(|(_, found)| *found == fate)
                .map(|(at, _)| *at)
                .min()
        };
        match (first(Fate::Refused), first(Fate::Remarked)) {
            (Some(refused), Some(remarked)) => refused < remarked,
            (refused, _) => refused.is_some(),
        }
    }

    fn fate(&mut self, table: &str, chain: &Chain, depth: usize) -> Fate {
        // Whether every packet that can still pass is at the rule.
        let mut all = true;
        let mut leaks = false;
        for rule in &chain.rules {
            self.steps = self.steps.saturating_sub(1);
            if self.steps == 0 || depth > MAX_DEPTH {
                return Fate::Remarked;
            }
            let applies = match rule.states {
                States::Any | States::OnlyNew => true,
                States::NeverNew => !self.only_new,
                // A connection's own packets are not its relatives'.
                States::OnlyRelated => !self.only_new && !self.of_connection,
            };
            if !applies {
                continue;
            }
            let certain = match rule.when {
                Condition::Always => true,
                Condition::Bits(bits) => !self.of_connection && bits == self.bit,
                Condition::OfConnection(bits) => self.of_connection && bits == self.bit,
                Condition::Sometimes => false,
            };
            let below = match &rule.action {
                Action::Nothing => continue,
                Action::Refuse => Fate::Refused,
                Action::Remark if self.of_connection => continue,
                Action::RemarkConnection(bits) if !self.of_connection || bits & self.bit == 0 => continue,
                Action::Remark | Action::RemarkConnection(_) => return Fate::Remarked,
                Action::Pass | Action::Queue(_) => Fate::Back { leaks: true },
                Action::Return => {
                    if certain {
                        return Fate::Back { leaks };
                    }
                    all = false;
                    continue;
                }
                Action::Jump(to) | Action::Goto(to) => match self.chains.get(table, to) {
                    Some(chain) => self.fate(table, chain, depth + 1),
                    None => Fate::Back { leaks: true },
                },
            };
            match below {
                Fate::Refused if certain && all => return Fate::Refused,
                Fate::Refused => {}
                Fate::Remarked => return Fate::Remarked,
                Fate::Back { leaks: some } => {
                    leaks |= some;
                    all &= !some;
                    if matches!(rule.action, Action::Goto(_)) {
                        all = false;
                    }
                }
            }
        }
        Fate::Back { leaks }
    }
}

#[cfg(test)]
mod tests;
