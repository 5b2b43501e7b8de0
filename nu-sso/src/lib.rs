//! Single sign-on: which user is behind this connection?
//!
//! A reader of the log, and nothing else: it decides nothing, writes nothing, and contains no SQL. The same look-up serves
//! three kinds of askers: a command line, HTTP for web servers and proxies, and Squid's helper protocol.

#![forbid(unsafe_code)]

mod ask;
mod askers;
mod cli;
pub mod config;
mod finder;
mod http;
mod once;
mod serve;
mod server;
mod squid;

pub use ask::{AskError, parse_protocol, parse_tuple};
pub use cli::{command, main};
pub use finder::{Answer, FindError, Finder, FinderOptions};
pub use squid::Helper;
