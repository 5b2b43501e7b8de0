//! How the agent is watched: metrics and health over HTTP, its status over a socket of its own, `nufw-agent status`.
//!
//! A thread of its own answers from what the main loop told last; the path of a packet has no part in it, and nobody who asks
//! can hold it up.

mod kernel;
mod moment;
mod show;
mod socket;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use kernel::{Kernel, SocketUse};
pub use moment::{Moment, Seen, TELL_EVERY};
pub use show::show;
pub use socket::{StatusError, ask};
pub use status::{Facts, STALE, Set, Status};
pub use table::TABLE;

use nufw_common::lifecycle::{self, Trigger};
use nufw_common::listen::{Bound, ListenError, Place};
use nufw_common::observe::{self as common, Observed, Report, SOCKET_MODE};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// Where the status is told unless it is configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nufw-agent/agent.sock";

/// Where the agent can be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Metrics and health.
    pub metrics: Option<Place>,
    /// The status.
    pub status: Option<PathBuf>,
    /// Whether the configuration names the latter: then it must come about.
    pub status_named: bool,
}

impl Places {
    fn both(&self) -> (Option<Place>, Option<Place>) {
        (self.metrics.clone(), self.status.clone().map(Place::Unix))
    }
}

/// The open places; connections wait in the kernel.
#[derive(Debug, Default)]
pub struct Opened {
    metrics: Option<Bound>,
    status: Option<Bound>,
}

impl Opened {
    /// Opens them. Done first of all, so that nothing later needs a right to.
    pub fn open(places: &Places) -> Result<Self, ListenError> {
        let metrics = places
            .metrics
            .as_ref()
            .map(|place| Bound::open(place, SOCKET_MODE))
            .transpose()?;
        Ok(Self {
            metrics,
            status: status(places)?,
        })
    }

    /// The same places, opened by another process that keeps them. One that is another than the configuration has, which may
    /// have changed since, is left alone.
    pub fn handed(places: &Places, metrics: Option<OwnedFd>, status: Option<OwnedFd>) -> Self {
        let (metrics_place, status_place) = places.both();
        Self {
            metrics: handed(metrics_place.as_ref(), metrics, false),
            status: handed(status_place.as_ref(), status, false),
        }
    }

    /// The same places, left open by a former image of this process. What it has not left is opened, if this process may
    /// still open anything; if not, the agent goes without.
    pub fn left(places: &Places, metrics: Option<OwnedFd>, status: Option<OwnedFd>) -> Self {
        let (metrics_place, status_place) = places.both();
        let anew = |place: Option<Place>, left: Option<OwnedFd>| {
            let place = place?;
            handed(Some(&place), left, true).or_else(|| {
                Bound::open(&place, SOCKET_MODE)
                    .inspect_err(|error| {
                        tracing::warn!(%error, "the agent cannot be watched there until it is restarted");
                    })
                    .ok()
            })
        };
        Self {
            metrics: anew(metrics_place, metrics),
            status: anew(
                status_place.filter(|_| status.is_some() || places.status_named),
                status,
            ),
        }
    }

    /// The listening sockets: metrics, status.
    pub(crate) fn descriptors(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        (
            self.metrics.as_ref().map(Bound::as_fd),
            self.status.as_ref().map(Bound::as_fd),
        )
    }
}

fn handed(place: Option<&Place>, socket: Option<OwnedFd>, owns: bool) -> Option<Bound> {
    let (place, socket) = (place?, socket?);
    match Bound::handed(place, socket, owns) {
        Ok(Some(bound)) => Some(bound),
        Ok(None) => {
            tracing::warn!(%place, "what is open for metrics or status is another place than this; restart the agent");
            None
        }
        Err(error) => {
            tracing::warn!(%place, %error, "a place that is open already cannot be used");
            None
        }
    }
}

/// The status socket. Where none is named and the usual directory is missing, as it is when no service manager made it, the
/// agent goes without.
fn status(places: &Places) -> Result<Option<Bound>, ListenError> {
    let Some(path) = &places.status else {
        return Ok(None);
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    if !places.status_named && !directory.is_dir() {
        tracing::debug!(
            directory = %directory.display(),
            "no status socket, since its directory is missing: make it, or set status.socket"
        );
        return Ok(None);
    }
    let bound = Bound::open(&Place::Unix(path.clone()), SOCKET_MODE);
    match bound {
        // Another agent of this host, most likely, with another queue.
        Err(error) if !places.status_named => {
            tracing::warn!(%error, "nobody can ask this agent for its status: set status.socket");
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

/// What askers are answered from.
#[derive(Debug)]
pub(crate) struct Watched {
    facts: Facts,
    moments: watch::Receiver<Moment>,
}

impl Watched {
    fn status(&self) -> Status {
        let ended = self.moments.has_changed().is_err();
        let moment = *self.moments.borrow();
        Status::new(&self.facts, &moment, ended)
    }
}

impl Observed for Watched {
    async fn metrics(&self) -> Result<String, String> {
        common::render(TABLE, self.status()).map_err(|error| error.to_string())
    }

    async fn health(&self) -> Report {
        self.status().health()
    }

    async fn ready(&self) -> Report {
        self.status().ready()
    }
}

/// The thread that answers; dropping it ends it and removes the sockets.
#[derive(Debug)]
pub struct Watching {
    trigger: Trigger,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.trigger.shut_down();
        if let Some(thread) = self.thread.take() {
            // It has logged why it failed, if it did.
            let _ = thread.join();
        }
    }
}

/// Answers at the open places from now on; none when nothing is open.
pub fn watch(opened: Opened, facts: Facts, moments: watch::Receiver<Moment>) -> io::Result<Option<Watching>> {
    let Opened { metrics, status } = opened;
    if metrics.is_none() && status.is_none() {
        return Ok(None);
    }
    if let Some(bound) = &metrics {
        tracing::info!(listen = bound.place(), "metrics can be read");
    }
    let (trigger, shutdown) = lifecycle::shutdown();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new()
        .name("observe".to_owned())
        .spawn(move || {
            let watched = Arc::new(Watched { facts, moments });
            runtime.block_on(async {
                let metrics = async {
                    if let Some(bound) = metrics {
                        common::serve(bound, Arc::clone(&watched), shutdown.clone()).await;
                    }
                };
                let status = async {
                    if let Some(bound) = status {
                        socket::serve(bound, Arc::clone(&watched), shutdown.clone()).await;
                    }
                };
                tokio::join!(metrics, status);
            });
        })?;
    Ok(Some(Watching {
        trigger,
        thread: Some(thread),
    }))
}
