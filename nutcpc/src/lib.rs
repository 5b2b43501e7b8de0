//! The user's client: logs in to the authentication server, proves the host's addresses, and answers whose
//! connection a packet belongs to.
//!
//! Decides nothing: what is claimed here is what the kernel says of this host's sockets, and only of one user's.
//! [`Client`] is the whole of it for other programs, a session after the other with one server; the command is `cli` over
//! several of them.

mod addresses;
mod args;
mod asks;
mod cli;
mod client;
mod config;
mod connect;
mod credentials;
mod error;
mod event;
mod kerberos;
mod notify;
pub mod owner;
mod proofs;
mod sasl;
mod servers;
mod session;
mod state;
mod status;
mod tickets;

pub use cli::{command, main};
pub use client::{Client, ClientError, Command, Options};
pub use credentials::{CredentialError, Login, MAX_PASSWORD, Password};
pub use error::{LoginError, Remedy};
pub use event::Event;
pub use sasl::Mechanism;
