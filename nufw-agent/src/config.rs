//! The agent's configuration: `nufw-agent.toml` under the command line, checked before anything is opened.
//!
//! Reads and checks only. Every complaint names the place where the value was set.

mod check;
mod chosen;
mod flags;

use crate::agent::Settings;
use crate::check::{AgentConfigView, TlsContent, TlsFile};
use crate::conntrack::{EventOptions, Interest};
use crate::loss::{Choices, OnLoss};
use crate::observe::{self, Places};
use crate::queue::QueueOptions;
use crate::rules::{Backend, QueueHook, Queues, RulesOptions};
use nufw_common::config::{ByteSize, ConfigError, HexOrInt, HumanDuration, Loaded, Loader};
use nufw_common::listen::Place;
use nufw_common::sandbox::Privileges;
use nufw_common::tls::ClientTls;
use nufw_proto::{CLIENT_PORT, GATEWAY_ALPN, Mark};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

mod server;

pub use server::{Names, Server};

/// Where the configuration is when the command line does not say.
pub const DEFAULT_FILE: &str = "/etc/nufw/nufw-agent.toml";

/// What holds where the file is silent.
const DEFAULTS: &str = r#"
[server]
return-after = "60s"

[tls]
ca = "ca.crt"
certificate = "agent.crt"
key = "agent.key"

[queue]
number = 0
count = 1
zones = [0]
length = 8192
copy-range = 256
packet-timeout = "15s"
max-pending = 10000
receive-buffer = "16MiB"
on-server-loss = "drop"
on-queue-full = "drop"
on-agent-loss = "drop"

[conntrack]
marked-only = false
track-by-flags = false
accept-src = []
accept-dst = []
accept-proto = []
receive-buffer = "64MiB"
max-unacknowledged = 262144

[marks]
set = true
mask = "0x00ffffff"
reject-bit = "0x01000000"
kill-bit = "0x02000000"
blind-bit = "0x04000000"

[rules]
hooks = ["forward"]
backend = "auto"
watch = "10s"
reapply = false

[metrics]

[status]

[worker]
hung-after = "10s"
"#;

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The authentication server.
    pub server: Server,
    /// Certificates.
    pub tls: Tls,
    /// The NFQUEUE.
    pub queue: Queue,
    /// The connection table.
    pub conntrack: Conntrack,
    /// Marks.
    pub marks: Marks,
    /// The firewall's rules.
    pub rules: Rules,
    /// Metrics and health.
    pub metrics: Metrics,
    /// The status.
    pub status: Status,
    /// User and sandbox.
    #[serde(default)]
    pub privileges: Privileges,
    /// The worker and its supervisor.
    pub worker: Worker,
    /// Where all this is from, if the file is there.
    #[serde(skip)]
    pub file: PathBuf,
}

/// `[worker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Worker {
    /// How long a worker may be silent before it is ended and replaced.
    pub hung_after: HumanDuration,
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
    /// How many queues, from that number on.
    pub count: u16,
    /// The conntrack zone of all queues, or one for each.
    pub zones: Vec<u16>,
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
    /// What becomes of packets while no server answers.
    pub on_server_loss: OnLoss,
    /// What becomes of packets that find the queue or the table of those that wait full.
    pub on_queue_full: OnLoss,
    /// What becomes of packets while no agent reads the queue.
    pub on_agent_loss: OnLoss,
}

/// `[conntrack]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Conntrack {
    /// Whether events are relayed (`-C`); they are, unless something else is chosen.
    pub relay: Option<bool>,
    /// Whether only those of marked connections are (`-M`).
    pub marked_only: bool,
    /// Whether connections are followed by the flags of TCP segments instead (`--track-by-flags`).
    pub track_by_flags: bool,
    /// Only those of connections from these networks; all, if empty.
    pub accept_src: Vec<String>,
    /// Only those of connections to these networks; all, if empty.
    pub accept_dst: Vec<String>,
    /// Only those of these protocols; all, if empty.
    pub accept_proto: Vec<String>,
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
    /// The bit of a connection's mark that later rules refuse by, or 0.
    pub kill_bit: HexOrInt,
    /// The bit of connections that passed without a verdict, or 0.
    pub blind_bit: HexOrInt,
}

/// `[rules]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rules {
    /// Where connections are held back.
    pub hooks: Vec<QueueHook>,
    /// By which commands rules are loaded and removed.
    pub backend: Backend,
    /// How often it is looked whether they are still there; 0 never.
    pub watch: HumanDuration,
    /// Whether they are loaded again when they are gone.
    pub reapply: bool,
}

/// `[metrics]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Metrics {
    /// Where metrics and health are told over HTTP; nowhere when it is absent or empty.
    pub listen: Option<String>,
}

