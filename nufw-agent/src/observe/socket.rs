//! The status socket: whoever connects gets the status as one line of JSON, and is hung up on.
//!
//! Nothing is read from an asker. Who may connect is decided by the file's permissions.

use super::Watched;
use super::status::Status;
use nufw_common::lifecycle::Shutdown;
use nufw_common::listen::{Bound, Stream};
use nufw_common::observe::MAX_ASKERS;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// How long an asker may take to read.
const WRITE: Duration = Duration::from_secs(5);
/// Bytes of a status; nobody reads more.
const MAX_STATUS: u64 = 1 << 20;
/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody listens there.
    #[error("no agent runs here: nobody answers on {0} (key status.socket)")]
    Absent(PathBuf),
    /// The socket may not be used.
    #[error("no permission to ask the agent on {0}: its own user and its group may, and root")]
    Denied(PathBuf),
    /// It answered, but not with a status.
    #[error("the agent on {0} does not tell its status: {1}")]
    Lost(PathBuf, String),
}

/// Answers until the shutdown; within a runtime.
pub(super) async fn serve(bound: Bound, watched: Arc<Watched>, mut shutdown: Shutdown) {
    let listener = match bound.listener() {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "nobody can read the status: the open socket cannot be used");
            return;
        }
    };
    let room = Arc::new(Semaphore::new(MAX_ASKERS));
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((Stream::Unix(mut stream), _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let mut line = serde_json::to_vec(&watched.status()).unwrap_or_default();
        line.push(b'\n');
        tokio::spawn(async move {
            let told = tokio::time::timeout(WRITE, async {
                stream.write_all(&line).await?;
                stream.shutdown().await
            });
            // Whoever does not read it does not want it.
            let _ = told.await;
            drop(place);
        });
    }
}

/// Asks the agent that listens on `path`.
pub fn ask(path: &Path) -> Result<Status, StatusError> {
    let lost = |error: String| StatusError::Lost(path.to_owned(), error);
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => StatusError::Denied(path.to_owned()),
        _ => StatusError::Absent(path.to_owned()),
    })?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|error| lost(error.to_string()))?;
    let mut text = String::new();
    stream
        .take(MAX_STATUS)
        .read_to_string(&mut text)
        .map_err(|error| lost(error.to_string()))?;
    if text.is_empty() {
        return Err(lost(format!("{MAX_ASKERS} others are asking, which is the most")));
    }
    serde_json::from_str(&text).map_err(|error| lost(error.to_string()))
}
