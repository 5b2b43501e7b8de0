//! The places where askers of this host or of others knock: sockets in the file system and TCP ports.
//!
//! Opens, accepts and tells who knocks; speaks no protocol and judges nobody.

use nufw_proto::Addr;
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A TCP address and port.
    Tcp(SocketAddr),
}

impl Place {
    /// The socket in the file system, if it is one.
    pub fn socket(self) -> Option<PathBuf> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl Place {
    /// Reads `unix:/path` or `address:port`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.ends_with('/') => {
                Some(Self::Unix(PathBuf::from(path)))
            }
            Some(_) => None,
            None => text.parse().ok().map(Self::Tcp),
        }
    }
}

/// Why a place cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
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

/// A place that is open, outside of any runtime: connections wait in the kernel.
#[derive(Debug)]
pub enum Bound {
    /// A socket in the file system.
    Unix(std::os::unix::net::UnixListener, SocketFile),
    /// A TCP port.
    Tcp(std::net::TcpListener),
}

/// One place, ready to accept.
#[derive(Debug)]
pub enum Listener {
    /// A socket in the file system.
    Unix {
        /// The socket.
        socket: UnixListener,
        /// Its name.
        file: SocketFile,
    },
    /// A TCP port.
    Tcp(TcpListener),
}

/// The name of a socket, which is taken away at the end unless it is another's by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The file; `None` where it is another process's to take away.
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path).ok() == self.identity {
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
pub enum Stream {
    /// Over a socket in the file system.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

/// Who an asker is, as far as it can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A local process of this user; `None` when the kernel does not say.
    User(Option<u32>),
    /// A host.
    Host(IpAddr),
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket, _) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl Bound {
    /// Opens a place; a socket in the file system gets these permissions.
    pub fn open(place: &Place, socket_mode: u32) -> Result<Self, ListenError> {
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
        let bound = match place {
            Place::Tcp(address) => Self::Tcp(std::net::TcpListener::bind(address).map_err(refused)?),
            Place::Unix(path) => {
                remove_stale(path, place)?;
                let socket = std::os::unix::net::UnixListener::bind(path).map_err(refused)?;
                std::fs::set_permissions(path, Permissions::from_mode(socket_mode)).map_err(refused)?;
                let file = SocketFile {
                    path: path.clone(),
                    identity: Some(identity(path).map_err(refused)?),
                };
                Self::Unix(socket, file)
            }
        };
        match &bound {
            Self::Unix(socket, _) => socket.set_nonblocking(true),
            Self::Tcp(socket) => socket.set_nonblocking(true),
        }
        .map_err(refused)?;
        Ok(bound)
    }

    /// A place that is open already; `None` if the socket is not the place's. Its name in the file system is taken away at
    /// the end only by the process that `owns` it.
    pub fn handed(place: &Place, socket: OwnedFd, owns: bool) -> io::Result<Option<Self>> {
        Ok(match place {
            Place::Tcp(address) => {
                let socket = std::net::TcpListener::from(socket);
                let found = socket.local_addr()?;
                let is_that =
                    found.ip() == address.ip() && (address.port() == 0 || found.port() == address.port());
                is_that.then_some(Self::Tcp(socket))
            }
            Place::Unix(path) => {
                let socket = std::os::unix::net::UnixListener::from(socket);
                if socket.local_addr()?.as_pathname() != Some(path) {
                    return Ok(None);
                }
                let file = SocketFile {
                    path: path.clone(),
                    identity: if owns { identity(path).ok() } else { None },
                };
                Some(Self::Unix(socket, file))
            }
        })
    }

    /// Hands it to the runtime of the caller.
    pub fn listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Unix(socket, file) => Listener::Unix {
                socket: UnixListener::from_std(socket)?,
                file,
            },
            Self::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
        })
    }

    /// Where it listens, as it came out.
    pub fn place(&self) -> String {
        match self {
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
            Self::Tcp(socket) => told(socket.local_addr()),
        }
    }
}

