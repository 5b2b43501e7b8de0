//! The live viewer: which user is connected to what, as the log has it at this moment.
//!
//! `model` is everything that can be seen, made from rows and keys alone; `run`, `terminal` and `view` are the thin edges
//! around it, `plain` is for scripts. Nothing here writes to the log, and every statement is `nulog`'s.

#![forbid(unsafe_code)]

mod cli;
mod filter;
mod model;
mod order;
mod plain;
mod row;
mod run;
mod terminal;
mod text;
mod view;

pub use cli::{command, main};
