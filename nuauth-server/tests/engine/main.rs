//! What the engine does, one small story a test.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on ends"
)]

mod claims;
mod dumps;
mod entries;
mod events;
mod late;
mod limits;
mod links;
mod logging;
mod memory;
mod packets;
mod restart;
mod reuse;
mod sessions;
mod world;
