//! The server as a whole: start, reload, drain.
//!
//! One function each. Everything is read and checked before anything is opened; what is opened is opened in the order
//! in which it may be missing: log, engine, ports.

use crate::auth::FailureLimiter;
use crate::clients::{self, ClientPort};
use crate::config::{OnLoss, Override, ServerConfig};
use crate::control::{self, ControlPort};
use crate::directory::{Answer, Calls, Directory, Hasher, Helper, Known, Launch, Remembered, Settings};
use crate::engine::{Engine, Identity, Input, Now};
use crate::gateways::{self, GatewayPort};
use crate::hub::{Asked, Event, Hub, WAITING_EVENTS};
use crate::journal::{self, Journal};
use crate::observe::{self, Reloads, Watched};
use crate::policy::Policy;
use crate::port::{self, Complaints};
use crate::revocation::Revoked;
use crate::sandbox;
use crate::unlogged;
use crate::users::Users;
use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::lifecycle::{self, Shutdown, Signal, Signals};
use nufw_common::listen::Bound;
use nufw_common::tls;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// How long the log may take to write what waits when the server ends.
const LAST_COMMITS: Duration = Duration::from_secs(10);
/// Users that back-ends are asked about at one time, when all that are logged in are asked about again.
const ASKED_AGAIN: usize = 8;
/// How much earlier than the client is given up the back-ends are.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a reload replaces.
struct Files {
    users: Users,
    /// What those who ask other back-ends are told.
    settings: Settings,
    policy: Policy,
    for_gateways: Arc<rustls::ServerConfig>,
    for_clients: Arc<rustls::ServerConfig>,
    revoked: Revoked,
}

impl Files {
    fn load(config: &ServerConfig) -> anyhow::Result<Self> {
        let users = Users::load_with(&config.users, config.mark_mask, &config.directories.names)?;
        let weak = users.weak().len();
        if weak > 0 {
            tracing::warn!(
                users = weak,
                "passwords are kept with weak hashes of other systems; `nuauth-server check` names them"
            );
        }
        let read = Policy::load(&config.policy, &users, config.directories.all_known())?;
        for note in &read.notes {
            tracing::warn!("{note}");
        }
        for sentence in unlogged::warnings(config.engine.levels, &read.policy) {
            tracing::warn!("{sentence}");
        }
        Ok(Self {
            for_gateways: tls::server_config(&config.tls.for_gateways())?,
            for_clients: tls::server_config(&config.tls.for_clients())?,
            revoked: Revoked::load(config.tls.crl.as_deref())?,
            policy: read.policy.rejecting(config.rejects_by_default),
            settings: config.directories.settings()?,
            users,
        })
    }
}

/// The open ports, before the runtime.
struct Listeners {
    gateways: Vec<std::net::TcpListener>,
    clients: Vec<std::net::TcpListener>,
    metrics: Option<Bound>,
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
    hasher: Arc<Hasher>,
    remote: Option<Calls>,
}

/// Runs the server until SIGTERM.
pub(crate) fn run(path: &Path, overrides: Vec<Override>) -> Result<(), Failure> {
    let mut config = ServerConfig::load(path, &overrides).or_exit(Exit::Config)?;
    // It starts programs and speaks to directories, which the server itself is about to give up.
    let helper = helper(&config)?;
    // Everything is read as the server's own user: what a reload could not read is found at the start.
    if sandbox::own_user(&config)? {
        config = ServerConfig::load(path, &overrides).or_exit(Exit::Config)?;
    }
    let files = Files::load(&config).or_exit(Exit::Config)?;
    let listeners = Listeners {
        gateways: port::listen(&config.gateways.listen).or_exit(Exit::Unavailable)?,
        clients: port::listen(&config.clients.listen).or_exit(Exit::Unavailable)?,
        metrics: observe::open(config.metrics.as_ref()).or_exit(Exit::Unavailable)?,
    };
    // Before any other thread starts, the runtime's and the database's included; no peer was heard yet.
    sandbox::profile(&config)
        .apply(config.privileges.sandbox)
        .or_exit(Exit::Unavailable)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")
        .or_exit(Exit::OsErr)?;
    runtime.block_on(serve(config, overrides, files, listeners, helper))
}

