//! Asks a server: one question at a time on one connection.
//!
//! A connection that failed is not used again; connecting anew is the caller's business.

use super::{Done, Endpoints, Found, MAX_LINE, Reply, Request, Status, Verified};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("no server listens on {socket}: {cause}")]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The socket may not be used.
    #[error("no permission to ask the server on {0}: its own user and its group may")]
    Denied(PathBuf),
    /// The connection ended, or was never one to a server.
    #[error("the server on {socket} does not answer: {cause}")]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        cause: String,
    },
    /// No answer came in time.
    #[error("the server on {socket} did not answer within {} s", limit.as_secs_f64())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// The time it had.
        limit: Duration,
    },
    /// Somebody else is at it.
    #[error("{0}")]
    Busy(String),
    /// The server says that this asker may not ask this.
    #[error("the server on {socket} does not allow it: {reason}")]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// Its sentence.
        reason: String,
    },
    /// The server refused.
    #[error("the server on {socket} refuses: {reason}")]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// Its sentence.
        reason: String,
    },
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    socket: PathBuf,
    patience: Duration,
    /// An answer may be on its way that nobody waits for.
    broken: bool,
}

impl Client {
    /// How long an answer may take unless [`Self::with_patience`] says otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// Connects to the server that listens on `socket`.
    pub async fn connect(socket: &Path) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(socket).await.map_err(|cause| {
            let socket = socket.to_path_buf();
            if cause.kind() == io::ErrorKind::PermissionDenied {
                ControlError::Denied(socket)
            } else {
                ControlError::Absent { socket, cause }
            }
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
            socket: socket.to_path_buf(),
            patience: Self::PATIENCE,
            broken: false,
        })
    }

    /// The same connection with another patience for answers.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How the server is.
    pub async fn status(&mut self) -> Result<Status, ControlError> {
        self.ask(&Request::Status).await
    }

    /// Takes a lock for as long as this connection lasts.
    pub async fn lock(&mut self, name: &str) -> Result<(), ControlError> {
        let request = Request::Lock {
            name: name.to_owned(),
        };
        self.ask::<Done>(&request).await.map(drop)
    }

    /// Has one step of upkeep done.
    pub async fn maintain<T: DeserializeOwned>(&mut self, step: &impl Serialize) -> Result<T, ControlError> {
        let step = serde_json::to_value(step).map_err(|error| self.lost(error))?;
        self.ask(&Request::Maintain { step }).await
    }

    /// Has gateways show their tables.
    pub async fn verify(&mut self, gateways: Vec<String>) -> Result<Verified, ControlError> {
        self.ask(&Request::Verify { gateways }).await
    }

    /// Whose live connection this is.
    pub async fn lookup(&mut self, ends: Endpoints) -> Result<Option<Found>, ControlError> {
        self.ask(&Request::Lookup(ends)).await
    }

    /// Asks anything. When the future is dropped before it is done, the connection cannot be used again.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ControlError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(self.lost("an earlier question was given up"));
        }
        let reply = tokio::time::timeout(self.patience, self.exchange(request)).await;
        let reply = reply.map_err(|_| ControlError::TimedOut {
            socket: self.socket.clone(),
            limit: self.patience,
        })??;
        self.broken = false;
        match reply {
            Reply::Ok(value) => serde_json::from_value(value).map_err(|error| self.lost(error)),
            Reply::Busy(reason) => Err(ControlError::Busy(reason)),
            Reply::Denied(reason) => Err(ControlError::Forbidden {
                socket: self.socket.clone(),
                reason,
            }),
            Reply::Error(reason) => Err(ControlError::Refused {
                socket: self.socket.clone(),
                reason,
            }),
        }
    }

    async fn exchange(&mut self, request: &Request) -> Result<Reply, ControlError> {
        let mut line = serde_json::to_vec(request).map_err(|error| self.lost(error))?;
        line.push(b'\n');
        if line.len() > MAX_LINE {
            return Err(self.lost(format_args!(
                "a question has {} bytes, {MAX_LINE} may",
                line.len()
            )));
        }
        let written = self.writer.write_all(&line).await;
        line.clear();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        // Also when writing failed: the server may have said why before it ended the connection.
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line).await;
        if line.last() != Some(&b'\n') {
            written.map_err(|error| self.lost(error))?;
            read.map_err(|error| self.lost(error))?;
            return Err(self.lost("it ended the connection"));
        }
        serde_json::from_slice(&line).map_err(|error| self.lost(error))
    }

    fn lost(&self, cause: impl std::fmt::Display) -> ControlError {
        ControlError::Lost {
            socket: self.socket.clone(),
            cause: cause.to_string(),
        }
    }
}
