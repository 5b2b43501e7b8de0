//! One attempt to reach the server: TCP, TLS 1.3 with both certificates, hello and welcome.
//!
//! Every step is bounded in time, and each failure says which step it was.

use nufw_common::link::{FrameReader, FrameWriter, LinkError, Read};
use nufw_proto::gateway::{Hello, ToAgent, ToServer, Welcome};
use nufw_proto::{GATEWAY_ALPN, MAX_BODY, MAX_GREETING_BODY, Text};
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How long each of name look-up, TCP connection (per address) and everything after it may take.
pub(super) const GREETING: Duration = Duration::from_secs(5);

/// Where the server is and who it must prove to be.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The name that its certificate must carry.
    pub name: ServerName<'static>,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the server's name cannot be resolved: {0}")]
    Resolve(#[source] io::Error),
    /// No TCP connection.
    #[error("the server cannot be reached: {0}")]
    Tcp(#[source] io::Error),
    /// No TLS session.
    #[error("no TLS session with the server: {0}")]
    Tls(#[source] io::Error),
    /// The peer does not speak our protocol.
    #[error(
        "the peer does not speak the gateway protocol (no ALPN {})",
        String::from_utf8_lossy(GATEWAY_ALPN)
    )]
    Alpn,
    /// The server refused this gateway.
    #[error("the server refuses this gateway: {0}")]
    Refused(Text<255>),
    /// The server said something else than welcome.
    #[error("the server did not keep to the protocol: {0}")]
    Protocol(String),
    /// The exchange failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A step took too long.
    #[error("the server did not {0} within {GREETING:?}")]
    Late(&'static str),
}

type Stream = TlsStream<TcpStream>;

/// A link that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) reader: FrameReader<ReadHalf<Stream>>,
    pub(super) writer: FrameWriter<WriteHalf<Stream>>,
    pub(super) welcome: Welcome,
    /// Messages that came together with the welcome.
    pub(super) early: Vec<ToAgent>,
}

/// Makes a link.
pub(super) async fn connect(
    target: Arc<Target>,
    tls: Arc<rustls::ClientConfig>,
    hello: Hello,
) -> Result<Session, ConnectError> {
    let tcp = reach(&target.address).await?;
    // Verdicts are small and wanted at once; batching is done before the write.
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let greeting = greet(tcp, &target, tls, hello);
    match tokio::time::timeout(GREETING, greeting).await {
        Ok(session) => session,
        Err(_) => Err(ConnectError::Late("answer")),
    }
}

async fn reach(address: &str) -> Result<TcpStream, ConnectError> {
    let look_up = tokio::net::lookup_host(address);
    let addresses: Vec<SocketAddr> = match tokio::time::timeout(GREETING, look_up).await {
        Ok(found) => found.map_err(ConnectError::Resolve)?.collect(),
        Err(_) => return Err(ConnectError::Late("get its name resolved")),
    };
    let mut last = ConnectError::Resolve(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    for address in addresses {
        last = match tokio::time::timeout(GREETING, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => ConnectError::Tcp(error),
            Err(_) => ConnectError::Late("accept a TCP connection"),
        };
    }
    Err(last)
}

async fn greet(
    tcp: TcpStream,
    target: &Target,
    tls: Arc<rustls::ClientConfig>,
    hello: Hello,
) -> Result<Session, ConnectError> {
    let stream = tokio_rustls::TlsConnector::from(tls)
        .connect(target.name.clone(), tcp)
        .await
        .map_err(ConnectError::Tls)?;
    if stream.get_ref().1.alpn_protocol() != Some(GATEWAY_ALPN) {
        return Err(ConnectError::Alpn);
    }
    let (read, write) = tokio::io::split(stream);
    let mut reader = FrameReader::new(read, MAX_GREETING_BODY);
    let mut writer = FrameWriter::new(write);
    writer.queue(&ToServer::Hello(hello))?;
    writer.flush().await?;
    let mut early = Vec::new();
    if reader.read_batch(&mut early).await? == Read::Closed {
        return Err(ConnectError::Protocol(
            "it ended the connection instead of a welcome".to_owned(),
        ));
    }
    reader.set_limit(MAX_BODY);
    let first = early.remove(0);
    match first {
        ToAgent::Welcome(welcome) => Ok(Session {
            reader,
            writer,
            welcome,
            early,
        }),
        ToAgent::Goodbye(goodbye) => Err(ConnectError::Refused(goodbye.reason)),
        _ => Err(ConnectError::Protocol(
            "its first message is not a welcome".to_owned(),
        )),
    }
}
