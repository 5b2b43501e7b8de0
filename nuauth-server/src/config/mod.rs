//! The server's configuration, parsed into what the server uses: addresses, names, paths, limits.
//!
//! A value of these types is valid; nothing later has to check it again. Files that it names are read elsewhere.

mod ends;
mod levels;
mod marks;
mod raw;
mod sessions;

pub use sessions::{Identify, Radius, TicketSettings};
mod users;

pub use users::{Backend, CertificateName, Directories, Kerberos, Ldap, System, ldap_port};

use crate::engine::{self, UserBits};
use crate::hooks::HookSettings;
use crate::hours::Hours;
use crate::journal::SpoolSettings;
use crate::policy::Marks;
use nufw_common::config::{ConfigError, Loader};
use nufw_common::gs2;
use nufw_common::listen::Place;
use nufw_common::sandbox::Privileges;
use nufw_common::tls::{ClientAuth, PeerNames, ServerTls};
use nufw_proto::{CLIENT_ALPN, GATEWAY_ALPN, Mark};
use nulog::Location;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the configuration is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/nufw/nuauth.toml";

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The file it came from.
    pub path: PathBuf,
    /// The bits of a mark that are ours.
    pub mark_mask: Mark,
    /// This server's permanent number, the upper part of every row id.
    pub server_number: u16,
    /// A peer is dead when nothing came from it for so long.
    pub dead_after: Duration,
    /// The port of the gateway agents.
    pub gateways: Gateways,
    /// The port of the users' clients.
    pub clients: Clients,
    /// Certificates.
    pub tls: Tls,
    /// The users' file.
    pub users: PathBuf,
    /// Who is asked about users.
    pub directories: Directories,
    /// The access lists' file.
    pub policy: PathBuf,
    /// Whether users and access lists are read again when their files change.
    pub watch: bool,
    /// What stands where in a mark.
    pub marks: Marks,
    /// Whether the sender is told of what no rule of it allows.
    pub rejects_by_default: bool,
    /// The log.
    pub log: Log,
    /// The socket for programs of this host.
    pub control: Control,
    /// Where metrics and health are told over HTTP, if they are.
    pub metrics: Option<Place>,
    /// User and sandbox.
    pub privileges: Privileges,
    /// When who may be logged in.
    pub hours: Hours,
    /// How sessions are had again without a password, if they are.
    pub tickets: Option<TicketSettings>,
    /// Programs for sessions that begin and end.
    pub hooks: Option<HookSettings>,
    /// Who is where without a client.
    pub identify: Identify,
    /// Bounds of the ports.
    pub ports: PortLimits,
    /// Bounds of the engine; the other sections' values are in it too.
    pub engine: engine::Limits,
}

/// The port of the gateway agents.
#[derive(Debug, Clone)]
pub struct Gateways {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Names that a gateway's certificate may prove.
    pub names: Vec<Arc<str>>,
}

/// The port of the users' clients.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Mechanisms offered, best first.
    pub mechanisms: Vec<Mechanism>,
}

/// A SASL mechanism (RFC 4422).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// The client's certificate (RFC 4422 appendix A).
    External,
    /// A password that never leaves the client, bound to this very TLS connection (RFC 5802, RFC 7677, RFC 9266).
    ScramPlus,
    /// The same, not bound to it.
    Scram,
    /// Name and password (RFC 4616); only ever inside TLS.
    Plain,
    /// A Kerberos ticket, bound to this very TLS connection (RFC 5801).
    Kerberos,
}

/// Certificates.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority of gateways and clients.
    pub ca: PathBuf,
    /// Its revocation list.
    pub crl: Option<PathBuf>,
}

/// The log's place. What is written to it, and what waits for it, is in [`engine::Limits`].
#[derive(Debug, Clone)]
pub struct Log {
    /// Where it is.
    pub database: Location,
    /// The file with its password, which is read again at a reload.
    pub password_file: Option<PathBuf>,
    /// What becomes of rows while the database is away.
    pub on_loss: OnLoss,
    /// Where they go.
    pub spool: SpoolSettings,
}

