//! How a daemon is watched: its numbers at `/metrics`, whether it lives at `/health`, whether it can do its work at `/ready`.
//!
//! Bounded, and apart from the daemon's work: what is asked here is answered from what the daemon told last, and an asker
//! who reads slowly or comes with many keeps only other askers waiting.

mod checks;
pub mod process;
mod scrape;
mod table;

pub use checks::{Check, Report};
pub use scrape::{Sample, Scrape, ScrapeError};
pub use table::{MAX_VALUES, Metric, Reading, mistakes, names, render};

use crate::http::{self, Answer, Method, Request, Site, StatusCode, Times, body::Incoming};
use crate::lifecycle::Shutdown;
use crate::listen::{Bound, Peer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Askers at one time; a further one is hung up on.
pub const MAX_ASKERS: usize = 8;
/// Permissions of a socket in the file system: the daemon's own user and its group may read.
pub const SOCKET_MODE: u32 = 0o660;
/// How long an asker may take with its request, with the whole exchange, and with leaving at the end.
const TIMES: Times = Times {
    idle: Duration::from_secs(5),
    lifetime: Some(Duration::from_secs(10)),
    drain: Duration::from_secs(1),
};
/// What `/metrics` is: the text format of Prometheus.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A daemon that is watched.
pub trait Observed: Send + Sync + 'static {
    /// Its numbers in the text format, or why there are none.
    fn metrics(&self) -> impl Future<Output = Result<String, String>> + Send;

    /// Whether it lives. A service manager that hears "no" starts it anew.
    fn health(&self) -> impl Future<Output = Report> + Send;

    /// Whether it can do its work at this moment. Who hears "no" sends work elsewhere, or a message to somebody.
    fn ready(&self) -> impl Future<Output = Report> + Send;
}

/// Answers askers at an open place until the shutdown; within a runtime.
pub async fn serve<O: Observed>(bound: Bound, observed: Arc<O>, shutdown: Shutdown) {
    let endpoint = Endpoint {
        observed,
        room: Arc::new(Semaphore::new(MAX_ASKERS)),
    };
    match bound.listener() {
        Ok(listener) => http::serve(listener, Arc::new(endpoint), shutdown).await,
        Err(error) => tracing::warn!(%error, "nobody can read the metrics: the open port cannot be used"),
    }
}

struct Endpoint<O> {
    observed: Arc<O>,
    room: Arc<Semaphore>,
}

impl<O: Observed> Site for Endpoint<O> {
    fn admit(&self, peer: Peer) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok();
        if place.is_none() {
            tracing::debug!(
                ?peer,
                "hung up on somebody who wanted the metrics: as many as may are connected"
            );
        }
        place
    }

    fn times(&self) -> Times {
        TIMES
    }

    async fn respond(&self, request: Request<Incoming>) -> Answer {
        const PLAIN: &str = "text/plain; charset=utf-8";
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return http::text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is answered\n");
        }
        match request.uri().path() {
            "/metrics" => match self.observed.metrics().await {
                Ok(page) => http::text(StatusCode::OK, EXPOSITION, page),
                Err(why) => http::text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
            },
            "/health" => told(&self.observed.health().await),
            "/ready" => told(&self.observed.ready().await),
            _ => http::text(
                StatusCode::NOT_FOUND,
                PLAIN,
                "ask for /metrics, /health or /ready\n",
            ),
        }
    }
}

fn told(report: &Report) -> Answer {
    let status = if report.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    http::text(status, "application/json", report.json())
}

#[cfg(test)]
mod tests;
