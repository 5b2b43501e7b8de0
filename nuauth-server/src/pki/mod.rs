//! A small certificate authority: enough for gateways, servers and users, in one directory of PEM files.
//!
//! `ca.crl` is both the revocation list that servers read and the record of what was revoked. Nothing here serves
//! TLS; keys are P-256, files are replaced atomically.

mod files;
mod issue;

pub use issue::{Authority, Kind, Leaf, Period};

use crate::cli::{Issue, Pki};
use nufw_common::clock;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use std::io::Write;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Days that an authority is valid.
pub const CA_DAYS: u32 = 3650;
/// Days that any other certificate is valid: the longest that browsers and phones used to accept.
pub const LEAF_DAYS: u32 = 825;

/// Why a certificate could not be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file is there already.
    #[error("{} exists; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// There is no authority in the directory.
    #[error("there is no certificate authority in {}; make one with: nuauth-server pki init --dir {}", .0.display(), .0.display())]
    NoAuthority(PathBuf),
    /// The name cannot be one of a file and of a certificate.
    #[error("\"{name}\" cannot be the name of a {what}: {why}")]
    BadName {
        /// The name.
        name: String,
        /// What it was to name.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The times make no sense.
    #[error("a certificate cannot be valid from {from} until {until}")]
    BadPeriod {
        /// From.
        from: String,
        /// Until.
        until: String,
    },
    /// A file cannot be read, written or understood.
    #[error("{what} {}: {why}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// Making or signing failed.
    #[error("cannot make the certificate: {0}")]
    Crypto(#[from] rcgen::Error),
    /// The certificate is revoked already.
    #[error("certificate {} is revoked already", .0.display())]
    AlreadyRevoked(PathBuf),
    /// The certificate is another authority's.
    #[error("certificate {} is not from the authority in this directory", .0.display())]
    NotOurs(PathBuf),
}

impl PkiError {
    fn exit(&self) -> Exit {
        match self {
            Self::Exists(_) | Self::File { .. } => Exit::CantCreate,
            Self::NoAuthority(_) => Exit::NoInput,
            Self::BadName { .. } | Self::BadPeriod { .. } => Exit::Usage,
            Self::Crypto(_) => Exit::Software,
            Self::AlreadyRevoked(_) | Self::NotOurs(_) => Exit::DataErr,
        }
    }
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        Self::new(error.exit(), error)
    }
}

/// Runs a `pki` command and says on `out` what was written.
pub fn run(command: &Pki, out: &mut dyn Write) -> Result<(), Failure> {
    let lines = match command {
        Pki::Init {
            dir,
            name,
            validity,
            force,
        } => {
            Authority::create(dir, name, validity.period(CA_DAYS)?, *force)?;
            vec![
                format!("certificate authority {}", dir.join("ca.crt").display()),
                format!(
                    "its private key       {} (keep it off the gateways)",
                    dir.join("ca.key").display()
                ),
                format!("revocation list       {}", dir.join("ca.crl").display()),
            ]
        }
        Pki::Server { issue, address } => make(issue, Kind::Server, address)?,
        Pki::Gateway(issue) => make(issue, Kind::Gateway, &[])?,
        Pki::Client(issue) => make(issue, Kind::Client, &[])?,
        Pki::Revoke { dir, name } => {
            Authority::open(dir)?.revoke(name)?;
            vec![
                format!("revoked         {}", dir.join(format!("{name}.crt")).display()),
                format!("revocation list {}", dir.join("ca.crl").display()),
                "copy the list to every server and gateway, then reload them (HUP)".to_owned(),
            ]
        }
    };
    for line in lines {
        writeln!(out, "{line}").or_exit(Exit::IoErr)?;
    }
    Ok(())
}

fn make(issue: &Issue, kind: Kind, addresses: &[String]) -> Result<Vec<String>, Failure> {
    let leaf = Leaf {
        kind,
        name: issue.name.clone(),
        addresses: addresses.to_vec(),
        period: issue.validity.period(LEAF_DAYS)?,
    };
    let replaced = Authority::open(&issue.dir)?.issue(&leaf, issue.force)?;
    let file = |extension: &str| issue.dir.join(format!("{}.{extension}", issue.name));
    let mut lines = vec![
        format!("certificate {}", file("crt").display()),
        format!("private key {}", file("key").display()),
    ];
    if replaced {
        lines
            .push("the certificate that was replaced stays valid; next time run pki revoke first".to_owned());
    }
    Ok(lines)
}

impl crate::cli::Validity {
    /// The period that the options ask for, `days` from this moment where they say nothing.
    fn period(&self, days: u32) -> Result<Period, PkiError> {
        // A little before this moment: the clocks of other hosts may be behind.
        let begin = clock::wall().micros().div_euclid(1_000_000) - 300;
        let begin = OffsetDateTime::from_unix_timestamp(begin).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let from = self.valid_from.unwrap_or(begin);
        let days = self.days.unwrap_or(days);
        let until = self
            .valid_until
            .or_else(|| from.checked_add(time::Duration::days(days.into())));
        match until {
            Some(until) if until > from => Ok(Period { from, until }),
            until => Err(PkiError::BadPeriod {
                from: show(from),
                until: until.map_or_else(|| "the end of time".to_owned(), show),
            }),
        }
    }
}

fn show(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
