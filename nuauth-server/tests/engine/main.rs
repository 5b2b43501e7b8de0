//! What the engine does, one small story a test.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

mod addressed;
mod adopt;
mod blind;
mod by_flags;
mod claims;
mod control;
mod dumps;
mod entries;
mod events;
mod expiry;
mod flood;
mod kills;
mod late;
mod lifetimes;
mod limits;
mod links;
mod lists;
mod logging;
mod memory;
mod modes;
mod packets;
mod related;
mod restart;
mod reuse;
mod sessions;
mod truth;
mod world;
