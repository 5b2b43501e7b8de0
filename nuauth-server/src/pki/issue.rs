//! The authority itself: makes certificates and keeps the list of those that are revoked.
//!
//! What tells the kinds apart: a gateway carries its host name and may only be a TLS client, a server carries host
//! names and may only be a TLS server, a user has no host name at all. None can play another's part.

use super::files::{PUBLIC, SECRET, failed, make_dir, may_write, read, replace};
use super::{PkiError, show};
use nufw_common::clock;
use nufw_common::tls;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// From.
    pub from: OffsetDateTime,
    /// Until.
    pub until: OffsetDateTime,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The authentication server.
    Server,
    /// A gateway's agent.
    Gateway,
    /// A user.
    Client,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Gateway => "gateway",
            Self::Client => "user",
        }
    }
}

/// A certificate to make.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// What it is for.
    pub kind: Kind,
    /// Its common name and the name of its files; the host name too, save for users.
    pub name: String,
    /// Further host names and addresses of a server.
    pub addresses: Vec<String>,
    /// When it is valid.
    pub period: Period,
}

/// A revoked certificate: its serial number, and when, in seconds since the Unix epoch.
type Revoked = (Vec<u8>, i64);

/// A certificate authority in a directory.
pub struct Authority {
    dir: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with an empty revocation list.
    pub fn create(dir: &Path, name: &str, period: Period, force: bool) -> Result<Self, PkiError> {
        make_dir(dir)?;
        for file in ["ca.crt", "ca.key", "ca.crl"] {
            may_write(&dir.join(file), force)?;
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = period.from;
        params.not_after = period.until;
        params.serial_number = Some(serial());
        let certificate = params.self_signed(&key)?;
        replace(&dir.join("ca.key"), &key.serialize_pem(), SECRET)?;
        replace(&dir.join("ca.crt"), &certificate.pem(), PUBLIC)?;
        let authority = Self {
            dir: dir.to_owned(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        };
        authority.write_list(&[], 1)?;
        Ok(authority)
    }

    /// The authority that [`create`](Self::create) made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (crt, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !crt.exists() && !key.exists() {
            return Err(PkiError::NoAuthority(dir.to_owned()));
        }
        let pair = KeyPair::from_pem(&read(&key)?).map_err(|e| failed("cannot use private key", &key, &e))?;
        let certificate = first_certificate(&crt)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair)
            .map_err(|e| failed("cannot use certificate", &crt, &e))?;
        Ok(Self {
            dir: dir.to_owned(),
            certificate,
            issuer,
        })
    }

    /// Makes a certificate and its key; tells whether it replaced one.
    pub fn issue(&self, leaf: &Leaf, force: bool) -> Result<bool, PkiError> {
        let params = leaf.params()?;
        let (crt, key) = (self.file(&leaf.name, "crt"), self.file(&leaf.name, "key"));
        let replaced = may_write(&crt, force)?;
        may_write(&key, force)?;
        let pair = KeyPair::generate()?;
        let certificate = params.signed_by(&pair, &self.issuer)?;
        replace(&key, &pair.serialize_pem(), SECRET)?;
        replace(&crt, &certificate.pem(), PUBLIC)?;
        Ok(replaced)
    }

    /// Puts a certificate of this directory on the revocation list and signs the list anew.
    pub fn revoke(&self, name: &str) -> Result<(), PkiError> {
        check_name(name, "certificate")?;
        let path = self.file(name, "crt");
        let der = first_certificate(&path)?;
        let serial = self.serial_if_ours(&path, &der)?;
        let (mut revoked, number) = self.read_list()?;
        if revoked.iter().any(|entry| entry.0 == serial) {
            return Err(PkiError::AlreadyRevoked(path));
        }
        let now = clock::wall().micros().div_euclid(1_000_000);
        revoked.push((serial, now));
        self.write_list(&revoked, number + 1)
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }

    /// The certificate's serial number, if this authority signed it.
    fn serial_if_ours(&self, path: &Path, der: &CertificateDer<'_>) -> Result<Vec<u8>, PkiError> {
        let unreadable = |e: &dyn std::fmt::Display| failed("cannot read certificate", path, &e.to_string());
        let (_, ca) = X509Certificate::from_der(&self.certificate).map_err(|e| unreadable(&e))?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| unreadable(&e))?;
        if certificate.verify_signature(Some(ca.public_key())).is_err() {
            return Err(PkiError::NotOurs(path.to_owned()));
        }
        Ok(certificate.raw_serial().to_vec())
    }

    /// What is revoked (serial number, time) and the number of the list.
    fn read_list(&self) -> Result<(Vec<Revoked>, u64), PkiError> {
        let path = self.dir.join("ca.crl");
        let lists = tls::load_crls(&path).map_err(|e| failed("cannot read revocation list", &path, &e))?;
        let mut revoked = Vec::new();
        let mut number = 0;
        for der in &lists {
            let (_, list) = CertificateRevocationList::from_der(der)
                .map_err(|e| failed("cannot read revocation list", &path, &e))?;
            number = list
                .crl_number()
                .and_then(|n| u64::try_from(n).ok())
                .map_or(number, |n| n.max(number));
            revoked.extend(
                list.iter_revoked_certificates()
                    .map(|entry| (entry.raw_serial().to_vec(), entry.revocation_date.timestamp())),
            );
        }
        Ok((revoked, number))
    }

    /// The list is due again only when the authority itself is over: it is signed anew at every revocation.
    fn write_list(&self, revoked: &[Revoked], number: u64) -> Result<(), PkiError> {
        let time =
            |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let crt = self.dir.join("ca.crt");
        let own = tls::describe("certificate authority", &crt, &self.certificate)
            .map_err(|e| failed("cannot read certificate", &crt, &e))?;
        let now = clock::wall().micros().div_euclid(1_000_000);
        let params = CertificateRevocationListParams {
            this_update: time(now.min(own.not_after - 1)),
            next_update: time(own.not_after),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|(serial, at)| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(serial),
                    revocation_time: time(*at),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer)?;
        replace(&self.dir.join("ca.crl"), &list.pem()?, PUBLIC)
    }
}

