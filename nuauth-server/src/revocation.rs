//! Revoked certificates of connections that are already up.
//!
//! TLS refuses a revoked certificate at the handshake; this ends the connections that were made before the revocation
//! list said so. Verifies nothing: the list was verified when it was loaded for TLS.

use anyhow::Context as _;
use nufw_common::tls;
use rustls::pki_types::CertificateDer;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// Serial number of a certificate, big-endian as in its DER form.
pub(crate) type Serial = Vec<u8>;

/// The serial numbers that a revocation list names.
#[derive(Debug, Default)]
pub(crate) struct Revoked(HashSet<Serial>);

impl Revoked {
    /// Reads a list, PEM; an absent path is an empty list.
    pub(crate) fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let mut serials = HashSet::new();
        for crl in tls::load_crls(path)? {
            let (_, list) = CertificateRevocationList::from_der(crl.as_ref())
                .with_context(|| format!("{} holds no revocation list", path.display()))?;
            serials.extend(
                list.iter_revoked_certificates()
                    .map(|revoked| revoked.raw_serial().to_vec()),
            );
        }
        Ok(Self(serials))
    }
}

/// The serial number of a peer's certificate.
pub(crate) fn serial(chain: Option<&[CertificateDer<'_>]>) -> Option<Serial> {
    let (_, certificate) = X509Certificate::from_der(chain?.first()?.as_ref()).ok()?;
    Some(certificate.raw_serial().to_vec())
}

/// Waits until the certificate is revoked; for ever, if there is none.
pub(crate) async fn revoked(mut list: watch::Receiver<Arc<Revoked>>, serial: Option<Serial>) {
    if let Some(serial) = serial
        && list.wait_for(|list| list.0.contains(&serial)).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
