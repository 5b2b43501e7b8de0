//! The names in a certificate that the TLS library has verified.
//!
//! Which name may do what is decided elsewhere.

use super::TlsError;
use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The names of a peer's own certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerNames {
    /// The subject's common name, if it has exactly one.
    pub common_name: Option<String>,
    /// The host names (`dNSName`) of its subject alternative name.
    pub dns: Vec<String>,
}

/// The names in the first certificate of a verified chain.
pub fn peer_names(chain: &[CertificateDer<'_>]) -> Result<PeerNames, TlsError> {
    let own = chain
        .first()
        .ok_or_else(|| TlsError::BadPeerCertificate("there is none".to_owned()))?;
    let (_, certificate) =
        X509Certificate::from_der(own).map_err(|e| TlsError::BadPeerCertificate(e.to_string()))?;
    let mut common_names = certificate.subject().iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(name), None) => name.as_str().ok().map(str::to_owned),
        _ => None,
    };
    let alternative = certificate
        .subject_alternative_name()
        .map_err(|e| TlsError::BadPeerCertificate(e.to_string()))?;
    let dns = alternative.map_or_else(Vec::new, |names| {
        names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(dns) => Some((*dns).to_owned()),
                _ => None,
            })
            .collect()
    });
    Ok(PeerNames { common_name, dns })
}

/// The name, or the address, that a server's certificate must prove.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName(name.to_owned()))
}
