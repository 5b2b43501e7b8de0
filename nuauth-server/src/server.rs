//! The server as a whole: start, reload, drain.
//!
//! One function each. Everything is read and checked before anything is opened; what is opened is opened in the order
//! in which it may be missing: log, engine, ports.

mod files;

use crate::clients::{self, ClientPort};
use crate::config::{OnLoss, Override, ServerConfig, TicketSettings};
use crate::control::{self, Administration, ControlPort, Order, Refreshed};
use crate::directory::{self, Known as KnownNames, Remembered, Sources};
use crate::engine::{Effect, Engine, Input, Now};
use crate::gateways::{self, GatewayPort};
use crate::hooks::{self, HookCounts, Hooks};
use crate::hub::{Event, Hub, WAITING_EVENTS};
use crate::identify;
use crate::journal::{self, Journal, Known};
use crate::observe::{self, Reloads, Watched};
use crate::paced;
use crate::policy::Policy;
use crate::port::{self, Complaints};
use crate::revocation::Revoked;
use crate::sandbox;
use crate::tickets::Tickets;
use crate::users::Users;
use crate::watch::{EVERY, Watch};
use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use files::Files;
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::lifecycle::{self, Shutdown, Signal, Signals};
use nufw_common::listen::Bound;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// How long the log may take to write what waits when the server ends.
const LAST_COMMITS: Duration = Duration::from_secs(10);
/// How often a server that drains is looked at.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// Orders of administrators that may wait.
const WAITING_ORDERS: usize = 16;
/// Tasks that a thread of the runtime runs before it looks what came from the network. The runtime's own default of 61 lets a
/// packet's question wait for sixty others' work when many clients come at once.
const LOOK_AFTER: u32 = 8;

/// The open ports, before the runtime.
struct Listeners {
    gateways: Vec<std::net::TcpListener>,
    clients: Vec<std::net::TcpListener>,
    metrics: Option<Bound>,
    accounting: Vec<std::net::UdpSocket>,
    hooks: Option<hooks::Helper>,
    directories: Option<directory::Helper>,
}

/// The running server.
struct Server {
    config: ServerConfig,
    overrides: Vec<Override>,
    journal: Journal,
    hub: mpsc::Sender<Event>,
    gateways: Arc<GatewayPort>,
    clients: Arc<ClientPort>,
    control: Arc<ControlPort>,
    revoked: watch::Sender<Arc<Revoked>>,
    reloads: Arc<Reloads>,
    orders: mpsc::Receiver<Order>,
    tickets: Option<Arc<Tickets>>,
    hook_counts: HookCounts,
    /// The networks of `[identify]`, sent at each reload to whoever must tell the hub again.
    reloaded: watch::Sender<identify::Networks>,
    /// Accounting messages that were not taken.
    accounting: Arc<Complaints>,
    sources: Sources,
}

