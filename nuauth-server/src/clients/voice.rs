//! What a session's client is told: what the hub wants said, heartbeats, tickets, and why it is over.
//!
//! Decides nothing; an older client is told the same in the words that it knows.

use super::{PARTING_TIME, Writer, millis};
use crate::hub::{ToSession, WAITING_FOR_PEER, goodbye};
use crate::tickets::{Facts, Tickets};
use nufw_common::clock;
use nufw_common::link::Liveness;
use nufw_proto::Text;
use nufw_proto::client::{
    Capabilities, EndCause, Ended, Heartbeat, REASONS, Refusal, Refused, Renew, Ticket, ToClient,
};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Where a session's tickets come from.
pub(super) struct TicketSource {
    tickets: Arc<Tickets>,
    facts: Facts,
    shown: Arc<AtomicI64>,
}

impl TicketSource {
    pub(super) fn new(tickets: Arc<Tickets>, facts: Facts) -> Self {
        let shown = Arc::new(AtomicI64::new(facts.shown));
        Self {
            tickets,
            facts,
            shown,
        }
    }

    pub(super) fn chain(&self) -> u64 {
        self.facts.chain
    }

    pub(super) fn shown(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.shown)
    }

    fn next(&mut self) -> Option<ToClient> {
        self.facts.shown = self.shown.load(Ordering::Relaxed);
        let ticket = self.tickets.issue(&self.facts, clock::wall())?;
        Some(ToClient::Ticket(Ticket {
            ticket,
            lifetime_ms: millis(self.tickets.lifetime()),
        }))
    }

    /// How long until another one is due, so that the client always has one that lives for a good while.
    fn interval(&self) -> Duration {
        self.tickets.lifetime() / 3
    }
}

/// The speaking side of a session.
pub(super) struct Voice {
    pub(super) writer: Writer,
    /// What the hub wants said.
    pub(super) instructions: mpsc::Receiver<ToSession>,
    /// What the port itself does.
    pub(super) own_words: mpsc::Receiver<ToSession>,
    pub(super) agreed: Capabilities,
    pub(super) ticket: Option<TicketSource>,
    pub(super) dead_after: Duration,
}

/// Why nothing more is said.
pub(super) struct Spoken {
    /// A sentence for the log.
    pub(super) why: String,
    /// Why the session was ended, if it was.
    pub(super) cause: Option<EndCause>,
}

impl Spoken {
    fn lost(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            cause: None,
        }
    }
}

/// The last word.
enum End {
    /// The client takes nothing.
    Deaf,
    Refused(Refusal),
    Over(Option<EndCause>, Arc<str>),
}

impl Voice {
    /// Speaks until something ends it.
    pub(super) async fn speak(&mut self, revoked: impl Future<Output = ()>) -> Spoken {
        let mut liveness = Liveness::new(self.dead_after, clock::mono());
        let mut waiting = Vec::new();
        let mut revoked = std::pin::pin!(revoked);
        let mut next_ticket = Instant::from_std(clock::mono());
        loop {
            let heartbeat = Instant::from_std(liveness.next_send());
            let mut end = None;
            tokio::select! {
                count = self.instructions.recv_many(&mut waiting, WAITING_FOR_PEER) => {
                    if count == 0 {
                        end = Some(End::Deaf);
                    }
                }
                Some(word) = self.own_words.recv() => waiting.push(word),
                () = &mut revoked => {
                    end = Some(End::Over(Some(EndCause::Removed), Arc::from("its certificate was revoked")));
                }
                () = tokio::time::sleep_until(next_ticket), if self.ticket.is_some() => {
                    if let Some(source) = &mut self.ticket {
                        next_ticket = Instant::from_std(clock::mono()) + source.interval();
                        waiting.extend(source.next().map(|ticket| ToSession::Say(Box::new(ticket))));
                    }
                }
                () = tokio::time::sleep_until(heartbeat) => {
                    waiting.push(ToSession::Say(Box::new(ToClient::Heartbeat(Heartbeat))));
                }
            }
            for instruction in waiting.drain(..) {
                match instruction {
                    ToSession::Say(message) => {
                        if let Err(error) = self.writer.queue(&*message) {
                            return Spoken::lost(error.to_string());
                        }
                    }
                    ToSession::End { cause, reason } => end = Some(End::Over(cause, reason)),
                    ToSession::Refused(cause) => end = Some(End::Refused(cause)),
                    ToSession::Admitted => {}
                }
            }
            if let Some(end) = end {
                return self.part(end).await;
            }
            match tokio::time::timeout(self.dead_after, self.writer.flush()).await {
                Ok(Ok(())) => liveness.on_sent(clock::mono()),
                Ok(Err(error)) => return Spoken::lost(error.to_string()),
                Err(_) => return Spoken::lost(DEAF),
            }
        }
    }