/// `[status]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Status {
    /// The socket of `nufw-agent status`; none when it is empty.
    pub socket: Option<PathBuf>,
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
    check::check(&loaded)?;
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
    path.clone_into(&mut config.file);
    // -M means nothing without what it stands on.
    if config.conntrack.marked_only {
        config.conntrack.relay = Some(true);
    }
    config.marks.set |= config.conntrack.marked_only;
    Ok(loaded.value)
}

impl Queue {
    /// From the first to the last.
    fn range(&self) -> Queues {
        Queues {
            first: self.number,
            last: self.number.saturating_add(self.count.saturating_sub(1)),
        }
    }
}

impl Config {
    /// What becomes of packets that cannot be asked about.
    pub fn on_loss(&self) -> Choices {
        Choices {
            server: self.queue.on_server_loss,
            full: self.queue.on_queue_full,
            agent: self.queue.on_agent_loss,
        }
    }

    /// The mark of what passes unasked; 0 where nothing may, so that no rule and no row speaks of it.
    fn blind_bit(&self) -> Mark {
        Mark(if self.on_loss().may_be_blind() {
            self.marks.blind_bit.0
        } else {
            0
        })
    }

    /// The rules that this configuration needs. `servers` are the addresses of the servers of `[server]`.
    pub fn rules(&self, servers: Vec<(IpAddr, u16)>) -> RulesOptions {
        RulesOptions {
            queues: self.queue.range(),
            hooks: self.rules.hooks.clone(),
            servers,
            client_port: CLIENT_PORT,
            set_marks: self.marks.set,
            mask: self.marks.mask.0,
            reject_bit: self.marks.reject_bit.0,
            kill_bit: self.marks.kill_bit.0,
            blind_bit: self.blind_bit().0,
            on_loss: self.on_loss(),
            event_mask: self.conntrack.relays(),
            flags_queue: self.queue_options().passing(),
        }
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
            rules: None,
            queue_buffer: usize::try_from(self.queue.receive_buffer.0).unwrap_or(usize::MAX),
            event_buffer: usize::try_from(self.conntrack.receive_buffer.0).unwrap_or(usize::MAX),
            relays_events: self.conntrack.relays(),
            flags_queue: self.queue_options().passing(),
            sandbox: self.privileges.sandbox,
            sets_marks: self.marks.set,
            mask: self.marks.mask.0,
            reject_bit: self.marks.reject_bit.0,
            kill_bit: self.marks.kill_bit.0,
            blind_bit: self.blind_bit().0,
            on_loss: self.on_loss(),
            files,
        }
    }

    /// How the queue is opened.
    pub fn queue_options(&self) -> QueueOptions {
        QueueOptions {
            number: self.queue.number,
            count: self.queue.count,
            length: self.queue.length,
            copy_range: self.queue.copy_range,
            receive_buffer: usize::try_from(self.queue.receive_buffer.0).unwrap_or(usize::MAX),
            fail_open: self.queue.on_queue_full == OnLoss::Accept,
            passing: self.conntrack.track_by_flags,
        }
    }

    /// Where the agent can be watched.
    pub fn places(&self) -> Places {
        let named = self.status.socket.clone();
        Places {
            metrics: self.metrics.listen.as_deref().and_then(Place::parse),
            status_named: named.is_some(),
            status: Some(named.unwrap_or_else(|| observe::DEFAULT_SOCKET.into()))
                .filter(|socket| !socket.as_os_str().is_empty()),
        }
    }

    /// Which connections are of interest.
    pub fn interest(&self) -> Interest {
        // What passed without a verdict has no user's mark, and must be told of all the same.
        let bits = Mark(self.marks.mask.0 | self.blind_bit().0);
        let marks = self.conntrack.marked_only.then_some(bits);
        match (chosen::chosen(&self.conntrack, marks), marks) {
            (Some(chosen), _) => Interest::Chosen(chosen.into()),
            (None, Some(bits)) => Interest::Marked(bits),
            (None, None) => Interest::All,
        }
    }

    /// How the event socket is opened, if it is.
    pub fn event_options(&self) -> Option<EventOptions> {
        self.conntrack.relays().then(|| EventOptions {
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
            kill_bit: Mark(self.marks.kill_bit.0),
            blind_bit: self.blind_bit(),
            on_loss: self.on_loss(),
            queue_length: self.queue.length,
            first_queue: self.queue.number,
            zones: self.queue.zones.clone(),
            queues: self.queue.count,
            flags_queue: self.queue_options().passing(),
            packet_timeout: self.queue.packet_timeout.0,
            max_pending: self.queue.max_pending,
            max_unacknowledged: self.conntrack.max_unacknowledged,
            interest: self.interest(),
        }
    }
}

#[cfg(test)]
mod tests;