/// Starts the process that asks other back-ends than the users file, where there are any.
fn helper(config: &ServerConfig) -> Result<Option<Helper>, Failure> {
    if !config.directories.needs_helper() {
        return Ok(None);
    }
    let launch = Launch {
        program: std::env::current_exe()
            .context("this program's own path cannot be had")
            .or_exit(Exit::OsErr)?,
        user: config.privileges.user.clone(),
        system_user: config
            .directories
            .system
            .as_ref()
            .and_then(|system| system.user.clone()),
        sandbox: config.privileges.sandbox.to_string(),
    };
    Helper::start(&launch)
        .context("the helper process that asks directories cannot be started")
        .or_exit(Exit::OsErr)
        .map(Some)
}

/// What answers logins: the users file that was read, and who is asked beside it.
fn directory(config: &ServerConfig, users: Users, hasher: &Arc<Hasher>, remote: Option<&Calls>) -> Directory {
    Directory::new(
        Arc::new(users),
        config.directories.clone(),
        config.mark_mask,
        Arc::clone(hasher),
        remote.cloned(),
        config.ports.greeting_timeout.saturating_sub(LAST_WORD),
    )
}

async fn serve(
    config: ServerConfig,
    overrides: Vec<Override>,
    files: Files,
    listeners: Listeners,
    helper: Option<Helper>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()
        .context("signals cannot be received")
        .or_exit(Exit::OsErr)?;
    let gateway_listeners = port::into_tokio(listeners.gateways).or_exit(Exit::OsErr)?;
    let client_listeners = port::into_tokio(listeners.clients).or_exit(Exit::OsErr)?;
    let (trigger, shutdown) = lifecycle::shutdown();
    let (server, mut hub) = start(config, overrides, files, helper).await?;
    let socket = control::Listener::open(&server.config.control).or_exit(Exit::CantCreate)?;
    server.open(gateway_listeners, client_listeners, socket, &shutdown);
    if let Some(bound) = listeners.metrics {
        observe::run(server.watched(), bound, &shutdown);
    }
    lifecycle::notify_ready();
    let crashed = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => server.reload(),
                Signal::Terminate => break false,
            },
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

