//! A crowd: many clients in one process, each from an address of its own. They log in, stay, and come back by their tickets.
//!
//! Speaks the client protocol itself, since ten thousand processes would measure the machine. Nothing here claims a connection.

use crate::wait::now;
use anyhow::{Context, Result, bail};
use nufw_common::backoff::Backoff;
use nufw_common::link::{FrameReader, FrameWriter, Liveness, Read};
use nufw_common::tls::{ClientTls, client_config, server_name};
use nufw_proto::client::{
    Heartbeat, Hello, Login, OsInfo, REASONS, Refusal, Resume, TICKETS, ToClient, ToServer,
};
use nufw_proto::{CLIENT_ALPN, LoginBytes, MAX_BODY, SecretBytes, Text};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// As a user's client waits between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// As a user's client gives a login up.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Who they are.
#[derive(Debug, Clone)]
pub struct CrowdOptions {
    /// The server.
    pub server: SocketAddr,
    /// Its name in its certificate.
    pub name: String,
    /// Who signed that.
    pub ca: PathBuf,
    /// So many clients; the users are `crowd0`, `crowd1` and so on.
    pub count: u32,
    /// The address of the first one; the others follow.
    pub source: Ipv4Addr,
    /// The password of all of them.
    pub password: String,
}

/// What happened; one object a line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CrowdReport {
    /// Clients that are logged in: all of them.
    pub clients: u32,
    /// How long that took from the first attempt, or from the first connection that was lost, in seconds.
    pub seconds: f64,
    /// Attempts that did not come to a session.
    pub failed: u32,
    /// Logins by a ticket.
    pub by_ticket: u32,
}

enum News {
    In { by_ticket: bool },
    Failed,
    Lost,
}

/// Lets them live, and calls `tell` each time that all are logged in; ends when `tell` does, or when it fails.
pub async fn crowd(options: &CrowdOptions, mut tell: impl FnMut(CrowdReport) -> Result<()>) -> Result<()> {
    let tls = client_config(&ClientTls {
        ca: options.ca.clone(),
        crl: None,
        cert_key: None,
        alpn: CLIENT_ALPN.to_vec(),
    })?;
    let name = server_name(&options.name)?;
    let shared = Arc::new(Shared {
        options: options.clone(),
        connector: TlsConnector::from(tls),
        name,
    });
    let (news_in, mut news) = mpsc::unbounded_channel();
    for number in 0..options.count {
        tokio::spawn(Arc::clone(&shared).live(number, news_in.clone()));
    }
    let mut began = now();
    let (mut there, mut failed, mut by_ticket) = (0_u32, 0, 0);
    while let Some(item) = news.recv().await {
        match item {
            News::In { by_ticket: ticket } => {
                there += 1;
                by_ticket += u32::from(ticket);
                if there == options.count {
                    tell(CrowdReport {
                        clients: there,
                        seconds: began.elapsed().as_secs_f64(),
                        failed: std::mem::take(&mut failed),
                        by_ticket: std::mem::take(&mut by_ticket),
                    })?;
                }
            }
            News::Failed => failed += 1,
            News::Lost => {
                if there == options.count {
                    began = now();
                }
                there -= 1;
            }
        }
    }
    Ok(())
}

struct Shared {
    options: CrowdOptions,
    connector: TlsConnector,
    name: rustls_pki_types::ServerName<'static>,
}

struct Session {
    reader: FrameReader<tokio::io::ReadHalf<TlsStream<tokio::net::TcpStream>>>,
    writer: FrameWriter<tokio::io::WriteHalf<TlsStream<tokio::net::TcpStream>>>,
    inbox: Vec<ToClient>,
    liveness: Liveness,
}

impl Shared {
    async fn live(self: Arc<Self>, number: u32, news: mpsc::UnboundedSender<News>) {
        let mut ticket = None;
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let by_ticket = ticket.is_some();
            let opening = tokio::time::timeout(LOGIN_TIMEOUT, self.log_in(number, &mut ticket));
            if let Ok(Ok(mut session)) = opening.await {
                backoff.reset();
                let _ = news.send(News::In { by_ticket });
                // How it ended is of no interest: it is had again.
                let _ = session.stay(&mut ticket).await;
                let _ = news.send(News::Lost);
            } else {
                let _ = news.send(News::Failed);
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn log_in(&self, number: u32, kept: &mut Option<SecretBytes>) -> Result<Session> {
        let source = Ipv4Addr::from_bits(self.options.source.to_bits() + number);
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
        let stream = socket.connect(self.options.server).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let (read, write) = tokio::io::split(stream);
        let mut session = Session {
            reader: FrameReader::new(read, MAX_BODY),
            writer: FrameWriter::new(write),
            inbox: Vec::new(),
            liveness: Liveness::new(LOGIN_TIMEOUT, now()),
        };
        let hello = Hello {
            software: Text::lossy("nufw-lab crowd"),
            capabilities: REASONS.and(TICKETS),
            os: OsInfo::default(),
            system: false,
        };
        session.say(&ToServer::Hello(hello)).await?;
        let ToClient::Welcome(_) = session.hear().await? else {
            bail!("no welcome");
        };
        let shown = match kept.clone() {
            Some(ticket) => ToServer::Resume(Resume { ticket }),
            None => ToServer::Login(Login {
                mechanism: Text::lossy("PLAIN"),
                response: LoginBytes::new(format!("\0crowd{number}\0{}", self.options.password).into_bytes())
                    .context("the password is too long")?,
            }),
        };
        session.say(&shown).await?;
        let there = match session.hear().await? {
            ToClient::LoggedIn(there) => there,
            ToClient::Refused(refused) => {
                if refused.cause == Refusal::Ticket {
                    *kept = None;
                }
                bail!("refused: {:?}", refused.cause);
            }
            _ => bail!("not logged in"),
        };
        session
            .liveness
            .set_dead_after(Duration::from_millis(there.dead_after_ms.into()));
        Ok(session)
    }
}

impl Session {
    async fn say(&mut self, message: &ToServer) -> Result<()> {
        self.writer.queue(message)?;
        self.writer.flush().await?;
        self.liveness.on_sent(now());
        Ok(())
    }

    async fn hear(&mut self) -> Result<ToClient> {
        if self.inbox.is_empty()
            && let Read::Closed = self.reader.read_batch(&mut self.inbox).await?
        {
            bail!("the server has closed the connection");
        }
        self.liveness.on_traffic(now());
        Ok(self.inbox.remove(0))
    }

    /// Until the server ends it, or is dead.
    async fn stay(&mut self, ticket: &mut Option<SecretBytes>) -> Result<()> {
        loop {
            let next: Instant = self.liveness.next_send().min(self.liveness.next_check());
            tokio::select! {
                message = self.hear() => {
                    if let ToClient::Ticket(fresh) = message? {
                        *ticket = Some(fresh.ticket);
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {
                    if self.liveness.is_dead(now()) {
                        bail!("the server is silent");
                    }
                    if self.liveness.due_to_send(now()) {
                        self.say(&ToServer::Heartbeat(Heartbeat)).await?;
                    }
                }
            }
        }
    }
}
