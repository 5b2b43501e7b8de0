//! What is said of the rules as a whole: whether they are those that the configuration asks for, what escapes them, and
//! what becomes of packets when something fails.
//!
//! Pure: reads listings, changes nothing.

use super::escapes::{Escapes, named};
use super::judge::{ok, warn};
use super::{AgentConfigView, Finding, HostFacts};
use crate::loss::OnLoss;
use crate::rules;
use serde::{Deserialize, Serialize};

/// What the listing commands print; `None` where one is not there or fails.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listings {
    /// `iptables-save`.
    pub v4: Option<String>,
    /// `ip6tables-save`.
    pub v6: Option<String>,
    /// `nft list ruleset`.
    pub nft: Option<String>,
}

impl Listings {
    /// Whether the tables of iptables are also in the listing of nft, and shown better by `iptables-save`.
    fn shows_iptables(&self) -> bool {
        self.v4.as_deref().is_some_and(super::collect::is_over_nft)
    }
}

pub(super) const APPLY: &str = "nufw-agent rules --apply";

/// Whether what is loaded is what the configuration asks for, where it is of our making at all.
pub(super) fn generated(view: &AgentConfigView, facts: &HostFacts) -> Option<Finding> {
    let need = "the generated rules";
    let options = view.rules.as_ref()?;
    let seen = &facts.listings;
    let differences = rules::differences(
        options,
        seen.v4.as_deref(),
        seen.v6.as_deref(),
        seen.nft.as_deref(),
    )?;
    Some(if differences.is_empty() {
        ok(need, "loaded as the configuration asks for them")
    } else {
        warn(
            need,
            format!(
                "differ from what the configuration asks for: {}",
                named(&differences)
            ),
            APPLY,
        )
    })
}

/// Rules of others that work against ours.
pub(super) fn escapes(view: &AgentConfigView, facts: &HostFacts) -> Vec<Finding> {
    let reserved = if view.sets_marks { view.mask } else { 0 } | view.reject_bit | view.blind_bit;
    let mut escapes = Escapes::default();
    let seen = &facts.listings;
    for (command, text) in [("iptables", &seen.v4), ("ip6tables", &seen.v6)] {
        if let Some(text) = text {
            escapes.iptables(command, text, reserved);
        }
    }
    let skips_iptables = seen.shows_iptables();
    if let Some(text) = &seen.nft {
        escapes.nft(text, reserved, |family, name| {
            skips_iptables
                && matches!(family, "ip" | "ip6")
                && matches!(name, "raw" | "mangle" | "nat" | "filter" | "security")
        });
    }
    let all = [
        (
            "nothing passes before the queue",
            &escapes.before_the_queue,
            "such packets are never asked about",
            "move the rule behind the one that queues, or mean it",
        ),
        (
            "conntrack follows every packet",
            &escapes.untracked,
            "such packets are never asked about: those that are forwarded are dropped by the generated rules, others pass without a row",
            "keep the rule to traffic that needs no user, or remove it",
        ),
        (
            "nobody else writes our bits of marks",
            &escapes.marks,
            "users would be taken for one another, or packets refused or passed by mistake",
            "give that rule a mask without our bits, or choose other bits (marks.mask, marks.reject-bit, marks.blind-bit)",
        ),
        (
            "no flowtable takes connections past the hooks",
            &escapes.offloaded,
            "established connections that are offloaded have no counters unless the flowtable counts, and are not seen by any rule",
            "leave out of it what users begin, or give it the counter flag",
        ),
    ];
    all.into_iter()
        .filter(|(_, rules, ..)| !rules.is_empty())
        .map(|(need, rules, why, mend)| warn(need, format!("{}: {why}", named(rules)), mend))
        .collect()
}

/// What the administrator chose for each kind of failure, in words.
pub(super) fn choices(view: &AgentConfigView, facts: &HostFacts) -> Vec<Finding> {
    let choices = view.on_loss;
    let told = [
        (
            "queue.on-server-loss",
            choices.server,
            "no server can be reached, or none answers in time",
        ),
        (
            "queue.on-queue-full",
            choices.full,
            "the queue, its buffer or queue.max-pending is full",
        ),
        ("queue.on-agent-loss", choices.agent, "no agent reads the queue"),
    ];
    let mut findings: Vec<_> = told
        .into_iter()
        .map(|(need, choice, when)| match choice {
            OnLoss::Drop => ok(need, format!("drop: new connections fall while {when}")),
            OnLoss::Accept => ok(
                need,
                format!(
                    "accept: new connections pass unasked while {when}; they carry the mark {:#010x}, and their rows say (blind)",
                    view.blind_bit
                ),
            ),
        })
        .collect();
    let known: Vec<_> = [&facts.rules_v4, &facts.rules_v6]
        .into_iter()
        .flatten()
        .filter(|rules| rules.queues(view.queue))
        .collect();
    let bypasses = known.iter().any(|rules| rules.bypasses(view.queue));
    let all_bypass = known.iter().all(|rules| rules.bypasses(view.queue));
    match choices.agent {
        OnLoss::Drop if bypasses => findings.push(warn(
            "the queue's rule does as queue.on-agent-loss says",
            "it has the bypass option: while the agent does not run, everything passes unasked and leaves no row",
            format!("{APPLY}, or queue.on-agent-loss = \"accept\", if that is what you want"),
        )),
        OnLoss::Accept if !all_bypass => findings.push(warn(
            "the queue's rule does as queue.on-agent-loss says",
            "it lacks the bypass option: while the agent does not run, everything is dropped",
            APPLY,
        )),
        _ => {}
    }
    findings
}
