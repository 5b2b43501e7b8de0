//! The socket file: made at the start, gone at the end, and who may come in.
//!
//! The file's mode keeps others out already; the peer's credentials are looked at all the same, since a directory on the way
//! may have been opened to everybody.

use crate::config::Control;
use anyhow::{Context as _, anyhow};
use nufw_common::privileges::peer_groups;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Read and write for owner and group.
const MODE: u32 = 0o660;
/// Where further groups may ask, the file lets everybody in, and the credentials decide.
const OPEN_MODE: u32 = 0o666;

/// The listening socket; its file goes with it.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode: another server may have replaced the file.
    identity: (u64, u64),
    access: Access,
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
        Self::bind(path, control)
            .with_context(|| format!("the control socket {} cannot be opened", path.display()))
            .map(Some)
    }

    fn bind(path: &Path, control: &Control) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let socket = UnixListener::bind(path)?;
        let (readers, admins) = (control.readers.clone(), control.admins.clone());
        let mode = if readers.is_empty() && admins.is_empty() {
            MODE
        } else {
            OPEN_MODE
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self {
            socket,
            path: path.to_path_buf(),
            identity: (file.dev(), file.ino()),
            access: Access {
                own: rustix::process::geteuid().as_raw(),
                group: file.gid(),
                readers,
                admins,
            },
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// What this peer may ask, or why it may ask nothing.
    pub(super) fn level(&self, stream: &UnixStream) -> Result<Level, String> {
        let peer = stream
            .peer_cred()
            .map_err(|error| format!("nobody can tell who is asking: {error}"))?;
        let mut groups = peer_groups(stream).unwrap_or_default();
        groups.push(peer.gid());
        self.access.level(peer.uid(), &groups)
    }
}

/// What an asker may ask; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// To look.
    Reader,
    /// To clean and rotate the log as well.
    Upkeep,
    /// Everything.
    Admin,
}

impl Level {
    /// Who has this level.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reader => "a member of a group of control.readers",
            Self::Upkeep => "the group of the socket",
            Self::Admin => "root, the server's own user or a member of a group of control.admins",
        }
    }

    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Reader => "may only look",
            Self::Upkeep => "may only look, clean and rotate",
            Self::Admin => "may do everything",
        }
    }
}

/// Who may ask what.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    /// The server's own user.
    pub(super) own: u32,
    /// The group of the socket's file.
    pub(super) group: u32,
    pub(super) readers: Vec<u32>,
    pub(super) admins: Vec<u32>,
}

impl Access {
    pub(super) fn level(&self, uid: u32, groups: &[u32]) -> Result<Level, String> {
        let any = |allowed: &[u32]| groups.iter().any(|group| allowed.contains(group));
        if uid == 0 || uid == self.own || any(&self.admins) {
            Ok(Level::Admin)
        } else if any(&[self.group]) {
            Ok(Level::Upkeep)
        } else if any(&self.readers) {
            Ok(Level::Reader)
        } else {
            Err(format!(
                "user {uid} may not ask: root may, the server's own user, group {}, and the groups of control.readers and \
                 control.admins",
                self.group
            ))
        }
    }
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
