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
    /// The mail addresses (`rfc822Name`) of it.
    pub emails: Vec<String>,
    /// The user principal names of it, as Active Directory writes them.
    pub principals: Vec<String>,
}

/// A user principal name among the names of other kinds (`otherName`).
const PRINCIPAL: [u64; 10] = [1, 3, 6, 1, 4, 1, 311, 20, 2, 3];

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
    let mut names = PeerNames {
        common_name,
        ..PeerNames::default()
    };
    for name in alternative.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
            GeneralName::RFC822Name(email) => names.emails.push((*email).to_owned()),
            GeneralName::OtherName(kind, value) if kind.iter().is_some_and(|kind| kind.eq(PRINCIPAL)) => {
                names.principals.extend(utf8_string(value));
            }
            _ => {}
        }
    }
    Ok(names)
}

/// The text of a `UTF8String` in its explicit tag `[0]`, whose length takes one byte.
fn utf8_string(value: &[u8]) -> Option<String> {
    let [0xa0, outer, 0x0c, inner, text @ ..] = value else {
        return None;
    };
    let fits = usize::from(*inner) == text.len() && usize::from(*outer) == text.len() + 2 && *outer < 0x80;
    fits.then(|| String::from_utf8(text.to_vec()).ok()).flatten()
}

/// The name, or the address, that a server's certificate must prove.
pub fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadName(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_one_utf8_string() {
        let value = b"\xa0\x13\x0c\x11alice@example.org";
        assert_eq!(utf8_string(value).as_deref(), Some("alice@example.org"));
        for wrong in [
            &value[..value.len() - 1],
            b"\xa0\x13\x0c\x10alice@example.org",
            b"\xa0\x13\x16\x11alice@example.org",
            b"\xa0\x03\x0c\x01\xff",
            b"",
        ] {
            assert_eq!(utf8_string(wrong), None);
        }
    }
}
