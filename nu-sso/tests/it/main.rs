//! Look-ups in a real log, through the library, the program, real nginx and real Squid.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod account;
mod command;
mod finds;
mod helper;
mod http;
mod lab;
mod log;
mod nginx;
mod process;
mod proxy;
mod servers;
#[path = "../../../sql/tests/support/mod.rs"]
#[expect(dead_code, reason = "others use the rest")]
mod support;