/// Runs the server until SIGTERM.
pub(crate) fn run(path: &Path, overrides: Vec<Override>) -> Result<(), Failure> {
    let mut config = ServerConfig::load(path, &overrides).or_exit(Exit::Config)?;
    // It starts programs and speaks to directories, which the server itself is about to give up.
    let directories = directory::helper(&config)?;
    // Everything is read as the server's own user: what a reload could not read is found at the start.
    if sandbox::own_user(&config)? {
        config = ServerConfig::load(path, &overrides).or_exit(Exit::Config)?;
    }
    let files = Files::load(&config).or_exit(Exit::Config)?;
    let listeners = Listeners {
        gateways: port::listen(&config.gateways.listen).or_exit(Exit::Unavailable)?,
        clients: port::listen(&config.clients.listen).or_exit(Exit::Unavailable)?,
        metrics: observe::open(config.metrics.as_ref()).or_exit(Exit::Unavailable)?,
        accounting: identify::open(&config.identify).or_exit(Exit::Unavailable)?,
        hooks: hooks::Helper::start(config.hooks.as_ref()).or_exit(Exit::OsErr)?,
        directories,
    };
    // Before any other thread starts, the runtime's and the database's included; no peer was heard yet.
    sandbox::profile(&config)
        .apply(config.privileges.sandbox)
        .or_exit(Exit::Unavailable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(LOOK_AFTER)
        .global_queue_interval(LOOK_AFTER)
        .build()
        .context("the runtime cannot be started")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(serve(config, overrides, files, listeners))
}

async fn serve(
    config: ServerConfig,
    overrides: Vec<Override>,
    files: Files,
    listeners: Listeners,
) -> Result<(), Failure> {
    let mut signals = Signals::new()
        .context("signals cannot be received")
        .or_exit(Exit::OsErr)?;
    let gateway_listeners = port::into_tokio(listeners.gateways).or_exit(Exit::OsErr)?;
    let client_listeners = port::into_tokio(listeners.clients).or_exit(Exit::OsErr)?;
    let (trigger, shutdown) = lifecycle::shutdown();
    let hooks = listeners.hooks.map(Hooks::serve).transpose();
    let (hooks, hook_counts) = hooks
        .context("the process that runs hooks cannot be talked to")
        .or_exit(Exit::OsErr)?
        .unzip();
    let hook_counts = hook_counts.unwrap_or_default();
    let mut watch = Watch::on(config.watch.then(|| config.users.clone()));
    if config.watch {
        watch.add(files.lists.iter().cloned());
    }
    let mut looks = tokio::time::interval(EVERY);
    let (mut server, mut hub) = start(
        config,
        overrides,
        files,
        hooks,
        hook_counts,
        listeners.directories,
    )
    .await?;
    let socket = control::Listener::open(&server.config.control).or_exit(Exit::CantCreate)?;
    server.open(gateway_listeners, client_listeners, socket, &shutdown);
    if let Some(bound) = listeners.metrics {
        observe::run(server.watched(), bound, &shutdown);
    }
    identify::run(
        server.config.identify.clone(),
        listeners.accounting,
        server.hub.clone(),
        server.reloaded.subscribe(),
        Arc::clone(&server.accounting),
        &shutdown,
    )
    .context("accounting messages cannot be received")
    .or_exit(Exit::OsErr)?;
    lifecycle::notify_ready();
    let mut drained = None;
    let crashed = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => drop(server.reload(&mut watch)),
                Signal::Terminate => break false,
            },
            _ = looks.tick(), if server.config.watch => if watch.has_changed() {
                tracing::info!("users or access lists have changed");
                drop(server.reload(&mut watch));
            },
            Some(order) = server.orders.recv() => match order {
                Order::Reload(answer) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(server.reload(&mut watch));
                }
                Order::RefreshCache(answer) => server.refresh(answer),
                Order::Drain(within) => {
                    tracing::info!(seconds = within.as_secs(), "draining: the server ends when nothing waits");
                    let idle = Box::pin(drained_hub(server.hub.clone(), within));
                    drained.get_or_insert(idle);
                }
            },
            () = async {
                match &mut drained {
                    Some(idle) => idle.await,
                    None => std::future::pending().await,
                }
            } => break false,
            _ = &mut hub => break true,
        }
    };
    lifecycle::notify_stopping();
    trigger.shut_down();
    if crashed {
        return Err(Failure::new(
            Exit::Software,
            anyhow!("the engine has ended by itself; this is a bug"),
        ));
    }
    server.drain().await
}

