//! The agent's configuration: `nufw-agent.toml` under the command line, checked before anything is opened.
//!
//! Reads and checks only. Every complaint names the place where the value was set.

use crate::agent::Settings;
use crate::check::{AgentConfigView, TlsContent, TlsFile};
use crate::conntrack::{EventOptions, Interest};
use crate::link::Target;
use crate::queue::QueueOptions;
use nufw_common::config::{ByteSize, ConfigError, HexOrInt, HumanDuration, Loaded, Loader, Problems};
use nufw_common::tls::{self, ClientTls};
use nufw_proto::{GATEWAY_ALPN, GATEWAY_PORT, Mark};
use serde::Deserialize;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is when the command line does not say.
pub const DEFAULT_FILE: &str = "/etc/nufw/nufw-agent.toml";

/// What holds where the file is silent.
const DEFAULTS: &str = r#"
[tls]
ca = "ca.crt"
certificate = "agent.crt"
key = "agent.key"

[queue]
number = 0
length = 8192
copy-range = 256
packet-timeout = "15s"
max-pending = 10000
receive-buffer = "16MiB"

[conntrack]
relay = true
marked-only = false
receive-buffer = "64MiB"
max-unacknowledged = 262144

[marks]
set = true
mask = "0x00ffffff"
reject-bit = "0x01000000"

[worker]
hung-after = "10s"
"#;

/// Least and most time that a packet may wait. The server gives up two seconds earlier.
const PACKET_TIMEOUT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_mins(5));
/// Least bytes of a packet that hold the headers of an ordinary one.
const MIN_COPY_RANGE: u16 = 80;
/// Least and most time that a worker may be silent. It says that it lives four times a second.
const HUNG_AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));
/// The kernel reads the size of a buffer as a signed 32-bit number and doubles it.
const MAX_BUFFER: u64 = 0x3fff_ffff;

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The authentication server.
    #[serde(default)]
    pub server: Server,
    /// Certificates.
    pub tls: Tls,
    /// The NFQUEUE.
    pub queue: Queue,
    /// The connection table.
    pub conntrack: Conntrack,
    /// Marks.
    pub marks: Marks,
    /// The worker and its supervisor.
    pub worker: Worker,
}

/// `[worker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Worker {
    /// How long a worker may be silent before it is ended and replaced.
    pub hung_after: HumanDuration,
}

/// `[server]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Server {
    /// Host and, if not 4128, port. Needed to run, not to check the host or to print rules.
    pub address: Option<String>,
    /// The name that its certificate must carry; the host of the address by default.
    pub name: Option<String>,
}

/// `[tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tls {
    /// Authorities that the server's certificate is from.
    pub ca: PathBuf,
    /// The gateway's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Revocation list.
    pub crl: Option<PathBuf>,
}

/// `[queue]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Queue {
    /// Number, as in the rule (`-q`).
    pub number: u16,
    /// Most packets that wait in the kernel.
    pub length: u32,
    /// Bytes of each packet that are copied.
    pub copy_range: u16,
    /// How long a packet waits (`-t`).
    pub packet_timeout: HumanDuration,
    /// Most packets that wait for an answer.
    pub max_pending: usize,
    /// Receive buffer.
    pub receive_buffer: ByteSize,
}

/// `[conntrack]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Conntrack {
    /// Whether events are relayed (`-C`).
    pub relay: bool,
    /// Whether only those of marked connections are (`-M`).
    pub marked_only: bool,
    /// Receive buffer.
    pub receive_buffer: ByteSize,
    /// Most events that are kept until the server has them.
    pub max_unacknowledged: usize,
}

/// `[marks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Marks {
    /// Whether an accepted packet gets its user's mark (`-m`).
    pub set: bool,
    /// The bits that are the user's number.
    pub mask: HexOrInt,
    /// The bit that a later rule rejects by, or 0.
    pub reject_bit: HexOrInt,
}

/// What the command line says about keys of the file: key, value, option.
pub type Overrides = Vec<(&'static str, String, &'static str)>;

