//! The command line: as NuFW's users know it, with the file beneath and the check and the rules beside it.
//!
//! Puts the parts together and says how the program ends; what the parts do is theirs.

use crate::agent::{Agent, AgentError, LoadTls, Refusals};
use crate::check;
use crate::config::{self, Config, Overrides};
use crate::conntrack::{ConntrackError, Events};
use crate::keeper::{Access, Ended, Keeper, Memory, Plan, supervise};
use crate::link::Link;
use crate::queue::{InterfaceNames, Queue, QueueError};
use crate::rules::{self, RulesOptions};
use crate::socket;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nufw_common::exit::{self, Exit, Failure, OrExit as _};
use nufw_common::privileges::{self, Capability};
use nufw_common::{clock, lifecycle, logging, tls};
use nufw_proto::gateway::{Capabilities, Hello};
use nufw_proto::{BootId, CLIENT_PORT, GATEWAY_PORT, Text};
use rand::RngExt as _;
use std::io::Write as _;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Name and version, as the server's log shows it.
const SOFTWARE: &str = concat!("nufw-agent ", env!("CARGO_PKG_VERSION"));

/// How long the first worker waits to see the firewall's rules.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How long a successor does; until it sees them it drops what it should reject.
const NEXT_LOOK: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  nufw-agent check                      what this host lacks, and how to mend it
  nufw-agent rules --hook forward | sh  the firewall rules that hold new connections back
  nufw-agent -d nuauth.example          run, with certificates from /etc/nufw
  nufw-agent -f /etc/nufw/gw1.toml -q 3 -t 20s
  nufw-agent -M                         relay events of marked connections only

A rule sends the first packet of each new connection to the queue. It passes when the server
knows its user and the access list allows it. While the server is away, new connections are
dropped; those that exist go on.

Signals: HUP reads the certificates and looks at the rules again, USR1 logs the counters, TERM ends,
USR2 replaces the running program by the installed one; packets wait meanwhile.
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
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
struct Options {
    /// Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]
    #[arg(short = 'f', long = "config", value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// The authentication server: host, or host:port (key server.address)
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
    /// Run in one process, which holds its capability while it parses packets and speaks TLS: for debugging
    #[arg(long)]
    single_process: bool,
    /// Be the worker of a supervisor, which is at the other end of standard input
    #[arg(long, global = true, hide = true)]
    as_worker: bool,
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
    /// Print the firewall rules that the agent needs; changes nothing by itself
    Rules(RulesArgs),
}

#[derive(Debug, Args)]
struct RulesArgs {
    /// iptables (a shell script, also for ip6tables) or nft (a ruleset)
    #[arg(long, default_value = "iptables", value_name = "LANGUAGE")]
    format: rules::Format,
    /// Where new connections are held back: forward, input, or both
    #[arg(
        long = "hook",
        default_value = "forward",
        value_delimiter = ',',
        value_name = "HOOK"
    )]
    hooks: Vec<rules::QueueHook>,
    /// Let conntrack make every event, where another program on this host wants them
    #[arg(long)]
    all_events: bool,
    /// Print what removes the rules
    #[arg(long)]
    remove: bool,
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
    let config = match config::load(cli.options.file.as_deref(), cli.options.overrides()) {
        Ok(config) => config,
        Err(error) => return exit::report(Err(Failure::new(Exit::Config, error))),
    };
    exit::report(match cli.command.unwrap_or(Command::Run) {
        Command::Run if cli.options.as_worker => work(&config),
        Command::Run if cli.options.single_process => run_alone(&config),
        Command::Run => return run(&config).unwrap_or_else(|failure| exit::report(Err(failure))),
        Command::Check { json } => {
            let mut out = std::io::stdout().lock();
            return match check::run(&config.check_view(), json, &mut out) {
                Ok(exit) => exit.map_or(ExitCode::SUCCESS, ExitCode::from),
                Err(error) => exit::report(Err(Failure::new(Exit::IoErr, error))),
            };
        }
        Command::Rules(args) => print_rules(&config, &args),
    })
}

fn print_rules(config: &Config, args: &RulesArgs) -> Result<(), Failure> {
    let (servers, gateway_port) = match config.server_address() {
        // Removing does not need to know.
        Some((host, port)) if !args.remove => {
            let found = (host.as_str(), port)
                .to_socket_addrs()
                .with_context(|| {
                    format!("the server's name {host} cannot be resolved; give its address with -d")
                })
                .or_exit(Exit::Unavailable)?;
            (found.map(|address| address.ip()).collect(), port)
        }
        _ => (Vec::new(), GATEWAY_PORT),
    };
    let text = rules::render(&RulesOptions {
        format: args.format,
        remove: args.remove,
        queue: config.queue.number,
        hooks: args.hooks.clone(),
        servers,
        gateway_port,
        client_port: CLIENT_PORT,
        set_marks: config.marks.set,
        mask: config.marks.mask.0,
        reject_bit: config.marks.reject_bit.0,
        event_mask: config.conntrack.relay && !args.all_events,
    });
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("the rules cannot be written")
        .or_exit(Exit::IoErr)
}

