//! What works on the log beside the server: `clean-conntrack`, `ulog-rotate`, and `nulog` for who looks something up.
//!
//! Command lines, settings and progress; every statement is `nulog`'s (the library), and no row is ever invented here.

#![forbid(unsafe_code)]

pub mod clean;
pub mod rotate;
pub mod search;
pub mod settings;
