//! Credentials that a client shows again on the connection of its session, by the mechanisms that it was offered.
//!
//! Whoever cannot be checked at the moment is checked again until the session is over: a directory that is away ends nobody's.

use super::ClientPort;
use super::login::{Means, Talk};
use crate::engine::Identity;
use crate::hub::{Event, ToSession};
use nufw_common::clock;
use nufw_proto::LoginBytes;
use nufw_proto::SessionId;
use nufw_proto::client::{Challenge, Login, Refusal, Renewed, ToClient};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long after a back-end could not say it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What a client says about its credentials in the middle of a session.
pub(super) enum Word {
    /// It shows them.
    Again(Login),
    /// It goes on with them.
    Respond(LoginBytes),
}

/// Whose credentials are checked again.
pub(super) struct Renewing {
    pub(super) session: SessionId,
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) means: Means,
    /// What the session's tickets say of when they were shown.
    pub(super) shown: Option<Arc<AtomicI64>>,
}

/// A conversation in the middle of a session.
struct Aside<'a> {
    heard: &'a mut mpsc::Receiver<Box<Word>>,
    words: &'a mpsc::Sender<ToSession>,
}

impl Talk for Aside<'_> {
    async fn ask(&mut self, challenge: Challenge) -> Result<LoginBytes, String> {
        let said = ToSession::Say(Box::new(ToClient::Challenge(challenge)));
        let _ = self.words.send(said).await;
        match self.heard.recv().await.map(|word| *word) {
            Some(Word::Respond(response)) => Ok(response),
            _ => Err("the peer did not go on with its credentials".to_owned()),
        }
    }
}

impl ClientPort {
    /// Checks the credentials that a client shows again, one after the other.
    pub(super) async fn renew(
        &self,
        renewing: Renewing,
        mut heard: mpsc::Receiver<Box<Word>>,
        words: mpsc::Sender<ToSession>,
    ) {
        while let Some(word) = heard.recv().await {
            // An answer to nothing.
            let Word::Again(login) = *word else { continue };
            // In a box, so that it takes room only while it lasts.
            let checking = Box::pin(self.checked_again(&renewing, &login, &mut heard, &words));
            let word = match checking.await {
                Ok(identity) if identity.user.id == renewing.id => {
                    if let Some(shown) = &renewing.shown {
                        shown.store(clock::wall().micros(), Ordering::Relaxed);
                    }
                    let session = renewing.session;
                    let _ = self.hub.send(Event::Renewed { session }).await;
                    ToSession::Say(Box::new(ToClient::Renewed(Renewed)))
                }
                Ok(_) => ToSession::Refused(Refusal::Credentials),
                Err(cause) => ToSession::Refused(cause),
            };
            if words.send(word).await.is_err() {
                break;
            }
        }
        // The listener ends with its channel, and says how.
        std::future::pending::<()>().await;
    }

    async fn checked_again(
        &self,
        renewing: &Renewing,
        login: &Login,
        heard: &mut mpsc::Receiver<Box<Word>>,
        words: &mpsc::Sender<ToSession>,
    ) -> Result<Arc<Identity>, Refusal> {
        let Renewing { address, means, .. } = renewing;
        let mut aside = Aside { heard, words };
        let mut proven = loop {
            let directory = self.directory.load_full();
            let proven = self.prove(*address, &mut aside, means, login, &directory).await;
            match proven.unwrap_or(Err(Refusal::Credentials)) {
                // Of a ticket nothing is said to the client before somebody could look at it.
                Err(Refusal::Unavailable) => tokio::time::sleep(ASK_AGAIN).await,
                proven => break proven?,
            }
        };
        loop {
            let kept = proven.clone();
            // A reload may have named another directory.
            let directory = self.directory.load_full();
            match self.check(*address, proven, &directory).await {
                Err(Refusal::Unavailable) => tokio::time::sleep(ASK_AGAIN).await,
                checked => return checked,
            }
            proven = kept;
        }
    }
}
