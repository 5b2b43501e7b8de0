//! The places where askers knock: sockets in the file system and TCP ports, and who may ask over each.
//!
//! Accepts and judges the peer; speaks no HTTP.

use crate::config::{Asker, Listen, Serve};
use ipnet::IpNet;
use nufw_proto::Addr;
use std::fs::Permissions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Why a place cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Another program answers there.
    #[error("cannot listen at {0}: another program answers there already")]
    Taken(String),
    /// Something that is not a socket has the name.
    #[error("cannot listen at unix:{0}: that exists and is not a socket")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {place}: {error}")]
    Refused {
        /// Where.
        place: String,
        /// Why.
        error: io::Error,
    },
}

/// One place.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix { socket: UnixListener, file: SocketFile },
    Tcp(TcpListener),
}

/// The name of a socket, which is taken away at the end unless it is another's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What cannot be removed is found stale, and replaced, at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// An asker's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Who an asker is, as far as it can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A local process of this user; `None` when the kernel does not say.
    User(Option<u32>),
    /// A host.
    Host(IpAddr),
}

impl Listener {
    pub(crate) async fn bind(place: &Listen, socket_mode: u32) -> Result<Self, ListenError> {
        let refused = |error: io::Error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                ListenError::Taken(place.to_string())
            } else {
                ListenError::Refused {
                    place: place.to_string(),
                    error,
                }
            }
        };
        match place {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp).map_err(refused),
            Listen::Unix(path) => {
                remove_stale(path, place).await?;
                let socket = UnixListener::bind(path).map_err(refused)?;
                std::fs::set_permissions(path, Permissions::from_mode(socket_mode)).map_err(refused)?;
                let file = SocketFile {
                    path: path.clone(),
                    identity: identity(path).map_err(refused)?,
                };
                Ok(Self::Unix { socket, file })
            }
        }
    }

    /// The next asker. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Stream::Unix(stream), Peer::User(uid)))
            }
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                // Answers are one small segment; waiting to fill one would only delay it.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Host(Addr::from(address.ip()).ip())))
            }
        }
    }

    /// Where it listens, as it came out.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Unix { file, .. } => format!("unix:{}", file.path.display()),
            Self::Tcp(socket) => socket
                .local_addr()
                .map_or_else(|_| "?".to_owned(), |a| a.to_string()),
        }
    }
}

/// Removes a socket that nobody answers any more, as a killed process leaves it.
async fn remove_stale(path: &Path, place: &Listen) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(ListenError::NotASocket(path.to_path_buf())),
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
                .map_err(|error| ListenError::Refused {
                    place: place.to_string(),
                    error,
                }),
            _ => Err(ListenError::Taken(place.to_string())),
        },
        Err(_) => Ok(()),
    }
}

/// Who may ask.
#[derive(Debug, Clone)]
pub(crate) struct Askers {
    uids: Vec<u32>,
    networks: Vec<IpNet>,
    /// Names of no account.
    pub(crate) unknown: Vec<String>,
}

impl Askers {
    /// Those of the configuration, root, and `own`.
    pub(crate) fn new(serve: &Serve, own: u32) -> Self {
        let mut askers = Self {
            uids: vec![0, own],
            networks: serve.allow_from.clone(),
            unknown: Vec::new(),
        };
        for asker in &serve.allow_users {
            match (asker.uid(), asker) {
                (Some(uid), _) => askers.uids.push(uid),
                (None, Asker::Name(name)) => askers.unknown.push(name.clone()),
                (None, Asker::Uid(_)) => {}
            }
        }
        askers
    }

    pub(crate) fn may_ask(&self, peer: Peer) -> bool {
        match peer {
            Peer::User(uid) => uid.is_some_and(|uid| self.uids.contains(&uid)),
            Peer::Host(address) => self.networks.iter().any(|network| network.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_on_the_lists_may_ask() {
        let askers = Askers {
            uids: vec![0, 33],
            networks: vec!["127.0.0.1/32".parse().unwrap(), "fd00::/8".parse().unwrap()],
            unknown: Vec::new(),
        };
        for (peer, may) in [
            (Peer::User(Some(33)), true),
            (Peer::User(Some(1000)), false),
            (Peer::User(None), false),
            (Peer::Host("127.0.0.1".parse().unwrap()), true),
            (Peer::Host("127.0.0.2".parse().unwrap()), false),
            (Peer::Host("fd00::1".parse().unwrap()), true),
            (Peer::Host("2001:db8::1".parse().unwrap()), false),
        ] {
            assert_eq!(askers.may_ask(peer), may, "{peer:?}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let place = Listen::Unix(path.clone());
        let first = Listener::bind(&place, 0o640).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let second = Listener::bind(&place, 0o640).await.unwrap_err();
        assert!(matches!(second, ListenError::Taken(_)), "{second}");
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        let third = Listener::bind(&place, 0o640).await.unwrap_err();
        assert!(third.to_string().contains("not a socket"), "{third}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
