//! The end on SIGTERM: nothing is asked any more, nothing waits on, what is known is told.
//!
//! The queue closes with the process; what the kernel does with later packets is the rules' business.

use super::{Agent, AgentError};
use nufw_common::{clock, lifecycle};
use std::time::Duration;

/// How long the server may take to read what it should still hear.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The same when a successor waits, and packets with it.
const PARTING_WORDS: Duration = Duration::from_millis(300);

impl Agent {
    pub(super) async fn end(mut self) -> Result<(), AgentError> {
        lifecycle::notify_stopping();
        self.asks.clear();
        for waiting in self.pending.drain() {
            self.stats.dropped += 1;
            let disposition = self.settings.unasked(self.settings.on_loss.agent, waiting.mark);
            self.queue
                .verdict_in(waiting.queue, waiting.packet_id, disposition);
        }
        self.queue.flush()?;
        self.read_events()?;
        let told = tokio::time::timeout(LAST_WORDS, self.tell_the_rest()).await;
        if told.is_err() && self.link.is_up() {
            tracing::warn!(
                events = self.relay.len(),
                "the server did not take the last events"
            );
        }
        self.link.farewell("the agent is stopped").await;
        self.stats().report("stopped");
        Ok(())
    }

    /// Makes room for a successor: what is decided is carried out, what waits stays in the kernel and is put back from there,
    /// and events that are not read stay in their socket.
    pub(super) async fn leave(mut self) -> Result<(), AgentError> {
        self.asks.clear();
        self.queue.flush()?;
        let told = tokio::time::timeout(PARTING_WORDS, async {
            self.tell_the_rest().await;
            self.link
                .farewell("the agent is replaced by another process")
                .await;
        });
        // What the server does not take in time it hears from the successor.
        let _ = told.await;
        self.stats().report("replaced");
        Ok(())
    }

    async fn tell_the_rest(&mut self) {
        while self.link.is_up() && self.relay.has_unsent() {
            self.send_events();
            self.link.flush(clock::mono()).await;
            if self.relay.has_unsent() {
                // Waits for room; whatever the server says meanwhile comes too late.
                let first_held = self.relay.first_held();
                let _ = tokio::time::timeout(
                    Duration::from_millis(10),
                    self.link.next(first_held, &mut self.inbox),
                )
                .await;
                self.inbox.clear();
            }
        }
    }
}
