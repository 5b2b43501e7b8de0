//! A server for the client's tests: real TLS, the real wire, and a script instead of an engine.

use nufw_common::link::{FrameReader, LinkError, Read};
use nufw_common::tls::{ClientAuth, ServerTls, peer_names, server_config};
use nufw_proto::client::{
    Capabilities, Challenge, Hello, LoggedIn, Login as LoginMessage, Refusal, Refused, ToClient, ToServer,
    Welcome,
};
use nufw_proto::{CLIENT_ALPN, MAX_BODY, SecretBytes, SessionId, Text};
use nutcpc::{Client, ClientError, Command, Event, Login, Options, Password};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Nothing in these tests takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Certificates in a directory of their own.
pub(crate) struct Pki {
    pub(crate) dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self {
            dir: tempfile::tempdir().unwrap(),
            ca,
        };
        std::fs::write(pki.path("ca.crt"), pki.ca.pem()).unwrap();
        pki.issue(
            "server",
            &["fw.test", "127.0.0.1"],
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        pki.issue("alice", &[], ExtendedKeyUsagePurpose::ClientAuth);
        pki.secret("password", "wonderland\n");
        pki
    }

    fn issue(&self, name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        self.secret(&format!("{name}.key"), &key.serialize_pem());
    }

    pub(crate) fn secret(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options of a client that logs in as alice with her password.
    pub(crate) fn options(&self, server: SocketAddr) -> Options {
        Options {
            host: server.ip().to_string(),
            port: server.port(),
            also: Vec::new(),
            name: Some("fw.test".to_owned()),
            ca: self.path("ca.crt"),
            crl: None,
            certificate: None,
            login: Login::Password {
                user: "alice".to_owned(),
                password: Password::File(self.path("password")),
            },
            mechanism: None,
            system_uid: None,
            once: false,
            stay: false,
            ticket_file: None,
            hears_refusals: false,
        }
    }
}

/// Where clients connect to.
pub(crate) struct Peer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) async fn new(pki: &Pki, address: &str) -> Self {
        let config = server_config(&ServerTls {
            cert: pki.path("server.crt"),
            key: pki.path("server.key"),
            ca: pki.path("ca.crt"),
            crl: None,
            alpn: CLIENT_ALPN.to_vec(),
            client_auth: ClientAuth::Optional,
        })
        .unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            acceptor: TlsAcceptor::from(config),
        }
    }

    /// The next TLS connection; those that end in the handshake are `None`.
    pub(crate) async fn try_accept(&self) -> Option<Connection> {
        let (stream, from) = within("a connection", self.listener.accept()).await.unwrap();
        let stream = within("a handshake", self.acceptor.accept(stream)).await.ok()?;
        let common_name = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| peer_names(chain).unwrap().common_name);
        let (read, write) = tokio::io::split(stream);
        Some(Connection {
            reader: FrameReader::new(read, MAX_BODY),
            writer: write,
            inbox: Vec::new(),
            from,
            common_name,
        })
    }

    pub(crate) async fn accept(&self) -> Connection {
        self.try_accept().await.expect("the handshake succeeds")
    }

    /// The next connection that wants to log in; proofs that come before it are refused.
    pub(crate) async fn accept_login(&self) -> (Connection, Hello) {
        loop {
            // Proofs of a session that has ended are given up wherever they are.
            let Some(mut connection) = self.try_accept().await else {
                continue;
            };
            match connection.next().await {
                Some(ToServer::Hello(hello)) => return (connection, hello),
                Some(ToServer::Prove(_)) => connection.refuse(Refusal::Token).await,
                None => {}
                other => panic!("{other:?} instead of a hello"),
            }
        }
    }

    /// Accepts a login with anything for a session of this kind.
    pub(crate) async fn session(&self, dead_after: Duration, lease: Duration) -> Connection {
        let (mut connection, _) = self.accept_login().await;
        connection.welcome(&["EXTERNAL", "PLAIN"]).await;
        connection.login().await;
        connection.logged_in(dead_after, lease).await;
        connection
    }
}

/// One connection of a client.
pub(crate) struct Connection {
    reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    inbox: Vec<ToServer>,
    pub(crate) from: SocketAddr,
    pub(crate) common_name: Option<String>,
}

