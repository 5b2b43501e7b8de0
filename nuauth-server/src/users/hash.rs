//! Password hashes of users files: argon2id, and what other systems have left behind.
//!
//! Only verifies. A hash that is too weak to be kept is known as such, and stays until somebody gives the user a new one.

use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::Output;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha_crypt::ShaCrypt;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::cell::RefCell;
use std::fmt;
use yescrypt::Yescrypt;

/// What an error of a hash says that was expected.
const EXPECTED: &str = "a hash as nuauth-server hash-password prints it ($argon2id$…)";
/// The same where the hash is one of another system's that is not known here.
const EXPECTED_OTHER: &str = "one of $argon2id$, {SSHA}, {SHA}, {SMD5}, {MD5}, {SSHA256}, {SHA256}, {SSHA512}, {SHA512}, $5$, $6$ \
                              or $y$; otherwise a new password, hashed by nuauth-server hash-password";

/// Blocks of argon2id, 1 KiB each, that a thread keeps for the next password: three times what the usual hash takes.
const KEPT_BLOCKS: usize = 64 * 1024;

thread_local! {
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// A password's hash.
#[derive(Clone)]
pub(crate) enum Hash {
    /// As `hash-password` makes it.
    Argon2(Box<PasswordHash>),
    /// As an LDAP server keeps it: one round of a digest over password and salt.
    Digest(Digested),
    /// As `crypt(3)` keeps it: `$5$` and `$6$`.
    ShaCrypt(String),
    /// As `crypt(3)` keeps it: `$y$`.
    Yescrypt(String),
}

/// A digest over password and salt.
#[derive(Clone)]
pub(crate) struct Digested {
    kind: Kind,
    digest: Vec<u8>,
    salt: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

impl Kind {
    fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn name(self, salted: bool) -> &'static str {
        match (self, salted) {
            (Self::Md5, false) => "{MD5}",
            (Self::Md5, true) => "{SMD5}",
            (Self::Sha1, false) => "{SHA}",
            (Self::Sha1, true) => "{SSHA}",
            (Self::Sha256, false) => "{SHA256}",
            (Self::Sha256, true) => "{SSHA256}",
            (Self::Sha512, false) => "{SHA512}",
            (Self::Sha512, true) => "{SSHA512}",
        }
    }

    fn digest(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        fn of<D: Digest>(password: &[u8], salt: &[u8]) -> Vec<u8> {
            D::new()
                .chain_update(password)
                .chain_update(salt)
                .finalize()
                .to_vec()
        }
        match self {
            Self::Md5 => of::<Md5>(password, salt),
            Self::Sha1 => of::<Sha1>(password, salt),
            Self::Sha256 => of::<Sha256>(password, salt),
            Self::Sha512 => of::<Sha512>(password, salt),
        }
    }
}

/// Names of LDAP schemes: the digest, and whether a salt follows it.
const SCHEMES: [(&str, Kind, bool); 8] = [
    ("MD5", Kind::Md5, false),
    ("SMD5", Kind::Md5, true),
    ("SHA", Kind::Sha1, false),
    ("SSHA", Kind::Sha1, true),
    ("SHA256", Kind::Sha256, false),
    ("SSHA256", Kind::Sha256, true),
    ("SHA512", Kind::Sha512, false),
    ("SSHA512", Kind::Sha512, true),
];

impl Hash {
    /// Reads a hash; an error never repeats it, since somebody may have put the password there.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        if let Some((scheme, rest)) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            let scheme = scheme.to_ascii_uppercase();
            if scheme == "CRYPT" {
                return Self::crypt(rest);
            }
            let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
            let Some(&(_, kind, salted)) = known else {
                return Err((
                    "a hash of a scheme that is not verified here (not shown)".to_owned(),
                    EXPECTED_OTHER,
                ));
            };
            return Self::ldap(kind, salted, rest);
        }
        match text.split('$').nth(1) {
            Some("5" | "6" | "y") => Self::crypt(text),
            Some(other @ ("1" | "2a" | "2b" | "2y" | "7" | "gy" | "md5" | "sha1")) => Err((
                format!("a hash of crypt(3), ${other}$, that is not verified here"),
                EXPECTED_OTHER,
            )),
            _ => Self::argon2(text),
        }
    }

    fn argon2(text: &str) -> Result<Self, (String, &'static str)> {
        let hash = PasswordHash::new(text).map_err(|_| {
            (
                "something that is no password hash (not shown)".to_owned(),
                EXPECTED,
            )
        })?;
        if hash.algorithm.as_str() != "argon2id" {
            return Err((format!("a hash of {}", hash.algorithm), EXPECTED));
        }
        if hash.hash.is_none() || hash.salt.is_none() || Params::try_from(&hash).is_err() {
            return Err(("an incomplete argon2id hash".to_owned(), EXPECTED));
        }
        Ok(Self::Argon2(Box::new(hash)))
    }

    fn ldap(kind: Kind, salted: bool, rest: &str) -> Result<Self, (String, &'static str)> {
        let wrong = || {
            (
                format!("a {} hash that is cut or damaged", kind.name(salted)),
                EXPECTED_OTHER,
            )
        };
        let mut digest = STANDARD.decode(rest).map_err(|_| wrong())?;
        if digest.len() < kind.length() || (digest.len() > kind.length()) != salted {
            return Err(wrong());
        }
        let salt = digest.split_off(kind.length());
        Ok(Self::Digest(Digested { kind, digest, salt }))
    }

    /// Whether a hash of `crypt(3)` can be verified is tried: the libraries tell nothing less.
    fn crypt(text: &str) -> Result<Self, (String, &'static str)> {
        let hash = match text.split('$').nth(1) {
            Some("5" | "6") => Self::ShaCrypt(text.to_owned()),
            Some("y") => Self::Yescrypt(text.to_owned()),
            _ => {
                return Err((
                    "a hash of crypt(3) that is not verified here (not shown)".to_owned(),
                    EXPECTED_OTHER,
                ));
            }
        };
        match hash.compare(b"") {
            Ok(()) | Err(argon2::password_hash::Error::PasswordInvalid) => Ok(hash),
            Err(_) => Err((
                "a hash of crypt(3) that is cut or damaged".to_owned(),
                EXPECTED_OTHER,
            )),
        }
    }

    fn compare(&self, password: &[u8]) -> Result<(), argon2::password_hash::Error> {
        use argon2::password_hash::Error::PasswordInvalid;
        match self {
            Self::Argon2(hash) => argon2id(hash, password),
            Self::Digest(stored) => {
                let found = stored.kind.digest(password, &stored.salt);
                // The time would tell nothing but how far two digests agree, and costs nothing to hide.
                let differ = found
                    .iter()
                    .zip(&stored.digest)
                    .fold(0, |all, (a, b)| all | (a ^ b));
                if differ == 0 { Ok(()) } else { Err(PasswordInvalid) }
            }
            Self::ShaCrypt(text) => ShaCrypt::default().verify_password(password, text.as_str()),
            Self::Yescrypt(text) => Yescrypt::default().verify_password(password, text.as_str()),
        }
    }

    /// Whether the password is the one; expensive on purpose. The thread keeps the memory that it takes.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        self.compare(password).is_ok()
    }

    /// The parameters of argon2id, where it is that.
    pub(crate) fn argon2_params(&self) -> Option<Params> {
        match self {
            Self::Argon2(hash) => Params::try_from(&**hash).ok(),
            _ => None,
        }
    }

    /// Its name, where whoever reads the file can guess passwords too fast.
    pub(crate) fn weakness(&self) -> Option<&'static str> {
        match self {
            Self::Argon2(_) | Self::Yescrypt(_) => None,
            Self::Digest(stored) => Some(stored.kind.name(!stored.salt.is_empty())),
            Self::ShaCrypt(text) if text.starts_with("$5$") => Some("$5$"),
            Self::ShaCrypt(_) => Some("$6$"),
        }
    }
}

