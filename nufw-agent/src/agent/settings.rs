//! What the agent is told by its configuration, and how marks follow from it.
//!
//! Other people's bits of a mark stay as they were.

use crate::conntrack::Interest;
use crate::loss::{Choices, OnLoss};
use crate::queue::Disposition;
use nufw_proto::{Mark, Transport, Tuple};
use std::time::Duration;

/// What the agent needs to know besides its parts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether verdicts set the packet's mark (`-m`).
    pub sets_marks: bool,
    /// The bits of a mark that are the user's number.
    pub mark_mask: Mark,
    /// The bit that a later rule rejects by; 0 drops instead.
    pub reject_bit: Mark,
    /// The bit of a connection's mark that later rules refuse by; 0 deletes instead.
    pub kill_bit: Mark,
    /// The bit of what passes without a verdict; 0 where nothing may.
    pub blind_bit: Mark,
    /// What becomes of packets that cannot be asked about.
    pub on_loss: Choices,
    /// Packets that may wait in the kernel, in each queue.
    pub queue_length: u32,
    /// Number of the first queue.
    pub first_queue: u16,
    /// The conntrack zone whose packets each queue gets, from the first on; the last counts for all that follow.
    pub zones: Vec<u16>,
    /// How many queues there are.
    pub queues: u16,
    /// The number of the queue of TCP segments that say how connections go on, where conntrack does not.
    pub flags_queue: Option<u16>,
    /// How long a packet waits for an answer.
    pub packet_timeout: Duration,
    /// Packets that may wait for an answer.
    pub max_pending: usize,
    /// Events that are kept until acknowledged.
    pub max_unacknowledged: usize,
    /// Which connections are dumped.
    pub interest: Interest,
}

impl Settings {
    /// The mark of an accepted packet: the user's number under the mask, other people's bits as they were. It was asked
    /// about, so that it is not blind whatever the rules marked it with.
    pub(super) fn mark_of_user(&self, packet: Mark, user: Mark) -> Option<u32> {
        let (mask, blind) = (self.mark_mask.0, self.blind_bit.0);
        if self.sets_marks {
            return Some(packet.0 & !mask & !self.reject_bit.0 & !blind | user.0 & mask);
        }
        (packet.0 & blind != 0).then_some(packet.0 & !blind)
    }

    /// Whether it will be told what becomes of a connection. Flags tell of forwarded TCP alone.
    pub(super) fn follows(&self, tuple: &Tuple) -> bool {
        let seen = self.flags_queue.is_none() || matches!(tuple.transport(), Transport::Tcp(_));
        seen && self.interest.will_include(tuple)
    }

    /// What becomes of a packet that cannot be asked about.
    pub(super) fn unasked(&self, choice: OnLoss, packet: Mark) -> Disposition {
        if choice == OnLoss::Drop || self.blind_bit.0 == 0 {
            return Disposition::Drop;
        }
        let users = if self.sets_marks { self.mark_mask.0 } else { 0 };
        Disposition::Accept {
            mark: Some(packet.0 & !users & !self.reject_bit.0 | self.blind_bit.0),
        }
    }

    /// The conntrack zone whose packets this queue gets.
    pub(super) fn zone_of(&self, queue: u16) -> u16 {
        let place = usize::from(queue.saturating_sub(self.first_queue));
        let zone = self.zones.get(place).or(self.zones.last());
        zone.copied().unwrap_or(0)
    }

    /// Packets that may wait in the kernel, in all queues together.
    pub(super) fn most_waiting(&self) -> usize {
        usize::try_from(self.queue_length)
            .unwrap_or(usize::MAX)
            .saturating_mul(usize::from(self.queues.max(1)))
    }

    pub(super) fn rejection(&self, packet: Mark) -> Disposition {
        match self.reject_bit.0 {
            0 => Disposition::Drop,
            bit => Disposition::Accept {
                mark: Some(packet.0 & !self.mark_mask.0 & !self.blind_bit.0 | bit),
            },
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
