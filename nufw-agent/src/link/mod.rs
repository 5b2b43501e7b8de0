//! The link to the server: made, kept alive, lost and made again.
//!
//! While there is none, nothing is asked: the caller drops packets. What the messages mean is the caller's part too;
//! the link only carries them, bounded, and never blocks the packet path on a server that does not read.

mod connect;

pub use connect::{ConnectError, Target};

use connect::Session;
use nufw_common::backoff::Backoff;
use nufw_common::clock;
use nufw_common::link::{LinkError, Liveness, Read};
use nufw_proto::gateway::{Goodbye, Heartbeat, Hello, ToAgent, ToServer, Welcome};
use nufw_proto::{EventSeq, Text};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Wait before the first attempt to come back, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Bytes that may wait to be sent before events and dumps are held back; asks and heartbeats go on up to
/// [`nufw_common::link::MAX_BACKLOG`].
const HIGH_WATER: usize = 1024 * 1024;
/// A link that lasted so long was a good one.
const HELD: Duration = Duration::from_secs(1);
/// Most reasons for the lack of a link that are logged as warnings until one holds.
const MAX_TOLD: usize = 16;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a link ended or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkLoss {
    /// It could not be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The server ended the connection without a word.
    #[error("the server ended the connection")]
    Closed,
    /// The server ended the connection and said why.
    #[error("the server said goodbye: {0}")]
    Goodbye(Text<255>),
    /// Nothing came for the dead-peer time.
    #[error("nothing came from the server for {0:?}")]
    Dead(Duration),
    /// The server said something that cannot be true.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

/// What [`Link::next`] saw.
#[derive(Debug)]
pub enum Happened {
    /// There is a link.
    Up(Box<Welcome>),
    /// Messages were appended.
    Messages,
    /// There is no link any more, or an attempt failed.
    Lost(LinkLoss),
}

#[derive(Debug)]
enum State {
    Waiting(Instant),
    Connecting(Attempt),
    Up(Box<Session>),
}

/// A running attempt, given up when dropped.
#[derive(Debug)]
struct Attempt(JoinHandle<Result<Session, ConnectError>>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The link.
#[derive(Debug)]
pub struct Link {
    target: Arc<Target>,
    hello: Hello,
    tls: Arc<rustls::ClientConfig>,
    state: State,
    backoff: Backoff,
    liveness: Liveness,
    dead_after: Duration,
    /// What broke while something was queued; told by the next [`Self::next`].
    broken: Option<LinkLoss>,
    /// Reasons that have been logged since a link last held.
    told: Vec<String>,
    up_since: Option<Instant>,
}

impl Link {
    /// A link that is first attempted at once. `hello.first_held` is filled in at each attempt.
    pub fn new(target: Target, tls: Arc<rustls::ClientConfig>, hello: Hello, now: Instant) -> Self {
        Self {
            target: Arc::new(target),
            hello,
            tls,
            state: State::Waiting(now),
            backoff: Backoff::new(RETRY.0, RETRY.1),
            liveness: Liveness::new(connect::GREETING, now),
            dead_after: connect::GREETING,
            broken: None,
            told: Vec::new(),
            up_since: None,
        }
    }

    /// Uses other certificates from the next attempt on; a link that is up stays.
    pub fn set_tls(&mut self, tls: Arc<rustls::ClientConfig>) {
        self.tls = tls;
    }

    /// Whether the server can be asked.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_)) && self.broken.is_none()
    }

    /// Whether events and dumps may be queued, which can wait, and not only asks, which cannot.
    pub fn has_room(&self) -> bool {
        match &self.state {
            State::Up(session) => self.broken.is_none() && session.writer.waiting() < HIGH_WATER,
            State::Waiting(_) | State::Connecting(_) => false,
        }
    }

    /// Waits for the next thing to happen, and sends what is queued meanwhile. Cancel-safe.
    ///
    /// `first_held` is what the hello of a new attempt says.
    pub async fn next(&mut self, first_held: EventSeq, inbox: &mut Vec<ToAgent>) -> Happened {
        if let Some(loss) = self.broken.take() {
            return self.lose(loss);
        }
        loop {
            match &mut self.state {
                State::Waiting(until) => {
                    tokio::time::sleep_until((*until).into()).await;
                    let hello = Hello {
                        first_held,
                        ..self.hello.clone()
                    };
                    let attempt = connect::connect(Arc::clone(&self.target), Arc::clone(&self.tls), hello);
                    self.state = State::Connecting(Attempt(tokio::spawn(attempt)));
                }
                State::Connecting(attempt) => {
                    let outcome = match (&mut attempt.0).await {
                        Ok(outcome) => outcome,
                        Err(panicked) => Err(ConnectError::Protocol(panicked.to_string())),
                    };
                    return match outcome {
                        Ok(session) => self.rise(session, inbox),
                        Err(error) => self.lose(error.into()),
                    };
                }
                State::Up(session) => {
                    let unsent = session.writer.waiting() > 0;
                    let loss = tokio::select! {
                        read = session.reader.read_batch(inbox) => match read {
                            Ok(Read::Messages) => {
                                self.liveness.on_traffic(clock::mono());
                                return Happened::Messages;
                            }
                            Ok(Read::Closed) => LinkLoss::Closed,
                            Err(error) => error.into(),
                        },
                        sent = session.writer.flush(), if unsent => match sent {
                            Ok(()) => continue,
                            Err(error) => error.into(),
                        },
                    };
                    return self.lose(loss);
                }
            }
        }
    }

    /// What has happened already, without waiting.
    pub async fn next_now(&mut self, first_held: EventSeq, inbox: &mut Vec<ToAgent>) -> Option<Happened> {
        let mut next = pin!(self.next(first_held, inbox));
        poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Ready(happened) => Poll::Ready(Some(happened)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn rise(&mut self, mut session: Session, inbox: &mut Vec<ToAgent>) -> Happened {
        let now = clock::mono();
        self.dead_after = Duration::from_millis(u64::from(session.welcome.dead_after_ms.max(300)));
        self.liveness = Liveness::new(self.dead_after, now);
        self.up_since = Some(now);
        inbox.append(&mut session.early);
        let welcome = session.welcome.clone();
        self.state = State::Up(Box::new(session));
        Happened::Up(Box::new(welcome))
    }

    fn lose(&mut self, loss: LinkLoss) -> Happened {
        self.broken = None;
        let now = clock::mono();
        // A server that takes a link and drops it at once is left alone for longer and longer, as one that is away.
        if self.up_since.take().is_some_and(|up| now >= up + HELD) {
            self.backoff.reset();
            self.told.clear();
        }
        let wait = self.backoff.next();
        self.state = State::Waiting(now + wait);
        // A server that is away for a night is one line, not thousands.
        let reason = loss.to_string();
        let server = &self.target.address;
        if self.told.contains(&reason) || self.told.len() >= MAX_TOLD {
            tracing::debug!(server, reason, ?wait, "still no link to the server");
        } else {
            tracing::warn!(
                server,
                reason,
                "no link to the server; new connections are dropped until it is back"
            );
            self.told.push(reason);
        }
        Happened::Lost(loss)
    }

    /// Ends the link for a reason that the caller found; told by the next [`Self::next`].
    pub fn cut(&mut self, loss: LinkLoss) {
        if matches!(self.state, State::Up(_)) && self.broken.is_none() {
            self.broken = Some(loss);
        }
    }

    /// Queues a message for the next [`Self::flush`]; nothing without a link.
    pub fn queue(&mut self, message: &ToServer) {
        if let State::Up(session) = &mut self.state
            && self.broken.is_none()
            && let Err(error) = session.writer.queue(message)
        {
            self.broken = Some(error.into());
        }
    }

    /// Sends what is queued as far as it goes without waiting; [`Self::next`] sends the rest.
    pub async fn flush(&mut self, now: Instant) {
        let State::Up(session) = &mut self.state else {
            return;
        };
        if session.writer.waiting() == 0 || self.broken.is_some() {
            return;
        }
        self.liveness.on_sent(now);
        let mut flush = pin!(session.writer.flush());
        let sent = poll_fn(|context| match flush.as_mut().poll(context) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        if let Err(error) = sent.await {
            self.broken = Some(error.into());
        }
    }

    /// Sends a heartbeat when one is due and gives up a dead server.
    pub fn tick(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        if self.liveness.is_dead(now) {
            self.broken = Some(LinkLoss::Dead(self.dead_after));
        } else if self.liveness.due_to_send(now) {
            self.queue(&ToServer::Heartbeat(Heartbeat));
        }
    }

    /// Whether [`Self::next`] has a loss to tell.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Sends what is queued and a farewell, and ends the link.
    pub async fn farewell(&mut self, reason: &str) {
        self.queue(&ToServer::Goodbye(Goodbye {
            reason: Text::lossy(reason),
        }));
        if let State::Up(session) = &mut self.state
            && let Err(late) = tokio::time::timeout(FAREWELL, session.writer.close()).await
        {
            tracing::debug!(%late, "the server did not take the farewell");
        }
    }
}
