//! `conntrack.track-by-flags`: what it goes together with, and what it stands in for.
//!
//! Words only; what segments mean is the server's part.

use super::{Config, Conntrack};
use crate::rules::QueueHook;
use nufw_common::config::{Loaded, Problems};

impl Conntrack {
    /// Whether conntrack's events are relayed.
    pub fn relays(&self) -> bool {
        self.relay.unwrap_or(!self.track_by_flags)
    }
}

/// Connections are followed by conntrack's events or by the flags of TCP segments, never by both; and by flags only where they
/// can be told from others.
pub(super) fn check(loaded: &Loaded<Config>, problems: &mut Problems) {
    let Config {
        queue,
        conntrack,
        marks,
        rules,
        ..
    } = &loaded.value;
    if !conntrack.track_by_flags {
        return;
    }
    let mut reject = |key: &str, found: &str, expected: &str| {
        problems.push(loaded.reject(key, found, expected));
    };
    if conntrack.marked_only {
        reject(
            "conntrack.marked-only",
            "true (-M), and conntrack.track-by-flags too (--track-by-flags)",
            "one of them: either conntrack's events are relayed, or TCP flags stand in for them",
        );
    } else if conntrack.relay == Some(true) {
        reject(
            "conntrack.relay",
            "true (-C), and conntrack.track-by-flags too (--track-by-flags)",
            "one of them: either conntrack's events are relayed, or TCP flags stand in for them",
        );
    }
    if !marks.set && !conntrack.marked_only {
        reject(
            "marks.set",
            "false, and conntrack.track-by-flags",
            "true (-m): by their marks the rules know the connections of users",
        );
    }
    if rules.hooks != [QueueHook::Forward] {
        reject(
            "rules.hooks",
            "other hooks than forward, and conntrack.track-by-flags",
            "[\"forward\"]: connections of the gateway itself are not followed by flags",
        );
    }
    if queue.number.checked_add(queue.count).is_none() {
        reject(
            "queue.number",
            "the last number, and conntrack.track-by-flags",
            "one that leaves a number after queue.count others for the segments",
        );
    }
    if queue.zones.len() > 1 {
        reject(
            "queue.zones",
            "several zones, and conntrack.track-by-flags",
            "one zone: what a segment says does not tell its zone",
        );
    }
}