/// Loads and checks. `file` must exist if it was named on the command line.
pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Config, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut layers = Loader::new("nufw-agent")
        .defaults(DEFAULTS)
        .file(path, file.is_some())
        .conf_d(path.with_extension("d"))
        .env("NUFW_AGENT");
    for (key, value, option) in overrides {
        layers = layers.override_key(key, value, option);
    }
    let mut loaded: Loaded<Config> = layers.load()?;
    check(&loaded)?;
    let base = path.parent().unwrap_or(Path::new("/"));
    let config = &mut loaded.value;
    for file in [
        &mut config.tls.ca,
        &mut config.tls.certificate,
        &mut config.tls.key,
    ]
    .into_iter()
    .chain(&mut config.tls.crl)
    {
        *file = base.join(&file);
    }
    // -M means nothing without what it stands on.
    config.conntrack.relay |= config.conntrack.marked_only;
    config.marks.set |= config.conntrack.marked_only;
    Ok(loaded.value)
}

fn check(loaded: &Loaded<Config>) -> Result<(), ConfigError> {
    let Config {
        server,
        queue,
        conntrack,
        marks,
        worker,
        ..
    } = &loaded.value;
    let mut problems = Problems::default();
    if let Some(address) = &server.address {
        let known = split_address(address);
        if known.is_none() {
            problems.push(loaded.reject(
                "server.address",
                format_args!("{address:?}"),
                "a host name or address, and a port if it is not 4128: \"nuauth.example:4128\", \"[2001:db8::1]:4128\"",
            ));
        } else if loaded.value.target().is_err() {
            let (key, found) = match &server.name {
                Some(name) => ("server.name", name),
                None => ("server.address", address),
            };
            problems.push(loaded.reject(
                key,
                format_args!("{found:?}"),
                "a name that a certificate can carry",
            ));
        }
    }
    let mut within = |key: &str, found: u64, least: u64, most: u64| {
        if found < least || found > most {
            problems.push(loaded.reject(key, found, format_args!("a number from {least} to {most}")));
        }
    };
    within("queue.length", queue.length.into(), 1, 1 << 20);
    within(
        "queue.copy-range",
        queue.copy_range.into(),
        MIN_COPY_RANGE.into(),
        u16::MAX.into(),
    );
    within("queue.max-pending", queue.max_pending as u64, 1, 1 << 20);
    within(
        "queue.receive-buffer",
        queue.receive_buffer.0,
        128 * 1024,
        MAX_BUFFER,
    );
    within(
        "conntrack.receive-buffer",
        conntrack.receive_buffer.0,
        128 * 1024,
        MAX_BUFFER,
    );
    within(
        "conntrack.max-unacknowledged",
        conntrack.max_unacknowledged as u64,
        1024,
        1 << 24,
    );
    for (key, found, (least, most)) in [
        ("queue.packet-timeout", queue.packet_timeout, PACKET_TIMEOUT),
        ("worker.hung-after", worker.hung_after, HUNG_AFTER),
    ] {
        if found.0 < least || found.0 > most {
            let expected = format!("a time from {} to {}", HumanDuration(least), HumanDuration(most));
            problems.push(loaded.reject(key, found, expected));
        }
    }
    if marks.mask.0 == 0 {
        problems.push(loaded.reject(
            "marks.mask",
            "0x00000000",
            "at least one bit for the user's number",
        ));
    }
    let bit = marks.reject_bit.0;
    if bit.count_ones() > 1 || bit & marks.mask.0 != 0 {
        problems.push(loaded.reject(
            "marks.reject-bit",
            format_args!("{bit:#010x}"),
            format_args!(
                "one bit outside of marks.mask ({:#010x}), or 0 to drop instead",
                marks.mask.0
            ),
        ));
    }
    problems.finish(())
}

