//! The socket file: made at the start, gone at the end, and who may come in.
//!
//! The file's mode keeps others out already; the peer's credentials are looked at all the same, since a directory on the way
//! may have been opened to everybody.

use crate::config::Control;
use anyhow::{Context as _, anyhow};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Read and write for owner and group.
const MODE: u32 = 0o660;

/// The listening socket; its file goes with it.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode: another server may have replaced the file.
    identity: (u64, u64),
    group: u32,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Opens the socket that the configuration names. Where it names none and the usual directory is missing, as it is when
    /// no service manager made it, the server goes without.
    pub(crate) fn open(control: &Control) -> anyhow::Result<Option<Self>> {
        let Some(path) = &control.socket else {
            return Ok(None);
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        if !directory.is_dir() && !control.configured {
            tracing::warn!(
                directory = %directory.display(),
                "nobody can ask this server anything, since the directory for its socket is missing: make it, or set control.socket"
            );
            return Ok(None);
        }
        Self::bind(path)
            .with_context(|| format!("the control socket {} cannot be opened", path.display()))
            .map(Some)
    }

    fn bind(path: &Path) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self {
            socket,
            path: path.to_path_buf(),
            identity: (file.dev(), file.ino()),
            group: file.gid(),
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// Why this peer may not ask, if it may not.
    pub(super) fn refuses(&self, stream: &UnixStream) -> Option<String> {
        let own = rustix::process::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) => refuses(peer.uid(), peer.gid(), own, self.group),
            Err(error) => Some(format!("nobody can tell who is asking: {error}")),
        }
    }
}

pub(super) fn refuses(uid: u32, gid: u32, own: u32, group: u32) -> Option<String> {
    (uid != 0 && uid != own && gid != group).then(|| {
        format!("user {uid} with group {gid} may not ask: root may, the server's own user, and whoever runs with group {group}")
    })
}

/// Removes the file that a server left which was killed; refuses to when one listens there, or when it is something else.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !file.file_type().is_socket() {
        return Err(anyhow!("something else than a socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(anyhow!(
            "another server listens there: give each a control.socket of its own"
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}
