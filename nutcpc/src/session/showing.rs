//! Credentials that a server wants to see again in the middle of a session, by the mechanism of the login.
//!
//! Asks nobody at a terminal. What takes its time goes on beside the session, whose claims do not wait.

use super::{Ended, Session, Tools, login_message};
use crate::error::LoginError;
use crate::event::Event;
use crate::sasl::{self, Conversation};
use nufw_common::link::LinkError;
use nufw_proto::LoginBytes;
use nufw_proto::client::ToServer;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long after a ticket was missing that is wanted again it is looked for again.
const TICKET_PAUSE: Duration = Duration::from_secs(10);

/// The first message of a login, and the conversation that it begins.
type Begun = Result<(Option<Conversation>, LoginBytes), LoginError>;

/// One that is being made.
pub(super) type Beginning = JoinHandle<Begun>;

impl Session {
    /// Begins to show the credentials again, as the session's own mechanism wants it, in a while.
    pub(super) fn show_again(&mut self, pause: Duration, tools: &mut Tools<'_>) {
        let (Some(ready), Some(mechanism)) = (tools.secrets.known().cloned(), self.mechanism) else {
            (tools.emit)(Event::Notice {
                text: "the server wants the password again; this session ends soon, and then it is asked for"
                    .to_owned(),
            });
            return;
        };
        let exported = self.exported;
        self.beginning = Some(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            sasl::begin(mechanism, ready, exported).await
        }));
    }

    /// Shows them. A ticket that is not there may come until the session ends, of which the server says when.
    pub(super) fn go_on_showing(
        &mut self,
        begun: Begun,
        tools: &mut Tools<'_>,
    ) -> Result<Option<Ended>, LinkError> {
        match (begun, self.mechanism) {
            (Ok((begun, response)), Some(mechanism)) => {
                self.aside = begun;
                self.writer
                    .queue(&ToServer::Again(login_message(mechanism, response)))?;
                Ok(None)
            }
            (Err(error @ LoginError::Kerberos { .. }), _) => {
                (tools.emit)(Event::Notice {
                    text: format!("the server wants the ticket again, or this session ends soon: {error}"),
                });
                self.show_again(TICKET_PAUSE, tools);
                Ok(None)
            }
            (Err(error), _) => Ok(Some(Ended::Lost(format!("connection lost: {error}")))),
            (Ok(_), None) => Ok(None),
        }
    }
}

/// Waits for credentials that are about to be shown; for ever where none are.
pub(super) async fn begun(beginning: &mut Option<Beginning>) -> Begun {
    let Some(task) = beginning else {
        return std::future::pending().await;
    };
    let begun = task.await;
    *beginning = None;
    begun.unwrap_or_else(|error| Err(LoginError::Conversation(error.to_string())))
}

/// Goes on with credentials that are being shown again.
pub(super) fn go_on(aside: &mut Option<Conversation>, challenge: &[u8]) -> Result<LoginBytes, LoginError> {
    let Some(conversation) = aside else {
        return Err(LoginError::Unexpected("more of a login that there is not"));
    };
    let response = sasl::secret(conversation.answer(challenge)?)?;
    if conversation.is_over() {
        *aside = None;
    }
    Ok(response)
}
