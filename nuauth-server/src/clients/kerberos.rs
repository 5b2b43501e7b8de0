//! Logging in by a Kerberos ticket (`GS2-KRB5-PLUS`, RFC 5801): one message each way, and a last one without content.
//!
//! Takes messages apart; whose a ticket is, `directory` finds out.

use super::ClientPort;
use super::login::{Means, Talk};
use crate::auth::{self, LoginError};
use crate::directory::{Accepted, Directory};
use nufw_common::clock;
use nufw_common::gs2::{Initial, MECHANISM};
use nufw_proto::client::{Challenge, Login, Refusal};
use nufw_proto::{Addr, LoginBytes, SecretBytes};
use std::net::SocketAddr;

impl ClientPort {
    /// Hears such a login to its end. What breaks the protocol is an error.
    pub(super) async fn kerberos_login(
        &self,
        address: SocketAddr,
        talk: &mut impl Talk,
        means: &Means,
        login: &Login,
        directory: &Directory,
    ) -> Result<Result<auth::Login, Refusal>, String> {
        let accepted = match self.accepted(address, means, login, directory).await {
            Ok(accepted) => accepted,
            Err(error) => return Ok(Err(self.failed(address, None, &error))),
        };
        let challenge = SecretBytes::new(accepted.answer).map_err(|error| error.to_string())?;
        let last = talk.ask(Challenge { challenge }).await?;
        if !last.expose().is_empty() {
            return Err("the peer said something after its Kerberos login".to_owned());
        }
        Ok(Ok(auth::Login::proven(accepted.user)))
    }

    async fn accepted(
        &self,
        address: SocketAddr,
        means: &Means,
        login: &Login,
        directory: &Directory,
    ) -> Result<Accepted, LoginError> {
        let malformed = |why: String| LoginError::Malformed {
            mechanism: MECHANISM,
            why,
        };
        let may_try = self
            .failures()
            .check_nameless(clock::mono(), Addr::from(address.ip()));
        may_try.map_err(|locked| LoginError::Locked {
            name: "a Kerberos principal".to_owned(),
            locked,
        })?;
        let initial =
            Initial::parse(login.response.expose()).map_err(|error| malformed(error.to_string()))?;
        let binding = initial.binding(&means.exported);
        let token = LoginBytes::new(initial.token).map_err(|error| malformed(error.to_string()))?;
        let accepted = directory.accept_ticket(token, binding).await?;
        match &initial.acts_as {
            Some(other) if directory.name(other) != directory.name(&accepted.user) => {
                Err(LoginError::OtherIdentity { name: accepted.user })
            }
            _ => Ok(accepted),
        }
    }
}
