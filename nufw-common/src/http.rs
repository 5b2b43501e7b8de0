//! A small HTTP/1.1 server for askers of this host: bounded in connections, heads and times.
//!
//! Sockets and limits only; who may ask and what is answered is the [`Site`]'s.

use crate::lifecycle::Shutdown;
use crate::listen::{Listener, Peer, Stream};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

pub use bytes;
pub use http_body_util;
pub use hyper::{Method, Request, Response, StatusCode, body, header};

/// Bytes of a request's line and headers; more is answered with 431.
const MAX_HEAD: usize = 16 * 1024;
/// Headers of a request; more is answered with 431.
const MAX_HEADERS: usize = 64;
/// Pause after the system refused to accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer: all of it is there before the first byte goes out.
pub type Answer = Response<Full<Bytes>>;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long a connection may stay without a complete request.
    pub idle: Duration,
    /// How long a connection may last whatever happens on it, so that a slow reader keeps no place; `None` for as long as
    /// its peer likes, with as many requests as it likes. With an end, a connection carries one request.
    pub lifetime: Option<Duration>,
    /// How long those that are connected at the end may take to leave.
    pub drain: Duration,
}

/// What is served, and to whom.
pub trait Site: Send + Sync + 'static {
    /// A place for this asker; none, and it is hung up on.
    fn admit(&self, peer: Peer) -> Option<OwnedSemaphorePermit>;

    /// How long things may take.
    fn times(&self) -> Times;

    /// The answer to one request. Its body is never read.
    fn respond(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Serves until the shutdown.
pub async fn serve<S: Site>(listener: Listener, site: Arc<S>, mut token: Shutdown) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = token.wait() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(permit) = site.admit(peer) {
                    match stream {
                        Stream::Unix(stream) => serve_one(stream, permit, Arc::clone(&site), &graceful),
                        Stream::Tcp(stream) => serve_one(stream, permit, Arc::clone(&site), &graceful),
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
    let drained = tokio::time::timeout(site.times().drain, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!("some askers were still connected when their time to leave was over");
    }
}

fn serve_one<S: Site>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    permit: OwnedSemaphorePermit,
    site: Arc<S>,
    graceful: &GracefulShutdown,
) {
    let times = site.times();
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.idle)
        .keep_alive(times.lifetime.is_none())
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let ended = match times.lifetime {
            None => connection.await.map_err(|error| error.to_string()),
            Some(lifetime) => match tokio::time::timeout(lifetime, connection).await {
                Ok(ended) => ended.map_err(|error| error.to_string()),
                Err(_) => Err("its time was over".to_owned()),
            },
        };
        if let Err(why) = ended {
            tracing::debug!(why, "an asker's connection ended early");
        }
        drop(permit);
    });
}

/// A plain answer, which nobody may keep: the next one can be another.
pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}
