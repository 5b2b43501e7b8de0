//! `ulog-rotate` against real databases: what is kept is kept, what is old goes, whatever happens meanwhile.
//!
//! Every behaviour runs as the rotator's own account where accounts are.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod accounts;
mod exports;
mod files;
mod kills;
mod lab;
mod partitions;
#[path = "../../../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of the library")]
mod support;
