//! The look-up with its patience: looks, and looks again while the answer may still be on its way into the log.
//!
//! Holds the log open, and opens it again when it was replaced or on request. Knows nothing of who asks.

use crate::server::Server;
use arc_swap::ArcSwapOption;
use nufw_common::clock;
use nufw_proto::{Timestamp, Tuple};
use nulog::{Doubting, LiveRow, Location, Look, Lookup, LookupOptions, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The first pause before looking again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// How long ending connections may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a [`Finder`] looks.
#[derive(Debug, Clone, Copy)]
pub struct FinderOptions {
    /// How long a miss is looked for again: the first byte can overtake the row's NAT side. As long, at most, an answer
    /// waits for newer connections to the same service whose NAT side is not in the log yet.
    pub retry: Duration,
    /// How long an answer may take in all, beyond which there is none.
    pub timeout: Duration,
    /// Connections to the database.
    pub connections: u32,
}

/// Who is behind a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The user's name.
    pub user: Arc<str>,
    /// The row that says so.
    pub row: LiveRow,
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database did not answer in time.
    #[error("the log did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// Finds users by connections.
#[derive(Debug)]
pub struct Finder {
    location: Location,
    options: FinderOptions,
    lookup: ArcSwapOption<Lookup>,
    /// Held while the log is opened, so that one opens it for all.
    opening: Mutex<()>,
    server: Option<Server>,
}

impl Finder {
    /// Opens the log.
    pub async fn open(location: Location, options: FinderOptions) -> Result<Self, FindError> {
        let finder = Self::closed(location, options);
        finder.reopen().await?;
        Ok(finder)
    }

    /// The same without opening it yet: that is tried at each question until it succeeds.
    pub fn closed(location: Location, options: FinderOptions) -> Self {
        Self {
            location,
            options,
            lookup: ArcSwapOption::empty(),
            opening: Mutex::new(()),
            server: None,
        }
    }

    /// Opens the log anew; questions that are being answered end with the connections they have.
    pub async fn reopen(&self) -> Result<(), FindError> {
        let _one = self.opening.lock().await;
        self.replace().await.map(drop)
    }

    /// The same, and asks the server on this socket for what is not in the log. Its answer has the second half of the time.
    #[must_use]
    pub fn with_server(mut self, socket: Option<PathBuf>) -> Self {
        self.server = socket.map(Server::new);
        self
    }

    /// The user of the live connection with this tuple, as either end sees it; `None` when there is none.
    pub async fn find(&self, tuple: &Tuple) -> Result<Option<Answer>, FindError> {
        let Some(server) = &self.server else {
            return self.in_time(self.options.timeout, self.find_in_time(tuple)).await;
        };
        let asked = clock::mono();
        let half = self.options.timeout / 2;
        let found = self.in_time(half, self.find_in_time(tuple)).await;
        if let Ok(Some(_)) = &found {
            return found;
        }
        let work = async {
            // As long as for the log: what the server has not heard of yet may have taken the place of what it knows.
            tokio::time::sleep(self.options.retry.saturating_sub(asked.elapsed())).await;
            server.find(tuple).await
        };
        match tokio::time::timeout(half, work).await {
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) | Err(_) => found,
        }
    }

    /// Whether the log can be asked.
    pub async fn check(&self) -> Result<(), FindError> {
        let nobody = nufw_proto::Transport::Tcp(nufw_proto::Ports { src: 1, dst: 1 });
        let unspecified = nufw_proto::Addr::from(std::net::Ipv4Addr::UNSPECIFIED);
        let Ok(tuple) = Tuple::new(unspecified, unspecified, nobody) else {
            return Ok(());
        };
        let doubting = Doubting {
            newest: None,
            since: clock::wall(),
        };
        self.in_time(self.options.timeout, self.look(&tuple, doubting))
            .await
            .map(drop)
    }

    /// Bounds an answer. Connections that gave none in time are given up: the server behind them may be gone without a word.
    async fn in_time<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, FindError>>,
    ) -> Result<T, FindError> {
        let before = self.lookup.load_full();
        if let Ok(answer) = tokio::time::timeout(limit, work).await {
            return answer;
        }
        let current = self.lookup.compare_and_swap(&before, None);
        if let (Some(before), Some(current)) = (before, &*current)
            && Arc::ptr_eq(&before, current)
        {
            end(before);
        }
        Err(FindError::Timeout(limit))
    }

    async fn find_in_time(&self, tuple: &Tuple) -> Result<Option<Answer>, FindError> {
        let asked = clock::mono();
        let asked_at = clock::wall();
        let mut pause = FIRST_PAUSE;
        // A connection whose first packet is older than the patience had the time to get its reply side: nothing answered it.
        let patience = i64::try_from(self.options.retry.as_micros()).unwrap_or(i64::MAX);
        let mut doubting = Doubting {
            newest: None,
            since: Timestamp::from_micros(asked_at.micros().saturating_sub(patience)),
        };
        loop {
            let Look { row, doubt } = self.look(tuple, doubting).await?;
            let doubt = doubt.filter(|doubt| doubt.received > doubting.since);
            if let (Some(row), None) = (&row, &doubt) {
                return Ok(answer(row.clone()));
            }
            // What came after the question is not what it was about.
            doubting.newest = doubting.newest.or(doubt.map(|doubt| doubt.id));
            let left = self.options.retry.saturating_sub(asked.elapsed());
            if left.is_zero() {
                // What is still without a reply side was not answered by the service, so it cannot be what asks.
                return Ok(row.and_then(answer));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn look(&self, tuple: &Tuple, doubting: Doubting) -> Result<Look, FindError> {
        let lookup = self.opened(None).await?;
        match lookup.look(tuple, doubting).await {
            Ok(look) => Ok(look),
            // The log was replaced, or the database came back elsewhere: once more on new connections.
            Err(error) => {
                tracing::debug!(%error, "looking again on new connections");
                let lookup = self.opened(Some(&lookup)).await?;
                Ok(lookup.look(tuple, doubting).await?)
            }
        }
    }

    /// The log as it is open, or opened anew if it is not, or is the one that just failed.
    async fn opened(&self, failed: Option<&Arc<Lookup>>) -> Result<Arc<Lookup>, FindError> {
        let usable = |lookup: &Arc<Lookup>| failed.is_none_or(|failed| !Arc::ptr_eq(failed, lookup));
        if let Some(lookup) = self.lookup.load_full().filter(usable) {
            return Ok(lookup);
        }
        let _one = self.opening.lock().await;
        if let Some(lookup) = self.lookup.load_full().filter(usable) {
            return Ok(lookup);
        }
        self.replace().await
    }

    async fn replace(&self) -> Result<Arc<Lookup>, FindError> {
        let options = LookupOptions {
            connections: self.options.connections,
            patience: self.options.timeout,
        };
        let opened = Lookup::open(&self.location, options).await;
        // One that failed is not kept either: each question tries again until the log is back.
        let new = opened.as_ref().ok().map(|lookup| Arc::new(lookup.clone()));
        if let Some(old) = self.lookup.swap(new.clone()) {
            end(old);
        }
        match (opened, new) {
            (Ok(_), Some(new)) => Ok(new),
            (Err(error), _) => Err(error.into()),
            (Ok(lookup), None) => Ok(Arc::new(lookup)),
        }
    }
}

/// Ends connections when those that use them are done; one that hangs is given up.
fn end(lookup: Arc<Lookup>) {
    tokio::spawn(async move { tokio::time::timeout(CLOSE_TIMEOUT, lookup.close()).await });
}

/// A row without a user names nobody, and hides older ones all the same: it is the connection that was asked about.
fn answer(row: LiveRow) -> Option<Answer> {
    let user = row.username.clone().filter(|name| !name.is_empty())?;
    Some(Answer { user, row })
}