/// Has the engine take nothing any more, and waits until it is idle, or for so long.
async fn drained_hub(hub: mpsc::Sender<Event>, within: Duration) {
    let idle = async {
        if hub.send(Event::Tell(Box::new(Input::Drain))).await.is_err() {
            return;
        }
        loop {
            let (answer, answered) = oneshot::channel();
            let look = move |engine: &mut Engine, _: Now, _: &mut Vec<Effect>| {
                let _ = answer.send(engine.is_idle());
            };
            if hub.send(Event::Ask(Box::new(look))).await.is_err() {
                return;
            }
            if answered.await.unwrap_or(true) {
                return;
            }
            tokio::time::sleep(IDLE_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(within, idle).await;
}

/// Reads the keys of tickets. Where nothing was configured and they cannot be had, the server goes without.
fn open_tickets(settings: Option<&TicketSettings>) -> Result<Option<Arc<Tickets>>, Failure> {
    let Some(settings) = settings else { return Ok(None) };
    match Tickets::open(&settings.file, settings.lifetime, clock::wall()) {
        Ok(tickets) => Ok(Some(Arc::new(tickets))),
        Err(error) if settings.configured => {
            let error = anyhow!(error).context(format!(
                "the keys of tickets cannot be kept in {} (sessions.ticket-key)",
                settings.file.display()
            ));
            Err(Failure::new(Exit::CantCreate, error))
        }
        Err(error) => {
            tracing::warn!(
                file = %settings.file.display(), %error,
                "there are no tickets, since their keys cannot be kept: after a restart everybody logs in anew"
            );
            Ok(None)
        }
    }
}

/// Where rows wait while the database is away, if they may.
async fn spool(config: &ServerConfig) -> Result<Option<&journal::SpoolSettings>, Failure> {
    match config.log.on_loss {
        OnLoss::Spool => Ok(Some(&config.log.spool)),
        OnLoss::Drop => {
            // What an earlier run left there.
            journal::empty_spool(&config.log.database, config.server_number, &config.log.spool)
                .await
                .map_err(Failure::from)?;
            Ok(None)
        }
    }
}

/// An engine that knows users and lists, and what the log knew.
fn engine(config: &ServerConfig, policy: Policy, users: &Users, known: Option<Known>) -> Engine {
    let identities = users.identities();
    let mut engine = Engine::new(config.engine, Arc::new(policy)).with_users(&identities);
    let start = Now {
        mono: Duration::ZERO,
        wall: clock::wall(),
    };
    let known = match known {
        Some(Known { rows, acknowledged }) => {
            tracing::info!(database = %config.log.database, active_rows = rows.len(), "log opened");
            Input::Loaded { rows, acknowledged }
        }
        None => Input::LoadedLater,
    };
    for input in [
        known,
        Input::Users(identities),
        Input::Hours(config.hours.clone()),
        Input::Networks(config.identify.networks.clone()),
    ] {
        engine.handle(input, start, &mut Vec::new());
    }
    engine
}

/// Opens the log and puts an engine that knows it to work.
async fn start(
    config: ServerConfig,
    overrides: Vec<Override>,
    mut files: Files,
    hooks: Option<Hooks>,
    hook_counts: HookCounts,
    helper: Option<directory::Helper>,
) -> Result<(Server, tokio::task::JoinHandle<()>), Failure> {
    let tickets = open_tickets(config.tickets.as_ref())?;
    if let Some(tickets) = &tickets {
        tokio::spawn(Arc::clone(tickets).keep_saved());
    }
    let (database, number) = (&config.log.database, config.server_number);
    let spool = spool(&config).await?;
    let (reports_in, reports) = mpsc::unbounded_channel();
    let opened = Journal::open(database, number, spool, journal::Limits::default(), reports_in)
        .await
        .map_err(Failure::from)?;
    let journal = opened.journal;
    let engine = engine(&config, files.policy, &files.users, opened.known);
    let (hub, events) = mpsc::channel(WAITING_EVENTS);
    let (revoked, revocations) = watch::channel(Arc::new(files.revoked));
    let gateways = Arc::new(GatewayPort {
        tls: ArcSwap::new(files.for_gateways),
        known: ArcSwap::from_pointee(config.gateways.clone()),
        hub: hub.clone(),
        backpressure: journal.backpressure(),
        revoked: revocations.clone(),
        dead_after: config.dead_after,
        greeting_timeout: config.ports.greeting_timeout,
        complaints: Complaints::default(),
        next_link: AtomicU64::new(1),
    });
    let known = Arc::new(KnownNames::default());
    known.read(files.users.names());
    let settings = std::mem::take(&mut files.settings);
    let sources = Sources::start(&config, settings, helper).await?;
    let asks_others = config.directories.needs_helper();
    let remembered = asks_others.then(|| Remembered::new(files.users.identities()));
    let directory = sources.directory(&config, files.users);
    let clients = Arc::new(ClientPort {
        tls: ArcSwap::new(files.for_clients),
        directory: ArcSwap::from_pointee(directory),
        known: Arc::clone(&known),
        hub: hub.clone(),
        revoked: revocations,
        mechanisms: config.clients.mechanisms.clone(),
        certificate: config.directories.certificate.clone(),
        dead_after: config.dead_after,
        greeting_timeout: config.ports.greeting_timeout,
        address_lease: config.engine.address_lease,
        failures: Arc::default(),
        scram_secret: rand::random(),
        complaints: Complaints::default(),
        tokens: Mutex::new(HashMap::new()),
        next_session: AtomicU64::new(1),
        tickets: tickets.clone(),
        tells_refusals: config.engine.refusals_told > 0,
        steps: Arc::new(paced::steps()),
    });
    let (orders_in, orders) = mpsc::channel(WAITING_ORDERS);
    let reloads = Arc::new(Reloads::new());
    let control = Arc::new(ControlPort {
        hub: hub.clone(),
        journal: journal.clone(),
        names: known,
        server_number: config.server_number,
        database: config.log.database.to_string(),
        started: clock::mono(),
        locks: Mutex::default(),
        administration: Administration {
            orders: orders_in,
            tickets: tickets.clone(),
            policy: ArcSwap::from_pointee(files.in_force),
            reloads: Arc::clone(&reloads),
            asks_directories: !config.directories.all_known(),
            gateways: ArcSwap::from_pointee(config.gateways.names.clone()),
        },
    });
    if asks_others {
        let clients = Arc::clone(&clients);
        let directory = move || clients.directory.load_full();
        tokio::spawn(directory::keep_asking(directory, hub.clone()));
    }
    let hub_task = Hub::new(engine, journal.clone(), remembered).with_hooks(hooks);
    let task = tokio::spawn(hub_task.run(events, reports));
    Ok((
        Server {
            config,
            overrides,
            journal,
            hub,
            gateways,
            clients,
            control,
            revoked,
            reloads,
            orders,
            tickets,
            hook_counts,
            reloaded: watch::channel(Vec::new()).0,
            accounting: Arc::default(),
            sources,
        },
        task,
    ))
}

impl Server {
    fn open(
        &self,
        for_gateways: Vec<TcpListener>,
        for_clients: Vec<TcpListener>,
        socket: Option<control::Listener>,
        shutdown: &Shutdown,
    ) {
        let strangers = self.config.ports.greetings;
        gateways::run(&self.gateways, for_gateways, strangers, shutdown);
        clients::run(&self.clients, for_clients, strangers, shutdown);
        if let Some(socket) = socket {
            control::run(&self.control, socket, shutdown);
        }
        tracing::info!(
            gateways = ?self.config.gateways.listen,
            clients = ?self.config.clients.listen,
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
    }

    /// What askers for metrics are answered from.
    fn watched(&self) -> Watched {
        let log = &self.config.log;
        let listen = [&self.config.gateways.listen, &self.config.clients.listen];
        Watched {
            hub: self.hub.clone(),
            journal: self.journal.clone(),
            spool_limit: (log.on_loss == OnLoss::Spool).then_some(log.spool.limit),
            backpressure: self.journal.backpressure(),
            gateways: Arc::clone(&self.gateways),
            clients: Arc::clone(&self.clients),
            accounting: Arc::clone(&self.accounting),
            reloads: Arc::clone(&self.reloads),
            hooks: self.hook_counts.clone(),
            listening: listen.into_iter().flatten().copied().collect(),
            started: u64::try_from(clock::wall().micros() / 1_000_000).unwrap_or_default(),
        }
    }

    /// Reads users, access lists, gateway names, certificates and revocation list again. Sessions and links stay; all
    /// that was there stays when one file is bad. Further files that were read are watched from then on.
    fn reload(&self, watch: &mut Watch) -> Result<(), String> {
        lifecycle::notify_reloading();
        let loaded = ServerConfig::load(&self.config.path, &self.overrides)
            .map_err(anyhow::Error::from)
            .and_then(|config| {
                anyhow::ensure!(
                    config.directories.all_known() == self.config.directories.all_known(),
                    "whether users.identity and users.groups are the users file's alone can be changed by a restart only"
                );
                Ok((Files::load(&config)?, config))
            });
        self.reloads.made(loaded.is_ok());
        match loaded {
            Ok((files, config)) => {
                if self.config.watch {
                    watch.add(files.lists);
                }
                self.gateways.tls.store(files.for_gateways);
                let names = config.gateways.names.clone();
                self.control.administration.gateways.store(Arc::new(names));
                self.control.administration.policy.store(Arc::new(files.in_force));
                self.gateways.known.store(Arc::new(config.gateways.clone()));
                self.clients.tls.store(files.for_clients);
                let event = Event::Reload {
                    judge: Arc::new(files.policy),
                    users: files.users.identities(),
                };
                self.clients.known.read(files.users.names());
                let directory = Arc::new(self.sources.directory(&config, files.users));
                self.clients.directory.store(Arc::clone(&directory));
                self.revoked.send_replace(Arc::new(files.revoked));
                let (hub, remote) = (self.hub.clone(), self.sources.remote());
                let hours = Event::Tell(Box::new(Input::Hours(config.hours)));
                let networks = config.identify.networks;
                // Where accounting adds some of its own, all of them are told together.
                let alone = self.config.identify.radius.is_none();
                let told = alone.then(|| Event::Tell(Box::new(Input::Networks(networks.clone()))));
                let reloaded = self.reloaded.clone();
                tokio::spawn(async move {
                    if let Some(remote) = remote {
                        remote.set(files.settings).await;
                    }
                    for event in [event, hours].into_iter().chain(told) {
                        let _ = hub.send(event).await;
                    }
                    reloaded.send_replace(networks);
                    directory::ask_again(&directory, &hub).await;
                });
                tracing::info!(
                    "reloaded; listening addresses, limits and the log's place count from the next start"
                );
                lifecycle::notify_ready();
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "not reloaded: everything stays as it was"
                );
                lifecycle::notify_ready();
                Err(format!("{error:#}"))
            }
        }
    }

    /// Forgets what back-ends said, and asks them again beside everything else.
    fn refresh(&self, answer: oneshot::Sender<Refreshed>) {
        let (directory, hub) = (self.clients.directory.load_full(), self.hub.clone());
        let forgotten = directory.forget();
        tokio::spawn(async move {
            let again = directory::ask_again(&directory, &hub).await;
            let _ = answer.send(Refreshed { forgotten, again });
        });
    }

    /// Answers what waits, says goodbye, writes what is not durable, closes the log.
    async fn drain(self) -> Result<(), Failure> {
        let (done, stopped) = oneshot::channel();
        let stats = match self.hub.send(Event::Stop { done }).await {
            Ok(()) => stopped.await.unwrap_or_default(),
            Err(_) => crate::engine::Stats::default(),
        };
        self.journal.drain(LAST_COMMITS).await.or_exit(Exit::IoErr)?;
        if let Some(Err(error)) = self.tickets.map(|tickets| tickets.save()) {
            tracing::warn!(%error, "the keys of tickets could not be written at the end");
        }
        tracing::info!(
            asks = stats.asks,
            granted = stats.granted,
            refused = stats.refused_by_rule
                + stats.refused_nobody
                + stats.refused_disclaimed
                + stats.refused_timeout
                + stats.refused_unlogged
                + stats.refused_full,
            live_connections = stats.live_connections,
            "stopped"
        );
        Ok(())
    }
}
