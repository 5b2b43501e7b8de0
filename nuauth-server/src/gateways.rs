//! The gateways' port: TLS with a certificate whose name is configured, hello, then messages both ways.
//!
//! What the messages mean is the engine's business; this module only lets the right peers speak, and in time.

use crate::config::Gateways;
use crate::engine::LinkId;
use crate::hub::{Event, ToLink, WAITING_FOR_PEER, goodbye};
use crate::paced;
use crate::port::{Blame, Cause, Complaints};
use crate::revocation::{self, Revoked, Serial};
use arc_swap::ArcSwap;
use nufw_common::clock;
use nufw_common::lifecycle::Shutdown;
use nufw_common::link::{FrameReader, FrameWriter, LinkError, Liveness, Read};
use nufw_common::tls;
use nufw_proto::gateway::{Heartbeat, Hello, ToAgent, ToServer};
use nufw_proto::{GATEWAY_ALPN, MAX_BODY, MAX_GREETING_BODY};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What every connection of the port needs.
pub(crate) struct GatewayPort {
    /// Replaced at a reload; counts for connections from then on.
    pub(crate) tls: ArcSwap<rustls::ServerConfig>,
    /// Names of the gateways that may connect.
    pub(crate) known: ArcSwap<Gateways>,
    pub(crate) hub: mpsc::Sender<Event>,
    /// True while the journal cannot take more: events then stay with the agents.
    pub(crate) backpressure: watch::Receiver<bool>,
    pub(crate) revoked: watch::Receiver<Arc<Revoked>>,
    pub(crate) dead_after: Duration,
    pub(crate) greeting_timeout: Duration,
    pub(crate) complaints: Complaints,
    pub(crate) next_link: AtomicU64,
}

type Stream = TlsStream<TcpStream>;

impl GatewayPort {
    /// Serves one connection to its end.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        stranger: OwnedSemaphorePermit,
    ) {
        self.complaints.connected();
        let greeted = tokio::time::timeout(self.greeting_timeout, self.greet(stream)).await;
        drop(stranger);
        let Greeted {
            name,
            hello,
            serial,
            reader,
            writer,
        } = match greeted {
            Ok(Ok(Some(greeted))) => greeted,
            Ok(Ok(None)) => return,
            Ok(Err(Blame { cause, why })) => return self.complaints.tell("gateways", peer, cause, &why),
            Err(_) => {
                let what = "the peer did not say hello in time";
                return self.complaints.tell("gateways", peer, Cause::Late, what);
            }
        };
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        tracing::info!(gateway = &*name, %peer, software = %hello.software, "gateway connected");
        let (out, instructions) = mpsc::channel(WAITING_FOR_PEER);
        let up = Event::GatewayUp {
            link,
            name: Arc::clone(&name),
            hello,
            out,
        };
        if self.hub.send(up).await.is_err() {
            return;
        }
        let ended = tokio::select! {
            ended = self.listen(link, reader) => ended,
            ended = speak(writer, instructions, self.dead_after) => ended,
            () = revocation::revoked(self.revoked.clone(), serial) => {
                Ended::Orderly("its certificate was revoked".to_owned())
            }
        };
        let _ = self.hub.send(Event::GatewayDown { link }).await;
        match ended {
            Ended::Orderly(why) => tracing::info!(gateway = &*name, %peer, "gateway gone: {why}"),
            Ended::Bad(error) => {
                self.complaints.count(Cause::Protocol);
                tracing::warn!(gateway = &*name, %peer, "gateway cut off: {error}");
            }
        }
    }

    /// TLS handshake, name, hello; `None` when a known gateway ends the session in order before its hello.
    async fn greet(&self, stream: TcpStream) -> Result<Option<Greeted>, Blame> {
        let acceptor = TlsAcceptor::from(self.tls.load_full());
        let stream = acceptor
            .accept(stream)
            .await
            .map_err(|error| Blame::tls(tls::explain(&error)))?;
        let session = stream.get_ref().1;
        tls::require_alpn(session.alpn_protocol(), GATEWAY_ALPN)
            .map_err(|error| Blame::tls(error.to_string()))?;
        let names = tls::peer_names(session.peer_certificates().unwrap_or_default())
            .map_err(|error| Blame::tls(error.to_string()))?;
        let Some(name) = self.known.load().recognise(&names) else {
            return Err(Blame::tls(format!(
                "the certificate's names [{}] are not one of the configured gateways: add it to gateways.names, or \
                 find out who uses it",
                names.dns.join(", ")
            )));
        };
        let serial = revocation::serial(session.peer_certificates());
        let (read, write) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read, MAX_GREETING_BODY);
        let mut messages = Vec::new();
        match reader
            .read_batch(&mut messages)
            .await
            .map_err(|error| error.to_string())?
        {
            Read::Closed => {
                tracing::debug!(
                    gateway = &*name,
                    "a gateway linked elsewhere looked whether this server is there"
                );
                return Ok(None);
            }
            Read::Messages => {}
        }
        let mut messages = messages.into_iter();
        match (messages.next(), messages.next()) {
            (Some(ToServer::Hello(hello)), None) => {
                reader.set_limit(MAX_BODY);
                Ok(Some(Greeted {
                    name,
                    hello,
                    serial,
                    reader,
                    writer: FrameWriter::new(write),
                }))
            }
            _ => Err(Blame::from(
                "the peer's first message was not a hello alone".to_owned(),
            )),
        }
    }

    /// Hands on what the agent says until it is silent for too long or breaks the protocol.
    async fn listen(&self, link: LinkId, mut reader: FrameReader<ReadHalf<Stream>>) -> Ended {
        let mut backpressure = self.backpressure.clone();
        loop {
            let mut messages = Vec::new();
            let read = tokio::time::timeout(self.dead_after, reader.read_batch(&mut messages)).await;
            match read {
                Err(_) => return Ended::Orderly("nothing came from it for too long".to_owned()),
                Ok(Err(error @ (LinkError::Cut | LinkError::Io(_)))) => {
                    return Ended::Orderly(error.to_string());
                }
                Ok(Err(error)) => return Ended::Bad(error),
                Ok(Ok(Read::Closed)) => return Ended::Orderly("it ended the connection".to_owned()),
                Ok(Ok(Read::Messages)) => {}
            }
            let leaving = messages.iter().find_map(|message| match message {
                ToServer::Goodbye(goodbye) => Some(goodbye.reason.to_string()),
                _ => None,
            });
            let only_heartbeats = messages
                .iter()
                .all(|message| matches!(message, ToServer::Heartbeat(_)));
            if !only_heartbeats
                && self
                    .hub
                    .send(Event::GatewaySaid { link, messages })
                    .await
                    .is_err()
            {
                return Ended::Orderly("the server ends".to_owned());
            }
            if let Some(reason) = leaving {
                return Ended::Orderly(reason);
            }
            // The agent keeps what is not acknowledged, so that not reading loses nothing.
            let _ = backpressure.wait_for(|full| !*full).await;
        }
    }
}

