//! The command line: as NuFW's users know it, with the file beneath and the check and the rules beside it.
//!
//! Puts the parts together and says how the program ends; what the parts do is theirs.

use crate::agent::{Agent, AgentError, Kernel, LoadTls, Reapply, Refusals, Watch};
use crate::check::{self, AgentConfigView};
use crate::config::{self, Config, Overrides};
use crate::conntrack::{Control, Events};
use crate::link::Link;
use crate::observe::{self, Opened, StatusError};
use crate::queue::{InterfaceNames, Queue, QueueError};
use crate::rules::{self, Backend, LoadError};
use crate::sandbox;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nufw_common::privileges::{self, Capability};
use nufw_common::{clock, lifecycle, logging, tls};
use nufw_proto::gateway::{Capabilities, Hello};
use nufw_proto::{BootId, Text};
use rand::RngExt as _;
use std::io::Write as _;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Name and version, as the server's log shows it.
const SOFTWARE: &str = concat!("nufw-agent ", env!("CARGO_PKG_VERSION"));

/// Parts of the protocol that need nothing of the host.
const ALWAYS: Capabilities = Capabilities(Capabilities::WITHOUT_VERDICT.0 | Capabilities::BRIDGE_PORTS.0);

const EXAMPLES: &str = "\
Examples:
  nufw-agent check                      what this host lacks, and how to mend it
  nufw-agent rules                      the firewall rules that hold new connections back, to read
  nufw-agent rules --apply              load them, all or none
  nufw-agent -d nuauth.example          run, with certificates from /etc/nufw
  nufw-agent -f /etc/nufw/gw1.toml -q 3 -t 20s
  nufw-agent status                     how the running agent is
  nufw-agent -M                         relay events of marked connections only

A rule sends the first packet of each new connection to the queue. It passes when the server
knows its user and the access list allows it. While the server is away, new connections are
dropped, unless the configuration says otherwise; those that exist go on.

Signals: HUP reads the certificates and looks at the rules again, USR1 logs the counters, TERM ends.
NUFW_LOG=debug shows more. NUFW_AGENT_<SECTION>_<KEY> in the environment sets a key of the file.";

/// The gateway agent of NuFW: asks the authentication server about every new connection.
#[derive(Debug, Parser)]
#[command(name = "nufw-agent", version, after_help = EXAMPLES, args_conflicts_with_subcommands = false)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Options {
    /// Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]
    #[arg(short = 'f', long = "config", value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// The authentication server: host, or host:port; several with commas, the best first (key server.address)
    #[arg(short = 'd', long = "server", value_name = "SERVER", global = true)]
    server: Option<String>,
    /// Number of the NFQUEUE, as in the rule's --queue-num (key queue.number)
    #[arg(short = 'q', long = "queue-num", value_name = "NUM", global = true)]
    queue: Option<String>,
    /// How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)
    #[arg(short = 't', long = "packet-timeout", value_name = "TIME", global = true)]
    timeout: Option<String>,
    /// Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)
    #[arg(short = 'C', long, global = true)]
    conntrack: bool,
    /// Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)
    #[arg(short = 'M', long, global = true)]
    marked_only: bool,
    /// Set the user's mark on accepted packets (key marks.set)
    #[arg(short = 'm', long = "mark", global = true)]
    mark: bool,
    /// Become this user, when started as root (key privileges.user)
    #[arg(long, value_name = "USER", global = true)]
    user: Option<String>,
    /// enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)
    #[arg(long, value_name = "MODE", global = true)]
    sandbox: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground; the same as no command
    Run,
    /// Say what this host lacks, and how to mend each
    Check {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show how the running agent is: queue, packets, events, link, buffers
    #[command(
        after_help = "Asks over the key status.socket. Exit code 69 when no agent runs, 77 when it may not be asked."
    )]
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print what a running agent holds: user, capabilities, filters, sandbox
    #[command(after_help = "Without PID: every nufw-agent of this host. Ask as root to see all of it.")]
    Privileges {
        /// Its process
        pid: Option<u32>,
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// Print the firewall rules that the agent needs, load them (--apply) or remove them (--remove)
    Rules(RulesArgs),
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command line"
)]
struct RulesArgs {
    /// iptables (also for ip6tables) or nft (key rules.backend)
    #[arg(long, value_name = "LANGUAGE")]
    format: Option<rules::Format>,
    /// Where new connections are held back: forward, input, output, or several of them (key rules.hooks)
    #[arg(long = "hook", value_delimiter = ',', value_name = "HOOK")]
    hooks: Vec<rules::QueueHook>,
    /// Let conntrack make every event, where another program on this host wants them
    #[arg(long)]
    all_events: bool,
    /// Load the rules, all or none, in place of those that are loaded
    #[arg(long, conflicts_with = "remove")]
    apply: bool,
    /// Remove the rules, all or none
    #[arg(long)]
    remove: bool,
    /// With --remove: only print what removes them
    #[arg(long, conflicts_with = "apply")]
    print: bool,
}

