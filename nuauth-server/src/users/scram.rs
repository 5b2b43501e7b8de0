//! What a server keeps of a password for SCRAM-SHA-256 (RFC 5802, RFC 7677): keys, from which the password cannot be had
//! without guessing it.
//!
//! Whoever reads them can be the server for that user, and guess passwords as fast as with a hash of PBKDF2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Rounds of PBKDF2 in keys that are made here; the client computes as many at each login.
pub(crate) const ITERATIONS: u32 = 100_000;
/// The least that RFC 7677 allows, and the most that a client should be made to compute.
const ALLOWED_ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=10_000_000;
/// Bytes of a salt that is made here.
pub(crate) const SALT: usize = 16;
/// Bytes of a key.
pub(crate) const KEY: usize = 32;
/// What the text begins with, as PostgreSQL has it.
const NAME: &str = "SCRAM-SHA-256";
/// What an error says that was expected.
const EXPECTED: &str = "keys as nuauth-server hash-password --scram prints them (SCRAM-SHA-256$…)";

/// The keys of one user.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ScramKeys {
    pub(crate) iterations: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) stored: [u8; KEY],
    pub(crate) server: [u8; KEY],
}

impl ScramKeys {
    /// The keys of a password, which was prepared by `SASLprep`.
    pub(crate) fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut salted = [0; KEY];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored: Sha256::digest(keyed(&salted, b"Client Key")).into(),
            server: keyed(&salted, b"Server Key"),
        }
    }

    /// Reads `SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER`; an error never repeats it.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        Self::read(text).ok_or_else(|| {
            (
                "something that is no SCRAM-SHA-256 keys (not shown)".to_owned(),
                EXPECTED,
            )
        })
    }

    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(NAME)?.strip_prefix('$')?;
        let (made, keys) = rest.split_once('$')?;
        let (iterations, salt) = made.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| <[u8; KEY]>::try_from(STANDARD.decode(text).ok()?).ok();
        let iterations = iterations
            .parse()
            .ok()
            .filter(|n| ALLOWED_ITERATIONS.contains(n))?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self {
            iterations,
            salt,
            stored: key(stored)?,
            server: key(server)?,
        })
    }
}

/// The form of the users file.
impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored, server) = (
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored),
            STANDARD.encode(self.server),
        );
        write!(f, "{NAME}${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys")
    }
}

/// HMAC-SHA-256.
pub(crate) fn keyed(key: &[u8], text: &[u8]) -> [u8; KEY] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac.chain_update(text).finalize().into_bytes().into(),
        // A key of any length will do for HMAC.
        Err(_) => [0; KEY],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_rfc_7677() {
        // RFC 7677, section 3: user "user", password "pencil".
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::derive(b"pencil", &salt, 4096);
        let auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
                    r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
                    c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = STANDARD.encode(keyed(&keys.server, auth.as_bytes()));
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn keys_are_read_as_they_are_written_and_nothing_else_is_keys() {
        let keys = ScramKeys::derive(b"secret", b"saltsalt", 4096);
        let text = keys.to_string();
        assert!(text.starts_with("SCRAM-SHA-256$4096:c2FsdHNhbHQ=$"), "{text}");
        assert!(ScramKeys::parse(&text).unwrap() == keys);
        for wrong in [
            "hunter22".to_owned(),
            text.replace("$4096:", "$1:"),
            text.replace("$4096:", "$99999999:"),
            text.replace("SHA-256", "SHA-1"),
            text[..text.len() - 4].to_owned(),
            text.replace(":c2FsdHNhbHQ=$", ":$"),
        ] {
            let (found, _) = ScramKeys::parse(&wrong).unwrap_err();
            assert!(!found.contains("hunter22"), "{found}");
        }
    }
}
