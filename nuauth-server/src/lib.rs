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
pub mod ctl;
mod db;
pub mod directory;
pub mod engine;
mod gateways;
pub mod hash_password;
pub mod hooks;
pub mod hours;
mod hub;
mod identify;
mod import;
pub mod journal;
mod kept;
pub mod observe;
mod paced;
pub mod pki;
pub mod policy;
pub mod policy_command;
mod port;
mod revocation;
mod sandbox;
mod server;
pub mod status;
mod tickets;
mod unlogged;
pub mod users;
mod watch;

use nufw_common::exit::{Failure, report};
use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == hooks::HELPER)
    {
        return report(hooks::helper_main());
    }
    match cli::parse() {
        Ok(cli) => match run(cli) {
            Ok(code) => code,
            Err(failure) => report(Err(failure)),
        },
        Err(code) => code,
    }
}

fn run(cli: cli::Cli) -> Result<ExitCode, Failure> {
    match cli::dispatch(cli, &mut std::io::stdout())? {
        cli::Next::Done => {}
        // As diff(1) says it.
        cli::Next::Differs => return Ok(ExitCode::from(1)),
        cli::Next::Run { config, overrides } => {
            nufw_common::logging::init("info");
            server::run(&config, overrides)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
