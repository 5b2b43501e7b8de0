//! The command line, as clap reads it.
//!
//! Only words: what they come to together with the configuration's files is `config`'s business. A password is never an
//! option: everybody on the host can read those.

use crate::sasl::Mechanism;
use clap::{ArgAction, Parser, Subcommand};
use std::path::PathBuf;

const LONG_ABOUT: &str = "\
Logs in to the authentication servers of user-aware firewalls and stays in the foreground. While it runs, the \
connections of your programs are known to be yours: each server asks this client about each new one, and the client \
answers by what the kernel says of this host's sockets. Connections of other users of this host are never claimed.

All global addresses of this host are proven to the servers, IPv4 and IPv6, and followed when they change.

Servers come from /etc/nufw/nutcpc.toml and $XDG_CONFIG_HOME/nufw/nutcpc.toml, where yours wins over the system's, or from \
--server, which wins over both. There is a session with each of them: one that fails disturbs no other.";

const EXAMPLES: &str = "\
Examples:
  nutcpc
      logs in at the servers of the configuration
  nutcpc --server fw.example.org --ca /etc/nufw/ca.crt --user alice
      asks for the password on the terminal
  nutcpc -H fw.example.org -U alice --password-file ~/.nufw-password --ca ca.crt
  nutcpc -H fw.example.org --ca ca.crt --certificate alice.crt --key alice.key
      logs in by certificate
  nutcpc -H fw.example.org --kerberos
      logs in by the Kerberos ticket
  nutcpc -H fw1.example.org -H fw2.example.org --ca ca.crt -C alice.crt -K alice.key
      at two servers at once
  nutcpc -H 10.0.0.1 --also '[fd00::1]:4129' --name fw.example.org …
      the server has an IPv4 and an IPv6 address and no name in DNS
  nutcpc --system --uid 1000 …
      as root, for the sockets of user number 1000
  nutcpc status
      where it is logged in: exit code 0 when everywhere, 75 when not, 69 when none of yours runs
  nutcpc logout fw1.example.org
      ends one session; without a name all of them, and nutcpc

Signals: TERM and INT log out and end; HUP reads configuration, password and certificates again: servers that are gone from it
are left, new ones and those that had failed are tried, and the other sessions go on.

After a loss of the connection or a restart of the server the session is had again by a ticket, without the password, for as
long as the server lets tickets count.

Exit codes: 0 logged out; 64 wrong options; 69 the server cannot be reached or was lost (with --once); 71 the kernel lacks
something; 73 another nutcpc of yours runs; 75 the server ended the session and wants no other now; 77 login refused, or root
needed; 78 a file, name or certificate is wrong. With several servers that of the first that failed, once none is left.

NUFW_LOG=debug shows more on standard error.";

/// Log in to a firewall that knows its users.
#[derive(Debug, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
#[command(
    name = "nutcpc", version, about, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) asks: Option<Asks>,
    /// An authentication server; port 4129 unless said otherwise. May be repeated: a session with each. None of the
    /// configuration's servers counts then
    #[arg(long, short = 'H', visible_alias = "host", value_name = "HOST[:PORT]")]
    pub(crate) server: Vec<String>,
    /// Port of the servers, if not said with their names
    #[arg(long, short = 'p', value_name = "PORT", requires = "server")]
    pub(crate) port: Option<u16>,
    /// A further address of the same server, as for the other address family; may be repeated
    #[arg(long, value_name = "ADDR[:PORT]", requires = "server")]
    pub(crate) also: Vec<String>,
    /// Name that the server's certificate must prove [default: the host of --server]
    #[arg(long, value_name = "NAME", requires = "server")]
    pub(crate) name: Option<String>,
    /// Certificates of the authority that the server's certificate is from, PEM [default: /etc/nufw/ca.crt]
    #[arg(long, short = 'A', value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Revocation list of that authority, PEM
    #[arg(long, short = 'R', value_name = "FILE")]
    pub(crate) crl: Option<PathBuf>,
    /// Your user name; needed unless you log in by certificate or Kerberos ticket
    #[arg(long, short = 'U', value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// File whose first line is the password; only you may be able to read it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_fd", "certificate"])]
    pub(crate) password_file: Option<PathBuf>,
    /// Number of an open file descriptor to read the password from (0 is standard input)
    #[arg(long, value_name = "N", conflicts_with = "certificate")]
    pub(crate) password_fd: Option<u32>,
    /// Your certificate, PEM: log in by it instead of a password
    #[arg(long, short = 'C', value_name = "FILE", requires = "key")]
    pub(crate) certificate: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, short = 'K', value_name = "FILE", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// Log in by your Kerberos ticket instead of a password, as kinit gets one; the server's principal is
    /// nuauth/HOST@REALM
    #[arg(long, conflicts_with_all = ["certificate", "password_file", "password_fd"])]
    pub(crate) kerberos: bool,
    /// Log in by this alone: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN, EXTERNAL or GS2-KRB5-PLUS [default: the best that is offered]
    #[arg(long, value_name = "NAME", value_parser = mechanism)]
    pub(crate) mechanism: Option<Mechanism>,
    /// Answer for another user's sockets; needs root
    #[arg(long, requires = "uid")]
    pub(crate) system: bool,
    /// Number of the user whose sockets are claimed
    #[arg(long, value_name = "N", requires = "system")]
    pub(crate) uid: Option<u32>,
    /// End when the server cannot be reached or the session is lost, instead of trying again
    #[arg(long)]
    pub(crate) once: bool,
    /// Log in again, after a pause, also when the server has ended the session (an administrator, idleness, another login)
    #[arg(long, conflicts_with = "once")]
    pub(crate) stay: bool,
    /// Keep the ticket that the server gives in this file: for a while the next login needs no password, also after this
    /// program was ended by force
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// Show on the desktop which of your connections are refused, where the server tells of them
    #[arg(long, conflicts_with = "system")]
    pub(crate) notify: bool,
    /// Your configuration file, in the place of nufw/nutcpc.toml below `XDG_CONFIG_HOME`
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of this nutcpc, beside another one of yours
    #[arg(long, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print nothing but errors
    #[arg(long, short = 'q', action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

/// What a nutcpc that runs is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Asks {
    /// Show where your nutcpc is logged in
    ///
    /// Exit codes: 0 logged in everywhere; 75 not everywhere; 69 none of yours runs, or it does not answer.
    Status {
        /// Name of the nutcpc that is asked, if it has one
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Log out at one server, or everywhere
    ///
    /// Without a server your nutcpc ends. Exit codes: 0 logged out; 64 there is no such server; 69 none of yours runs, or it does
    /// not answer.
    Logout {
        /// The server, as `nutcpc status` names it; its port may be left out
        server: Option<String>,
        /// Name of the nutcpc that is asked, if it has one
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
    },
}

fn mechanism(name: &str) -> Result<Mechanism, String> {
    Mechanism::parse(name).ok_or_else(|| "there is no such mechanism here".to_owned())
}
