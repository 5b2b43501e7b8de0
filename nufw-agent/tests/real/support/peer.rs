//! A server of the test's own: real TLS, the real protocol, no opinion.

use nufw_common::link::{FrameReader, FrameWriter, Read};
use nufw_common::tls::{self, ClientAuth, ServerTls};
use nufw_proto::gateway::{
    Answer, Ask, Capabilities, Goodbye, Heartbeat, Hello, ToAgent, ToServer, Unused, Verdict, Welcome,
};
use nufw_proto::{Batch, ConnId, CtEvent, EventSeq, GATEWAY_ALPN, MAX_BODY, Mark, Text};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::netns::Netns;

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Writes ca.crt, server.crt, server.key, agent.crt and agent.key.
pub(crate) fn write_pki(dir: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    for (file, name, usage) in [
        ("server", "nuauth.test", ExtendedKeyUsagePurpose::ServerAuth),
        ("agent", "gw1", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        fs::write(dir.join(format!("{file}.crt")), certificate.pem()).unwrap();
        let path = dir.join(format!("{file}.key"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// The listening side, in the gateway's namespace.
pub(crate) struct Peer {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl Peer {
    /// Listens on 127.0.0.1:4128 of the namespace.
    pub(crate) fn listen(netns: &Netns, pki: &Path) -> Self {
        let config = tls::server_config(&ServerTls {
            cert: pki.join("server.crt"),
            key: pki.join("server.key"),
            ca: pki.join("ca.crt"),
            crl: None,
            alpn: GATEWAY_ALPN.to_vec(),
            client_auth: ClientAuth::Required,
        })
        .unwrap();
        let listener = netns.run(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:4128").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        Self {
            listener: TcpListener::from_std(listener).unwrap(),
            acceptor: config.into(),
        }
    }

    /// Waits for an agent and its hello.
    pub(crate) async fn accept(&self) -> Session {
        tokio::time::timeout(PATIENCE, async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let stream = self.acceptor.accept(tcp).await.unwrap();
            let (read, write) = tokio::io::split(stream);
            let mut session = Session {
                reader: FrameReader::new(read, MAX_BODY),
                writer: FrameWriter::new(write),
                inbox: VecDeque::new(),
                hello: None,
                events: Vec::new(),
            };
            let ToServer::Hello(hello) = session.next().await.unwrap() else {
                panic!("the first message is not a hello");
            };
            session.hello = Some(hello);
            session
        })
        .await
        .expect("no agent came")
    }

    /// Waits for an agent and welcomes it.
    pub(crate) async fn welcome(&self, acknowledged: u64) -> Session {
        let mut session = self.accept().await;
        session.say(ToAgent::Welcome(welcome(acknowledged, 10_000))).await;
        session
    }
}

/// A welcome of the test's.
pub(crate) fn welcome(acknowledged: u64, dead_after_ms: u32) -> Welcome {
    Welcome {
        software: Text::lossy("test"),
        capabilities: Capabilities::default(),
        gateway: Text::lossy("gw1"),
        acknowledged: EventSeq(acknowledged),
        dead_after_ms,
        mark_mask: Mark(0x00ff_ffff),
    }
}

/// One link.
pub(crate) struct Session {
    reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: FrameWriter<WriteHalf<TlsStream<TcpStream>>>,
    inbox: VecDeque<ToServer>,
    hello: Option<Hello>,
    /// Events met while something else was looked for.
    pub(crate) events: Vec<(u64, CtEvent)>,
}

impl Session {
    /// What the agent said first.
    pub(crate) fn hello(&self) -> &Hello {
        self.hello.as_ref().unwrap()
    }

    /// The next message; `None` when the agent ended the link.
    pub(crate) async fn next(&mut self) -> Option<ToServer> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Some(message);
            }
            let mut batch = Vec::new();
            match self.reader.read_batch(&mut batch).await {
                Ok(Read::Messages) => self.inbox.extend(batch),
                Ok(Read::Closed) | Err(_) => return None,
            }
        }
    }

    /// The next message that `wanted` recognises; events on the way are kept, all else must be heartbeats.
    pub(crate) async fn expect<T>(&mut self, what: &str, wanted: impl Fn(&ToServer) -> Option<T>) -> T {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let message = self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("the link ended before {what}"));
                let hit = wanted(&message);
                match message {
                    ToServer::Events(events) => {
                        let first = events.first.0;
                        self.events.extend((first..).zip(events.events));
                    }
                    ToServer::Heartbeat(_) => {}
                    _ if hit.is_some() => {}
                    other => panic!("{other:?} instead of {what}"),
                }
                if let Some(hit) = hit {
                    return hit;
                }
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no {what}; events so far: {:#?}", self.events))
    }

    /// Every message up to the one that `last` recognises, heartbeats left out.
    pub(crate) async fn until(&mut self, what: &str, last: impl Fn(&ToServer) -> bool) -> Vec<ToServer> {
        self.until_within(PATIENCE, what, last).await
    }

    /// The same with a patience of the caller's.
    pub(crate) async fn until_within(
        &mut self,
        patience: Duration,
        what: &str,
        last: impl Fn(&ToServer) -> bool,
    ) -> Vec<ToServer> {
        let mut all = Vec::new();
        let waiting = tokio::time::timeout(patience, async {
            loop {
                let message = self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("the link ended before {what}"));
                if matches!(message, ToServer::Heartbeat(_)) {
                    continue;
                }
                let end = last(&message);
                all.push(message);
                if end {
                    return;
                }
            }
        });
        let came = waiting.await.is_ok();
        assert!(came, "no {what}; instead {all:#?}");
        all
    }

    /// The next ask; asks come alone in these tests.
    pub(crate) async fn ask(&mut self) -> Ask {
        self.expect("ask", |message| match message {
            ToServer::Asks(asks) => {
                assert_eq!(asks.len(), 1, "{asks:?}");
                Some(asks[0].clone())
            }
            _ => None,
        })
        .await
    }

    /// The next report of an unused verdict.
    pub(crate) async fn unused(&mut self) -> Unused {
        self.expect("unused", |message| match message {
            ToServer::Unused(unused) => Some(unused[0]),
            _ => None,
        })
        .await
    }

    /// Waits until the events so far satisfy `done`.
    pub(crate) async fn events_until(&mut self, what: &str, done: impl Fn(&[(u64, CtEvent)]) -> bool) {
        let waiting = tokio::time::timeout(PATIENCE, async {
            while !done(&self.events) {
                match self.next().await.expect("the link ended") {
                    ToServer::Events(events) => {
                        let first = events.first.0;
                        self.events.extend((first..).zip(events.events));
                    }
                    ToServer::Heartbeat(_) => {}
                    other => panic!("{other:?} instead of {what}"),
                }
            }
        });
        assert!(
            waiting.await.is_ok(),
            "no {what}; events so far: {:#?}",
            self.events
        );
    }

    /// Waits until the agent ends the link.
    pub(crate) async fn until_closed(&mut self) -> bool {
        tokio::time::timeout(PATIENCE, async { while self.next().await.is_some() {} })
            .await
            .is_ok()
    }

    /// Says something.
    pub(crate) async fn say(&mut self, message: ToAgent) {
        self.say_any(&message).await;
    }

    /// Says what may be no message of the protocol.
    pub(crate) async fn say_any(&mut self, message: &impl nufw_proto::Message) {
        self.writer.queue(message).unwrap();
        self.writer.flush().await.unwrap();
    }

    /// Answers an ask.
    pub(crate) async fn answer(&mut self, ask: &Ask, verdict: Verdict) {
        let answer = Answer { id: ask.id, verdict };
        self.say(ToAgent::Answers(Batch::try_from(vec![answer]).unwrap()))
            .await;
    }

    /// Accepts with a row and a mark.
    pub(crate) async fn accept(&mut self, ask: &Ask, row: u64, mark: u32) {
        let row = ConnId::try_from(row).unwrap();
        self.answer(
            ask,
            Verdict::Accept {
                row,
                mark: Mark(mark),
            },
        )
        .await;
    }

    /// Says that it lives.
    pub(crate) async fn heartbeat(&mut self) {
        self.say(ToAgent::Heartbeat(Heartbeat)).await;
    }

    /// Ends the link with a reason.
    pub(crate) async fn goodbye(mut self, reason: &str) {
        self.say(ToAgent::Goodbye(Goodbye {
            reason: Text::lossy(reason),
        }))
        .await;
        let _ = self.writer.close().await;
    }
}
