//! What the kernel's events lack because of its settings: said once, when it is first missed.
//!
//! The settings may change while the agent runs, so the events are asked and not the settings.

use nufw_proto::{CtEvent, CtEventKind};

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct KernelSays {
    uncounted: bool,
    untimed: bool,
}

impl KernelSays {
    /// Looks at an event.
    pub(super) fn look(&mut self, event: &CtEvent) {
        let ended = event.kind == CtEventKind::Destroy;
        if ended && event.entry.counters.is_none() && !self.uncounted {
            self.uncounted = true;
            tracing::warn!(
                "the kernel counted nothing of a connection: rows have no counters \
                 (sysctl -w net.netfilter.nf_conntrack_acct=1; connections that are open stay uncounted)"
            );
        }
        if !event.at_kernel && !self.untimed {
            self.untimed = true;
            tracing::warn!(
                "the kernel's events have no time: their times are those of receipt at the agent \
                 (sysctl -w net.netfilter.nf_conntrack_timestamp=1)"
            );
        }
    }
}
