//! Certificates, keys and revocation lists from PEM files.
//!
//! Reads and judges files; builds no TLS configuration.

use super::{TlsError, unusable};
use crate::clock;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Certificates, keys and lists above this size are not ours.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Reads every certificate of a PEM file; `what` names the kind of file in errors.
pub fn load_certs(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(what, path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| not_pem(what, path, &e))?;
    if certificates.is_empty() {
        return Err(unusable(what, path, &"there is no certificate in it"));
    }
    Ok(certificates)
}

/// Reads a private key; refuses one that everybody on the host may read.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    let pem = read(what, path)?;
    let mode = std::fs::metadata(path)
        .map_err(|cause| TlsError::Unreadable {
            what,
            path: path.to_owned(),
            cause,
        })?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        return Err(TlsError::ExposedKey {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| match e {
        rustls_pki_types::pem::Error::NoItemsFound => unusable(what, path, &"there is no private key in it"),
        e => not_pem(what, path, &e),
    })
}

/// Reads every revocation list of a PEM file.
pub fn load_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let what = "revocation list";
    let pem = read(what, path)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| not_pem(what, path, &e))?;
    if lists.is_empty() {
        return Err(unusable(what, path, &"there is no revocation list in it"));
    }
    Ok(lists)
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject, as text.
    pub subject: String,
    /// Valid from, seconds since the Unix epoch.
    pub not_before: i64,
    /// Valid until, seconds since the Unix epoch.
    pub not_after: i64,
    /// The same two as text, for people.
    pub validity: (String, String),
}

/// Reads what a certificate says of itself.
pub fn describe(
    what: &'static str,
    path: &Path,
    certificate: &CertificateDer<'_>,
) -> Result<CertificateInfo, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|e| unusable(what, path, &format!("the certificate cannot be read: {e}")))?;
    let validity = parsed.validity();
    Ok(CertificateInfo {
        subject: parsed.subject().to_string(),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        validity: (validity.not_before.to_string(), validity.not_after.to_string()),
    })
}

/// Refuses a certificate that is not valid at this moment.
pub fn check_validity(
    what: &'static str,
    path: &Path,
    certificate: &CertificateDer<'_>,
) -> Result<(), TlsError> {
    let info = describe(what, path, certificate)?;
    let now = clock::wall().micros().div_euclid(1_000_000);
    if now > info.not_after {
        let why = format!("{} expired on {}", info.subject, info.validity.1);
        return Err(unusable(what, path, &why));
    }
    if now < info.not_before {
        let why = format!(
            "{} is not valid before {}; is the clock right?",
            info.subject, info.validity.0
        );
        return Err(unusable(what, path, &why));
    }
    Ok(())
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |cause| TlsError::Unreadable {
        what,
        path: path.to_owned(),
        cause,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(unusable(what, path, &format!("{size} bytes are too many")));
    }
    std::fs::read(path).map_err(unreadable)
}

fn not_pem(what: &'static str, path: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    unusable(what, path, &format!("it is not PEM: {error}"))
}
