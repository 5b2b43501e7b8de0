//! SASL responses (RFC 4422) taken apart by `rsasl`, and verified against the users.
//!
//! `rsasl` reports a finished exchange whether or not anybody was authenticated, so its callback only hands out what
//! the client said; what is true is decided here, in one place.

use super::LoginError;
use crate::config::Mechanism;
use rsasl::callback::{Context, SessionCallback, SessionData};
use rsasl::mechname::Mechname;
use rsasl::prelude::{SASLConfig, SASLServer};
use rsasl::property::{AuthId, AuthzId, Password};
use rsasl::validate::{Validate, Validation, ValidationError};
use std::fmt;
use zeroize::Zeroizing;

/// A login attempt as the client put it: nothing of it is proven yet.
#[derive(Clone)]
pub struct Login {
    pub(crate) name: String,
    pub(crate) proof: Proof,
}

/// What a login comes with.
#[derive(Clone)]
pub(crate) enum Proof {
    /// The password, as `SASLprep` leaves it.
    Password(Zeroizing<Vec<u8>>),
    /// A certificate that TLS has verified, with the name.
    Certificate,
    /// A conversation that has proven the name: by keys of the users file, or by a Kerberos ticket.
    Conversation,
}

/// What the client said.
struct Said {
    authzid: Option<String>,
    authcid: Option<String>,
    password: Option<Zeroizing<Vec<u8>>>,
}

struct Hearsay;

impl Validation for Hearsay {
    type Value = Said;
}

struct Listen;

impl SessionCallback for Listen {
    fn validate(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        validate.with::<Hearsay, _>(|| {
            Ok(Said {
                authzid: context.get_ref::<AuthzId>().map(str::to_owned),
                authcid: context.get_ref::<AuthId>().map(str::to_owned),
                password: context.get_ref::<Password>().map(|p| Zeroizing::new(p.to_vec())),
            })
        })?;
        Ok(())
    }
}

impl Login {
    /// Takes a response apart; `certificate_cn` is what [`certificate_user`](super::certificate_user) gave. Not for conversations.
    pub fn parse(mechanism: &str, response: &[u8], certificate_cn: Option<&str>) -> Result<Self, LoginError> {
        let mechanism =
            Mechanism::parse(mechanism).ok_or_else(|| LoginError::Mechanism(shorten(mechanism)))?;
        if mechanism.is_conversation() {
            return Err(LoginError::Malformed {
                mechanism: mechanism.name(),
                why: "it is a conversation of several messages".to_owned(),
            });
        }
        let said = listen(mechanism, response)?;
        let (name, proof) = match mechanism {
            Mechanism::Plain => {
                let malformed = |why: &str| LoginError::Malformed {
                    mechanism: mechanism.name(),
                    why: why.to_owned(),
                };
                let name = said.authcid.ok_or_else(|| malformed("it names nobody"))?;
                let password = said.password.ok_or_else(|| malformed("it has no password"))?;
                (name, Proof::Password(password))
            }
            Mechanism::External | Mechanism::Scram | Mechanism::ScramPlus | Mechanism::Kerberos => {
                let name = certificate_cn.ok_or(LoginError::NoCertificate)?.to_owned();
                (name, Proof::Certificate)
            }
        };
        let login = Self { name, proof };
        // rsasl gives an absent authorization identity as an empty one.
        match said.authzid {
            Some(other) if !other.is_empty() => login.only_for(&other),
            _ => Ok(login),
        }
    }

    /// Who wants to log in, for the limiter and the log; a certificate's common name with EXTERNAL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A login whose name a conversation has proven.
    pub(crate) fn proven(name: String) -> Self {
        Self {
            name,
            proof: Proof::Conversation,
        }
    }

    fn only_for(self, authzid: &str) -> Result<Self, LoginError> {
        if authzid == self.name {
            Ok(self)
        } else {
            Err(LoginError::OtherIdentity { name: self.name })
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.name)
    }
}

/// One exchange with `rsasl`; its session is dropped at once, since it would accept a second response.
fn listen(mechanism: Mechanism, response: &[u8]) -> Result<Said, LoginError> {
    let malformed = |why: String| LoginError::Malformed {
        mechanism: mechanism.name(),
        why,
    };
    let unusable = |_| LoginError::Mechanism(mechanism.name().to_owned());
    let config = SASLConfig::builder()
        .with_defaults()
        .with_callback(Listen)
        .map_err(|e| malformed(e.to_string()))?;
    let name = Mechname::parse(mechanism.name().as_bytes()).map_err(|e| malformed(e.to_string()))?;
    let mut session = SASLServer::<Hearsay>::new(config)
        .start_suggested(name)
        .map_err(unusable)?;
    let mut answer = Vec::new();
    let state = session
        .step(Some(response), &mut answer)
        .map_err(|e| malformed(e.to_string()))?;
    if state.is_running() {
        return Err(malformed("it is not complete".to_owned()));
    }
    session
        .validation()
        .ok_or_else(|| malformed("it proves nothing".to_owned()))
}

/// A name as `SASLprep` (RFC 4013) leaves it; `None` where it forbids it.
pub(crate) fn prepared_name(name: &str) -> Option<String> {
    listen(Mechanism::Plain, format!("\0{name}\0password").as_bytes())
        .ok()?
        .authcid
}

/// A password as `SASLprep` leaves it, which is what a login compares; `None` where it forbids it.
pub(crate) fn prepared_password(password: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let response = Zeroizing::new([b"\0name\0", password].concat());
    listen(Mechanism::Plain, &response).ok()?.password
}

fn shorten(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(20).collect()
}
