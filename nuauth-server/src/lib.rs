//! The authentication server.
//!
//! `gateways` and `clients` are the ports, `engine` decides, `journal` makes it durable; ARCHITECTURE.md tells the flow.

#![forbid(unsafe_code)]

pub mod auth;
pub mod check;
pub mod cli;
mod clients;
pub mod config;
mod control;
mod db;
pub mod engine;
mod gateways;
pub mod hash_password;
mod hub;
mod import;
pub mod journal;
pub mod observe;
pub mod pki;
pub mod policy;
mod port;
mod revocation;
mod sandbox;
mod server;
pub mod status;
mod unlogged;
pub mod users;

use nufw_common::exit::{Failure, report};
use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    match cli::parse() {
        Ok(cli) => report(run(cli)),
        Err(code) => code,
    }
}

fn run(cli: cli::Cli) -> Result<(), Failure> {
    match cli::dispatch(cli, &mut std::io::stdout())? {
        cli::Next::Done => Ok(()),
        cli::Next::Run { config, overrides } => {
            nufw_common::logging::init("info");
            server::run(&config, overrides)
        }
    }
}
