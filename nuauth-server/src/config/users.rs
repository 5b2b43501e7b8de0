//! Where users come from, as configured: `[users]` and what is beneath it.
//!
//! Words and paths; what back-ends do is `directory`'s part.

use crate::directory::{KerberosSettings, Kind, LdapSettings, Settings, SystemSettings};
use crate::users::name::NameRules;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Who may be asked about users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The users file.
    File,
    /// An LDAP server or an Active Directory.
    Ldap,
    /// PAM and NSS of this host.
    System,
}

/// A name in a certificate that may be a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateName {
    /// The subject's common name; of a certificate without host names.
    CommonName,
    /// The subject alternative name's `rfc822Name`.
    Email,
    /// Its user principal name, as Active Directory writes it (`otherName` 1.3.6.1.4.1.311.20.2.3).
    Upn,
    /// Its `dNSName`.
    Dns,
}

/// Where users come from.
#[derive(Debug, Clone)]
pub struct Directories {
    /// Who is asked whether a password is right, in this order.
    pub password: Vec<Backend>,
    /// Who is asked for a user's id and mark, in this order.
    pub identity: Vec<Backend>,
    /// Who is asked for a user's groups; all of them.
    pub groups: Vec<Backend>,
    /// What a name may be.
    pub names: NameRules,
    /// Which name of a certificate is a user's: the first kind of which it has one.
    pub certificate: Vec<CertificateName>,
    /// The mark of a user that has none of its own is the id less this.
    pub mark_base: u64,
    /// How long an answer counts.
    pub cache_for: Duration,
    /// Of how many users.
    pub cache_entries: usize,
    /// How often those who have logged in are asked about again; zero for never.
    pub ask_again: Duration,
    /// The LDAP server.
    pub ldap: Option<Ldap>,
    /// The host's users.
    pub system: Option<System>,
    /// Whose Kerberos tickets are taken.
    pub kerberos: Option<Kerberos>,
}

/// `[users.ldap]`
#[derive(Debug, Clone)]
pub struct Ldap {
    /// All but what is in files.
    pub settings: LdapSettings,
    /// The authorities of its certificate.
    pub ca: Option<PathBuf>,
    /// The password of who searches.
    pub bind_password_file: Option<PathBuf>,
}

/// `[users.system]`
#[derive(Debug, Clone)]
pub struct System {
    /// How it is asked.
    pub settings: SystemSettings,
    /// Who asks it, where the server is started as root.
    pub user: Option<String>,
}

/// `[users.kerberos]`
#[derive(Debug, Clone)]
pub struct Kerberos {
    /// How tickets are taken.
    pub settings: KerberosSettings,
    /// Whose principals are users, by their first part.
    pub realms: Vec<String>,
}

impl Backend {
    /// The process that asks it; none for the file, which the server has.
    pub fn worker(self) -> Option<Kind> {
        match self {
            Self::File => None,
            Self::Ldap => Some(Kind::Ldap),
            Self::System => Some(Kind::System),
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Ldap => "ldap",
            Self::System => "system",
        }
    }
}

impl Directories {
    /// The users file alone, as NuFW's plain text module was.
    pub fn file_only() -> Self {
        Self {
            password: vec![Backend::File],
            identity: vec![Backend::File],
            groups: vec![Backend::File],
            names: NameRules::default(),
            certificate: vec![CertificateName::CommonName],
            mark_base: 0,
            cache_for: Duration::from_mins(5),
            cache_entries: 4096,
            ask_again: Duration::from_mins(15),
            ldap: None,
            system: None,
            kerberos: None,
        }
    }

    /// Whether a back-end is asked anything.
    pub fn uses(&self, backend: Backend) -> bool {
        [&self.password, &self.identity, &self.groups]
            .into_iter()
            .any(|order| order.contains(&backend))
    }

    /// Whether the users file says of every user who it is: then one that it does not name does not exist.
    pub fn all_known(&self) -> bool {
        [&self.identity, &self.groups]
            .into_iter()
            .all(|order| order.iter().all(|&backend| backend == Backend::File))
    }

    /// Whether there is anything to ask but the file.
    pub fn needs_helper(&self) -> bool {
        self.uses(Backend::Ldap) || self.uses(Backend::System) || self.kerberos.is_some()
    }

    /// What workers are told; reads the files that it needs.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let ldap = match self.ldap.as_ref().filter(|_| self.uses(Backend::Ldap)) {
            None => None,
            Some(ldap) => Some(LdapSettings {
                ca: ldap.ca.as_deref().map(read).transpose()?,
                bind_password: match &ldap.bind_password_file {
                    None => String::new(),
                    Some(file) => first_line(file)?,
                },
                ..ldap.settings.clone()
            }),
        };
        let system = self.system.as_ref().filter(|_| self.uses(Backend::System));
        Ok(Settings {
            ldap,
            system: system.map(|system| system.settings.clone()),
            kerberos: self.kerberos.as_ref().map(|kerberos| kerberos.settings.clone()),
        })
    }

    /// The files that are read again at a reload.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.ldap
            .iter()
            .flat_map(|ldap| ldap.ca.iter().chain(&ldap.bind_password_file))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn first_line(path: &Path) -> anyhow::Result<String> {
    let text = Zeroizing::new(read(path)?);
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).with_context(|| format!("{} is no text", path.display()))?;
    let line = line.trim_end_matches('\r');
    anyhow::ensure!(
        !line.is_empty(),
        "{}: the first line is to be the password of users.ldap.bind-dn, and is empty",
        path.display()
    );
    Ok(line.to_owned())
}

/// The port of an LDAP URL; none for a socket of this host, and where it is no such URL.
pub fn ldap_port(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let usual = match scheme {
        "ldap" => 389,
        "ldaps" => 636,
        _ => return None,
    };
    let authority = rest.split('/').next()?;
    let port = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.1.strip_prefix(':'),
        None => authority.split_once(':').map(|(_, port)| port),
    };
    match port {
        None => Some(usual),
        Some(port) => port.parse().ok().filter(|port| *port != 0),
    }
}