/// What becomes of rows, and of the packets that need one, while the database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// They go to the spool, and packets are accepted when it has them.
    Spool,
    /// Packets are dropped; other rows wait in memory, as many as there is room for.
    Drop,
}

/// The socket for programs of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Its file, if there is to be one.
    pub socket: Option<PathBuf>,
    /// Whether the configuration names it: then it must come about.
    pub configured: bool,
    /// Groups, by number, whose members may look.
    pub readers: Vec<u32>,
    /// Groups, by number, whose members may do everything.
    pub admins: Vec<u32>,
}

/// Bounds of the two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortLimits {
    /// Connections of one port that have not logged in or said hello; a further one is closed unanswered.
    pub greetings: usize,
    /// A connection that has not logged in or said hello after so long is closed.
    pub greeting_timeout: Duration,
    /// Passwords of the users file checked at one time, each with the memory of its hash (19 MiB by default); others wait.
    pub password_checks: usize,
}

impl Mechanism {
    /// All of them.
    const ALL: [Self; 5] = [
        Self::External,
        Self::Kerberos,
        Self::ScramPlus,
        Self::Scram,
        Self::Plain,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::External => "EXTERNAL",
            Self::ScramPlus => "SCRAM-SHA-256-PLUS",
            Self::Scram => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::Kerberos => gs2::MECHANISM,
        }
    }

    /// The mechanism of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Whether it is SCRAM, with or without binding.
    pub fn is_scram(self) -> bool {
        matches!(self, Self::ScramPlus | Self::Scram)
    }

    /// Whether it is a conversation of several messages.
    pub fn is_conversation(self) -> bool {
        self.is_scram() || self == Self::Kerberos
    }
}

impl Gateways {
    /// The configured name that a gateway's verified certificate proves; none unless exactly one matches.
    pub fn recognise(&self, names: &PeerNames) -> Option<Arc<str>> {
        let mut matching = self
            .names
            .iter()
            .filter(|known| names.dns.iter().any(|name| name.eq_ignore_ascii_case(known)));
        match (matching.next(), matching.next()) {
            (Some(name), None) => Some(Arc::clone(name)),
            _ => None,
        }
    }
}

impl Tls {
    /// For the gateways' port: only with a certificate of our authority.
    pub fn for_gateways(&self) -> ServerTls {
        self.server_tls(GATEWAY_ALPN, ClientAuth::Required)
    }

    /// For the clients' port: a certificate is welcome, not needed.
    pub fn for_clients(&self) -> ServerTls {
        self.server_tls(CLIENT_ALPN, ClientAuth::Optional)
    }

    fn server_tls(&self, alpn: &[u8], client_auth: ClientAuth) -> ServerTls {
        ServerTls {
            cert: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            crl: self.crl.clone(),
            alpn: alpn.to_vec(),
            client_auth,
        }
    }
}

/// A value from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key, such as `log.sync`.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
    /// The option, for errors.
    pub option: &'static str,
}

impl ServerConfig {
    /// The bits that a user's number may have, before it is shifted to its place.
    pub fn user_mask(&self) -> Mark {
        let UserBits { shift, bits } = self.marks.user;
        Mark((bits.0 & self.mark_mask.0) >> shift)
    }

    /// Loads the file, the `*.toml` files of the directory `nuauth.d` beside it (named after the file), the
    /// environment (`NUAUTH_…`) and the command line, in this order.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let loader = Loader::new("nuauth-server")
            .file(path, true)
            .conf_d(path.with_extension("d"))
            .env("NUAUTH");
        let loader = overrides
            .iter()
            .fold(loader, |loader, o| loader.override_key(o.key, &o.value, o.option));
        raw::parse(path, loader.load()?)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
