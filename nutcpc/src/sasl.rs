//! SASL mechanisms (RFC 4422) as a client speaks them; conversations by `rsasl`.
//!
//! Chooses nothing by itself, and believes no server that has not proven that it knows the user's keys.

use crate::credentials::{Ready, plain};
use crate::error::LoginError;
use crate::kerberos;
use nufw_common::gs2;
use nufw_proto::client::Welcome;
use nufw_proto::{LoginBytes, Text};
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::{SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::mechname::Mechname;
use rsasl::prelude::{
    ChannelBindingCallback, Mechanism as Registered, Registry, SASLClient, SASLConfig, Session, SessionError,
};
use rsasl::property::{AuthId, Password};
use rsasl::validate::NoValidation;
use std::fmt;
use zeroize::Zeroizing;

/// Both, whatever the server offers: what this client could do is part of what it says.
static BOTH: &[Registered] = &[SCRAM_SHA256, SCRAM_SHA256_PLUS];
/// Rounds of PBKDF2 that a server may make this client compute: some seconds.
const MOST_ITERATIONS: u32 = 10_000_000;

/// What TLS exports of a connection (RFC 9266), by this label.
pub(crate) type Exported = [u8; 32];
/// See [`Exported`].
pub(crate) const EXPORTED: &[u8] = b"EXPORTER-Channel-Binding";

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A password that never leaves this host, bound to the TLS connection.
    ScramPlus,
    /// The same, not bound to it.
    Scram,
    /// The password, inside TLS.
    Plain,
    /// The certificate of the TLS connection.
    External,
    /// A Kerberos ticket, bound to the TLS connection.
    Kerberos,
}

impl Mechanism {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramPlus => "SCRAM-SHA-256-PLUS",
            Self::Scram => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
            Self::External => "EXTERNAL",
            Self::Kerberos => gs2::MECHANISM,
        }
    }

    /// The mechanism of that name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        const ALL: [Mechanism; 5] = [
            Mechanism::ScramPlus,
            Mechanism::Scram,
            Mechanism::Plain,
            Mechanism::External,
            Mechanism::Kerberos,
        ];
        ALL.into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether it is a conversation of several messages.
    pub(crate) fn is_conversation(self) -> bool {
        matches!(self, Self::ScramPlus | Self::Scram | Self::Kerberos)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct Binding(Exported);

impl ChannelBindingCallback for Binding {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        (name == "tls-exporter").then_some(&self.0[..])
    }
}

struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl SessionCallback for Credentials {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request
            .satisfy::<AuthId>(&self.user)?
            .satisfy::<Password>(self.password.as_bytes())?;
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}

/// A login of several messages.
pub(crate) enum Conversation {
    /// By a password.
    Scram(Box<Scram>),
    /// By a ticket.
    Kerberos(Box<kerberos::Context>),
}

impl Conversation {
    /// Answers the server; with nothing, when it has proven itself.
    pub(crate) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, LoginError> {
        match self {
            Self::Scram(scram) => scram.answer(challenge),
            Self::Kerberos(context) => context.answer(challenge),
        }
    }

    /// Whether the server has proven itself.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Scram(scram) => scram.is_over,
            Self::Kerberos(context) => context.is_over(),
        }
    }
}

/// SCRAM, by `rsasl`.
pub(crate) struct Scram {
    session: Session<NoValidation, Binding>,
    /// The server has proven that it knows the user's keys.
    is_over: bool,
}

