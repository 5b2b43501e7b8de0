//! The events that the server has not yet made durable, in their order, with the gaps between them.
//!
//! Numbers events from 1 in each boot, keeps them until they are acknowledged, and says again what a lost link may have
//! swallowed. Pure and bounded: at the limit the oldest go, and a [`Gap`] says so.

use nufw_proto::gateway::{Events, Gap, GapCause, ToServer};
use nufw_proto::{Batch, CtEvent, EventSeq, MAX_BATCH, Timestamp};
use std::collections::VecDeque;

/// Most gaps that are remembered apart; further ones lengthen the last.
const MAX_GAPS: usize = 64;

/// What became of the oldest event when one was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Nothing; there was room.
    None,
    /// It was forgotten; it had been sent over the present link.
    Sent,
    /// It was forgotten, and the present link has not carried it.
    Unsent,
}

/// The server acknowledged an event that it was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server acknowledged event {acknowledged}, but {last} is the last that it can know")]
pub struct BadAck {
    /// What it said.
    pub acknowledged: EventSeq,
    /// The last event sent.
    pub last: EventSeq,
}

#[derive(Debug)]
struct NotedGap {
    /// Number of the first event after the gap.
    before: u64,
    gap: Gap,
    sent: bool,
}

/// The store.
#[derive(Debug)]
pub struct Relay {
    max: usize,
    /// Number of the event at the front.
    first: u64,
    events: VecDeque<CtEvent>,
    /// Number of the first event that the present link has not carried.
    unsent: u64,
    gaps: VecDeque<NotedGap>,
}

impl Relay {
    /// An empty store for at most `max` events.
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            first: 1,
            events: VecDeque::new(),
            unsent: 1,
            gaps: VecDeque::new(),
        }
    }

    /// The store of a predecessor of the same boot, whose oldest event has the number `first`.
    pub fn resumed(max: usize, first: u64, events: Vec<CtEvent>) -> Self {
        Self {
            first,
            events: events.into(),
            unsent: first,
            ..Self::new(max)
        }
    }

    /// Events held.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no event is held.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The oldest event held, or the number of the next.
    pub fn first_held(&self) -> EventSeq {
        EventSeq(self.first)
    }

    /// The last event held, or the one before the next.
    pub fn last_held(&self) -> EventSeq {
        EventSeq(self.next() - 1)
    }

    /// The last event that the present link has carried.
    pub fn last_sent(&self) -> EventSeq {
        EventSeq(self.unsent - 1)
    }

    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Adds an event; at the limit the oldest is forgotten and a gap noted.
    pub fn push(&mut self, event: CtEvent) -> Overflow {
        let mut overflow = Overflow::None;
        if self.events.len() >= self.max
            && let Some(lost) = self.events.pop_front()
        {
            let was_sent = self.first < self.unsent;
            self.first += 1;
            self.unsent = self.unsent.max(self.first);
            overflow = if was_sent {
                Overflow::Sent
            } else {
                Overflow::Unsent
            };
            self.forgotten(lost.at);
        }
        self.events.push_back(event);
        overflow
    }

    fn forgotten(&mut self, at: Timestamp) {
        match self.gaps.front_mut() {
            Some(front) if front.gap.cause == GapCause::StoreFull && !front.sent => {
                front.before = self.first;
                front.gap.to = front.gap.to.max(at);
            }
            _ => {
                let gap = Gap {
                    from: at,
                    to: at,
                    cause: GapCause::StoreFull,
                };
                self.gaps.push_front(NotedGap {
                    before: self.first,
                    gap,
                    sent: false,
                });
            }
        }
    }

    /// Notes that events were lost between those held and those to come.
    pub fn note_gap(&mut self, gap: Gap) {
        let before = self.next();
        let full = self.gaps.len() >= MAX_GAPS;
        match self.gaps.back_mut() {
            Some(last) if full || (last.before == before && last.gap.cause == gap.cause && !last.sent) => {
                last.gap.to = last.gap.to.max(gap.to);
                last.sent = false;
            }
            _ => self.gaps.push_back(NotedGap {
                before,
                gap,
                sent: false,
            }),
        }
    }

    /// Forgets what is durable.
    pub fn acknowledge(&mut self, through: EventSeq) -> Result<(), BadAck> {
        if through.0 >= self.unsent {
            return Err(BadAck {
                acknowledged: through,
                last: EventSeq(self.unsent - 1),
            });
        }
        self.forget(through.0);
        Ok(())
    }

    /// Begins a new link: everything after `acknowledged` is to be sent over it, gaps included.
    pub fn resume(&mut self, acknowledged: EventSeq) -> Result<(), BadAck> {
        if acknowledged.0 >= self.next() {
            return Err(BadAck {
                acknowledged,
                last: EventSeq(self.next() - 1),
            });
        }
        self.forget(acknowledged.0);
        self.unsent = self.first;
        for noted in &mut self.gaps {
            noted.sent = false;
        }
        Ok(())
    }

    fn forget(&mut self, through: u64) {
        let durable = usize::try_from((through + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        let durable = durable.min(self.events.len());
        self.events.drain(..durable);
        self.first += durable as u64;
        self.unsent = self.unsent.max(self.first);
        // What was sent before a durable event was read before it.
        self.gaps.retain(|noted| !noted.sent || noted.before > through);
    }

    /// Whether [`Self::next_message`] has something.
    pub fn has_unsent(&self) -> bool {
        self.unsent < self.next() || self.gaps.iter().any(|noted| !noted.sent)
    }

    /// The next message for the present link.
    pub fn next_message(&mut self) -> Option<ToServer> {
        let gap = self.gaps.iter_mut().find(|noted| !noted.sent);
        let until = match gap {
            Some(noted) if noted.before <= self.unsent => {
                noted.sent = true;
                return Some(ToServer::Gap(noted.gap));
            }
            Some(noted) => noted.before,
            None => self.first + self.events.len() as u64,
        };
        let begin = usize::try_from(self.unsent - self.first).ok()?;
        let count = usize::try_from(until - self.unsent)
            .unwrap_or(usize::MAX)
            .min(MAX_BATCH);
        if count == 0 {
            return None;
        }
        let events: Vec<CtEvent> = self.events.range(begin..begin + count).copied().collect();
        let message = Events {
            first: EventSeq(self.unsent),
            events: Batch::try_from(events).ok()?,
        };
        self.unsent += count as u64;
        Some(ToServer::Events(message))
    }
}

#[cfg(test)]
mod tests;
