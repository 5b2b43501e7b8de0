//! The agent as a worker: another process keeps its sockets and does what needs a capability.
//!
//! Where its predecessors ended it goes on.

use super::Agent;
use super::dumps::Dumps;
use crate::keeper::{Access, Keeper, Left, Memory};
use crate::relay::Relay;
use nufw_common::clock;
use std::sync::Arc;
use std::time::Duration;

/// How long a successor leaves packets in the queue while it has no link: without one it would have to drop them.
const HOLD: Duration = Duration::from_secs(5);
/// Names of packets that are set aside for each process of one boot.
const ASKS_OF_A_PROCESS: u64 = 1 << 40;
/// Processes until their names come again; packets of so long ago have none any more.
const PROCESSES: u64 = 1 << 23;

impl Agent {
    /// Lets a supervisor do what needs a capability, and goes on where the workers before this one ended. A successor does
    /// not touch the queue before it has a link, or cannot have one: packets may wait there.
    #[must_use]
    pub fn kept_by(mut self, keeper: Arc<Keeper>, memory: Memory, left: Left) -> Self {
        self.dumps = Dumps::new(
            Access::Keeper(Arc::clone(&keeper)),
            self.settings.interest.clone(),
        );
        self.keeper = Some(keeper);
        // The count comes out of memory that a predecessor could write.
        let process = u64::from(left.predecessors) % PROCESSES;
        self.pending.begin_at(process * ASKS_OF_A_PROCESS + 1);
        if left.predecessors > 0 {
            self.held = Some(clock::mono() + HOLD);
        }
        self.relay = Relay::resumed(self.settings.max_unacknowledged, left.first, left.events);
        if let Some(gap) = left.gap {
            self.relay.note_gap(gap);
        }
        self.memory = Some(memory);
        if let Some(events) = &mut self.events {
            events.read_left(left.datagrams, clock::wall(), &mut self.fresh);
        }
        self.take_events();
        self
    }
}
