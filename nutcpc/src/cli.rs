//! The command: options in, one line a state out, exit codes of sysexits.
//!
//! A password is never an option: everybody on the host can read those.

use crate::client::{Client, Command, Options};
use crate::credentials::{Login, Password, read_password};
use crate::event::Event;
use crate::sasl::Mechanism;
use anyhow::{Context as _, anyhow};
use clap::{ArgAction, Parser};
use nufw_common::exit::{Exit, Failure, OrExit as _, report};
use nufw_common::lifecycle::{Signal, Signals};
use nufw_common::{logging, privileges};
use nufw_proto::CLIENT_PORT;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

const LONG_ABOUT: &str = "\
Logs in to the authentication server of a user-aware firewall and stays in the foreground. While it runs, the \
connections of your programs are known to be yours: the server asks this client about each new one, and the client \
answers by what the kernel says of this host's sockets. Connections of other users of this host are never claimed.

All global addresses of this host are proven to the server, IPv4 and IPv6, and followed when they change.";

const EXAMPLES: &str = "\
Examples:
  nutcpc --server fw.example.org --ca /etc/nufw/ca.crt --user alice
      asks for the password on the terminal
  nutcpc -H fw.example.org -U alice --password-file ~/.nufw-password --ca ca.crt
  nutcpc -H fw.example.org --ca ca.crt --certificate alice.crt --key alice.key
      logs in by certificate
  nutcpc -H 10.0.0.1 --also '[fd00::1]:4129' --name fw.example.org …
      the server has an IPv4 and an IPv6 address and no name in DNS
  nutcpc --system --uid 1000 …
      as root, for the sockets of user number 1000

Signals: TERM and INT log out and end; HUP reads password and certificates again for the next connection.

After a loss of the connection or a restart of the server the session is had again by a ticket, without the password, for as
long as the server lets tickets count.

Exit codes: 0 logged out; 64 wrong options; 69 the server cannot be reached or was lost (with --once); 71 the kernel lacks
something; 75 the server ended the session and wants no other now; 77 login refused, or root needed; 78 a file, name or certificate is wrong.

NUFW_LOG=debug shows more on standard error.";

/// Log in to a firewall that knows its users.
#[derive(Debug, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
#[command(name = "nutcpc", version, about, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 100)]
struct Args {
    /// The authentication server; port 4129 unless said otherwise
    #[arg(long, short = 'H', visible_alias = "host", value_name = "HOST[:PORT]")]
    server: String,
    /// Port of the server, if not said with its name
    #[arg(long, short = 'p', value_name = "PORT")]
    port: Option<u16>,
    /// A further address of the same server, as for the other address family; may be repeated
    #[arg(long, value_name = "ADDR[:PORT]")]
    also: Vec<String>,
    /// Name that the server's certificate must prove [default: the host of --server]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Certificates of the authority that the server's certificate is from, PEM
    #[arg(long, short = 'A', value_name = "FILE", default_value = "/etc/nufw/ca.crt")]
    ca: PathBuf,
    /// Revocation list of that authority, PEM
    #[arg(long, short = 'R', value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Your user name; needed unless you log in by certificate
    #[arg(long, short = 'U', value_name = "NAME")]
    user: Option<String>,
    /// File whose first line is the password; only you may be able to read it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_fd", "certificate"])]
    password_file: Option<PathBuf>,
    /// Number of an open file descriptor to read the password from (0 is standard input)
    #[arg(long, value_name = "N", conflicts_with = "certificate")]
    password_fd: Option<u32>,
    /// Your certificate, PEM: log in by it instead of a password
    #[arg(long, short = 'C', value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, short = 'K', value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Log in by this alone: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN or EXTERNAL [default: the best that is offered]
    #[arg(long, value_name = "NAME", value_parser = mechanism)]
    mechanism: Option<Mechanism>,
    /// Answer for another user's sockets; needs root
    #[arg(long, requires = "uid")]
    system: bool,
    /// Number of the user whose sockets are claimed
    #[arg(long, value_name = "N", requires = "system")]
    uid: Option<u32>,
    /// End when the server cannot be reached or the session is lost, instead of trying again
    #[arg(long)]
    once: bool,
    /// Log in again, after a pause, also when the server has ended the session (an administrator, idleness, another login)
    #[arg(long, conflicts_with = "once")]
    stay: bool,
    /// Keep the ticket that the server gives in this file: for a while the next login needs no password, also after this
    /// program was ended by force
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print nothing but errors
    #[arg(long, short = 'q', action = ArgAction::SetTrue)]
    quiet: bool,
}

