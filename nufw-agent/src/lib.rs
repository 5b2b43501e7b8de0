//! The gateway agent: packets wait in an NFQUEUE while the server decides, conntrack events keep its rows true.
//!
//! [`agent`] tells the story; the modules around it each own one thing. Only [`queue`] and [`conntrack`] touch
//! netlink, and nothing here decides about a packet: whatever cannot be asked is dropped.

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod conntrack;
pub mod keeper;
pub mod link;
pub mod loss;
pub mod nfnl;
pub mod observe;
pub mod packet;
pub mod pending;
pub mod queue;
pub mod relay;
pub mod rules;
pub mod sandbox;
mod socket;
pub mod sources;
pub mod stats;

pub use cli::{command, main};
