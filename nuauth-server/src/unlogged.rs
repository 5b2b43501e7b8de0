//! What the log will not say: connections that are accepted without a row, since somebody decided so.
//!
//! Sentences for the start of the server and for `check`, so that nobody learns it from an empty table.

use crate::engine::{Decision, Levels, LogMode};
use crate::policy::Policy;

/// A sentence for everything that is missing from the log by choice, or asked for in vain.
pub(crate) fn warnings(levels: Levels, policy: &Policy) -> Vec<String> {
    let mut sentences = Vec::new();
    if !levels.connections {
        sentences.push(format!(
            "log.levels has no \"connections\" (it has: {levels}): every packet is accepted without a row, and nobody can \
             tell later whose it was"
        ));
    }
    for ruling in policy.rules().iter().map(crate::policy::Rule::ruling) {
        let (level, name) = match ruling.decision {
            Decision::Accept => (levels.connections, "connections"),
            Decision::Drop | Decision::Reject => (levels.drops, "drops"),
        };
        let (rule, word) = (&ruling.rule, ruling.log.word());
        match (ruling.log, ruling.decision) {
            (LogMode::None, Decision::Accept) if level => sentences.push(format!(
                "rule \"{rule}\" says log = \"none\": what it accepts leaves no row, and nobody can tell later whose it was"
            )),
            (LogMode::Sync | LogMode::Strict | LogMode::Async, _) if !level => sentences.push(format!(
                "rule \"{rule}\" says log = \"{}\" in vain: log.levels has no \"{name}\"",
                word.unwrap_or_default()
            )),
            _ => {}
        }
    }
    sentences
}
