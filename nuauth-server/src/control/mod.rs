//! The server's own socket: what other programs of this host may ask it, one JSON object a line.
//!
//! Who may ask is decided here; the answers are the hub's and the journal's. A slow or greedy asker hurts nobody: askers,
//! lines and waits are bounded.

mod answers;
mod orders;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use answers::Moment;
pub(crate) use orders::{Administration, Order, PolicyInForce, Refreshed};
use socket::Level;
pub(crate) use socket::Listener;

use crate::directory::Known;
use crate::hub::Event;
use crate::journal::Journal;
use nufw_common::clock;
use nufw_common::control::{MAX_LINE, Reply, Request};
use nufw_common::lifecycle::Shutdown;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Connections at one time; a further one is told so and closed.
const MAX_ASKERS: usize = 64;
/// Locks at one time; a further one is refused.
const MAX_LOCKS: usize = 16;
/// A connection that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_mins(5);
/// How long an asker may take to read an answer.
const WRITE: Duration = Duration::from_secs(10);

/// What the answers are made of.
pub(crate) struct ControlPort {
    pub(crate) hub: mpsc::Sender<Event>,
    pub(crate) journal: Journal,
    /// Names of users by their ids; replaced at a reload.
    pub(crate) names: Arc<Known>,
    pub(crate) server_number: u16,
    pub(crate) database: String,
    pub(crate) started: Instant,
    /// Locks that askers hold, with the connection that does.
    pub(crate) locks: Mutex<HashMap<String, u64>>,
    pub(crate) administration: Administration,
}

/// Answers until the shutdown.
pub(crate) fn run(port: &Arc<ControlPort>, listener: Listener, shutdown: &Shutdown) {
    let port = Arc::clone(port);
    let mut ended = shutdown.clone();
    tokio::spawn(async move {
        let askers = Arc::new(Semaphore::new(MAX_ASKERS));
        let mut connection = 0;
        loop {
            let accepted = tokio::select! {
                () = ended.wait() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the control socket could not be accepted");
                    // Out of descriptors, most likely: trying again at once would only spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            connection += 1;
            let place = Arc::clone(&askers).try_acquire_owned();
            let asker = Asker {
                port: Arc::clone(&port),
                connection,
                may: match (&place, listener.level(&stream)) {
                    (_, Err(reason)) => Err(Reply::Denied(reason)),
                    (Err(_), Ok(_)) => Err(Reply::Busy(format!(
                        "{MAX_ASKERS} askers are connected, which is the most"
                    ))),
                    (Ok(_), Ok(level)) => Ok(level),
                },
            };
            let mut ended = ended.clone();
            tokio::spawn(async move {
                let _place: Option<OwnedSemaphorePermit> = place.ok();
                tokio::select! {
                    () = ended.wait() => {}
                    () = asker.serve(stream) => {}
                }
            });
        }
    });
}

/// One connection; its locks go with it.
struct Asker {
    port: Arc<ControlPort>,
    connection: u64,
    /// What it may ask, or why nothing.
    may: Result<Level, Reply>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.port.locks().retain(|_, holder| *holder != self.connection);
    }
}

impl ControlPort {
    fn locks(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    async fn serve(self, mut stream: UnixStream) {
        let level = match &self.may {
            Ok(level) => *level,
            Err(reply) => {
                let _ = write(&mut stream, reply).await;
                return;
            }
        };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        loop {
            let line = tokio::select! {
                line = read_line(&mut reader) => line,
                () = tokio::time::sleep(IDLE) => return,
            };
            let (reply, last) = match line {
                Line::Request(line) => match serde_json::from_slice::<Request>(&line) {
                    Ok(request) => (self.port.answer(request, self.connection, level).await, false),
                    Err(error) => (Reply::Error(format!("this is no request: {error}")), false),
                },
                Line::TooLong => (Reply::Error(format!("a line may have {MAX_LINE} bytes")), true),
                Line::End => return,
            };
            if !write(&mut writer, &reply).await || last {
                return;
            }
        }
    }
}

enum Line {
    Request(Vec<u8>),
    TooLong,
    End,
}

async fn read_line(reader: &mut BufReader<impl AsyncRead + Unpin>) -> Line {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    match reader.take(limit).read_until(b'\n', &mut line).await {
        Ok(_) if line.last() == Some(&b'\n') => Line::Request(line),
        Ok(_) if line.len() >= MAX_LINE => Line::TooLong,
        Ok(_) | Err(_) => Line::End,
    }
}

async fn write(stream: &mut (impl tokio::io::AsyncWrite + Unpin), reply: &Reply) -> bool {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    let written = tokio::time::timeout(WRITE, stream.write_all(&line)).await;
    matches!(written, Ok(Ok(())))
}

impl ControlPort {
    fn uptime(&self) -> u64 {
        clock::mono().saturating_duration_since(self.started).as_secs()
    }
}
