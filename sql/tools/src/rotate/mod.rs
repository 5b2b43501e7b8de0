//! `ulog-rotate`: Keeps the archive bounded.
//!
//! Reads arguments and settings and reports; what is done to the log is the library's.

mod cli;
mod config;
mod export;
mod report;
mod run;
mod writer;

pub use cli::{command, main};
pub use config::Raw;
