//! The firewall rules that the agent needs: as text to read, and loaded or removed as a whole.
//!
//! The rules are in chains and tables of their own, so that loading them twice changes nothing and removing them leaves
//! everything else as it was. Only [`load`] changes the host.

mod compare;
mod iptables;
pub mod load;
mod nft;

pub use compare::differences;
pub use load::{Backend, LoadError};

use crate::loss::{Choices, OnLoss};
use nufw_proto::gateway::Hook;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// For whom the rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A shell script of iptables and ip6tables commands: `nufw-agent rules`.
    #[default]
    Iptables,
    /// A ruleset: `nufw-agent rules --format nft`.
    Nft,
}

/// A word on the command line is none of those that are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found \"{found}\", expected {expected}")]
pub struct UnknownWord {
    found: String,
    expected: &'static str,
}

impl FromStr for Format {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "iptables" => Ok(Self::Iptables),
            "nft" => Ok(Self::Nft),
            _ => Err(UnknownWord {
                found: word.to_owned(),
                expected: "iptables or nft",
            }),
        }
    }
}

/// Where connections are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueHook {
    /// Connections through the gateway.
    Forward,
    /// Connections to the gateway itself.
    Input,
    /// Connections from the gateway itself.
    Output,
}

impl QueueHook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Input, Self::Output];
}

impl FromStr for QueueHook {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "forward" => Ok(Self::Forward),
            "input" => Ok(Self::Input),
            "output" => Ok(Self::Output),
            _ => Err(UnknownWord {
                found: word.to_owned(),
                expected: "forward, input or output",
            }),
        }
    }
}

impl From<QueueHook> for Hook {
    fn from(hook: QueueHook) -> Self {
        match hook {
            QueueHook::Forward => Self::Forward,
            QueueHook::Input => Self::Input,
            QueueHook::Output => Self::Output,
        }
    }
}

impl fmt::Display for QueueHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// The queues that packets are spread over: one, or several that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queues {
    /// The first.
    pub first: u16,
    /// The last; not below the first.
    pub last: u16,
}

impl Queues {
    /// One queue.
    pub fn one(number: u16) -> Self {
        Self {
            first: number,
            last: number,
        }
    }
}

impl From<u16> for Queues {
    fn from(number: u16) -> Self {
        Self::one(number)
    }
}

/// What the rules must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesOptions {
    /// The queues.
    pub queues: Queues,
    /// Where connections are held back; empty means [`QueueHook::Forward`].
    pub hooks: Vec<QueueHook>,
    /// Addresses of the authentication servers, and their ports for agents: agents and clients connect to them unasked.
    pub servers: Vec<(IpAddr, u16)>,
    /// The servers' port for clients.
    pub client_port: u16,
    /// Whether the user's mark is saved on the connection.
    pub set_marks: bool,
    /// The bits of a mark that are the user's number.
    pub mask: u32,
    /// The bit of a packet's mark that means "reject"; outside of the mask.
    pub reject_bit: u32,
    /// The bit of a connection's mark that means "ended"; outside of the mask. 0 for none.
    pub kill_bit: u32,
    /// The bit of a mark that says that the connection passed without a verdict; 0 where nothing may.
    pub blind_bit: u32,
    /// What becomes of packets that cannot be asked about.
    pub on_loss: Choices,
    /// Whether conntrack makes only the three events that the agent needs.
    pub event_mask: bool,
    /// The queue for what TCP segments say of forwarded connections of users, where conntrack tells nothing.
    pub flags_queue: Option<u16>,
}

impl Default for RulesOptions {
    fn default() -> Self {
        Self {
            queues: Queues::default(),
            hooks: vec![QueueHook::Forward],
            servers: Vec::new(),
            client_port: nufw_proto::CLIENT_PORT,
            set_marks: true,
            mask: 0x00ff_ffff,
            reject_bit: 0x0100_0000,
            kill_bit: 0x0200_0000,
            blind_bit: 0,
            on_loss: Choices::default(),
            event_mask: true,
            flags_queue: None,
        }
    }
}

impl RulesOptions {
    fn holds(&self, hook: QueueHook) -> bool {
        self.hooks.contains(&hook) || (self.hooks.is_empty() && hook == QueueHook::Forward)
    }

    /// Whether packets of connections that were ended are refused in a hook: both directions of what is held back somewhere.
    fn ends_in(&self, hook: QueueHook) -> bool {
        let own = self.holds(QueueHook::Input) || self.holds(QueueHook::Output);
        self.kill_bit != 0
            && match hook {
                QueueHook::Forward => self.holds(hook),
                QueueHook::Input | QueueHook::Output => own,
            }
    }

    /// The bits of a packet's mark that the connection takes over.
    fn saved_bits(&self) -> u32 {
        (if self.set_marks { self.mask } else { 0 }) | self.blind_bit
    }

    /// Whether packets are marked as blind before the queue: a verdict takes the bit away, so that it stays on what the
    /// kernel lets pass without one.
    fn marks_before(&self) -> bool {
        self.blind_bit != 0 && self.on_loss.kernel_may_be_blind()
    }

    /// The settings of conntrack that are needed. A kernel that makes no events has not the one for them.
    fn settings(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let by_flags = self.flags_queue.is_some();
        SYSCTLS
            .into_iter()
            .filter(move |(key, ..)| !by_flags || !key.ends_with("_events"))
    }

    /// Whether packets pass while nobody reads the queue.
    fn bypasses(&self) -> bool {
        self.blind_bit != 0 && self.on_loss.agent == OnLoss::Accept
    }
}

/// The settings of conntrack that the agent needs, with the reason for each.
pub const SYSCTLS: [(&str, &str, &str); 3] = [
    (
        "net.netfilter.nf_conntrack_acct",
        "1",
        "counters of packets and bytes",
    ),
    (
        "net.netfilter.nf_conntrack_timestamp",
        "1",
        "times of start, end and events",
    ),
    (
        "net.netfilter.nf_conntrack_events",
        "1",
        "events also for connections older than the agent",
    ),
];

const NO_SERVER: &str =
    "# No server address is known (--server): users behind the gateway cannot reach the server through it.";

/// A text that grows line by line.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }
}

/// The rules as text: a shell script, or a ruleset of nft.
pub fn render(format: Format, options: &RulesOptions) -> String {
    match format {
        Format::Iptables => iptables::install(options),
        Format::Nft => nft::install(options),
    }
}

/// What removes the rules, as text.
pub fn render_removal(format: Format) -> String {
    match format {
        Format::Iptables => iptables::remove(),
        Format::Nft => nft::remove(),
    }
}

#[cfg(test)]
mod tests;