/// The command line, for its manual page.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Runs the command.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are what was asked for, not errors.
            let is_wrong = error.use_stderr();
            let _ = error.print();
            return if is_wrong {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    logging::init("warn");
    report(run(args))
}

fn run(args: Args) -> Result<(), Failure> {
    drop_privileges(&args)?;
    let (is_json, is_quiet) = (args.json, args.quiet);
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let mut signals = Signals::new()
            .context("cannot receive signals")
            .or_exit(Exit::OsErr)?;
        let (sender, mut commands) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let command = match signals.next().await {
                    Signal::Terminate => Command::Stop,
                    Signal::Reload => Command::Reload,
                };
                if sender.send(command).await.is_err() {
                    return;
                }
            }
        });
        let mut emit = |event: Event| {
            if !is_quiet {
                print(&event, is_json);
            }
        };
        // Each message already names its cause.
        let failed = |error: crate::ClientError| Failure::new(error.exit(), anyhow!("{error}"));
        let client = Client::new(options).map_err(failed)?;
        client.run(&mut commands, &mut emit).await.map_err(failed)
    })
}

/// Root's other powers are not needed for looking at other users' processes and reading the files named here.
fn drop_privileges(args: &Args) -> Result<(), Failure> {
    use privileges::Capability::{CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE};
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    tracing::debug!(
        system = args.system,
        "keeping only what is needed to see whose a socket is"
    );
    privileges::keep_only(&[CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH])
        .context("cannot give up root's powers")
        .or_exit(Exit::OsErr)
}

fn options(args: Args) -> Result<Options, Failure> {
    let (host, port) = host_and_port(&args.server)
        .with_context(|| format!("--server {}", args.server))
        .or_exit(Exit::Usage)?;
    if let (Some(one), Some(other)) = (port, args.port)
        && one != other
    {
        let error = anyhow!("--server says port {one} and --port {other}: leave one of them out");
        return Err(Failure::new(Exit::Usage, error));
    }
    let port = port.or(args.port).unwrap_or(CLIENT_PORT);
    let also = args
        .also
        .iter()
        .map(|text| further_address(text, port).with_context(|| format!("--also {text}")))
        .collect::<Result<Vec<_>, _>>()
        .or_exit(Exit::Usage)?;
    let certificate = args.certificate.zip(args.key);
    let login = match (&certificate, args.user) {
        (Some(_), user) => Login::Certificate { user },
        (None, Some(user)) => {
            let may_wait = args.ticket_file.as_ref().is_some_and(|file| file.exists());
            let password = password(args.password_file, args.password_fd, &user, &host, may_wait)?;
            Login::Password { user, password }
        }
        (None, None) => {
            let error = anyhow!("who are you? Give --user NAME, or --certificate FILE and --key FILE");
            return Err(Failure::new(Exit::Usage, error));
        }
    };
    if let Some(wanted) = args.mechanism
        && !login.mechanisms().contains(&wanted)
    {
        let error = anyhow!("--mechanism {wanted} is not for these credentials");
        return Err(Failure::new(Exit::Usage, error));
    }
    Ok(Options {
        host,
        port,
        also,
        name: args.name,
        ca: args.ca,
        crl: args.crl,
        certificate,
        mechanism: args.mechanism,
        login,
        system_uid: args.uid.filter(|_| args.system),
        once: args.once,
        stay: args.stay,
        ticket_file: args.ticket_file,
    })
}

fn mechanism(name: &str) -> Result<Mechanism, String> {
    Mechanism::parse(name).ok_or_else(|| "there is no such mechanism here".to_owned())
}