fn told(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

impl Listener {
    /// Opens a place within a runtime.
    pub fn bind(place: &Place, socket_mode: u32) -> Result<Self, ListenError> {
        Bound::open(place, socket_mode)?
            .listener()
            .map_err(|error| ListenError::Refused {
                place: place.to_string(),
                error,
            })
    }

    /// The next asker. Cancel-safe.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
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
    pub fn place(&self) -> String {
        match self {
            Self::Unix { file, .. } => format!("unix:{}", file.path.display()),
            Self::Tcp(socket) => told(socket.local_addr()),
        }
    }
}

/// Removes a socket that nobody answers any more, as a killed process leaves it.
fn remove_stale(path: &Path, place: &Place) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(ListenError::NotASocket(path.to_path_buf())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let place = Place::Unix(path.clone());
        let first = Listener::bind(&place, 0o640).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let second = Listener::bind(&place, 0o640).unwrap_err();
        assert!(matches!(second, ListenError::Taken(_)), "{second}");
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        let third = Listener::bind(&place, 0o640).unwrap_err();
        assert!(third.to_string().contains("not a socket"), "{third}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    /// The descriptor of a place that is open, as another process gets it.
    fn handed(bound: &Bound) -> OwnedFd {
        bound.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn a_socket_that_was_handed_on_answers_and_its_name_is_taken_away_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let place = Place::Unix(path.clone());
        let supervisors = Bound::open(&place, 0o600).unwrap();
        let workers = Bound::handed(&place, handed(&supervisors), false)
            .unwrap()
            .unwrap();
        assert_eq!(workers.place(), place.to_string());
        let asking = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let Bound::Unix(socket, _) = &workers else {
            panic!("{workers:?}")
        };
        socket.accept().unwrap();
        drop((workers, asking));
        assert!(path.exists(), "another worker answers there");
        let later = Bound::handed(&place, handed(&supervisors), true)
            .unwrap()
            .unwrap();
        // The image of before is replaced by an exec, which drops nothing.
        std::mem::forget(supervisors);
        drop(later);
        assert!(!path.exists());
    }

    #[test]
    fn a_name_that_is_anothers_by_now_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let place = Place::Unix(path.clone());
        let first = Bound::open(&place, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Bound::open(&place, 0o600).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_of_another_place_is_none_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| Place::Unix(dir.path().join(name));
        let open = Bound::open(&place("x.sock"), 0o600).unwrap();
        let others = Bound::open(&place("y.sock"), 0o600).unwrap();
        assert!(
            Bound::handed(&place("y.sock"), handed(&open), true)
                .unwrap()
                .is_none()
        );
        assert!(dir.path().join("y.sock").exists(), "it is another's");
        drop(others);

        let any = Place::parse("127.0.0.1:0").unwrap();
        let open = Bound::open(&any, 0o600).unwrap();
        let same = Place::parse(&open.place()).unwrap();
        assert!(Bound::handed(&any, handed(&open), false).unwrap().is_some());
        assert!(Bound::handed(&same, handed(&open), false).unwrap().is_some());
        for other in ["127.0.0.1:1", "[::1]:0", "0.0.0.0:0"] {
            let other = Place::parse(other).unwrap();
            assert!(
                Bound::handed(&other, handed(&open), false).unwrap().is_none(),
                "{other}"
            );
        }
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(Bound::handed(&same, pipe.into(), false).is_err());
    }

    #[test]
    fn a_place_is_a_socket_with_its_whole_path_or_an_address_with_a_port() {
        assert_eq!(
            Place::parse("unix:/run/x.sock"),
            Some(Place::Unix(PathBuf::from("/run/x.sock")))
        );
        for text in ["127.0.0.1:9641", "[::1]:9641"] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:",
            "unix:x.sock",
            "unix:/run/",
            "127.0.0.1",
            "localhost:9641",
            "9641",
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