impl Options {
    fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::new();
        let mut set = |key, value: Option<String>, option| {
            overrides.extend(value.map(|value| (key, value, option)));
        };
        let yes = |said: bool| said.then(|| "true".to_owned());
        set("server.address", self.server.clone(), "-d");
        set("queue.number", self.queue.clone(), "-q");
        set(
            "queue.packet-timeout",
            self.timeout.as_deref().map(with_unit),
            "-t",
        );
        set(
            "conntrack.relay",
            yes(self.conntrack || self.marked_only),
            if self.marked_only { "-M" } else { "-C" },
        );
        set("privileges.user", self.user.clone(), "--user");
        set("privileges.sandbox", self.sandbox.clone(), "--sandbox");
        set("conntrack.marked-only", yes(self.marked_only), "-M");
        set(
            "marks.set",
            yes(self.mark || self.marked_only),
            if self.marked_only { "-M" } else { "-m" },
        );
        overrides
    }
}

/// NuFW's `-t` is a number of seconds.
fn with_unit(time: &str) -> String {
    if !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("{time}s")
    } else {
        time.to_owned()
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // To standard output for --help, else to standard error; if that is closed nobody can be told.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // A mistake in the configuration is no reason not to look at what runs.
    if let Some(Command::Privileges { pid, json }) = &cli.command {
        let mut out = std::io::stdout().lock();
        return exit::report(privileges::print("nufw-agent", *pid, *json, &mut out).map_err(Failure::from));
    }
    let config = match config::load(cli.options.file.as_deref(), cli.options.overrides()) {
        Ok(config) => config,
        Err(error) => return exit::report(Err(Failure::new(Exit::Config, error))),
    };
    exit::report(match cli.command.unwrap_or(Command::Run) {
        Command::Run => run(&config),
        Command::Check { json } => {
            let mut out = std::io::stdout().lock();
            let view = AgentConfigView {
                rules: resolve(&config).map(|servers| config.rules(servers)).ok(),
                ..config.check_view()
            };
            return match check::run(&view, json, &mut out) {
                Ok(exit) => exit.map_or(ExitCode::SUCCESS, ExitCode::from),
                Err(error) => exit::report(Err(Failure::new(Exit::IoErr, error))),
            };
        }
        Command::Status { json } => print_status(&config, json),
        Command::Rules(args) => rules(&config, &args),
        // Done before the configuration was read.
        Command::Privileges { .. } => Ok(()),
    })
}

fn print_status(config: &Config, json: bool) -> Result<(), Failure> {
    let socket = config
        .places()
        .status
        .context("status.socket is empty, so the agent cannot be asked")
        .or_exit(Exit::Config)?;
    let status = observe::ask(&socket).map_err(|error| {
        let exit = match &error {
            StatusError::Denied(_) => Exit::NoPerm,
            StatusError::Absent(_) | StatusError::Lost(..) => Exit::Unavailable,
        };
        Failure::new(exit, error)
    })?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &status)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        observe::show(&status, &mut out)
    }
    .context("the status cannot be written")
    .or_exit(Exit::IoErr)
}

fn rules(config: &Config, args: &RulesArgs) -> Result<(), Failure> {
    let backend = match args.format {
        Some(rules::Format::Iptables) => Backend::Iptables,
        Some(rules::Format::Nft) => Backend::Nft,
        None => config.rules.backend,
    };
    let format = if backend == Backend::Nft {
        rules::Format::Nft
    } else {
        rules::Format::Iptables
    };
    if args.remove {
        return if args.print {
            print(&rules::render_removal(format))
        } else {
            rules::load::remove(backend).map_err(not_loaded)
        };
    }
    let mut options = config.rules(resolve(config).or_exit(Exit::Unavailable)?);
    if !args.hooks.is_empty() {
        options.hooks.clone_from(&args.hooks);
    }
    options.event_mask &= !args.all_events;
    if args.apply {
        rules::load::apply(backend, &options).map_err(not_loaded)
    } else {
        print(&rules::render(format, &options))
    }
}

fn not_loaded(error: LoadError) -> Failure {
    let exit = match &error {
        LoadError::NoCommand | LoadError::Command { .. } => Exit::Unavailable,
        _ if !privileges::has(Capability::CAP_NET_ADMIN) => Exit::NoPerm,
        _ => Exit::OsErr,
    };
    Failure::new(exit, error)
}

/// Every address of every server, with its port for agents.
fn resolve(config: &Config) -> anyhow::Result<Vec<(IpAddr, u16)>> {
    let mut servers = Vec::new();
    for (host, port) in config.server.addresses() {
        let found = (host.as_str(), port).to_socket_addrs().with_context(|| {
            format!("the server's name {host} cannot be resolved; give its address with -d")
        })?;
        for address in found.map(|address| (address.ip(), port)) {
            if !servers.contains(&address) {
                servers.push(address);
            }
        }
    }
    Ok(servers)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("the rules cannot be written")
        .or_exit(Exit::IoErr)
}

