//! The host's own users: passwords by PAM, ids and groups by NSS. Runs in a process that has nothing else to do.
//!
//! May block for as long as a module likes: whoever started the process kills it.

use super::MAX_GROUPS;
use super::wire::{Ask, Found, Reply, SystemSettings};
use nix::unistd::{Group, User, getgrouplist};
use nufw_proto::LoginBytes;
use std::ffi::CString;

/// Answers a question.
pub(super) fn answer(settings: &SystemSettings, ask: &Ask, password: Option<&LoginBytes>) -> Reply {
    match ask {
        Ask::Password(name) => check(settings, name, password),
        Ask::Identity(name) => match user(name) {
            Ok(user) => Reply::Found(Found {
                id: user.uid.as_raw().into(),
                mark: None,
                names: vec![user.name],
            }),
            Err(reply) => reply,
        },
        Ask::Groups(name) => match user(name) {
            Ok(user) => groups(&user),
            Err(reply) => reply,
        },
        // PAM does not say, and shadow is not this process' to read.
        Ask::Credential(_) => Reply::Credential(None),
        Ask::Ticket(_) => Reply::CannotSay("it takes no tickets".to_owned()),
    }
}

/// An error of NSS is no "there is no such user".
fn user(name: &str) -> Result<User, Reply> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Reply::Unknown),
        Err(error) => Err(Reply::CannotSay(format!("NSS cannot say who it is: {error}"))),
    }
}

fn groups(user: &User) -> Reply {
    let Ok(name) = CString::new(user.name.as_str()) else {
        return Reply::Unknown;
    };
    let ids = match getgrouplist(&name, user.gid) {
        Ok(ids) => ids,
        Err(error) => return Reply::CannotSay(format!("NSS cannot say which groups it is in: {error}")),
    };
    if ids.len() > MAX_GROUPS {
        return Reply::CannotSay(format!("it is in more than {MAX_GROUPS} groups"));
    }
    let mut names = Vec::new();
    for id in ids {
        match Group::from_gid(id) {
            Ok(Some(group)) => names.push(group.name),
            // A group that has no name is in no rule.
            Ok(None) => {}
            Err(error) => {
                return Reply::CannotSay(format!("NSS cannot say which group has the id {id}: {error}"));
            }
        }
    }
    Reply::Groups(names)
}

#[cfg(not(feature = "pam"))]
fn check(_: &SystemSettings, _: &str, _: Option<&LoginBytes>) -> Reply {
    Reply::CannotSay("this program was built without PAM (feature \"pam\")".to_owned())
}

#[cfg(feature = "pam")]
fn check(settings: &SystemSettings, name: &str, password: Option<&LoginBytes>) -> Reply {
    use nonstick::{AuthnFlags, ErrorCode, Transaction as _, TransactionBuilder};
    use std::os::unix::ffi::OsStringExt as _;

    let Some(password) = password
        .map(LoginBytes::expose)
        .filter(|p| !p.is_empty() && !p.contains(&0))
    else {
        return Reply::Wrong;
    };
    if name.contains('\0') {
        return Reply::Unknown;
    }
    let password = std::ffi::OsString::from_vec(password.to_vec());
    let said = TransactionBuilder::new_with_service(&settings.service)
        .username(name)
        .build(Only(password))
        .and_then(|mut transaction| {
            transaction.authenticate(AuthnFlags::DISALLOW_NULL_AUTHTOK)?;
            transaction.account_management(AuthnFlags::DISALLOW_NULL_AUTHTOK)
        });
    match said {
        Ok(()) => Reply::Right,
        Err(
            ErrorCode::AuthenticationError
            | ErrorCode::MaxTries
            | ErrorCode::PermissionDenied
            | ErrorCode::AccountExpired
            | ErrorCode::NewAuthTokRequired
            | ErrorCode::AuthTokExpired
            | ErrorCode::CredentialsExpired,
        ) => Reply::Wrong,
        Err(ErrorCode::UserUnknown) => Reply::Unknown,
        Err(error) => Reply::CannotSay(format!("PAM (service {}) says: {error}", settings.service)),
    }
}

/// Answers the one question that a password is the answer to, and nothing else.
#[cfg(feature = "pam")]
struct Only(std::ffi::OsString);

#[cfg(feature = "pam")]
impl nonstick::Conversation for Only {
    fn communicate(&self, messages: &[nonstick::conv::Exchange<'_>]) {
        use nonstick::conv::Exchange;
        for message in messages {
            match message {
                Exchange::MaskedPrompt(question) => question.set_answer(Ok(self.0.clone())),
                Exchange::Info(message) => message.set_answer(Ok(())),
                Exchange::Error(message) => message.set_answer(Ok(())),
                other => other.set_error(nonstick::ErrorCode::ConversationError),
            }
        }
    }
}
