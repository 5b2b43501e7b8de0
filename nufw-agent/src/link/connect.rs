//! One attempt to reach a server: TCP, TLS 1.3 with both certificates, hello and welcome.
//!
//! Every step is bounded in time, and each failure says which step it was. Of several servers the first that can be
//! reached is greeted; the better ones have a head start.

use nufw_common::link::{FrameReader, FrameWriter, LinkError, Read};
use nufw_proto::gateway::{Hello, ToAgent, ToServer, Welcome};
use nufw_proto::{GATEWAY_ALPN, MAX_BODY, MAX_GREETING_BODY, Text};
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
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
    /// None of several servers gave a link.
    #[error("none of the servers gave a link: {0}")]
    Nobody(String),
    /// A step took too long.
    #[error("the server did not {0} within {GREETING:?}")]
    Late(&'static str),
}

/// What the next server of the list waits for the one before it.
const HEAD_START: Duration = Duration::from_millis(250);

pub(super) type Stream = TlsStream<TcpStream>;

/// A link that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) reader: FrameReader<ReadHalf<Stream>>,
    pub(super) writer: FrameWriter<WriteHalf<Stream>>,
    pub(super) welcome: Welcome,
    /// Messages that came together with the welcome.
    pub(super) early: Vec<ToAgent>,
}

/// Makes a link to the first of these servers that can be had; gives its place among them.
pub(super) async fn connect_any(
    targets: Vec<(usize, Target)>,
    tls: Arc<rustls::ClientConfig>,
    hello: Hello,
) -> Result<(usize, Session), ConnectError> {
    let one = targets.len() == 1;
    let mut attempts = JoinSet::new();
    for (turn, (at, target)) in (0..).zip(targets) {
        let tls = Arc::clone(&tls);
        attempts.spawn(async move {
            tokio::time::sleep(HEAD_START * turn).await;
            let reached = reach(&target, tls).await;
            (at, target.address, reached)
        });
    }
    let mut failures = Vec::new();
    while let Some(ended) = attempts.join_next().await {
        let (at, address, reached) =
            ended.map_err(|panicked| ConnectError::Protocol(panicked.to_string()))?;
        let session = match reached {
            Ok(stream) => within("answer", greet(stream, hello.clone())).await,
            Err(error) => Err(error),
        };
        match session {
            Ok(session) => return Ok((at, session)),
            Err(error) if one => return Err(error),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    failures.sort();
    Err(ConnectError::Nobody(failures.join("; ")))
}

/// Whether a server can be reached and proves who it is. Nothing is said to it.
pub(super) async fn is_healthy(target: &Target, tls: Arc<rustls::ClientConfig>) -> bool {
    match reach(target, tls).await {
        Ok(mut stream) => {
            // It has shown what it can; how the end of the session goes says nothing more.
            let _ = within("end the session", async {
                stream.shutdown().await.map_err(ConnectError::Tls)
            })
            .await;
            true
        }
        Err(error) => {
            tracing::debug!(server = target.address, %error, "a better server is still away");
            false
        }
    }
}

async fn within<T>(
    step: &'static str,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match tokio::time::timeout(GREETING, work).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Late(step)),
    }
}

/// TCP and TLS.
async fn reach(target: &Target, tls: Arc<rustls::ClientConfig>) -> Result<Stream, ConnectError> {
    let tcp = dial(&target.address).await?;
    // Verdicts are small and wanted at once; batching is done before the write.
    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
    let stream = within("answer", async {
        tokio_rustls::TlsConnector::from(tls)
            .connect(target.name.clone(), tcp)
            .await
            .map_err(ConnectError::Tls)
    })
    .await?;
    if stream.get_ref().1.alpn_protocol() != Some(GATEWAY_ALPN) {
        return Err(ConnectError::Alpn);
    }
    Ok(stream)
}

async fn dial(address: &str) -> Result<TcpStream, ConnectError> {
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

/// Hello and welcome.
async fn greet(stream: Stream, hello: Hello) -> Result<Session, ConnectError> {
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
