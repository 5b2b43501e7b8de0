//! From a server's name to a TLS session with the right server, from an address of choice.
//!
//! Speaks no message: what is said over the session is for [`crate::session`] and [`crate::proofs`].

use crate::error::LoginError;
use nufw_common::tls;
use nufw_proto::CLIENT_ALPN;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long one address of the server may take to accept a TCP connection: a host whose IPv6 leads nowhere shall not
/// wait long for its IPv4.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of one server that are tried.
pub(crate) const MAX_SERVER_ADDRESSES: usize = 16;

/// Makes TLS sessions with one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    pub(crate) fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        Self {
            connector: TlsConnector::from(config),
            name,
        }
    }

    /// Connects to one address of the server, from `source` if one is given, within `limit`.
    pub(crate) async fn dial(
        &self,
        server: SocketAddr,
        source: Option<IpAddr>,
        limit: Duration,
    ) -> Result<TlsStream<TcpStream>, LoginError> {
        let timed_out = |limit| move |_| LoginError::TimedOut { server, limit };
        let connect_limit = CONNECT_TIMEOUT.min(limit);
        let stream = tokio::time::timeout(connect_limit, tcp(server, source))
            .await
            .map_err(timed_out(connect_limit))?
            .map_err(|cause| LoginError::Connect { server, cause })?;
        let stream = tokio::time::timeout(limit, self.connector.connect(self.name.clone(), stream))
            .await
            .map_err(timed_out(limit))?
            .map_err(|cause| LoginError::Handshake { server, cause })?;
        tls::require_alpn(stream.get_ref().1.alpn_protocol(), CLIENT_ALPN)
            .map_err(|cause| LoginError::Protocol { server, cause })?;
        Ok(stream)
    }
}

async fn tcp(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if server.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(server).await?;
    // Claims are small and somebody waits for each.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Every address of the server: what its name resolves to, then the ones given further.
pub(crate) async fn resolve(
    host: &str,
    port: u16,
    also: &[SocketAddr],
) -> Result<Vec<SocketAddr>, LoginError> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let failure = match found {
        Ok(found) => {
            servers.extend(found);
            None
        }
        Err(cause) => Some(cause),
    };
    servers.extend_from_slice(also);
    let mut unique: Vec<SocketAddr> = Vec::new();
    for server in servers {
        let server = SocketAddr::new(server.ip().to_canonical(), server.port());
        if !unique.contains(&server) && unique.len() < MAX_SERVER_ADDRESSES {
            unique.push(server);
        }
    }
    if unique.is_empty() {
        let cause = failure.unwrap_or_else(|| io::Error::other("the name resolves to nothing"));
        return Err(LoginError::Resolve {
            host: host.to_owned(),
            cause,
        });
    }
    Ok(unique)
}