impl Connection {
    pub(crate) async fn send(&mut self, message: ToClient) {
        let mut frame = Vec::new();
        nufw_proto::encode(&message, &mut frame).unwrap();
        self.send_raw(&frame).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        within("writing", async {
            self.writer.write_all(bytes).await.unwrap();
            self.writer.flush().await.unwrap();
        })
        .await;
    }

    /// The next message; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<ToServer> {
        loop {
            if !self.inbox.is_empty() {
                return Some(self.inbox.remove(0));
            }
            match within("a message", self.reader.read_batch(&mut self.inbox)).await {
                Ok(Read::Messages) => {}
                Ok(Read::Closed) | Err(LinkError::Cut | LinkError::Io(_)) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next message that is no heartbeat.
    pub(crate) async fn next_word(&mut self) -> Option<ToServer> {
        loop {
            match self.next().await {
                Some(ToServer::Heartbeat(_)) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn welcome(&mut self, mechanisms: &[&str]) {
        self.welcome_with(mechanisms, Capabilities::default()).await;
    }

    pub(crate) async fn welcome_with(&mut self, mechanisms: &[&str], capabilities: Capabilities) {
        let mechanisms: Vec<_> = mechanisms.iter().map(|name| Text::new(*name).unwrap()).collect();
        self.send(ToClient::Welcome(Welcome {
            software: Text::lossy("a test"),
            capabilities,
            mechanisms: mechanisms.try_into().unwrap(),
        }))
        .await;
    }

    pub(crate) async fn login(&mut self) -> LoginMessage {
        match self.next().await {
            Some(ToServer::Login(login)) => login,
            other => panic!("{other:?} instead of a login"),
        }
    }

    /// Goes on with a login; gives the client's answer, none where it hangs up.
    pub(crate) async fn challenge(&mut self, challenge: &str) -> Option<String> {
        let challenge = SecretBytes::new(challenge.as_bytes().to_vec()).unwrap();
        self.send(ToClient::Challenge(Challenge { challenge })).await;
        match self.next().await {
            Some(ToServer::Respond(respond)) => {
                Some(String::from_utf8(respond.response.expose().to_vec()).unwrap())
            }
            None => None,
            other => panic!("{other:?} instead of more of the login"),
        }
    }

    pub(crate) async fn logged_in(&mut self, dead_after: Duration, lease: Duration) {
        self.send(ToClient::LoggedIn(LoggedIn {
            session: SessionId(1),
            user: Text::lossy("alice"),
            address: self.from.ip().into(),
            token: SecretBytes::new(b"token".to_vec()).unwrap(),
            address_lease_ms: u32::try_from(lease.as_millis()).unwrap(),
            dead_after_ms: u32::try_from(dead_after.as_millis()).unwrap(),
        }))
        .await;
    }

    pub(crate) async fn refuse(&mut self, cause: Refusal) {
        let reason = Text::lossy("so says the test");
        self.send(ToClient::Refused(Refused { cause, reason })).await;
        let _ = self.writer.shutdown().await;
    }
}

/// A client that runs in the background.
pub(crate) struct Running {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) task: JoinHandle<Result<(), ClientError>>,
}

impl Running {
    pub(crate) fn start(options: Options) -> Self {
        let (commands, mut receiver) = mpsc::channel(4);
        let (sender, events) = mpsc::unbounded_channel();
        let client = Client::new(options).unwrap();
        let task = tokio::spawn(async move {
            let mut emit = |event| drop(sender.send(event));
            client.run(&mut receiver, &mut emit).await
        });
        Self {
            commands,
            events,
            task,
        }
    }

    /// The next event, those about addresses left out.
    pub(crate) async fn event(&mut self) -> Event {
        loop {
            match within("an event", self.events.recv())
                .await
                .expect("the client runs")
            {
                Event::Proved { .. } | Event::NotProved { .. } | Event::Withdrawn { .. } => {}
                event => return event,
            }
        }
    }

    pub(crate) async fn ends(self) -> Result<(), ClientError> {
        within("the end of the client", self.task).await.unwrap()
    }
}

/// Fails the test instead of waiting for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let value = tokio::time::timeout(PATIENCE, future).await;
    value.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

/// The path of this test's program, which owns its sockets.
pub(crate) fn this_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}
