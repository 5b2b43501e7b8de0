//! What the stores on database servers have in common: their work in sets, and what they do after an error.
//!
//! No SQL. A connection that may be in an unknown state is never used again.

use crate::StoreError;
use crate::change::{Change, EndReason, GapRow, SessionRow};
use crate::plan::{self, Step};
use nufw_proto::{BootId, ConnId, EventSeq, Timestamp};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a store waits for the lock of its number: the server needs a moment to see that an earlier connection ended.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// The wait between two attempts to get that lock.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(50);
/// How long what is done once, at the start, may take: reading the live rows of a large log among them.
pub(crate) const START_TIMEOUT: Duration = Duration::from_mins(5);

/// The changes of one transaction in sets, a statement for each.
#[derive(Default)]
pub(crate) struct Work<'a> {
    /// Those of connections, in the order of their effect.
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) starts: Vec<&'a SessionRow>,
    pub(crate) ends: Vec<(ConnId, Timestamp, EndReason)>,
    pub(crate) gaps: Vec<&'a GapRow>,
    /// One for a gateway: the last boot's.
    pub(crate) acknowledged: Vec<(&'a Arc<str>, BootId, EventSeq)>,
    /// One for a gateway: the latest.
    pub(crate) heartbeats: Vec<(&'a Arc<str>, Timestamp)>,
}

impl<'a> Work<'a> {
    pub(crate) fn of(changes: &'a [Change]) -> Self {
        let mut work = Self::default();
        let mut started = HashMap::new();
        let mut ended = HashSet::new();
        for step in plan::steps(changes) {
            match step {
                Step::SessionStart(session) => {
                    // The same session told twice would meet itself in one statement; another one of its id is a conflict.
                    if started.insert(session.id, session) != Some(session) {
                        work.starts.push(session);
                    }
                }
                Step::SessionEnd(id, at, reason) => {
                    // What is set stays: the first one counts.
                    if ended.insert(id) {
                        work.ends.push((id, at, reason));
                    }
                }
                Step::Gap(gap) => work.gaps.push(gap),
                Step::Acknowledge(gateway, boot, through) => {
                    work.acknowledged.retain(|(known, ..)| *known != gateway);
                    work.acknowledged.push((gateway, boot, through));
                }
                Step::Heartbeat(gateway, at) => {
                    match work.heartbeats.iter_mut().find(|(known, _)| *known == gateway) {
                        Some((_, latest)) => *latest = (*latest).max(at),
                        None => work.heartbeats.push((gateway, at)),
                    }
                }
                connections => work.steps.push(connections),
            }
        }
        work
    }
}

/// Bounds what a server is asked for; after that its connection must be given up.
pub(crate) async fn limited<T>(
    log: &Path,
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(StoreError::TimedOut {
            log: log.to_path_buf(),
            limit,
        })
    })
}
