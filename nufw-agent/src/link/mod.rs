//! The link to a server: made, kept alive, lost and made again, with the best server of the list that can be had.
//!
//! While there is none, nothing is asked. What the messages mean, and what becomes of packets meanwhile, is the caller's
//! part; the link only carries them, bounded, and never blocks the packet path on a server that does not read.

mod better;
mod connect;

pub use connect::{ConnectError, Target};

use better::Better;
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
struct Attempt(JoinHandle<Result<(usize, Session), ConnectError>>);

impl Attempt {
    async fn outcome(&mut self) -> Result<(usize, Session), ConnectError> {
        match (&mut self.0).await {
            Ok(outcome) => outcome,
            Err(panicked) => Err(ConnectError::Protocol(panicked.to_string())),
        }
    }
}

/// Ends a link in order, if the server lets it.
async fn part(mut session: Box<Session>, reason: &'static str) {
    let goodbye = ToServer::Goodbye(Goodbye {
        reason: Text::lossy(reason),
    });
    if session.writer.queue(&goodbye).is_ok() {
        let _ = tokio::time::timeout(FAREWELL, session.writer.close()).await;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The link.
#[derive(Debug)]
pub struct Link {
    /// The servers, the best first.
    targets: Arc<[Target]>,
    /// The one that the link is with.
    server: usize,
    /// A link was lost, and not every server has been tried since.
    looking: bool,
    better: Better,
    /// A better server that it is time to return to.
    wanted: Option<usize>,
    /// The link with it while it is being made; the present one stays in use.
    returning: Option<Attempt>,
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
    /// A link that is first attempted at once, with the first of the servers that can be had. A better one is returned to
    /// when it has been healthy for `return_after`. `hello.first_held` is filled in at each attempt.
    pub fn new(
        targets: Vec<Target>,
        return_after: Duration,
        tls: Arc<rustls::ClientConfig>,
        hello: Hello,
        now: Instant,
    ) -> Self {
        Self {
            targets: targets.into(),
            server: 0,
            looking: true,
            better: Better::new(return_after, now),
            wanted: None,
            returning: None,
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

    /// How many servers there are to choose from.
    pub fn servers(&self) -> usize {
        self.targets.len()
    }

    /// The server of the present link, by its place in the list.
    pub fn server(&self) -> Option<usize> {
        matches!(self.state, State::Up(_)).then_some(self.server)
    }

    /// Whether a link may be had at any moment: the last was lost, and not every server has been tried since.
    pub fn is_looking(&self) -> bool {
        self.looking
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
                    let all = self.targets.iter().cloned().enumerate().collect();
                    self.state = State::Connecting(self.attempt(all, first_held));
                }
                State::Connecting(attempt) => {
                    return match attempt.outcome().await {
                        Ok((server, session)) => self.rise(server, session, inbox),
                        Err(error) => self.lose(error.into()),
                    };
                }
                State::Up(_) if self.wanted.is_some() && self.returning.is_none() => {
                    let wanted = self.wanted.take();
                    let targets = wanted.and_then(|at| Some((at, self.targets.get(at)?.clone())));
                    self.returning = Some(self.attempt(targets.into_iter().collect(), first_held));
                }
                State::Up(session) => {
                    let unsent = session.writer.waiting() > 0;
                    let is_returning = self.returning.is_some();
                    let returning = async {
                        match &mut self.returning {
                            Some(attempt) => attempt.outcome().await,
                            None => std::future::pending().await,
                        }
                    };
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
                        outcome = returning, if is_returning => {
                            self.returning = None;
                            match outcome {
                                Ok((server, session)) => return self.rise(server, session, inbox),
                                Err(error) => {
                                    tracing::debug!(%error, "a better server was healthy, but gives no link");
                                    self.better.begin(clock::mono());
                                    continue;
                                }
                            }
                        }
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

    fn attempt(&self, targets: Vec<(usize, Target)>, first_held: EventSeq) -> Attempt {
        let hello = Hello {
            first_held,
            ..self.hello.clone()
        };
        let attempt = connect::connect_any(targets, Arc::clone(&self.tls), hello);
        Attempt(tokio::spawn(attempt))
    }

    fn rise(&mut self, server: usize, mut session: Session, inbox: &mut Vec<ToAgent>) -> Happened {
        let now = clock::mono();
        if let State::Up(former) = std::mem::replace(&mut self.state, State::Waiting(now)) {
            // What the former server still says is of a link that is over.
            inbox.clear();
            let reason = "the gateway goes back to a better server";
            tracing::info!(server = self.targets[server].address, "{reason}");
            tokio::spawn(part(former, reason));
        }
        self.server = server;
        self.looking = false;
        self.broken = None;
        self.better.begin(now);
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
        (self.wanted, self.returning) = (None, None);
        self.looking = self.up_since.is_some();
        // A server that takes a link and drops it at once is left alone for longer and longer, as one that is away.
        if self.up_since.take().is_some_and(|up| now >= up + HELD) {
            self.backoff.reset();
            self.told.clear();
        }
        let wait = self.backoff.next();
        self.state = State::Waiting(now + wait);
        // A server that is away for a night is one line, not thousands.
        let reason = loss.to_string();
        let server = self.address();
        if self.told.contains(&reason) || self.told.len() >= MAX_TOLD {
            tracing::debug!(server, reason, ?wait, "still no link to the server");
        } else {
            tracing::warn!(
                server,
                reason,
                "no link to the server; new connections are dropped, or pass if queue.on-server-loss says so, until there is one"
            );
            self.told.push(reason);
        }
        Happened::Lost(loss)
    }

    /// Whom the last link, or attempt, was with.
    fn address(&self) -> String {
        if self.looking || self.targets.len() == 1 {
            return self.targets[self.server].address.clone();
        }
        let all: Vec<_> = self
            .targets
            .iter()
            .map(|target| target.address.as_str())
            .collect();
        all.join(", ")
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
        if self.returning.is_none() && self.wanted.is_none() {
            self.wanted = self.better.step(&self.targets, self.server, &self.tls, now);
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