impl Leaf {
    fn params(&self) -> Result<CertificateParams, PkiError> {
        check_name(&self.name, self.kind.word())?;
        if self.period.until <= self.period.from {
            return Err(PkiError::BadPeriod {
                from: show(self.period.from),
                until: show(self.period.until),
            });
        }
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = common_name(&self.name);
        params.not_before = self.period.from;
        params.not_after = self.period.until;
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.kind {
            Kind::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Kind::Gateway | Kind::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.subject_alt_names = match self.kind {
            Kind::Client => Vec::new(),
            Kind::Server | Kind::Gateway => std::iter::once(&self.name)
                .chain(&self.addresses)
                .map(|name| alternative_name(name))
                .collect::<Result<_, _>>()?,
        };
        Ok(params)
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn alternative_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || PkiError::BadName {
        name: name.to_owned(),
        what: "host",
        why: "it is neither an address nor a host name",
    };
    tls::server_name(name).map_err(|_| bad())?;
    Ia5String::try_from(name).map(SanType::DnsName).map_err(|_| bad())
}

/// A name becomes a file's name: it must stay within the directory and clear of the authority's own files.
fn check_name(name: &str, what: &'static str) -> Result<(), PkiError> {
    let plain = |c: char| c.is_alphanumeric() || "-_.@+ ".contains(c);
    let why = if name.is_empty() || name.len() > 64 {
        "it must have 1 to 64 bytes"
    } else if !name.chars().all(plain) || name.starts_with(['.', '-', ' ']) || name.ends_with(' ') {
        "letters, digits and - _ . @ + may be used, and it may not begin with . or -"
    } else if name == "ca" {
        "the authority's own files are called so"
    } else {
        return Ok(());
    };
    Err(PkiError::BadName {
        name: name.to_owned(),
        what,
        why,
    })
}

/// A random number of 127 bits: positive, as RFC 5280 wants it, and not to be guessed.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn first_certificate(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    tls::load_certs("certificate", path)
        .map_err(|e| failed("cannot read certificate", path, &e))?
        .into_iter()
        .next()
        .ok_or_else(|| failed("cannot read certificate", path, &"there is none"))
}
