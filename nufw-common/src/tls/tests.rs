use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;
use time::{Duration as Days, OffsetDateTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Lab {
    dir: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

fn params(name: &str, dns: bool, usage: ExtendedKeyUsagePurpose, serial: u64) -> CertificateParams {
    let names = if dns { vec![name.to_owned()] } else { vec![] };
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

impl Lab {
    fn new() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let lab = Self {
            dir: tempfile::tempdir().unwrap(),
            ca,
        };
        lab.write("ca.crt", &lab.ca.pem(), 0o644);
        lab.crl(&[]);
        let server = params_for_server();
        lab.leaf("server", &server);
        lab.leaf(
            "alice",
            &params("alice", false, ExtendedKeyUsagePurpose::ClientAuth, 11),
        );
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn leaf(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem(), 0o644);
        self.write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
    }

    fn crl(&self, revoked: &[u64]) {
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Days::days(36500),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: now,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.ca).unwrap();
        self.write("ca.crl", &signed.pem().unwrap(), 0o644);
    }

    fn server(&self) -> ServerTls {
        ServerTls {
            cert: self.path("server.crt"),
            key: self.path("server.key"),
            ca: self.path("ca.crt"),
            crl: Some(self.path("ca.crl")),
            alpn: b"test/1".to_vec(),
            client_auth: ClientAuth::Required,
        }
    }

    fn client(&self, user: &str) -> ClientTls {
        ClientTls {
            ca: self.path("ca.crt"),
            crl: Some(self.path("ca.crl")),
            cert_key: Some((
                self.path(&format!("{user}.crt")),
                self.path(&format!("{user}.key")),
            )),
            alpn: b"test/1".to_vec(),
        }
    }
}

fn params_for_server() -> CertificateParams {
    params("server.example", true, ExtendedKeyUsagePurpose::ServerAuth, 10)
}

type Outcome = Result<(PeerNames, Option<Vec<u8>>), std::io::Error>;

/// A real handshake and one byte each way; what the server learnt, and what the client got.
async fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> (Outcome, std::io::Result<()>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.shutdown().await?;
        let (_, session) = stream.get_ref();
        let names = session
            .peer_certificates()
            .map(|chain| peer_names(chain).unwrap());
        Ok((
            names.unwrap_or_default(),
            session.alpn_protocol().map(<[u8]>::to_vec),
        ))
    };
    let connect = async {
        let name = server_name(name).unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"x").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.map(drop)
    };
    tokio::join!(accept, connect)
}

