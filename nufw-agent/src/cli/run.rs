//! How the agent runs: a supervisor and its worker, or one process that does both.
//!
//! Puts the parts together in the order in which rights are given up; what the parts do is theirs.

use super::resolve;
use crate::agent::{Agent, AgentError, Kernel, Load, LoadTls, Reapply, Refusals, Watch};
use crate::config::Config;
use crate::conntrack::{ConntrackError, Control, Events};
use crate::keeper::{Access, Allowed, Ended, Keeper, Kept, Memory, Plan, Supervisor};
use crate::link::Link;
use crate::observe::{self, Opened};
use crate::queue::{InterfaceNames, Queue, QueueError};
use crate::{rules, sandbox, socket};
use anyhow::Context as _;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::privileges::{self, Capability};
use nufw_common::{clock, lifecycle, logging, tls};
use nufw_proto::gateway::{Capabilities, Hello};
use nufw_proto::{BootId, Mark, Text};
use rand::RngExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Name and version, as the server's log shows it.
const SOFTWARE: &str = concat!("nufw-agent ", env!("CARGO_PKG_VERSION"));

/// How long the first worker waits to see the firewall's rules.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How long a successor does; until it sees them it drops what it should reject.
const NEXT_LOOK: Duration = Duration::from_millis(200);

/// Runs the supervisor, which runs the worker.
pub(super) fn run(config: &Config) -> Result<ExitCode, Failure> {
    logging::init("info");
    let mut kept = Kept::from_environment();
    config.server.targets().or_exit(Exit::Config)?;
    // Before any right is given up.
    let opened = if kept.renewed() {
        let (metrics, status) = kept.take_places();
        Opened::left(&config.places(), metrics, status)
    } else {
        Opened::open(&config.places()).or_exit(Exit::Unavailable)?
    };
    // Before the runtime: capabilities are per thread. Everything below needs this one alone. And before the key is read, so
    // that a key which this user may not read is found at the start and not at a reload.
    sandbox::own_user(config)?;
    // The worker reads them for itself; a mistake is told before anything is opened.
    drop(load_tls(config)?);
    // Another image of this process has confined it already, and a second time would not let a third start.
    let confines = !kept.renewed();
    let plan = Plan {
        queues: vec![config.queue_options()],
        events: config.event_options(),
        max_unacknowledged: config.conntrack.max_unacknowledged,
        hung_after: config.worker.hung_after.0,
        opened,
        allowed: Allowed {
            kill_bit: Mark(config.marks.kill_bit.0),
            load: config.rules.reapply.then(|| load_rules(config)).flatten(),
        },
        kept,
        arguments: std::env::args_os().skip(1).collect(),
    };
    let ended = runtime()?.block_on(async {
        let supervisor = Supervisor::open(plan).await.map_err(failure)?;
        if confines {
            // While there is this thread alone.
            sandbox::agent_supervisor(config)
                .apply(config.privileges.sandbox)
                .or_exit(Exit::Unavailable)?;
        }
        supervisor.run().await.map_err(failure)
    })?;
    Ok(match ended {
        Ended::AsTold => ExitCode::SUCCESS,
        Ended::AtOnce(code) => code.into(),
    })
}

/// Runs the worker of a supervisor.
pub(super) fn work(config: &Config) -> Result<(), Failure> {
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
    let names = names()?;
    // While there is this thread alone, and nothing of a packet or of the server has been read.
    sandbox::agent_worker(config)
        .apply(config.privileges.sandbox)
        .or_exit(Exit::Unavailable)?;
    let keeper = Arc::new(keeper);
    let options = config.queue_options();
    let mut queues = handed.queues.into_iter();
    let (Some((numbers, socket)), None) = (queues.next(), queues.next()) else {
        return Err(other_queues(config));
    };
    if numbers != options.numbers() {
        return Err(other_queues(config));
    }
    let opened = Opened::handed(&config.places(), handed.metrics, handed.status);
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
        // Without events no row outlives its verdict, and there is nothing to end.
        let control = events.is_some().then(|| Control::kept_by(Arc::clone(&keeper)));
        let reapply = config.rules.reapply.then_some(Reapply::Keeper);
        let access = Access::Keeper(Arc::clone(&keeper));
        let refusals = look(config, access, reapply, patience);
        let kernel = Kernel {
            queue,
            names,
            events,
            control,
        };
        let agent = assemble(config, memory.boot(), (tls, load_tls), kernel, refusals)?;
        let mut agent = agent.kept_by(keeper, memory, left);
        let (facts, moments) = (agent.facts(&config.server.shown()), agent.watched());
        let _watching = observe::watch(opened, facts, moments)
            .context("the thread that tells metrics and status cannot be started")
            .or_exit(Exit::OsErr)?;
        agent.run().await.map_err(failure)
    })
}

