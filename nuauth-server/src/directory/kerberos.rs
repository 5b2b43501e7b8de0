//! Kerberos tickets, accepted by the system's GSS-API library with the keys of the server's principal. Runs in a process that
//! has nothing else to do.
//!
//! Says whose a token is, and believes none that is not bound to its connection. Who that is here is decided elsewhere.

use super::wire::{Ask, Reply};
use nufw_proto::LoginBytes;

/// Variables of the environment by which the library is told where the keys are, and to keep no file of tokens that it has
/// seen: one that is bound to its TLS connection is good on no other.
pub(super) const KEYTAB: &str = "KRB5_KTNAME";
/// See [`KEYTAB`]. MIT krb5 since 1.18.
pub(super) const REPLAY_CACHE: (&str, &str) = ("KRB5RCACHENAME", "none:");

/// Answers a question.
pub(super) fn answer(ask: &Ask, token: Option<&LoginBytes>) -> Reply {
    match (ask, token) {
        (Ask::Ticket(binding), Some(token)) => accept(token.expose(), binding),
        _ => Reply::CannotSay("it was asked for what only a directory knows".to_owned()),
    }
}

#[cfg(not(feature = "kerberos"))]
fn accept(_: &[u8], _: &[u8]) -> Reply {
    Reply::CannotSay("this program was built without Kerberos (feature \"kerberos\")".to_owned())
}

#[cfg(feature = "kerberos")]
fn accept(token: &[u8], binding: &[u8]) -> Reply {
    use libgssapi::context::{CtxFlags, SecurityContext as _, ServerCtx};
    use libgssapi::credential::{Cred, CredUsage};
    use libgssapi::name::Name;
    use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE, OidSet};
    use nufw_common::gs2::{SERVICE, words};

    /// `GSS_C_CHANNEL_BOUND_FLAG` of MIT krb5 1.19 and later (`gssapi/gssapi_ext.h`): the client did bind, too. Without it
    /// the library takes tokens that are bound to nothing.
    const BOUND: CtxFlags = CtxFlags::from_bits_retain(0x800);

    let keys = || {
        let service = Name::new(SERVICE.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE))?;
        let kerberos = OidSet::singleton(GSS_MECH_KRB5)?;
        Cred::acquire(Some(&service), None, CredUsage::Accept, Some(&kerberos))
    };
    let keys = match keys() {
        Ok(keys) => keys,
        Err(error) => {
            return Reply::CannotSay(format!(
                "there is no usable key of {SERVICE}/HOST@REALM: {}",
                words(&error)
            ));
        }
    };
    let mut context = ServerCtx::new(Some(keys));
    let said = match context.step(token, Some(binding)) {
        Ok(said) => said,
        Err(error) => return Reply::Refused(words(&error)),
    };
    let (Some(said), true) = (said, context.is_complete()) else {
        return Reply::Refused("it does not want the server to prove itself, as it should".to_owned());
    };
    if !context.flags().is_ok_and(|flags| flags.contains(BOUND)) {
        return Reply::Refused("it is not bound to its TLS connection".to_owned());
    }
    let principal = context.source_name().and_then(|name| name.display_name());
    match principal.map(|name| String::from_utf8(name.to_vec())) {
        Ok(Ok(principal)) => Reply::Principal(principal, said.to_vec()),
        Ok(Err(_)) => Reply::Refused("its principal is no UTF-8".to_owned()),
        Err(error) => Reply::Refused(words(&error)),
    }
}

/// The user that a principal is: its first part, where it has one alone and its realm is one of these.
pub(super) fn user<'a>(principal: &'a str, realms: &[String]) -> Result<&'a str, &'static str> {
    // The library writes a backslash before what would be taken for something else.
    if principal.contains(['/', '\\']) {
        return Err("it is that of a service, of an instance, or has a sign that no user's has");
    }
    match principal.split_once('@') {
        Some((name, realm)) if !name.is_empty() && realms.iter().any(|known| known == realm) => Ok(name),
        Some(_) => Err("users.kerberos.realms does not name its realm"),
        None => Err("it has no realm"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_principals_of_known_realms_are_users() {
        let realms = ["EXAMPLE.ORG".to_owned(), "LAB.EXAMPLE.ORG".to_owned()];
        assert_eq!(user("alice@EXAMPLE.ORG", &realms), Ok("alice"));
        assert_eq!(user("bob@LAB.EXAMPLE.ORG", &realms), Ok("bob"));
        for wrong in [
            "alice@OTHER.ORG",
            "alice@example.org",
            "alice@EXAMPLE.ORG@EXAMPLE.ORG",
            "alice",
            "@EXAMPLE.ORG",
            "alice/admin@EXAMPLE.ORG",
            "host/gw@EXAMPLE.ORG",
            "alice\\@EXAMPLE.ORG@OTHER.ORG",
            "alice\\@x@EXAMPLE.ORG",
            "",
        ] {
            assert!(user(wrong, &realms).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_token_is_answered() {
        let token = LoginBytes::new(vec![0x60; 100]).ok();
        assert!(!matches!(
            answer(&Ask::Ticket(Vec::new()), token.as_ref()),
            Reply::Principal(..)
        ));
        assert!(matches!(
            answer(&Ask::Ticket(Vec::new()), None),
            Reply::CannotSay(_)
        ));
        assert!(matches!(
            answer(&Ask::Password("x".to_owned()), token.as_ref()),
            Reply::CannotSay(_)
        ));
    }
}