impl Scram {
    /// Begins it; gives the first message.
    fn begin(
        mechanism: Mechanism,
        user: &str,
        password: &Zeroizing<String>,
        exported: Exported,
    ) -> Result<(Self, Vec<u8>), LoginError> {
        let credentials = Credentials {
            user: user.to_owned(),
            password: password.clone(),
        };
        let failed = |why: String| LoginError::Conversation(why);
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(BOTH))
            .with_callback(credentials)
            .map_err(|error| failed(error.to_string()))?;
        let name = Mechname::parse(mechanism.name().as_bytes()).map_err(|error| failed(error.to_string()))?;
        let mut session = SASLClient::with_cb(config, Binding(exported))
            .start_suggested_iter([name])
            .map_err(|error| failed(error.to_string()))?;
        let mut message = Vec::new();
        session
            .step(None, &mut message)
            .map_err(|error| failed(error.to_string()))?;
        let is_over = false;
        Ok((Self { session, is_over }, message))
    }

    fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, LoginError> {
        let text = std::str::from_utf8(challenge).unwrap_or_default();
        // `rsasl` takes the first two bytes of every part for granted, and panics without them.
        if text.split(',').any(|part| part.len() < 2) {
            let why = "a part of its message is no attribute".to_owned();
            return Err(LoginError::Conversation(why));
        }
        let iterations = text.split(',').find_map(|part| part.strip_prefix("i="));
        let usable = 1..=MOST_ITERATIONS;
        if iterations.is_some_and(|text| text.parse().map_or(true, |n: u32| !usable.contains(&n))) {
            let why = format!("it wants more than {MOST_ITERATIONS} rounds of computing, or none");
            return Err(LoginError::Conversation(why));
        }
        let mut message = Vec::new();
        let state = self
            .session
            .step(Some(challenge), &mut message)
            .map_err(|error| LoginError::Conversation(error.to_string()))?;
        self.is_over = state.is_finished();
        Ok(message)
    }
}

/// The first of the wanted mechanisms that the server offers; conversations where both sides can have them.
pub(crate) fn choose(
    wanted: &[Mechanism],
    welcome: &Welcome,
    converses: bool,
) -> Result<Mechanism, LoginError> {
    let is_offered = |mechanism: &&Mechanism| {
        let named = welcome
            .mechanisms
            .iter()
            .any(|offered| offered.as_str() == mechanism.name());
        named && (converses || !mechanism.is_conversation())
    };
    if let Some(&mechanism) = wanted.iter().find(is_offered) {
        return Ok(mechanism);
    }
    let offered: Vec<&str> = welcome.mechanisms.iter().map(Text::as_str).collect();
    let offered = if offered.is_empty() {
        "none".to_owned()
    } else {
        offered.join(", ")
    };
    Err(LoginError::Mechanism {
        wanted: wanted.last().map_or("no", |mechanism| mechanism.name()),
        offered,
    })
}

/// The first message of a login, and the conversation that it begins, if it does.
pub(crate) async fn begin(
    mechanism: Mechanism,
    ready: Ready,
    exported: Exported,
) -> Result<(Option<Conversation>, LoginBytes), LoginError> {
    match ready {
        Ready::Password { user, password } if mechanism.is_conversation() => {
            let (begun, first) = Scram::begin(mechanism, &user, &password, exported)?;
            Ok((Some(Conversation::Scram(Box::new(begun))), secret(first)?))
        }
        Ready::Password { user, password } => {
            let message = plain(&user, &password);
            Ok((
                None,
                message.map_err(|error| LoginError::Conversation(error.to_string()))?,
            ))
        }
        Ready::Certificate(message) => Ok((None, message)),
        Ready::Ticket(ticket) => {
            let (begun, first) = kerberos::Context::begin(ticket, exported).await?;
            Ok((Some(Conversation::Kerberos(Box::new(begun))), secret(first)?))
        }
    }
}

/// What a message may carry of a conversation.
pub(crate) fn secret(message: Vec<u8>) -> Result<LoginBytes, LoginError> {
    LoginBytes::new(message).map_err(|error| LoginError::Conversation(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_of_a_server_is_an_error() {
        let password = Zeroizing::new("wonderland".to_owned());
        for challenge in [
            &b""[..],
            b",",
            b"r",
            b"r=x,",
            b"r=x,s,i=4096",
            b"r=x,s=c2FsdA==,i=0",
            b"r=x,s=c2FsdA==,i=",
            b"m=x",
            b"\xff",
        ] {
            let (mut conversation, first) =
                Scram::begin(Mechanism::Scram, "alice", &password, Exported::default()).unwrap();
            assert!(first.starts_with(b"y,,n=alice,r=") || first.starts_with(b"n,,n=alice,r="));
            let answer = conversation.answer(challenge);
            assert!(answer.is_err(), "{challenge:?}: {answer:?}");
        }
    }
}
