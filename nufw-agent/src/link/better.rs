//! The way back to a better server: how long it has been healthy, and when it is time to return.
//!
//! A server is healthy while it can be reached and proves who it is. It must be so for a whole time before it is trusted
//! again, so that one that comes and goes does not take the link to and fro.

use super::connect::{self, Target};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Looks at the better servers in the time that they must have been healthy.
const LOOKS: u32 = 6;
/// Least time between two looks.
const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// A look that is under way, given up when dropped.
#[derive(Debug)]
struct Look {
    task: JoinHandle<()>,
    found: oneshot::Receiver<Option<usize>>,
}

impl Drop for Look {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of the servers that come before the present one.
#[derive(Debug)]
pub(super) struct Better {
    return_after: Duration,
    look: Option<Look>,
    next: Instant,
    /// The best of them that is healthy, and since when.
    healthy: Option<(usize, Instant)>,
}

impl Better {
    pub(super) fn new(return_after: Duration, now: Instant) -> Self {
        Self {
            return_after,
            look: None,
            next: now,
            healthy: None,
        }
    }

    /// Another link: whatever was known was of another place.
    pub(super) fn begin(&mut self, now: Instant) {
        self.look = None;
        self.healthy = None;
        self.next = now + self.pause();
    }

    fn pause(&self) -> Duration {
        (self.return_after / LOOKS).max(LEAST_PAUSE)
    }

    /// The server to return to, if it is time. Begins a look when one is due.
    pub(super) fn step(
        &mut self,
        targets: &Arc<[Target]>,
        present: usize,
        tls: &Arc<rustls::ClientConfig>,
        now: Instant,
    ) -> Option<usize> {
        if let Some(look) = &mut self.look {
            match look.found.try_recv() {
                Ok(found) => {
                    self.look = None;
                    self.next = now + self.pause();
                    return self.learn(found, now);
                }
                Err(oneshot::error::TryRecvError::Empty) => return None,
                Err(oneshot::error::TryRecvError::Closed) => {
                    self.look = None;
                    self.healthy = None;
                }
            }
        }
        if present > 0 && now >= self.next {
            let (tell, found) = oneshot::channel();
            let (targets, tls) = (Arc::clone(targets), Arc::clone(tls));
            let task = tokio::spawn(async move {
                for (at, target) in targets.iter().enumerate().take(present) {
                    if connect::is_healthy(target, Arc::clone(&tls)).await {
                        let _ = tell.send(Some(at));
                        return;
                    }
                }
                let _ = tell.send(None);
            });
            self.look = Some(Look { task, found });
        }
        None
    }

    fn learn(&mut self, found: Option<usize>, now: Instant) -> Option<usize> {
        let since = match (found, self.healthy) {
            (Some(at), Some((before, since))) if at == before => since,
            _ => now,
        };
        self.healthy = found.map(|at| (at, since));
        found.filter(|_| now >= since + self.return_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_returned_to_only_after_it_was_healthy_for_the_whole_time() {
        let start = nufw_common::clock::mono();
        let mut better = Better::new(Duration::from_mins(1), start);
        let mut at = |seconds, found| better.learn(found, start + Duration::from_secs(seconds));
        assert_eq!(at(0, Some(0)), None);
        assert_eq!(at(59, Some(0)), None);
        assert_eq!(at(60, Some(0)), Some(0));
        // One failure begins the time anew.
        assert_eq!(at(70, None), None);
        assert_eq!(at(80, Some(0)), None);
        assert_eq!(at(139, Some(0)), None);
        assert_eq!(at(140, Some(0)), Some(0));
        // And so does another server in its place.
        assert_eq!(at(150, Some(1)), None);
        assert_eq!(at(160, Some(0)), None);
        assert_eq!(at(220, Some(0)), Some(0));
    }
}