#[tokio::test]
async fn a_mutual_handshake_shows_who_the_client_is() {
    let lab = Lab::new();
    let (server, client) = (
        server_config(&lab.server()).unwrap(),
        client_config(&lab.client("alice")).unwrap(),
    );
    let (outcome, client) = shake(server, client, "server.example").await;
    client.unwrap();
    let (names, alpn) = outcome.unwrap();
    assert_eq!(names.common_name.as_deref(), Some("alice"));
    assert_eq!(names.dns, Vec::<String>::new());
    require_alpn(alpn.as_deref(), b"test/1").unwrap();
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_with_a_reason() {
    let lab = Lab::new();
    lab.crl(&[11]);
    let (server, client) = (
        server_config(&lab.server()).unwrap(),
        client_config(&lab.client("alice")).unwrap(),
    );
    let (outcome, client) = shake(server, client, "server.example").await;
    assert_eq!(
        explain(&outcome.unwrap_err()),
        "the peer's certificate is revoked"
    );
    assert_eq!(
        explain(&client.unwrap_err()),
        "the server says that our certificate is revoked"
    );
}

#[tokio::test]
async fn a_client_without_certificate_passes_only_where_that_is_allowed() {
    let lab = Lab::new();
    let anonymous = ClientTls {
        cert_key: None,
        ..lab.client("alice")
    };
    let anonymous = client_config(&anonymous).unwrap();
    let strict = server_config(&lab.server()).unwrap();
    let (outcome, client) = shake(strict, Arc::clone(&anonymous), "server.example").await;
    assert_eq!(explain(&outcome.unwrap_err()), "the peer showed no certificate");
    assert_eq!(explain(&client.unwrap_err()), "the server wants a certificate");

    let lenient = ServerTls {
        client_auth: ClientAuth::Optional,
        ..lab.server()
    };
    let (outcome, client) = shake(server_config(&lenient).unwrap(), anonymous, "server.example").await;
    client.unwrap();
    assert_eq!(outcome.unwrap().0, PeerNames::default());
}

#[tokio::test]
async fn another_protocol_or_none_is_refused() {
    let lab = Lab::new();
    let server = server_config(&lab.server()).unwrap();
    let other = ClientTls {
        alpn: b"test/2".to_vec(),
        ..lab.client("alice")
    };
    let (outcome, client) = shake(
        Arc::clone(&server),
        client_config(&other).unwrap(),
        "server.example",
    )
    .await;
    let sentence = "the two sides speak different protocols or versions (ALPN)";
    assert_eq!(explain(&outcome.unwrap_err()), sentence);
    assert_eq!(explain(&client.unwrap_err()), sentence);

    let mut silent = (*client_config(&lab.client("alice")).unwrap()).clone();
    silent.alpn_protocols.clear();
    let (outcome, _) = shake(server, Arc::new(silent), "server.example").await;
    let agreed = outcome.unwrap().1;
    let error = require_alpn(agreed.as_deref(), b"test/1").unwrap_err();
    assert_eq!(error.to_string(), "the peer does not speak test/1 (ALPN: none)");
}

#[tokio::test]
async fn a_server_of_another_name_or_purpose_is_refused() {
    let lab = Lab::new();
    let client = client_config(&lab.client("alice")).unwrap();
    let (_, refused) = shake(
        server_config(&lab.server()).unwrap(),
        Arc::clone(&client),
        "other.example",
    )
    .await;
    assert_eq!(
        explain(&refused.unwrap_err()),
        "the server's certificate is for another name"
    );
    // A client's certificate cannot play the server.
    lab.leaf(
        "server",
        &params("server.example", true, ExtendedKeyUsagePurpose::ClientAuth, 12),
    );
    let (_, refused) = shake(server_config(&lab.server()).unwrap(), client, "server.example").await;
    assert_eq!(
        explain(&refused.unwrap_err()),
        "the peer's certificate is not meant for this use (extended key usage)"
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (Lab::new(), Lab::new());
    let server = server_config(&ours.server()).unwrap();
    let stranger = ClientTls {
        ca: ours.path("ca.crt"),
        crl: None,
        ..theirs.client("alice")
    };
    let (outcome, _) = shake(server, client_config(&stranger).unwrap(), "server.example").await;
    assert_eq!(
        explain(&outcome.unwrap_err()),
        "the peer's certificate is not from our certificate authority"
    );
}

#[test]
fn a_key_that_everybody_may_read_is_refused() {
    let lab = Lab::new();
    let key = lab.path("server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = server_config(&lab.server()).unwrap_err().to_string();
    let key = key.display();
    assert_eq!(
        text,
        format!("private key {key} is readable by everybody (mode 0644); run: chmod 600 {key}")
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let lab = Lab::new();
    let mixed = ServerTls {
        key: lab.path("alice.key"),
        ..lab.server()
    };
    assert_eq!(
        server_config(&mixed).unwrap_err().to_string(),
        format!(
            "private key {} does not belong to certificate {}",
            lab.path("alice.key").display(),
            lab.path("server.crt").display()
        )
    );
}

#[test]
fn a_certificate_outside_its_time_is_refused() {
    let lab = Lab::new();
    let mut old = params_for_server();
    old.not_before = OffsetDateTime::from_unix_timestamp(1_500_000_000).unwrap();
    old.not_after = OffsetDateTime::from_unix_timestamp(1_600_000_000).unwrap();
    lab.leaf("server", &old);
    let text = server_config(&lab.server()).unwrap_err().to_string();
    let expected = format!(
        "certificate {}: CN=server.example expired on Sep 13 12:26:40 2020",
        lab.path("server.crt").display()
    );
    assert!(text.starts_with(&expected), "{text}");

    let mut early = params_for_server();
    early.not_before = OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap();
    early.not_after = OffsetDateTime::from_unix_timestamp(4_100_000_000).unwrap();
    lab.leaf("server", &early);
    let text = server_config(&lab.server()).unwrap_err().to_string();
    assert!(
        text.contains("is not valid before Oct  2 07:06:40 2096"),
        "{text}"
    );
    assert!(text.ends_with("is the clock right?"), "{text}");
}

#[test]
fn files_that_are_missing_or_something_else_are_named() {
    let lab = Lab::new();
    let missing = lab.path("nowhere.crt");
    let error = load_certs("certificate", &missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot read certificate {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    let crt = lab.path("server.crt");
    assert_eq!(
        load_key(&lab.path("alice.key"))
            .map(drop)
            .map_err(|e| e.to_string()),
        Ok(())
    );
    lab.write("not.key", "hello\n", 0o600);
    assert_eq!(
        load_key(&lab.path("not.key")).unwrap_err().to_string(),
        format!(
            "private key {}: there is no private key in it",
            lab.path("not.key").display()
        )
    );
    assert_eq!(
        load_crls(&crt).unwrap_err().to_string(),
        format!(
            "revocation list {}: there is no revocation list in it",
            crt.display()
        )
    );
    assert_eq!(
        server_name("not a name").unwrap_err().to_string(),
        "\"not a name\" is neither a host name nor an address, so no certificate can prove it"
    );
    server_name("192.0.2.1").unwrap();
}

#[test]
fn host_names_are_read_from_the_alternative_name() {
    let lab = Lab::new();
    let chain = load_certs("certificate", &lab.path("server.crt")).unwrap();
    let names = peer_names(&chain).unwrap();
    assert_eq!(names.dns, ["server.example"]);
    assert_eq!(
        peer_names(&[]).unwrap_err().to_string(),
        "the peer's certificate cannot be read: there is none"
    );
}

#[test]
fn mail_addresses_and_principals_are_read_from_the_alternative_name() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![
        SanType::Rfc822Name("alice@example.org".try_into().unwrap()),
        SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "alice@EXAMPLE.ORG".into())),
        SanType::OtherName((vec![1, 2, 3], "somebody else".into())),
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let names = peer_names(&[certificate.der().clone()]).unwrap();
    assert_eq!(names.emails, ["alice@example.org"]);
    assert_eq!(names.principals, ["alice@EXAMPLE.ORG"]);
    assert!(names.dns.is_empty());
}
