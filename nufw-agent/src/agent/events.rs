//! The life of an event: read, numbered, kept until the server has it; and what is told when some were lost.
//!
//! What they mean is the server's business.

use super::{Agent, AgentError};
use crate::conntrack::Received;
use crate::link::LinkLoss;
use crate::relay::Overflow;
use nufw_common::clock;
use nufw_proto::Timestamp;
use nufw_proto::gateway::{Gap, GapCause};

/// Events read in one turn: a packet that comes meanwhile waits for them, some milliseconds. The kernel collects what has expired
/// once in a while, and ten thousand connections may end in one moment.
const EVENTS: usize = 512;

impl Agent {
    /// Takes over the events that are there, and what is lost of them.
    pub(super) fn read_events(&mut self) -> Result<(), AgentError> {
        let received = clock::wall();
        let mut read = 0;
        let outcome = loop {
            let Some(events) = &mut self.events else {
                break Received::Empty;
            };
            if let Some(memory) = &self.memory {
                events.hold(memory.next());
            }
            let outcome = events.receive(EVENTS - read, received, &mut self.fresh)?;
            let taken = self.take_events();
            read += taken;
            if outcome != Received::BudgetSpent || taken == 0 || read >= EVENTS {
                break outcome;
            }
        };
        // A full batch needs no pause to become one.
        self.events_paused = read > 0 && outcome != Received::BudgetSpent;
        match outcome {
            Received::Empty => {
                self.whole_at = received;
                self.dumps.on_events_whole(self.relay.last_held());
            }
            Received::BudgetSpent => {}
            Received::Overrun => self.events_lost(received),
        }
        Ok(())
    }

    /// Takes over the events that were read; tells how many they were.
    pub(super) fn take_events(&mut self) -> usize {
        let count = self.fresh.len();
        let mut overflow = Overflow::None;
        for event in self.fresh.drain(..) {
            self.stats.events += 1;
            self.kernel_says.look(&event);
            self.observer.seen.event(event.kind);
            self.dumps.on_event(&event);
            if let Some(memory) = &mut self.memory {
                memory.add(&event);
            }
            match self.relay.push(event) {
                Overflow::None => {}
                other => {
                    self.stats.forgotten_events += 1;
                    overflow = other;
                }
            }
        }
        if let Some(memory) = &mut self.memory {
            memory.commit(self.relay.first_held());
        }
        if overflow != Overflow::None {
            self.dumps.want_one();
        }
        if overflow == Overflow::Unsent && self.link.is_up() {
            // The stream of one link has no holes: the next link says where it begins.
            self.link.cut(LinkLoss::Protocol(
                "it does not take the events that wait for it".to_owned(),
            ));
        }
        count
    }

    fn events_lost(&mut self, noticed: Timestamp) {
        self.stats.overruns += 1;
        if self.overrun_log.may_warn(clock::mono()) {
            tracing::warn!(
                overruns = self.stats.overruns,
                "the kernel dropped conntrack events because the receive buffer was full; the table is compared instead"
            );
        }
        if let Some(memory) = &mut self.memory {
            memory.note_gap(self.whole_at);
        }
        self.relay.note_gap(Gap {
            from: self.whole_at,
            to: noticed,
            cause: GapCause::NetlinkOverrun,
        });
        self.dumps.spoil();
        self.dumps.want_one();
    }
}
