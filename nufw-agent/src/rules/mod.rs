//! The firewall rules that the agent needs, as text for the administrator to read and to load.
//!
//! Prints only; nothing here changes the host. The rules are in chains and tables of their own, so that loading them
//! twice changes nothing and removing them leaves everything else as it was.

mod iptables;
mod nft;

use nufw_proto::gateway::Hook;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// For whom the rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A shell script of iptables and ip6tables commands: `nufw-agent rules | sh`.
    #[default]
    Iptables,
    /// A ruleset: `nufw-agent rules --format nft | nft -f -`.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueHook {
    /// Connections through the gateway.
    Forward,
    /// Connections to the gateway itself.
    Input,
}

impl FromStr for QueueHook {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "forward" => Ok(Self::Forward),
            "input" => Ok(Self::Input),
            _ => Err(UnknownWord {
                found: word.to_owned(),
                expected: "forward or input",
            }),
        }
    }
}

impl From<QueueHook> for Hook {
    fn from(hook: QueueHook) -> Self {
        match hook {
            QueueHook::Forward => Self::Forward,
            QueueHook::Input => Self::Input,
        }
    }
}

impl fmt::Display for QueueHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Input => "input",
        })
    }
}

/// What the rules must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesOptions {
    /// The language of the output.
    pub format: Format,
    /// Prints what removes the rules instead.
    pub remove: bool,
    /// The queue.
    pub queue: u16,
    /// How many queues, from that number on.
    pub queue_count: u16,
    /// Where connections are held back; empty means [`QueueHook::Forward`].
    pub hooks: Vec<QueueHook>,
    /// Addresses of the authentication server, to which agents and clients connect unasked.
    pub servers: Vec<IpAddr>,
    /// The server's port for agents.
    pub gateway_port: u16,
    /// The server's port for clients.
    pub client_port: u16,
    /// Whether the user's mark is saved on the connection.
    pub set_marks: bool,
    /// The bits of a mark that are the user's number.
    pub mask: u32,
    /// The bit of a packet's mark that means "reject"; outside of the mask.
    pub reject_bit: u32,
    /// Whether conntrack makes only the three events that the agent needs.
    pub event_mask: bool,
}

impl Default for RulesOptions {
    fn default() -> Self {
        Self {
            format: Format::Iptables,
            remove: false,
            queue: 0,
            queue_count: 1,
            hooks: vec![QueueHook::Forward],
            servers: Vec::new(),
            gateway_port: nufw_proto::GATEWAY_PORT,
            client_port: nufw_proto::CLIENT_PORT,
            set_marks: true,
            mask: 0x00ff_ffff,
            reject_bit: 0x0100_0000,
            event_mask: true,
        }
    }
}

impl RulesOptions {
    /// The last queue.
    fn last_queue(&self) -> u16 {
        self.queue.saturating_add(self.queue_count.saturating_sub(1))
    }

    fn holds(&self, hook: QueueHook) -> bool {
        self.hooks.contains(&hook) || (self.hooks.is_empty() && hook == QueueHook::Forward)
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

/// The rules as text.
pub fn render(options: &RulesOptions) -> String {
    match (options.format, options.remove) {
        (Format::Iptables, false) => iptables::install(options),
        (Format::Iptables, true) => iptables::remove(),
        (Format::Nft, false) => nft::install(options),
        (Format::Nft, true) => nft::remove(),
    }
}

#[cfg(test)]
mod tests;
