//! `nu-sso serve`: answers HTTP questions of web servers and proxies until it is told to end.
//!
//! Sockets, limits and signals; what a question means is `http`'s.

use crate::config::{Config, Serve};
use crate::finder::Finder;
use crate::http;
use crate::listen::{Askers, ListenError, Listener, Peer, Stream};
use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use nufw_common::lifecycle::{self, Shutdown, Signal, Signals};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a request's line and headers; more is answered with 431.
const MAX_HEAD: usize = 16 * 1024;
/// Headers of a request; more is answered with 431.
const MAX_HEADERS: usize = 64;
/// Pause after the system refused to accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
        let listener = Listener::bind(place, config.serve.socket_mode).await;
        listeners.push(listener.map_err(|error| Failure::new(exit_of(&error), error))?);
    }
    let (trigger, token) = lifecycle::shutdown();
    let tasks: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            tracing::info!(listen = listener.place(), database = %config.database, "ready");
            tokio::spawn(listen(listener, Arc::clone(&shared), token.clone()))
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

async fn listen(listener: Listener, shared: Arc<Shared>, mut token: Shutdown) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = token.wait() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(permit) = shared.admit(peer) {
                    match stream {
                        Stream::Unix(stream) => serve_one(stream, permit, Arc::clone(&shared), &graceful),
                        Stream::Tcp(stream) => serve_one(stream, permit, Arc::clone(&shared), &graceful),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an asker");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The name goes first: a successor may take it while we answer the last questions.
    drop(listener);
    let drained = tokio::time::timeout(shared.serve.drain_timeout, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!("some askers were still connected after serve.drain-timeout");
    }
}

impl Shared {
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
}

fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    permit: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    graceful: &GracefulShutdown,
) {
    let idle = shared.serve.idle_timeout;
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            Ok::<_, Infallible>(http::respond(&shared.finder, &shared.serve.user_header, &request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an asker's connection ended early");
        }
        drop(permit);
    });
}
