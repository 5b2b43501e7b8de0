//! What is decided about, and by whom: everything that access lists may look at.
//!
//! Plain data. What a client claims is marked as such; the rest is what the gateway saw or the login proved.

use super::quality::Quality;
use super::types::{Identity, Ruling};
use nufw_proto::{Timestamp, Tuple};
use std::sync::Arc;

/// A connection that somebody wants to open.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Whose it is; `None` when nobody is logged in at its source.
    pub user: Option<&'a Identity>,
    /// How sure it is that the user is who it says; means nothing without one.
    pub quality: Quality,
    /// The connection, as the packet shows it.
    pub tuple: &'a Tuple,
    /// Path of the program, as the client says.
    pub program: Option<&'a str>,
    /// The SHA-256 of its file, as the client says.
    pub program_hash: Option<&'a [u8; 32]>,
    /// The hash was known once and is not any more: it may be any.
    pub any_hash: bool,
    /// The client's operating system as it says: name, version and release, as rows have it.
    pub os: Option<&'a str>,
    /// The interface that the packet came in by; empty when there is none, or when it is not known.
    pub in_dev: &'a str,
    /// The interface that it would leave by.
    pub out_dev: &'a str,
    /// The port of the bridge that it came in by.
    pub phys_in: &'a str,
    /// The port of the bridge that it would leave by.
    pub phys_out: &'a str,
    /// The gateway's name.
    pub gateway: &'a str,
    /// The time that periods are compared with.
    pub at: Timestamp,
}

impl<'a> Subject<'a> {
    /// A packet of which nothing else is known.
    pub fn new(user: Option<&'a Identity>, tuple: &'a Tuple, at: Timestamp) -> Self {
        Self {
            user,
            quality: Quality::default(),
            tuple,
            program: None,
            program_hash: None,
            any_hash: false,
            os: None,
            in_dev: "",
            out_dev: "",
            phys_in: "",
            phys_out: "",
            gateway: "",
            at,
        }
    }
}

/// The access lists, as the engine sees them.
pub trait Judge: Send + Sync {
    /// Decides. What the packet shows counts, never what a client says of its addresses.
    fn judge(&self, subject: &Subject<'_>) -> Ruling;

    /// Decides about a packet from an address at which nobody is logged in; `None` when no rule is for it.
    fn judge_stranger(&self, _subject: &Subject<'_>) -> Option<Ruling> {
        None
    }

    /// Whether a rule looks at packets from addresses at which nobody is logged in. If not, gateways may drop them unasked.
    fn judges_strangers(&self) -> bool {
        false
    }

    /// Whether a rule looks at hashes of programs.
    fn looks_at_hashes(&self) -> bool {
        false
    }

    /// What identifies these lists in a row; empty where there is nothing to identify.
    fn version(&self) -> Arc<str> {
        Arc::from("")
    }
}

impl std::fmt::Debug for dyn Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judge")
    }
}
