//! What becomes of packets that nobody can be asked about: dropped, unless the administrator chose otherwise.
//!
//! Words and their meaning only. Whoever chooses to let pass chooses for one kind of failure at a time, and what passed so
//! carries a mark by which the rows say it.

use serde::Deserialize;
use std::fmt;

/// What becomes of a packet that cannot be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLoss {
    /// It is dropped.
    #[default]
    Drop,
    /// It passes, marked as blind.
    Accept,
}

impl fmt::Display for OnLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Accept => "accept",
        })
    }
}

/// The choices of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choices {
    /// No server can be reached, or none answers in time.
    pub server: OnLoss,
    /// The queue, or the agent's table of packets that wait, is full.
    pub full: OnLoss,
    /// No agent reads the queue.
    pub agent: OnLoss,
}

impl Choices {
    /// Whether anything can pass unasked.
    pub fn may_be_blind(self) -> bool {
        [self.server, self.full, self.agent].contains(&OnLoss::Accept)
    }

    /// Whether the kernel lets packets pass without the agent's knowledge, so that they must carry the mark before.
    pub fn kernel_may_be_blind(self) -> bool {
        [self.full, self.agent].contains(&OnLoss::Accept)
    }
}
