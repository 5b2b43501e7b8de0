//! The supervisor: it keeps the queue and the event socket open and alone holds `CAP_NET_ADMIN`, while a worker, the same
//! program once more, parses packets and speaks TLS without any capability.
//!
//! Nothing here looks into a packet or decides anything. A worker that dies, hangs or is replaced leaves nothing behind
//! that its successor does not find: packets wait in the kernel, events in their socket or in memory that outlives it.

mod channel;
mod child;
mod client;
mod kernel;
mod looked;
mod memory;
mod restarts;
mod signals;
mod store;
mod supervisor;
mod wire;

pub use channel::Channel;
pub use client::{Access, Handed, Keeper};
pub use kernel::Allowed;
pub use looked::Looked;
pub(crate) use memory::IN_HAND;
pub use memory::{Hand, Left, Memory};
pub use store::Kept;
pub use supervisor::{Ended, Plan, Supervisor};
pub use wire::{MAX_VERDICTS, Malformed, Open, Reply, Request, Start};
