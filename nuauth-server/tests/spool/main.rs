//! The journal while its database is away, on real servers that are killed and stopped.
//!
//! `outages` are single stories; `killed` is a life under fire, with a process of its own for the journal.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it drew by lot"
)]

mod feeder;
mod killed;
mod lab;
mod outages;
#[path = "../../../sql/tests/support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod support;
