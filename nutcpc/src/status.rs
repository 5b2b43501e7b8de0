//! The user's own socket, at which a nutcpc that runs says how it is and takes the order to log out: one JSON object a line.
//!
//! Answers nobody but processes of the same user, so many at a time and no longer than a few seconds. Knows no session: what is
//! asked is handed on.

use crate::state::View;
use nufw_common::exit::{Exit, Failure};
use nufw_common::listen::{Listener, Peer, Place, Stream};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Askers at a time; one more is hung up on.
const MAX_ASKERS: usize = 8;
/// Longest question, bytes.
const MAX_QUESTION: u64 = 4096;
/// Longest answer, bytes: states of as many servers as there may be.
pub(crate) const MAX_ANSWER: u64 = 256 * 1024;
/// How long an asker may take with its question, and to take the answer.
const ASKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long answers may take that are being written when the program ends.
const LEAVE_PATIENCE: Duration = Duration::from_millis(500);
/// How long an answer may take: a farewell to a server that does not listen takes some seconds.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How it is.
    Status,
    /// End one session, or all.
    Logout {
        #[serde(default)]
        server: Option<String>,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// How every server's session is.
    Servers(Vec<View>),
    /// These were logged out.
    LoggedOut(Vec<String>),
    /// Why not: a sentence.
    Error(String),
}

/// A question on its way to whoever can answer it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// The user's directory for sockets; made by whoever opens the first one.
pub(crate) fn directory() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime
        .filter(|path| path.is_absolute())
        .map(|path| path.join("nufw"))
}

/// The socket of an instance.
pub(crate) fn socket(directory: &Path, instance: Option<&str>) -> PathBuf {
    directory.join(match instance {
        Some(name) => format!("nutcpc-{name}.sock"),
        None => "nutcpc.sock".to_owned(),
    })
}

/// A name that can be part of a file's.
pub(crate) fn check_instance(name: Option<&str>) -> Result<(), Failure> {
    let is_good = |name: &str| {
        (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    match name.filter(|name| !is_good(name)) {
        None => Ok(()),
        Some(name) => {
            let text = format!(
                "--instance {name:?}: up to 32 letters, digits, dots, dashes and underscores, please"
            );
            Err(Failure::new(Exit::Usage, anyhow::anyhow!(text)))
        }
    }
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// Another one runs.
    #[error(
        "another nutcpc of yours runs (process {0}): nutcpc status shows it and nutcpc logout ends it; --instance NAME \
         runs one beside it"
    )]
    Taken(String),
    /// The directory or a file in it cannot be used.
    #[error("the socket for nutcpc status cannot be made: {}: {cause}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

/// The socket, open. As long as it lives no other nutcpc of this user and this name runs.
pub(crate) struct Door {
    listener: Listener,
    _lock: std::fs::File,
    uid: u32,
}

impl Door {
    /// Takes the lock and opens the socket, in the place of one that a killed process left; within a runtime.
    pub(crate) fn open(directory: &Path, instance: Option<&str>) -> Result<Self, DoorError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |cause: String| DoorError::Unusable { path, cause }
        };
        let own = rustix::process::geteuid().as_raw();
        private(directory, own).map_err(unusable(directory))?;
        let path = socket(directory, instance);
        let lock_path = path.with_extension("lock");
        let lock = lock(&lock_path).map_err(|error| match error {
            LockError::Taken(pid) => DoorError::Taken(pid),
            LockError::Io(cause) => unusable(&lock_path)(cause.to_string()),
        })?;
        let listener = Listener::bind(&Place::Unix(path.clone()), 0o600);
        Ok(Self {
            listener: listener.map_err(|error| unusable(&path)(error.to_string()))?,
            _lock: lock,
            uid: own,
        })
    }

    /// Takes questions until it is dropped with its task.
    pub(crate) async fn serve(self, asks: mpsc::Sender<Ask>, Askers(places): Askers) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok((Stream::Unix(stream), peer)) => (stream, peer),
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(%error, "an asker could not be let in");
                    // Without descriptors there is no end of errors.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if peer != Peer::User(Some(self.uid)) {
                tracing::warn!(
                    "somebody else's process asked at the socket for nutcpc status: it is not answered"
                );
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let asks = asks.clone();
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &asks).await {
                    tracing::debug!(%error, "an asker was not answered");
                }
                drop(place);
            });
        }
    }
}

/// Who is being answered.
#[derive(Debug, Clone)]
pub(crate) struct Askers(Arc<Semaphore>);

impl Default for Askers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_ASKERS)))
    }
}

impl Askers {
    /// Waits until everybody has had an answer, but not for those who have not asked.
    pub(crate) async fn leave(&self) {
        let all = u32::try_from(MAX_ASKERS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(LEAVE_PATIENCE, self.0.acquire_many(all)).await;
    }
}

async fn converse(mut stream: UnixStream, asks: &mpsc::Sender<Ask>) -> io::Result<()> {
    let mut line = String::new();
    let (read, mut write) = stream.split();
    let mut reader = BufReader::new(read.take(MAX_QUESTION));
    let read = tokio::time::timeout(ASKER_PATIENCE, reader.read_line(&mut line));
    read.await.map_err(|_| io::ErrorKind::TimedOut)??;
    let reply = match serde_json::from_str(&line) {
        Err(error) => Reply::Error(format!("this is no question: {error}")),
        Ok(request) => {
            let (answer, reply) = oneshot::channel();
            let asked = asks.send(Ask { request, answer }).await.is_ok();
            match tokio::time::timeout(ANSWER_PATIENCE, reply).await {
                Ok(Ok(reply)) if asked => reply,
                _ => Reply::Error("it takes too long, or is about to end".to_owned()),
            }
        }
    };
    let mut text = serde_json::to_string(&reply).map_err(io::Error::from)?;
    text.push('\n');
    let written = tokio::time::timeout(ASKER_PATIENCE, write.write_all(text.as_bytes()));
    written.await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The directory is there, and the user's alone.
fn private(directory: &Path, own: u32) -> Result<(), String> {
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.to_string()),
        _ => {}
    }
    let meta = std::fs::symlink_metadata(directory).map_err(|error| error.to_string())?;
    if !meta.is_dir() || meta.uid() != own || meta.mode() & 0o022 != 0 {
        return Err("it must be a directory of yours that nobody else can write to".to_owned());
    }
    Ok(())
}

enum LockError {
    /// By the process of this number.
    Taken(String),
    Io(io::Error),
}

/// Holds the file for as long as it is open: the kernel lets go of it whatever ends the process.
fn lock(path: &Path) -> Result<std::fs::File, LockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| LockError::Io(error.into()))?;
    let mut file = std::fs::File::from(file);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only a word for a person: what cannot be read is not known.
            let _ = file.take(16).read_to_string(&mut pid);
            let pid = pid.trim();
            let known = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
            return Err(LockError::Taken(if known { pid } else { "unknown" }.to_owned()));
        }
        Err(error) => return Err(LockError::Io(error.into())),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(LockError::Io)?;
    Ok(file)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