fn other_queues(config: &Config) -> Failure {
    let numbers = config.queue_options().numbers();
    let error = anyhow::anyhow!(
        "queue.number and queue.count say {} to {}, but the supervisor has other queues open: restart it",
        numbers.start(),
        numbers.end()
    );
    Failure::new(Exit::Config, error)
}

/// Runs everything in one process.
pub(super) fn run_alone(config: &Config) -> Result<(), Failure> {
    logging::init("info");
    config.server.targets().or_exit(Exit::Config)?;
    let opened = Opened::open(&config.places()).or_exit(Exit::Unavailable)?;
    sandbox::own_user(config)?;
    let tls = load_tls(config)?;
    runtime()?.block_on(async {
        // Events first: an entry that comes to be while the queue is opened is not missed.
        let events = config
            .event_options()
            .map(|options| Events::open(&options))
            .transpose()
            .map_err(|error| failure(error.into()))?;
        let queue = Queue::open(&config.queue_options()).map_err(|error| failure(error.into()))?;
        let control = events
            .is_some()
            .then(Control::open)
            .transpose()
            .map_err(|error| failure(error.into()))?;
        let reapply = config.rules.reapply.then(|| load_rules(config)).flatten();
        let refusals = look(config, Access::Own, reapply.map(Reapply::Here), FIRST_LOOK);
        let boot = BootId(rand::rng().random());
        let kernel = Kernel {
            queue,
            names: names()?,
            events,
            control,
        };
        let mut agent = assemble(config, boot, tls, kernel, refusals)?;
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

/// Looks at the rules for the first time.
fn look(config: &Config, access: Access, reapply: Option<Reapply>, patience: Duration) -> Refusals {
    let settings = config.settings();
    let watch = Watch {
        every: config.rules.watch.0,
        reapply,
    };
    let bits = (settings.reject_bit, settings.kill_bit);
    Refusals::look(access, config.queue.number, bits, watch, patience)
}

fn names() -> Result<InterfaceNames, Failure> {
    InterfaceNames::new()
        .context("cannot ask for the names of interfaces")
        .or_exit(Exit::OsErr)
}

fn assemble(
    config: &Config,
    boot: BootId,
    (tls, load_tls): (Arc<rustls::ClientConfig>, LoadTls),
    kernel: Kernel,
    refusals: Refusals,
) -> Result<Agent, Failure> {
    let settings = config.settings();
    let targets = config.server.targets().or_exit(Exit::Config)?;
    let Kernel {
        queue,
        events,
        control,
        ..
    } = &kernel;
    let relay = &config.conntrack;
    tracing::info!(
        queue = queue.number(),
        queues = queue.numbers().count(),
        queue_buffer = queue.granted_receive_buffer(),
        server = config.server.shown(),
        relays_events = relay.relays(),
        by_flags = relay.track_by_flags,
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
        capabilities: offered(control.is_some(), relay.track_by_flags),
        packet_timeout_ms: u32::try_from(settings.packet_timeout.as_millis()).unwrap_or(u32::MAX),
        relays_events: relay.relays(),
        marked_only: relay.marked_only,
        sets_marks: settings.sets_marks,
        first_held: nufw_proto::EventSeq(1),
    };
    let link = Link::new(targets, config.server.return_after.0, tls, hello, clock::mono());
    Ok(Agent::new(settings, kernel, link, load_tls, refusals))
}

/// Optional parts of the protocol that this agent speaks.
fn offered(ends_connections: bool, by_flags: bool) -> Capabilities {
    let only = |offered: bool, part| if offered { part } else { Capabilities::default() };
    Capabilities::WITHOUT_VERDICT
        .and(Capabilities::BRIDGE_PORTS)
        .and(only(ends_connections, Capabilities::KILL))
        .and(only(by_flags, Capabilities::BY_FLAGS))
}

/// What loads the rules again when they are gone. The names of the servers are resolved while there is no hurry.
fn load_rules(config: &Config) -> Option<Load> {
    match resolve(config) {
        Ok(servers) => {
            let (backend, options) = (config.rules.backend, config.rules(servers));
            Some(Arc::new(move || rules::load::apply(backend, &options)))
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

pub(super) fn failure(error: AgentError) -> Failure {
    let exit = match &error {
        AgentError::Queue(QueueError::NotPermitted { .. }) => Exit::NoPerm,
        AgentError::Queue(QueueError::Taken { .. } | QueueError::Unsupported { .. }) => Exit::Unavailable,
        AgentError::Conntrack(_) if !privileges::has(Capability::CAP_NET_ADMIN) => Exit::NoPerm,
        AgentError::Queue(_) | AgentError::Conntrack(_) | AgentError::System(..) => Exit::OsErr,
    };
    Failure::new(exit, error)
}