/// With a ticket the terminal is asked only when it turns out not to be good any more.
fn password(
    file: Option<PathBuf>,
    fd: Option<u32>,
    user: &str,
    host: &str,
    may_wait: bool,
) -> Result<Password, Failure> {
    let words = format!("Password of {user} on {host}: ");
    match (file, fd) {
        (Some(file), _) => Ok(Password::File(file)),
        (None, Some(0)) => read_password(std::io::stdin().lock(), Path::new("standard input"))
            .map(Password::Given)
            .or_exit(Exit::Config),
        (None, Some(fd)) => {
            let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
            let file = std::fs::File::open(&path)
                .with_context(|| format!("cannot read the password from descriptor {fd}"))
                .or_exit(Exit::Config)?;
            read_password(file, &path)
                .map(Password::Given)
                .or_exit(Exit::Config)
        }
        (None, None) if may_wait => Ok(Password::Asked(words)),
        (None, None) => rpassword::prompt_password(words)
            .map(|password| Password::Given(Zeroizing::new(password)))
            .context("there is no terminal to ask for the password on: give --password-file or --password-fd")
            .or_exit(Exit::Usage),
    }
}

/// `host`, `host:port`, `address`, `address:port`, `[address]:port`; an IPv6 address without brackets has no port.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), anyhow::Error> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').context("a bracket is open")?;
        host.parse::<std::net::Ipv6Addr>()
            .context("between the brackets there must be an IPv6 address")?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if rest.is_empty() => None,
            None => return Err(anyhow!("after the bracket there must be :PORT or nothing")),
        };
        return Ok((host.to_owned(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (text, None),
    };
    if host.is_empty() {
        return Err(anyhow!("there must be a host name or an address"));
    }
    Ok((host.to_owned(), port))
}

fn parse_port(text: &str) -> Result<u16, anyhow::Error> {
    text.parse::<u16>()
        .ok()
        .filter(|&port| port != 0)
        .with_context(|| format!("\"{text}\" is not a port from 1 to 65535"))
}

fn further_address(text: &str, port: u16) -> Result<SocketAddr, anyhow::Error> {
    let (host, own_port) = host_and_port(text)?;
    let ip: IpAddr = host.parse().context("there must be an address, not a name")?;
    Ok(SocketAddr::new(ip, own_port.unwrap_or(port)))
}

/// One line on standard output. Nobody may be reading; that is no reason to log out.
fn print(event: &Event, is_json: bool) {
    let mut out = std::io::stdout().lock();
    let line = if is_json {
        event.to_json().to_string()
    } else {
        event.to_string()
    };
    // What the server says reaches a terminal: control characters were refused on the wire.
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, is_terminal = out.is_terminal(), "a line could not be printed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_server_is_a_name_or_an_address_with_or_without_port() {
        let cases = [
            ("fw.example", "fw.example", None),
            ("fw.example:41", "fw.example", Some(41)),
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:41", "10.0.0.1", Some(41)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:41", "fd00::1", Some(41)),
        ];
        for (text, host, port) in cases {
            assert_eq!(host_and_port(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        for wrong in [
            "",
            ":41",
            "fw:",
            "fw:x",
            "fw:0",
            "fw:65536",
            "[fd00::1",
            "[fw]:1",
            "[fd00::1]41",
        ] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_further_address_is_no_name_and_has_the_servers_port_by_default() {
        assert_eq!(
            further_address("fd00::1", 41).unwrap().to_string(),
            "[fd00::1]:41"
        );
        assert_eq!(
            further_address("[fd00::1]:42", 41).unwrap().to_string(),
            "[fd00::1]:42"
        );
        assert!(further_address("fw.example", 41).is_err());
    }

    #[test]
    fn a_password_cannot_be_an_option() {
        for wrong in ["--password=x", "-P"] {
            assert!(
                Args::try_parse_from(["nutcpc", "-H", "x", "-U", "y", wrong]).is_err(),
                "{wrong}"
            );
        }
    }
}