/// Who is asked about users: the threads that check passwords of the file, and the helper process.
async fn who_is_asked(
    config: &ServerConfig,
    settings: Settings,
    helper: Option<Helper>,
) -> Result<(Arc<Hasher>, Option<Calls>), Failure> {
    let hasher = Hasher::start(config.ports.password_checks)
        .context("the threads that check passwords cannot be started")
        .or_exit(Exit::OsErr)?;
    let remote = match helper {
        None => None,
        Some(helper) => Some(helper.connect(settings).await.or_exit(Exit::OsErr)?),
    };
    Ok((hasher, remote))
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

/// Opens the log and puts an engine that knows it to work.
async fn start(
    config: ServerConfig,
    overrides: Vec<Override>,
    mut files: Files,
    helper: Option<Helper>,
) -> Result<(Server, tokio::task::JoinHandle<()>), Failure> {
    let (database, number) = (&config.log.database, config.server_number);
    let spool = spool(&config).await?;
    let (reports_in, reports) = mpsc::unbounded_channel();
    let opened = Journal::open(database, number, spool, journal::Limits::default(), reports_in)
        .await
        .map_err(Failure::from)?;
    let journal = opened.journal;
    let mut engine = Engine::new(config.engine, Arc::new(files.policy)).with_users(&files.users.identities());
    let start = Now {
        mono: Duration::ZERO,
        wall: clock::wall(),
    };
    let known = match opened.known {
        Some(journal::Known { rows, acknowledged }) => {
            tracing::info!(%database, active_rows = rows.len(), "log opened");
            Input::Loaded { rows, acknowledged }
        }
        None => Input::LoadedLater,
    };
    engine.handle(known, start, &mut Vec::new());
    let identities = files.users.identities();
    engine.handle(Input::Users(identities), start, &mut Vec::new());

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
    let known = Arc::new(Known::default());
    known.read(files.users.names());
    let settings = std::mem::take(&mut files.settings);
    let (hasher, remote) = who_is_asked(&config, settings, helper).await?;
    let remembered = config
        .directories
        .needs_helper()
        .then(|| Remembered::new(files.users.identities()));
    let directory = directory(&config, files.users, &hasher, remote.as_ref());
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
        failures: Mutex::new(FailureLimiter::default()),
        scram_secret: rand::random(),
        complaints: Complaints::default(),
        tokens: Mutex::new(HashMap::new()),
        next_session: AtomicU64::new(1),
    });
    let control = Arc::new(ControlPort {
        hub: hub.clone(),
        journal: journal.clone(),
        names: known,
        server_number: config.server_number,
        database: config.log.database.to_string(),
        started: clock::mono(),
        locks: Mutex::default(),
    });
    let task = tokio::spawn(Hub::new(engine, journal.clone(), remembered).run(events, reports));
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
            reloads: Arc::new(Reloads::new()),
            hasher,
            remote,
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
            reloads: Arc::clone(&self.reloads),
            listening: listen.into_iter().flatten().copied().collect(),
            started: u64::try_from(clock::wall().micros() / 1_000_000).unwrap_or_default(),
        }
    }

    /// Reads users, access lists, gateway names, certificates and revocation list again. Sessions and links stay; all
    /// that was there stays when one file is bad.
    fn reload(&self) {
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
                self.gateways.tls.store(files.for_gateways);
                self.gateways.known.store(Arc::new(config.gateways.clone()));
                self.clients.tls.store(files.for_clients);
                if config.directories.needs_helper() && self.remote.is_none() {
                    tracing::error!(
                        "users.ldap and users.system count from the next start: nothing asks them so far"
                    );
                }
                let event = Event::Reload {
                    judge: Arc::new(files.policy),
                    users: files.users.identities(),
                };
                self.clients.known.read(files.users.names());
                let directory = Arc::new(directory(
                    &config,
                    files.users,
                    &self.hasher,
                    self.remote.as_ref(),
                ));
                self.clients.directory.store(Arc::clone(&directory));
                self.revoked.send_replace(Arc::new(files.revoked));
                let (hub, remote) = (self.hub.clone(), self.remote.clone());
                tokio::spawn(async move {
                    if let Some(remote) = remote {
                        remote.set(files.settings).await;
                    }
                    let _ = hub.send(event).await;
                    ask_again(&directory, &hub).await;
                });
                tracing::info!(
                    "reloaded; listening addresses, limits and the log's place count from the next start"
                );
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "not reloaded: everything stays as it was"
                );
            }
        }
        lifecycle::notify_ready();
    }

    /// Answers what waits, says goodbye, writes what is not durable, closes the log.
    async fn drain(self) -> Result<(), Failure> {
        let (done, stopped) = oneshot::channel();
        let stats = match self.hub.send(Event::Stop { done }).await {
            Ok(()) => stopped.await.unwrap_or_default(),
            Err(_) => crate::engine::Stats::default(),
        };
        self.journal.drain(LAST_COMMITS).await.or_exit(Exit::IoErr)?;
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

/// Asks back-ends about everybody whom the users file does not say everything about, and tells the hub who is gone and who has
/// other groups. Of whom they cannot say, nothing changes.
async fn ask_again(directory: &Arc<Directory>, hub: &mpsc::Sender<Event>) {
    let (answer, answered) = oneshot::channel();
    if hub.send(Event::Remembered { answer }).await.is_err() {
        return;
    }
    let remembered = answered.await.unwrap_or_default();
    let mut unsaid = 0;
    for few in remembered.chunks(ASKED_AGAIN) {
        let mut asked = tokio::task::JoinSet::new();
        for identity in few {
            let (directory, identity) = (Arc::clone(directory), Arc::clone(identity));
            asked.spawn(async move { ask(&directory, &identity).await });
        }
        let answers = asked.join_all().await;
        unsaid += answers.iter().filter(|answer| answer.is_none()).count();
        let answers: Vec<Asked> = answers.into_iter().flatten().collect();
        if !answers.is_empty() && hub.send(Event::Asked(answers)).await.is_err() {
            return;
        }
    }
    if unsaid > 0 {
        tracing::warn!(
            users = unsaid,
            "directories could not say of these users whether they are still there; they stay as they are"
        );
    }
}

async fn ask(directory: &Directory, identity: &Arc<Identity>) -> Option<Asked> {
    let name = &identity.user.name;
    match directory.identify(name, false).await {
        // Another id is another user of that name.
        Answer::Known(now) if now.user.id == identity.user.id => Some(Asked::Known(now)),
        Answer::Known(_) | Answer::Unknown => Some(Asked::Gone(Arc::clone(name))),
        Answer::CannotSay(why) => {
            tracing::debug!(user = &**name, why, "not known whether the user is still there");
            None
        }
    }
}
