//! TLS 1.3 set-up for both ends: certificates, keys and revocation lists from files, each fault named with its file.
//!
//! The provider is ring, chosen explicitly. Who may do what with a name from a certificate is the caller's business.

mod files;
mod names;

pub use files::{CertificateInfo, check_validity, describe, load_certs, load_crls, load_key};
pub use names::{PeerNames, peer_names, server_name};

use rustls::client::WebPkiServerVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wrong with a TLS file, or with what a peer showed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {what} {}: {cause}", path.display())]
    Unreadable {
        /// Kind of file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{what} {}: {why}", path.display())]
    Unusable {
        /// Kind of file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, as a phrase.
        why: String,
    },
    /// Everybody on the host may read the private key.
    #[error(
        "private key {} is readable by everybody (mode {mode:04o}); run: chmod 600 {}",
        path.display(),
        path.display()
    )]
    ExposedKey {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Key and certificate are not a pair.
    #[error("private key {} does not belong to certificate {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A name that TLS cannot verify.
    #[error("\"{0}\" is neither a host name nor an address, so no certificate can prove it")]
    BadName(String),
    /// The peer's certificate cannot be read.
    #[error("the peer's certificate cannot be read: {0}")]
    BadPeerCertificate(String),
    /// The peer speaks another protocol, or none that it names.
    #[error("the peer does not speak {wanted} (ALPN: {found})")]
    WrongProtocol {
        /// What this port speaks.
        wanted: String,
        /// What was agreed on.
        found: String,
    },
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It must, and it must be ours.
    Required,
    /// It may; one that is shown must be ours.
    Optional,
}

/// What a server needs.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// Certificate chain, PEM, own certificate first.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Certificate authorities that clients' certificates are from, PEM.
    pub ca: PathBuf,
    /// Their revocation lists, PEM.
    pub crl: Option<PathBuf>,
    /// The protocol of the port; see [`require_alpn`].
    pub alpn: Vec<u8>,
    /// Whether a client must show a certificate.
    pub client_auth: ClientAuth,
}

/// What a client needs.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Certificate authorities that the server's certificate is from, PEM.
    pub ca: PathBuf,
    /// Their revocation lists, PEM.
    pub crl: Option<PathBuf>,
    /// Own certificate chain and private key, PEM.
    pub cert_key: Option<(PathBuf, PathBuf)>,
    /// The protocol of the port; see [`require_alpn`].
    pub alpn: Vec<u8>,
}

/// Builds a server's side from its files.
///
/// Nothing of a session is kept for resumption: a certificate that is revoked must not come back by an old ticket.
pub fn server_config(tls: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(load_roots(&tls.ca)?, provider);
        if let Some(crl) = &tls.crl {
            builder = builder
                .with_crls(load_crls(crl)?)
                .only_check_end_entity_revocation();
        }
        if tls.client_auth == ClientAuth::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder
            .build()
            .map_err(|e| verifier_error(&tls.ca, tls.crl.as_deref(), &e))?
    };
    let (chain, key) = load_pair(&tls.cert, &tls.key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("certificate", &tls.cert, &e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| pair_error(&tls.cert, &tls.key, &e))?;
    config.alpn_protocols = vec![tls.alpn.clone()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Builds a client's side from its files.
pub fn client_config(tls: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut builder = WebPkiServerVerifier::builder_with_provider(load_roots(&tls.ca)?, provider);
        if let Some(crl) = &tls.crl {
            builder = builder
                .with_crls(load_crls(crl)?)
                .only_check_end_entity_revocation();
        }
        builder
            .build()
            .map_err(|e| verifier_error(&tls.ca, tls.crl.as_deref(), &e))?
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("certificate authority", &tls.ca, &e))?
        .with_webpki_verifier(verifier);
    let mut config = match &tls.cert_key {
        Some((cert, key)) => {
            let (chain, private) = load_pair(cert, key)?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| pair_error(cert, key, &e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![tls.alpn.clone()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Refuses a peer that did not agree on the protocol: TLS itself lets a peer pass that names none.
pub fn require_alpn(agreed: Option<&[u8]>, wanted: &[u8]) -> Result<(), TlsError> {
    if agreed == Some(wanted) {
        return Ok(());
    }
    let show = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    Err(TlsError::WrongProtocol {
        wanted: show(wanted),
        found: agreed.map_or_else(|| "none".to_owned(), show),
    })
}

/// A handshake's failure as a sentence for the log: what the peer showed or lacked, where that is known.
pub fn explain(error: &std::io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "the peer hung up during the TLS handshake".to_owned(),
            _ => error.to_string(),
        };
    };
    match tls {
        Error::NoCertificatesPresented => "the peer showed no certificate".to_owned(),
        Error::InvalidCertificate(Bad::Revoked) => "the peer's certificate is revoked".to_owned(),
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the peer's certificate has expired".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "the peer's certificate is not valid yet".to_owned()
        }
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "the peer's certificate is not from our certificate authority".to_owned()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "the server's certificate is for another name".to_owned()
        }
        Error::InvalidCertificate(Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. }) => {
            "the peer's certificate is not meant for this use (extended key usage)".to_owned()
        }
        Error::InvalidCertificate(Bad::UnknownRevocationStatus) => {
            "no revocation list covers the peer's certificate".to_owned()
        }
        Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol) => {
            "the two sides speak different protocols or versions (ALPN)".to_owned()
        }
        Error::PeerIncompatible(_) => format!("the peer cannot do what is required (TLS 1.3): {tls}"),
        Error::InvalidMessage(_) => "the peer does not speak TLS".to_owned(),
        Error::AlertReceived(Alert::CertificateRequired) => "the server wants a certificate".to_owned(),
        Error::AlertReceived(Alert::CertificateRevoked) => {
            "the server says that our certificate is revoked".to_owned()
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the server says that our certificate has expired".to_owned()
        }
        Error::AlertReceived(Alert::UnknownCA) => {
            "the other side does not know our certificate authority".to_owned()
        }
        other => other.to_string(),
    }
}

fn load_roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certs("certificate authority", path)? {
        check_validity("certificate authority", path, &certificate)?;
        roots
            .add(certificate)
            .map_err(|e| unusable("certificate authority", path, &e))?;
    }
    Ok(Arc::new(roots))
}

fn load_pair(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = load_certs("certificate", cert)?;
    if let Some(own) = chain.first() {
        check_validity("certificate", cert, own)?;
    }
    Ok((chain, load_key(key)?))
}

fn unusable(what: &'static str, path: &Path, why: &impl ToString) -> TlsError {
    TlsError::Unusable {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn pair_error(cert: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch {
            key: key.to_owned(),
            certificate: cert.to_owned(),
        },
        rustls::Error::InvalidCertificate(_) => unusable("certificate", cert, error),
        _ => unusable("private key", key, error),
    }
}

fn verifier_error(ca: &Path, crl: Option<&Path>, error: &rustls::server::VerifierBuilderError) -> TlsError {
    match (error, crl) {
        (rustls::server::VerifierBuilderError::InvalidCrl(_), Some(crl)) => {
            unusable("revocation list", crl, error)
        }
        _ => unusable("certificate authority", ca, error),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