/// As the crate's own verification, in memory that is not asked for and given back each time: giving back so much at once makes
/// the C library's allocator keep what everybody else gives back (mallopt(3), `M_MMAP_THRESHOLD`).
fn argon2id(hash: &PasswordHash, password: &[u8]) -> Result<(), argon2::password_hash::Error> {
    use argon2::password_hash::Error;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return Err(Error::PasswordInvalid);
    };
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?;
    let params = Params::try_from(hash)?;
    let count = params.block_count();
    let mut buffer = [0; Output::MAX_LENGTH];
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let out = buffer.get_mut(..length).ok_or(Error::OutputSize)?;
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.len() < count {
            blocks.resize(count, Block::new());
        }
        Argon2::new(algorithm, version.unwrap_or_default(), params).hash_password_into_with_memory(
            password,
            salt,
            out,
            &mut blocks[..count],
        )?;
        blocks.truncate(KEPT_BLOCKS);
        blocks.shrink_to_fit();
        // The comparison takes the same time whatever differs.
        if Output::new(out)? == *expected {
            Ok(())
        } else {
            Err(Error::PasswordInvalid)
        }
    })
}

/// Another text for another password; it is not the users file's.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argon2(hash) => write!(f, "{hash}"),
            Self::Digest(Digested { kind, digest, salt }) => {
                write!(f, "{}{digest:02x?}{salt:02x?}", kind.name(!salt.is_empty()))
            }
            Self::ShaCrypt(text) | Self::Yescrypt(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`; `crypt(3)` and OpenSSL made those of their kinds.
    const OTHERS: [(&str, Option<&str>); 11] = [
        ("{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA==", Some("{SSHA}")),
        ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", Some("{SHA}")),
        ("{SMD5}VAfQ6nCkaw9o3u+x706wnXNhbHRzYWx0", Some("{SMD5}")),
        ("{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", Some("{MD5}")),
        (
            "{SSHA256}oBmrdHcA6OZEkkCLeXh71YAerbvhXz1qqwjrPsXmEtNzYWx0c2FsdA==",
            Some("{SSHA256}"),
        ),
        (
            "{SSHA512}aCu7JRc+kLsuEmFs1zTY+AiP7DSGnjjG+dH28Dp+E5usqoAixeTPihKqZmkWal4mUfp63tqvCAkFV1LKTDFH6XNhbHRzYWx0",
            Some("{SSHA512}"),
        ),
        (
            "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==",
            Some("{SHA512}"),
        ),
        (
            "{CRYPT}$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
            Some("$6$"),
        ),
        (
            "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
            Some("$5$"),
        ),
        (
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$GmcwIgvdUC9qLWcKCi6gklUa1dM3ziD43YxYNURLKy0",
            None,
        ),
        (
            "{crypt}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$GmcwIgvdUC9qLWcKCi6gklUa1dM3ziD43YxYNURLKy0",
            None,
        ),
    ];

    #[test]
    fn a_damaged_hash_and_one_of_another_kind_are_told_apart() {
        let error = |text: &str| Hash::parse(text).unwrap_err().0;
        assert_eq!(error("{SSHA}AAAA"), "a {SSHA} hash that is cut or damaged");
        assert_eq!(error("{SHA}not base64"), "a {SHA} hash that is cut or damaged");
        // A salt where there should be none, and none where there should be one.
        let salted = OTHERS[0].0.replace("{SSHA}", "{SHA}");
        assert_eq!(error(&salted), "a {SHA} hash that is cut or damaged");
        assert!(error(&OTHERS[1].0.replace("{SHA}", "{SSHA}")).contains("damaged"));
        assert_eq!(error("$6$salt"), "a hash of crypt(3) that is cut or damaged");
        assert!(error("$1$abcdefgh$G//4keteveJp0qb8z2DxG/").contains("$1$"));
        assert!(error("$2y$10$abcdefghijklmnopqrstuv").contains("$2y$"));
        assert!(error("{CRYPT}ab01FAX.bQRSU").contains("crypt(3)"));
        assert!(error("{CLEARTEXT}hunter22").contains("not shown"));
        assert!(!error("{CLEARTEXT}hunter22").contains("hunter22"));
        assert!(error("hunter22").contains("no password hash"));
    }

    #[test]
    fn hashes_of_other_systems_are_verified_and_the_weak_ones_known() {
        for (text, weakness) in OTHERS {
            let hash = Hash::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert!(hash.verify(b"secret"), "{text}");
            assert!(!hash.verify(b"Secret") && !hash.verify(b""), "{text}");
            assert_eq!(hash.weakness(), weakness, "{text}");
        }
    }
}
