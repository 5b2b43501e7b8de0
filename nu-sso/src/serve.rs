//! `nu-sso serve`: answers HTTP questions of web servers and proxies until it is told to end.
//!
//! Sockets, limits and signals; what a question means is `http`'s.

use crate::askers::Askers;
use crate::config::{Config, Serve};
use crate::finder::Finder;
use crate::http;
use anyhow::Context as _;
use hyper::Request;
use hyper::body::Incoming;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::http::{self as common_http, Answer, Site, Times};
use nufw_common::lifecycle::{self, Signal, Signals};
use nufw_common::listen::{ListenError, Listener, Peer};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often the same complaint about askers is logged.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// What all listeners share.
struct Shared {
    finder: Arc<Finder>,
    serve: Serve,
    askers: arc_swap::ArcSwap<Askers>,
    room: Arc<Semaphore>,
    full: Complaint,
    strangers: Complaint,
}

/// A warning that can repeat: counted, and told once a while.
struct Complaint {
    count: AtomicU64,
    told: std::sync::Mutex<Option<std::time::Instant>>,
}

impl Complaint {
    fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            told: std::sync::Mutex::new(None),
        }
    }

    /// Counts one; the count, if it is time to tell it.
    fn add(&self) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let now = nufw_common::clock::mono();
        let mut told = self.told.lock().ok()?;
        if told.is_some_and(|told| now.saturating_duration_since(told) < COMPLAIN_EVERY) {
            return None;
        }
        *told = Some(now);
        Some(count)
    }
}

/// Serves until SIGTERM.
pub(crate) async fn run(config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::new()
        .context("cannot take over the signals")
        .or_exit(Exit::OsErr)?;
    let finder = Finder::closed(config.database.clone(), config.finder()).with_server(config.server.clone());
    let finder = Arc::new(finder);
    // A web server must get its 503 rather than no answer, so a log that is away does not keep us from starting.
    if let Err(error) = finder.reopen().await {
        tracing::warn!(%error, database = %config.database, "the log cannot be read; answering 503 until it can");
    }
    let own = rustix::process::geteuid().as_raw();
    let askers = Askers::new(&config.serve, own);
    warn_of(&askers);
    let shared = Arc::new(Shared {
        finder,
        askers: arc_swap::ArcSwap::from_pointee(askers),
        room: Arc::new(Semaphore::new(config.serve.max_connections as usize)),
        serve: config.serve.clone(),
        full: Complaint::new(),
        strangers: Complaint::new(),
    });
    let mut listeners = Vec::new();
    for place in &config.serve.listen {
        let listener = Listener::bind(place, config.serve.socket_mode);
        listeners.push(listener.map_err(|error| Failure::new(exit_of(&error), error))?);
    }
    let (trigger, token) = lifecycle::shutdown();
    let tasks: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            tracing::info!(listen = listener.place(), database = %config.database, "ready");
            tokio::spawn(common_http::serve(listener, Arc::clone(&shared), token.clone()))
        })
        .collect();
    lifecycle::notify_ready();
    loop {
        match signals.next().await {
            Signal::Terminate => break,
            Signal::Reload => {
                let askers = Askers::new(&config.serve, own);
                warn_of(&askers);
                shared.askers.store(Arc::new(askers));
                match shared.finder.reopen().await {
                    Ok(()) => tracing::info!("the log was opened anew"),
                    Err(error) => {
                        tracing::warn!(%error, "the log cannot be read; answering 503 until it can");
                    }
                }
            }
        }
    }
    tracing::info!("ending: no new askers, those that wait are answered");
    lifecycle::notify_stopping();
    trigger.shut_down();
    for task in tasks {
        task.await.context("a listener failed").or_exit(Exit::Software)?;
    }
    Ok(())
}

fn warn_of(askers: &Askers) {
    for name in &askers.unknown {
        tracing::warn!(
            name,
            "serve.allow-users names an account that does not exist; nobody can ask by it"
        );
    }
}

fn exit_of(error: &ListenError) -> Exit {
    match error {
        ListenError::Refused { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Exit::NoPerm,
        ListenError::Refused { error, .. } if error.kind() == io::ErrorKind::AddrNotAvailable => Exit::Config,
        ListenError::Refused { .. } => Exit::OsErr,
        ListenError::Taken(_) => Exit::Unavailable,
        ListenError::NotASocket(_) => Exit::CantCreate,
    }
}

impl Site for Shared {
    fn admit(&self, peer: Peer) -> Option<OwnedSemaphorePermit> {
        if !self.askers.load().may_ask(peer) {
            if let Some(count) = self.strangers.add() {
                tracing::warn!(
                    ?peer,
                    count,
                    "refused an asker that serve.allow-users or serve.allow-from does not name"
                );
            }
            return None;
        }
        let permit = Arc::clone(&self.room).try_acquire_owned().ok();
        if permit.is_none()
            && let Some(count) = self.full.add()
        {
            tracing::warn!(
                count,
                "closed an asker's connection: serve.max-connections are in use"
            );
        }
        permit
    }

    fn times(&self) -> Times {
        Times {
            idle: self.serve.idle_timeout,
            lifetime: None,
            drain: self.serve.drain_timeout,
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Answer {
        http::respond(&self.finder, &self.serve.user_header, &request).await
    }
}