/// A gateway that may speak.
struct Greeted {
    name: Arc<str>,
    hello: Hello,
    serial: Option<Serial>,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
}

/// Why a connection is over.
enum Ended {
    Orderly(String),
    Bad(LinkError),
}

/// Says what the hub wants said, and a heartbeat when it is silent.
async fn speak(
    mut writer: FrameWriter<WriteHalf<Stream>>,
    mut instructions: mpsc::Receiver<ToLink>,
    dead_after: Duration,
) -> Ended {
    let mut liveness = Liveness::new(dead_after, clock::mono());
    let mut waiting = Vec::new();
    loop {
        let heartbeat = tokio::time::Instant::from_std(liveness.next_send());
        let count = tokio::select! {
            count = instructions.recv_many(&mut waiting, WAITING_FOR_PEER) => count,
            () = tokio::time::sleep_until(heartbeat) => {
                if let Err(error) = writer.queue(&ToAgent::Heartbeat(Heartbeat)) {
                    return Ended::Bad(error);
                }
                1
            }
        };
        let mut end = (count == 0).then_some("it does not take what is sent to it");
        for instruction in waiting.drain(..) {
            match instruction {
                ToLink::Say(messages) => {
                    for message in &messages {
                        if let Err(error) = writer.queue(message) {
                            return Ended::Bad(error);
                        }
                    }
                }
                ToLink::End(reason) => end = Some(reason),
            }
        }
        if let Some(reason) = end {
            let _ = writer.queue(&ToAgent::Goodbye(goodbye(reason)));
            // The peer may be the one that does not read.
            let _ = tokio::time::timeout(Duration::from_secs(1), writer.close()).await;
            return Ended::Orderly(reason.to_owned());
        }
        match tokio::time::timeout(dead_after, writer.flush()).await {
            Ok(Ok(())) => liveness.on_sent(clock::mono()),
            Ok(Err(error)) => return Ended::Bad(error),
            Err(_) => return Ended::Orderly("it does not take what is sent to it".to_owned()),
        }
    }
}

/// Takes gateways until the shutdown.
pub(crate) fn run(
    port: &Arc<GatewayPort>,
    listeners: Vec<TcpListener>,
    strangers: usize,
    shutdown: &Shutdown,
) {
    let places = Arc::new(Semaphore::new(strangers));
    let steps = Arc::new(paced::steps());
    for listener in listeners {
        let port = Arc::clone(port);
        let serve = move |stream, peer, stranger| Arc::clone(&port).serve(stream, peer, stranger);
        tokio::spawn(crate::port::accept(
            listener,
            Arc::clone(&places),
            Arc::clone(&steps),
            shutdown.clone(),
            serve,
        ));
    }
}