    async fn part(&mut self, end: End) -> Spoken {
        let (message, spoken) = match end {
            End::Deaf => (ToClient::Goodbye(goodbye(DEAF)), Spoken::lost(DEAF)),
            End::Refused(cause) => (
                refused(cause, self.agreed),
                Spoken {
                    why: "its credentials, shown again, were refused".to_owned(),
                    cause: Some(EndCause::Removed),
                },
            ),
            End::Over(cause, reason) => {
                let message = match cause {
                    Some(cause) if self.agreed.has(REASONS) => ToClient::Ended(Ended {
                        cause,
                        reason: Text::lossy(&reason),
                    }),
                    _ => ToClient::Goodbye(goodbye(&reason)),
                };
                let why = reason.to_string();
                (message, Spoken { why, cause })
            }
        };
        let _ = self.writer.queue(&message);
        let _ = tokio::time::timeout(PARTING_TIME, self.writer.close()).await;
        spoken
    }
}

const DEAF: &str = "it does not take what is sent to it";

/// The message that asks for credentials.
pub(crate) fn renew(within: Duration) -> ToClient {
    ToClient::Renew(Renew {
        within_ms: millis(within),
    })
}

/// A refusal, in the words that the client knows.
pub(super) fn refused(cause: Refusal, agreed: Capabilities) -> ToClient {
    let reason = match cause {
        Refusal::Credentials => "the user name, the password or the certificate is not accepted",
        Refusal::TooManyFailures => {
            "there were too many failed logins from this address or for this user: try again later"
        }
        Refusal::Mechanism => "the server does not offer this way to log in",
        Refusal::Full => "the server has as many sessions as it may have",
        Refusal::Token => "the session is over: log in again",
        Refusal::Address => "the session cannot have this address",
        Refusal::Unavailable => "the server cannot check it at the moment, or is about to end",
        Refusal::UserFull => "this user has as many sessions as a user may have",
        Refusal::AddressFull => "there are as many sessions at this address as there may be",
        Refusal::Hours => "this user may not be logged in at this time of the day",
        Refusal::Ticket => "the ticket is not good any more: log in again",
    };
    let cause = match cause {
        cause if agreed.has(REASONS) => cause,
        Refusal::UserFull | Refusal::AddressFull => Refusal::Full,
        Refusal::Hours => Refusal::Unavailable,
        // Only who knows tickets is told of one; who renews knows reasons.
        cause => cause,
    };
    ToClient::Refused(Refused {
        cause,
        reason: Text::lossy(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_client_is_refused_in_its_own_words() {
        let told = |cause, agreed| match refused(cause, agreed) {
            ToClient::Refused(refused) => (refused.cause, refused.reason.to_string()),
            other => panic!("{other:?}"),
        };
        let older = Capabilities::default();
        for (cause, in_old_words) in [
            (Refusal::UserFull, Refusal::Full),
            (Refusal::AddressFull, Refusal::Full),
            (Refusal::Hours, Refusal::Unavailable),
        ] {
            assert_eq!(told(cause, REASONS).0, cause);
            assert_eq!(told(cause, older).0, in_old_words);
            assert_eq!(
                told(cause, older).1,
                told(cause, REASONS).1,
                "the sentence says it"
            );
        }
    }
}
