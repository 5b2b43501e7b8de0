//! SCRAM-SHA-256 and its variant that is bound to the TLS connection, as a conversation, by `rsasl`.
//!
//! An unknown user is answered as a known one is, up to the end.

use super::{LoginError, sasl};
use crate::config::Mechanism;
use crate::users::scram::{ITERATIONS, KEY, SALT, ScramKeys, keyed};
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::mechanisms::scram::{SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::mechname::Mechname;
use rsasl::prelude::{
    ChannelBindingCallback, Mechanism as Registered, Registry, SASLConfig, SASLServer, Session, SessionError,
};
use rsasl::property::{AuthId, AuthzId};
use rsasl::validate::{Validate, Validation, ValidationError};
use std::sync::{Arc, Mutex, PoisonError};

/// What a server offers decides whether a client that could bind and did not was led to that by somebody in between.
static BOTH: &[Registered] = &[SCRAM_SHA256, SCRAM_SHA256_PLUS];
static UNBOUND: &[Registered] = &[SCRAM_SHA256];

/// The name of the binding (RFC 9266), and of what TLS exports for it.
const BINDING: &str = "tls-exporter";
/// See [`BINDING`].
pub(crate) const EXPORTED: &[u8] = b"EXPORTER-Channel-Binding";

/// What TLS exports of this very connection.
pub(crate) type Exported = [u8; 32];

/// One conversation.
pub(crate) struct Conversation {
    session: Session<Proven, Binding>,
    name: Arc<Mutex<Option<String>>>,
    stage: Stage,
}

/// How far a conversation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    Final,
    Over,
}

impl Stage {
    /// Whether `rsasl` can be given this: it takes the first two bytes of every part for granted, and panics without them. And it
    /// panics when it is asked after an error.
    fn takes(self, message: &[u8]) -> bool {
        let mut parts = message.split(|byte| *byte == b',').enumerate();
        match self {
            Self::First => parts.all(|(index, part)| match index {
                0 => true,
                1 => part.is_empty() || part.starts_with(b"a="),
                _ => part.len() >= 2,
            }),
            Self::Final => parts.all(|(_, part)| part.len() >= 2),
            Self::Over => false,
        }
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Say this, and go on with the answer.
    Challenge(Vec<u8>),
    /// Say this; the user is who it says to be.
    Proven(Vec<u8>),
    /// The proof is wrong.
    Wrong,
}

/// Where the keys of users are.
pub(crate) trait Keys: Send + Sync {
    /// Those of a user, by the name that the client says; `None` for one who has none.
    fn of(&self, name: &str) -> Option<ScramKeys>;
    /// What makes up keys for the others: the same for as long as the server runs.
    fn secret(&self) -> &[u8; KEY];
}

struct Proven;

impl Validation for Proven {
    type Value = ();
}

struct Binding(Exported);

impl ChannelBindingCallback for Binding {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        (name == BINDING).then_some(&self.0[..])
    }
}

struct Answers {
    keys: Arc<dyn Keys>,
    name: Arc<Mutex<Option<String>>>,
}

impl SessionCallback for Answers {
    fn callback(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        let Some(name) = context.get_ref::<AuthId>().and_then(unescaped) else {
            return Ok(());
        };
        let known = sasl::prepared_name(&name);
        let keys = known.as_deref().and_then(|name| self.keys.of(name));
        let keys = keys.unwrap_or_else(|| made_up(self.keys.secret(), &name));
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.unwrap_or(name));
        request.satisfy::<ScramStoredPassword<'static>>(&ScramStoredPassword::new(
            keys.iterations,
            &keys.salt,
            &keys.stored,
            &keys.server,
        ))?;
        Ok(())
    }

    fn validate(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let who = context.get_ref::<AuthId>();
        let acts_as = context.get_ref::<AuthzId>().filter(|name| !name.is_empty());
        // Nobody may act as another user.
        if acts_as.is_none() || acts_as == who {
            validate.with::<Proven, _>(|| Ok(()))?;
        }
        Ok(())
    }
}

impl Conversation {
    /// Begins one of `mechanism`; `is_bound` where the variant with binding is offered, too.
    pub(crate) fn begin(
        mechanism: Mechanism,
        is_bound: bool,
        exported: Exported,
        keys: Arc<dyn Keys>,
    ) -> Result<Self, LoginError> {
        let name = Arc::default();
        let answers = Answers {
            keys,
            name: Arc::clone(&name),
        };
        let unusable = |_| LoginError::Mechanism(mechanism.name().to_owned());
        let registry = Registry::with_mechanisms(if is_bound { BOTH } else { UNBOUND });
        let config = SASLConfig::builder()
            .with_registry(registry)
            .with_callback(answers)
            .map_err(unusable)?;
        let wanted = Mechname::parse(mechanism.name().as_bytes())
            .map_err(|_| LoginError::Mechanism(mechanism.name().to_owned()))?;
        let session = SASLServer::with_cb(config, Binding(exported))
            .start_suggested(wanted)
            .map_err(unusable)?;
        Ok(Self {
            session,
            name,
            stage: Stage::First,
        })
    }

    /// Who wants to log in, once it was said: as `SASLprep` leaves it.
    pub(crate) fn name(&self) -> Option<String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the client's next message.
    pub(crate) fn step(&mut self, response: &[u8]) -> Result<Step, LoginError> {
        let malformed = |why: String| LoginError::Malformed {
            mechanism: "SCRAM",
            why,
        };
        if !std::mem::replace(&mut self.stage, Stage::Over).takes(response) {
            return Err(malformed("a part of it is no attribute".to_owned()));
        }
        let mut answer = Vec::new();
        let stepped = self.session.step(Some(response), &mut answer);
        let state = stepped.map_err(|error| malformed(error.to_string()))?;
        if state.is_running() {
            self.stage = Stage::Final;
            return Ok(Step::Challenge(answer));
        }
        Ok(match self.session.validation() {
            Some(()) => Step::Proven(answer),
            None => Step::Wrong,
        })
    }
}

/// A name as SCRAM writes it (RFC 5802, 5.1); `None` where it writes none so.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (letter, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        plain.push(letter);
        plain.push_str(rest);
    }
    Some(plain)
}

/// Keys that no password has, always the same for one name.
fn made_up(secret: &[u8; KEY], name: &str) -> ScramKeys {
    let make = |what: &[u8]| keyed(secret, &[what, name.as_bytes()].concat());
    ScramKeys {
        iterations: ITERATIONS,
        salt: make(b"salt ")[..SALT].to_vec(),
        stored: make(b"stored "),
        server: make(b"server "),
    }
}

#[cfg(test)]
#[path = "scram_tests.rs"]
mod tests;