fn run(config: &Config) -> Result<(), Failure> {
    logging::init("info");
    config.server.targets().or_exit(Exit::Config)?;
    // Before the runtime: capabilities are per thread. Everything below needs this one alone. And before the key is read, so
    // that a key which this user may not read is found at the start and not at a reload.
    sandbox::own_user(config)?;
    let client_tls = config.client_tls();
    let tls = tls::client_config(&client_tls)
        .context("the link to the server cannot be made ([tls])")
        .or_exit(Exit::Config)?;
    let load_tls: LoadTls =
        Box::new(move || tls::client_config(&client_tls).map_err(|error| error.to_string()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(async {
        let mut agent = open(config, tls, load_tls)?;
        // After the queue: that another agent has it says more than that its socket is in use. And before anything is given up.
        let opened = Opened::open(&config.places()).or_exit(Exit::Unavailable)?;
        // While there is this thread alone.
        sandbox::agent_alone(config)
            .apply(config.privileges.sandbox)
            .or_exit(Exit::Unavailable)?;
        let (facts, moments) = (agent.facts(&config.server.shown()), agent.watched());
        let _watching = observe::watch(opened, facts, moments)
            .context("the thread that tells metrics and status cannot be started")
            .or_exit(Exit::OsErr)?;
        lifecycle::notify_ready();
        agent.run().await.map_err(failure)
    })
}

fn open(
    config: &Config,
    tls: std::sync::Arc<rustls::ClientConfig>,
    load_tls: LoadTls,
) -> Result<Agent, Failure> {
    let settings = config.settings();
    let targets = config.server.targets().or_exit(Exit::Config)?;
    // Events first: an entry that comes to be while the queue is opened is not missed.
    let events = config
        .event_options()
        .map(|options| Events::open(&options))
        .transpose()
        .map_err(|error| failure(error.into()))?;
    let queue = Queue::open(&config.queue_options()).map_err(|error| failure(error.into()))?;
    // Without events no row outlives its verdict, and there is nothing to end.
    let control = events
        .is_some()
        .then(Control::open)
        .transpose()
        .map_err(|error| failure(error.into()))?;
    let watch = Watch {
        every: config.rules.watch.0,
        reapply: config.rules.reapply.then(|| reapply(config)).flatten(),
    };
    let refusals = Refusals::look(config.queue.number, settings.reject_bit, settings.kill_bit, watch);
    let names = InterfaceNames::new()
        .context("cannot ask for the names of interfaces")
        .or_exit(Exit::OsErr)?;
    let relay = &config.conntrack;
    tracing::info!(
        queue = queue.number(),
        queues = queue.numbers().count(),
        queue_buffer = queue.granted_receive_buffer(),
        server = config.server.shown(),
        relays_events = relay.relay,
        marked_only = relay.marked_only,
        sets_marks = settings.sets_marks,
        "ready"
    );
    if let Some((granted, forced)) = events.as_ref().map(Events::receive_buffer) {
        tracing::info!(
            granted,
            forced,
            holds = granted / crate::conntrack::BYTES_PER_EVENT,
            "listening to conntrack events"
        );
        if !forced {
            tracing::warn!(
                granted,
                "the kernel did not grant conntrack.receive-buffer (net.core.rmem_max limits it here); bursts of events may be lost and then need a dump"
            );
        }
    }
    let hello = Hello {
        software: Text::lossy(SOFTWARE),
        boot: BootId(rand::rng().random()),
        capabilities: if control.is_some() {
            ALWAYS.and(Capabilities::KILL)
        } else {
            ALWAYS
        },
        packet_timeout_ms: u32::try_from(settings.packet_timeout.as_millis()).unwrap_or(u32::MAX),
        relays_events: relay.relay,
        marked_only: relay.marked_only,
        sets_marks: settings.sets_marks,
        first_held: nufw_proto::EventSeq(1),
    };
    let link = Link::new(targets, config.server.return_after.0, tls, hello, clock::mono());
    let kernel = Kernel {
        queue,
        names,
        events,
        control,
    };
    Ok(Agent::new(settings, kernel, link, load_tls, refusals))
}

/// What loads the rules again when they are gone. The names of the servers are resolved while there is no hurry.
fn reapply(config: &Config) -> Option<Reapply> {
    match resolve(config) {
        Ok(servers) => {
            let (backend, options) = (config.rules.backend, config.rules(servers));
            Some(Box::new(move || rules::load::apply(backend, &options)))
        }
        Err(error) => {
            tracing::warn!(
                error = format_args!("{error:#}"),
                "rules that are flushed will not be loaded again (rules.reapply)"
            );
            None
        }
    }
}

fn failure(error: AgentError) -> Failure {
    let exit = match &error {
        AgentError::Queue(QueueError::NotPermitted { .. }) => Exit::NoPerm,
        AgentError::Queue(QueueError::Taken { .. } | QueueError::Unsupported { .. }) => Exit::Unavailable,
        AgentError::Conntrack(_) if !privileges::has(Capability::CAP_NET_ADMIN) => Exit::NoPerm,
        AgentError::Queue(_) | AgentError::Conntrack(_) | AgentError::System(..) => Exit::OsErr,
    };
    Failure::new(exit, error)
}

#[cfg(test)]
mod tests;