/// Runs the supervisor, which runs the worker.
fn run(config: &Config) -> Result<ExitCode, Failure> {
    logging::init("info");
    config.target().or_exit(Exit::Config)?;
    // Before the runtime: capabilities are per thread. Everything below needs this one alone.
    privileges::keep_only(&[Capability::CAP_NET_ADMIN]).or_exit(Exit::OsErr)?;
    // The worker reads them for itself; a mistake is told before anything is opened.
    drop(load_tls(config)?);
    let plan = Plan {
        queues: vec![config.queue_options()],
        events: config.event_options(),
        max_unacknowledged: config.conntrack.max_unacknowledged,
        hung_after: config.worker.hung_after.0,
        arguments: std::env::args_os().skip(1).collect(),
    };
    match runtime()?.block_on(supervise(plan)).map_err(failure)? {
        Ended::AsTold => Ok(ExitCode::SUCCESS),
        Ended::AtOnce(code) => Ok(code.into()),
    }
}

/// Runs the worker of a supervisor.
fn work(config: &Config) -> Result<(), Failure> {
    let keeper = Keeper::from_stdin()
        .context("--as-worker is how the agent starts itself; run it without")
        .or_exit(Exit::Usage)?;
    privileges::keep_only(&[]).or_exit(Exit::OsErr)?;
    rustix::thread::set_no_new_privs(true)
        .context("cannot give up the gaining of privileges")
        .or_exit(Exit::OsErr)?;
    logging::init("info");
    let (tls, load_tls) = load_tls(config)?;
    let handed = keeper
        .start()
        .context("the supervisor does not start this worker")
        .or_exit(Exit::Unavailable)?;
    let keeper = Arc::new(keeper);
    let options = config.queue_options();
    let mut queues = handed.queues.into_iter();
    let (Some((number, socket)), None) = (queues.next(), queues.next()) else {
        return Err(other_queues(config));
    };
    if number != options.number {
        return Err(other_queues(config));
    }
    let boot = BootId(rand::rng().random());
    let (mut memory, hand, left) = Memory::open(handed.memory, boot, clock::wall())
        .context("what former workers left cannot be read")
        .or_exit(Exit::OsErr)?;
    // Packets wait for a successor, and the rules of its predecessor's time are still in force.
    let patience = if left.predecessors == 0 {
        FIRST_LOOK
    } else {
        NEXT_LOOK
    };
    runtime()?.block_on(async {
        let queue = Queue::kept_by(Arc::clone(&keeper), socket::netlink(socket), &options)
            .map_err(|error| failure(error.into()))?;
        let events = handed
            .events
            .map(|(socket, forced)| {
                let mut events = Events::kept(socket::netlink(socket), forced)?;
                events.put_into(hand);
                Ok(events)
            })
            .transpose()
            .map_err(|error: ConntrackError| failure(error.into()))?;
        let access = Access::Keeper(Arc::clone(&keeper));
        let refusals = Refusals::look(access, number, config.settings().reject_bit, patience);
        let agent = assemble(config, memory.boot(), tls, load_tls, queue, events, refusals)?;
        agent.kept_by(keeper, memory, left).run().await.map_err(failure)
    })
}

fn other_queues(config: &Config) -> Failure {
    let number = config.queue.number;
    let error =
        anyhow::anyhow!("queue.number is {number}, but the supervisor has another queue open: restart it");
    Failure::new(Exit::Config, error)
}

/// Runs everything in one process.
fn run_alone(config: &Config) -> Result<(), Failure> {
    logging::init("info");
    config.target().or_exit(Exit::Config)?;
    let (tls, load_tls) = load_tls(config)?;
    privileges::keep_only(&[Capability::CAP_NET_ADMIN]).or_exit(Exit::OsErr)?;
    runtime()?.block_on(async {
        // Events first: an entry that comes to be while the queue is opened is not missed.
        let events = config
            .event_options()
            .map(|options| Events::open(&options))
            .transpose()
            .map_err(|error| failure(error.into()))?;
        let queue = Queue::open(&config.queue_options()).map_err(|error| failure(error.into()))?;
        let refusals = Refusals::look(
            Access::Own,
            queue.number(),
            config.settings().reject_bit,
            FIRST_LOOK,
        );
        let boot = BootId(rand::rng().random());
        let agent = assemble(config, boot, tls, load_tls, queue, events, refusals)?;
        lifecycle::notify_ready();
        agent.run().await.map_err(failure)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .or_exit(Exit::OsErr)
}

fn load_tls(config: &Config) -> Result<(Arc<rustls::ClientConfig>, LoadTls), Failure> {
    let files = config.client_tls();
    let tls = tls::client_config(&files)
        .context("the link to the server cannot be made ([tls])")
        .or_exit(Exit::Config)?;
    let load: LoadTls = Box::new(move || tls::client_config(&files).map_err(|error| error.to_string()));
    Ok((tls, load))
}

fn assemble(
    config: &Config,
    boot: BootId,
    tls: Arc<rustls::ClientConfig>,
    load_tls: LoadTls,
    queue: Queue,
    events: Option<Events>,
    refusals: Refusals,
) -> Result<Agent, Failure> {
    let settings = config.settings();
    let target = config.target().or_exit(Exit::Config)?;
    let names = InterfaceNames::new()
        .context("cannot ask for the names of interfaces")
        .or_exit(Exit::OsErr)?;
    let relay = &config.conntrack;
    tracing::info!(
        queue = queue.number(),
        queue_buffer = queue.granted_receive_buffer(),
        server = target.address,
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
        boot,
        capabilities: Capabilities::default(),
        packet_timeout_ms: u32::try_from(settings.packet_timeout.as_millis()).unwrap_or(u32::MAX),
        relays_events: relay.relay,
        marked_only: relay.marked_only,
        sets_marks: settings.sets_marks,
        first_held: nufw_proto::EventSeq(1),
    };
    let link = Link::new(target, tls, hello, clock::mono());
    Ok(Agent::new(
        settings, queue, names, events, link, load_tls, refusals,
    ))
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
