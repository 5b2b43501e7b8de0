//! What the server, its helper process and the workers of that say to each other, and how it is framed.
//!
//! Both ends are the same program of the same version, so that nothing here has to grow. Bounded all the same.

use super::worker::Kind;
use nufw_proto::LoginBytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// Longest frame, bytes: settings carry certificates of authorities.
const MAX_FRAME: u32 = 1 << 20;

/// What workers need to know. Files are read before: a worker has none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Settings {
    /// `[users.ldap]`
    pub ldap: Option<LdapSettings>,
    /// `[users.system]`
    pub system: Option<SystemSettings>,
    /// `[users.kerberos]`
    pub kerberos: Option<KerberosSettings>,
}

/// How to ask an LDAP server.
#[derive(Clone, Serialize, Deserialize)]
pub struct LdapSettings {
    /// `ldaps://`, `ldap://` or `ldapi://`.
    pub url: String,
    /// Whether TLS begins on a connection of `ldap://`.
    pub start_tls: bool,
    /// The authorities of the server's certificate, PEM; the system's where absent.
    pub ca: Option<Vec<u8>>,
    /// Who searches; nobody (anonymously) where absent.
    pub bind_dn: Option<String>,
    /// The password of `bind_dn`.
    pub bind_password: String,
    /// The DN of a user, with `{name}`. Then nothing is searched to check a password.
    pub user_dn: Option<String>,
    /// Where users are.
    pub user_base: String,
    /// Which entry is a user's, with `{name}`.
    pub user_filter: String,
    /// The attribute with the name.
    pub name_attribute: String,
    /// The attribute with the id: a number, or `objectSid`, whose last part is the id.
    pub id_attribute: String,
    /// The attribute with the mark.
    pub mark_attribute: Option<String>,
    /// The attribute of a user's entry with the DNs of its groups; their first part is a group's name.
    pub member_of: Option<String>,
    /// Where groups are searched.
    pub group_base: Option<String>,
    /// Which groups are a user's, with `{dn}` and `{name}`.
    pub group_filter: String,
    /// The attribute with a group's name.
    pub group_name: String,
    /// How long one operation may take.
    pub timeout: Duration,
    /// Connections, and questions at one time.
    pub connections: usize,
}

/// How to ask PAM and NSS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SystemSettings {
    /// The PAM service: a file of `/etc/pam.d`.
    pub service: String,
    /// How long a module may take before its process is killed.
    pub timeout: Duration,
    /// Processes at one time.
    pub processes: usize,
}

/// How to take Kerberos tickets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KerberosSettings {
    /// The file with the keys of the server's principal; the worker reads it.
    pub keytab: PathBuf,
    /// How long it may take.
    pub timeout: Duration,
}

impl Settings {
    /// What a worker of this kind needs, and nothing of the others.
    pub(super) fn only(&self, kind: Kind) -> Self {
        let (mut own, all) = (Self::default(), self.clone());
        match kind {
            Kind::Ldap => own.ldap = all.ldap,
            Kind::System => own.system = all.system,
            Kind::Kerberos => own.kerberos = all.kerberos,
        }
        own
    }
}

impl std::fmt::Debug for LdapSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LdapSettings({})", self.url)
    }
}

/// A question; all but the last name the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Is the password that comes with it right?
    Password(String),
    /// Which id?
    Identity(String),
    /// Which groups?
    Groups(String),
    /// What changes when the password does?
    Credential(String),
    /// Whose Kerberos token is it that comes with this, bound to these bytes?
    Ticket(Vec<u8>),
}

/// Who somebody is to a back-end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) id: u64,
    /// A mark of its own, where the back-end keeps one.
    pub(super) mark: Option<u64>,
    /// The name as the back-end has it, or several: it may know no case, and no difference between blanks.
    pub(super) names: Vec<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The password is right.
    Right,
    /// It is not.
    Wrong,
    /// There is no such user, or none with a password.
    Unknown,
    /// The user.
    Found(Found),
    /// The user's groups.
    Groups(Vec<String>),
    /// Something that is another one when the password is; `None` where the back-end tells nothing such.
    Credential(Option<String>),
    /// The token is this principal's, and this is said in return.
    Principal(String, Vec<u8>),
    /// The token is not accepted, for this reason.
    Refused(String),
    /// None of these, for this reason.
    CannotSay(String),
}

/// A question with its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) of: Kind,
    pub(super) ask: Ask,
    /// A password, or a token.
    pub(super) secret: Option<LoginBytes>,
}

/// What is said to the helper, and by it to a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum ToHelper {
    /// How to ask, from here on. First of all, and again after a reload.
    Settings(Box<Settings>),
    /// A question.
    Call(Call),
}

/// An answer with the number of its question.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) id: u64,
    pub(super) reply: Reply,
}

/// Reads one frame; `None` where the other side has ended.
pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let length = match from.read_u32_le().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame is longer than any may be",
        ));
    }
    let mut body = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or_default()]);
    from.read_exact(&mut body).await?;
    postcard::from_bytes(&body)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one frame.
pub(super) async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let too_long = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a frame would be longer than any may be",
        )
    };
    let body = Zeroizing::new(postcard::to_allocvec(message).map_err(io::Error::other)?);
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= MAX_FRAME);
    to.write_u32_le(length.ok_or_else(too_long)?).await?;
    to.write_all(&body).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_written_and_bounded() {
        let mut bytes = Vec::new();
        let call = ToHelper::Call(Call {
            id: 7,
            of: Kind::Ldap,
            ask: Ask::Password("alice".to_owned()),
            secret: LoginBytes::new(b"hushed".to_vec()).ok(),
        });
        write(&mut bytes, &call).await.unwrap();
        assert!(!format!("{call:?}").contains("hushed"), "a log may show it");
        let mut reader = bytes.as_slice();
        let Some(ToHelper::Call(read_call)) = read(&mut reader).await.unwrap() else {
            panic!("another message")
        };
        assert_eq!(
            (read_call.id, read_call.ask),
            (7, Ask::Password("alice".to_owned()))
        );
        assert_eq!(read_call.secret.unwrap().expose(), b"hushed");
        assert!(read::<ToHelper>(&mut reader).await.unwrap().is_none(), "the end");
        for cut in 1..bytes.len() {
            let result = read::<ToHelper>(&mut &bytes[..cut]).await;
            assert!(!matches!(result, Ok(Some(_))), "{cut}");
        }
        let huge = u32::MAX.to_le_bytes();
        assert!(read::<ToHelper>(&mut huge.as_slice()).await.is_err());
        let long = Reply::CannotSay("x".repeat(MAX_FRAME as usize));
        assert!(write(&mut Vec::new(), &long).await.is_err());
    }
}