/// Host and port of an address; the port of the protocol where none is said.
fn split_address(address: &str) -> Option<(String, u16)> {
    if let Ok(bare) = address.parse::<Ipv6Addr>() {
        return Some((bare.to_string(), GATEWAY_PORT));
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let host = host.parse::<Ipv6Addr>().ok()?;
            (
                host.to_string(),
                port.strip_prefix(':').or(port.is_empty().then_some(""))?,
            )
        }
        None => match address.split_once(':') {
            Some((host, port)) if !port.is_empty() => (host.to_owned(), port),
            Some(_) => return None,
            None => (address.to_owned(), ""),
        },
    };
    let port = if port.is_empty() {
        GATEWAY_PORT
    } else {
        port.parse().ok().filter(|port| *port != 0)?
    };
    (!host.is_empty()).then_some((host, port))
}

impl Config {
    /// Host and port of the server.
    pub fn server_address(&self) -> Option<(String, u16)> {
        split_address(self.server.address.as_deref()?)
    }

    /// Where the link goes.
    pub fn target(&self) -> Result<Target, ConfigError> {
        let (host, port) = self.server_address().ok_or_else(|| {
            ConfigError::new(format!(
                "key server.address is missing: name the authentication server in {DEFAULT_FILE}, in the file given with -f, or with -d"
            ))
        })?;
        let name = tls::server_name(self.server.name.as_deref().unwrap_or(&host))
            .map_err(|error| ConfigError::new(error.to_string()))?;
        let address = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Ok(Target { address, name })
    }

    /// What `check` needs to know.
    pub fn check_view(&self) -> AgentConfigView {
        let tls = &self.tls;
        let mut files = vec![
            TlsFile {
                key: "tls.ca",
                path: tls.ca.clone(),
                content: TlsContent::Certificates,
            },
            TlsFile {
                key: "tls.certificate",
                path: tls.certificate.clone(),
                content: TlsContent::Certificates,
            },
            TlsFile {
                key: "tls.key",
                path: tls.key.clone(),
                content: TlsContent::Key,
            },
        ];
        files.extend(tls.crl.clone().map(|path| TlsFile {
            key: "tls.crl",
            path,
            content: TlsContent::RevocationList,
        }));
        AgentConfigView {
            queue: self.queue.number,
            queue_buffer: usize::try_from(self.queue.receive_buffer.0).unwrap_or(usize::MAX),
            event_buffer: usize::try_from(self.conntrack.receive_buffer.0).unwrap_or(usize::MAX),
            relays_events: self.conntrack.relay,
            sets_marks: self.marks.set,
            reject_bit: self.marks.reject_bit.0,
            files,
        }
    }

    /// How the queue is opened.
    pub fn queue_options(&self) -> QueueOptions {
        QueueOptions {
            number: self.queue.number,
            length: self.queue.length,
            copy_range: self.queue.copy_range,
            receive_buffer: usize::try_from(self.queue.receive_buffer.0).unwrap_or(usize::MAX),
            fail_open: false,
        }
    }

    /// Which connections are of interest.
    pub fn interest(&self) -> Interest {
        if self.conntrack.marked_only {
            Interest::Marked(Mark(self.marks.mask.0))
        } else {
            Interest::All
        }
    }

    /// How the event socket is opened, if it is.
    pub fn event_options(&self) -> Option<EventOptions> {
        self.conntrack.relay.then(|| EventOptions {
            receive_buffer: usize::try_from(self.conntrack.receive_buffer.0).unwrap_or(usize::MAX),
            interest: self.interest(),
        })
    }

    /// The files of the TLS session.
    pub fn client_tls(&self) -> ClientTls {
        ClientTls {
            ca: self.tls.ca.clone(),
            crl: self.tls.crl.clone(),
            cert_key: Some((self.tls.certificate.clone(), self.tls.key.clone())),
            alpn: GATEWAY_ALPN.to_vec(),
        }
    }

    /// What the agent itself needs to know.
    pub fn settings(&self) -> Settings {
        Settings {
            sets_marks: self.marks.set,
            mark_mask: Mark(self.marks.mask.0),
            reject_bit: Mark(self.marks.reject_bit.0),
            queue_length: self.queue.length,
            packet_timeout: self.queue.packet_timeout.0,
            max_pending: self.queue.max_pending,
            max_unacknowledged: self.conntrack.max_unacknowledged,
            interest: self.interest(),
        }
    }
}

#[cfg(test)]
mod tests;
