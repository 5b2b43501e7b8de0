//! The log on real files: one binary, a module for each side of it.

#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod faults;
mod life;
mod make;
mod model;
mod opening;
mod plain;
