//! `nuauth-server hash-password`: a password in, the hash for users.toml out.
//!
//! The password is never an argument, never shown and never logged.

use crate::auth::prepared_password;
use crate::users::scram::{ITERATIONS, SALT, ScramKeys};
use anyhow::{Context as _, anyhow};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::PasswordHash;
use nufw_common::exit::{Exit, Failure, OrExit as _};
use std::io::{BufRead, IsTerminal as _, Read as _, Write};
use zeroize::Zeroizing;

/// Longest password in bytes; a SASL response must have room for a name beside it.
const MAX_PASSWORD: usize = 1024;

/// Reads a password, from the terminal twice or from standard input one line, and prints its hash, or its keys for SCRAM.
pub fn run(scram: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let password = if std::io::stdin().is_terminal() {
        ask()?
    } else {
        from_line(&mut std::io::stdin().lock())?
    };
    let hash = if scram { keys(&password)? } else { hash(&password)? };
    writeln!(out, "{hash}").or_exit(Exit::IoErr)
}

fn ask() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let prompt = |text: &str| {
        rpassword::prompt_password(text)
            .map(|password| Zeroizing::new(password.into_bytes()))
            .context("cannot read the password from the terminal")
            .or_exit(Exit::NoInput)
    };
    let first = prompt("Password: ")?;
    if *prompt("Again: ")? != *first {
        return Err(Failure::new(Exit::DataErr, anyhow!("the two passwords differ")));
    }
    Ok(first)
}

fn from_line(input: &mut dyn BufRead) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD + 2));
    input
        .take(MAX_PASSWORD as u64 + 2)
        .read_until(b'\n', &mut line)
        .context("cannot read the password from standard input")
        .or_exit(Exit::NoInput)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(line)
}

/// The PHC string of a password: argon2id with a random salt.
pub fn hash(password: &[u8]) -> Result<String, Failure> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(&prepared(password)?)
        .map_err(|e| anyhow!("cannot hash the password: {e}"))
        .or_exit(Exit::Software)?;
    Ok(hash.to_string())
}

/// The keys of a password for SCRAM-SHA-256, with a random salt.
pub fn keys(password: &[u8]) -> Result<String, Failure> {
    let salt: [u8; SALT] = rand::random();
    Ok(ScramKeys::derive(&prepared(password)?, &salt, ITERATIONS).to_string())
}

/// A password in the form in which a login presents it.
fn prepared(password: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if password.is_empty() {
        return Err(Failure::new(Exit::DataErr, anyhow!("the password is empty")));
    }
    if password.len() > MAX_PASSWORD {
        let error = anyhow!("the password is longer than {MAX_PASSWORD} bytes");
        return Err(Failure::new(Exit::DataErr, error));
    }
    prepared_password(password)
        .context("the password holds a character that SASL forbids, such as a control character")
        .or_exit(Exit::DataErr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordVerifier as _;

    fn error_of(password: &[u8]) -> (Exit, String) {
        let failure = hash(password).unwrap_err();
        (failure.exit, failure.error.to_string())
    }

    #[test]
    fn the_hash_is_argon2id_and_proves_the_password() {
        let text = hash("s\u{e9}same".as_bytes()).unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let parsed = PasswordHash::new(&text).unwrap();
        // The decomposed spelling is hashed as the composed one, which is what a login presents.
        let verify = |password: &str| Argon2::default().verify_password(password.as_bytes(), &parsed);
        assert!(verify("s\u{e9}same").is_ok());
        let decomposed = hash("se\u{301}same".as_bytes()).unwrap();
        assert!(
            Argon2::default()
                .verify_password("s\u{e9}same".as_bytes(), &PasswordHash::new(&decomposed).unwrap())
                .is_ok()
        );
        assert!(verify("other").is_err());
    }

    #[test]
    fn the_keys_prove_the_password() {
        let keys = ScramKeys::parse(&keys("se\u{301}same".as_bytes()).unwrap()).unwrap();
        let again = ScramKeys::derive("s\u{e9}same".as_bytes(), &keys.salt, keys.iterations);
        assert!(keys == again, "hashed as a login presents it");
        assert!(keys != ScramKeys::derive(b"other", &keys.salt, keys.iterations));
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        assert_ne!(hash(b"x").unwrap(), hash(b"x").unwrap());
    }

    #[test]
    fn what_cannot_be_a_password_is_refused() {
        assert_eq!(error_of(b""), (Exit::DataErr, "the password is empty".to_owned()));
        assert_eq!(
            error_of(&[b'x'; 1025]).1,
            "the password is longer than 1024 bytes"
        );
        assert_eq!(
            error_of(b"a\x07b").1,
            "the password holds a character that SASL forbids, such as a control character"
        );
    }

    #[test]
    fn one_line_is_read_without_its_end() {
        let read = |text: &str| from_line(&mut text.as_bytes()).unwrap().to_vec();
        assert_eq!(read("secret\nmore\n"), b"secret");
        assert_eq!(read("no end"), b"no end");
        assert_eq!(read(""), b"");
        assert_eq!(read(&"x".repeat(5000)).len(), MAX_PASSWORD + 2);
    }
}
