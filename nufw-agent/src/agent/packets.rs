//! The life of a packet: read, asked about, answered; or dropped, because nobody can be asked.
//!
//! Nothing here decides; what becomes of a packet that cannot be asked about is the configuration's word.

use super::asks::Ports;
use super::{Agent, AgentError, Waiting};
use crate::loss::OnLoss;
use crate::packet;
use crate::queue::{Disposition, QueuedPacket};
use nufw_common::clock;
use nufw_proto::gateway::{Answer, Ask, Unused, Verdict};
use nufw_proto::{AskId, ConnId, Mark, Timestamp};
use std::time::Instant;

/// Packets read at once.
const PACKETS: usize = 4096;
/// Reports of unused verdicts that are kept while the server is away; the oldest go, and the server learns from the
/// next dump.
const MAX_UNUSED: usize = 65_536;

/// Why a packet is not asked about.
enum Dropped {
    NoLink,
    Unparsable(packet::Unparsable),
    UnknownSource,
    TableFull,
}

impl Agent {
    /// Ends the waiting of what was not answered in time. The server answers two seconds earlier even where the user does
    /// not, so that its silence is its own.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((ask, waiting)) = self.pending.expire(now) {
            tracing::trace!(%ask, "no answer in time");
            self.stats.timed_out += 1;
            self.unasked(waiting.place(), waiting.mark, self.settings.on_loss.server);
        }
    }

    /// A packet about which nobody could be asked.
    pub(super) fn unasked(&mut self, (queue, packet_id): (u16, u32), mark: Mark, choice: OnLoss) {
        let disposition = self.settings.unasked(choice, mark);
        if disposition != Disposition::Drop {
            self.stats.blind += 1;
        }
        self.queue.verdict_in(queue, packet_id, disposition);
    }

    /// Reads the queue to its end. `false` if it would not end: then no event may be read in this turn.
    pub(super) fn read_packets(&mut self, now: Instant) -> Result<bool, AgentError> {
        // No verdict is sent meanwhile, so the kernel's own limit of waiting packets bounds this.
        let rounds = self.settings.most_waiting() / PACKETS + 2;
        let mut drained = false;
        for _ in 0..rounds {
            let mut packets = std::mem::take(&mut self.packets);
            let read = self.queue.recv_batch(&mut packets, PACKETS);
            let received = clock::wall();
            if let Some(memory) = &mut self.memory {
                for packet in &packets {
                    let place = usize::from(packet.queue.saturating_sub(self.settings.first_queue));
                    memory.note_packet(place, packet.packet_id);
                }
            }
            if !packets.is_empty() {
                self.names.refresh();
            }
            for packet in packets.drain(..) {
                self.packet(&packet, received, now);
            }
            self.packets = packets;
            if read? < PACKETS {
                drained = true;
                break;
            }
        }
        for refused in self.queue.take_refused() {
            if !refused.gone {
                self.stats.refused += 1;
            }
            if let Some((id, row)) = self.accepted.remove(&(refused.queue, refused.packet_id)) {
                self.stats.gone += 1;
                self.unused(id, row);
            }
        }
        if drained {
            self.accepted.clear();
        }
        // What segments have shown is told like events, and after the asks.
        self.take_events();
        Ok(drained)
    }

    /// A packet came: it is asked for, or dropped.
    fn packet(&mut self, packet: &QueuedPacket, received: Timestamp, now: Instant) {
        if self.settings.flags_queue == Some(packet.queue) {
            return self.passing(packet, received);
        }
        self.stats.packets += 1;
        let dropped = match self.ask(packet, received, now) {
            Ok(()) => return,
            Err(dropped) => dropped,
        };
        let choices = self.settings.on_loss;
        let mut choice = OnLoss::Drop;
        match dropped {
            Dropped::NoLink => {
                self.stats.without_link += 1;
                choice = choices.server;
            }
            Dropped::Unparsable(why) => {
                tracing::trace!(%why, "a packet without a tuple is dropped");
                self.stats.unparsable += 1;
            }
            Dropped::UnknownSource => self.stats.unknown_source += 1,
            Dropped::TableFull => {
                self.stats.table_full += 1;
                choice = choices.full;
            }
        }
        let place = (packet.queue, packet.packet_id);
        self.unasked(place, Mark(packet.mark), choice);
    }

    /// Asks for a packet, or lets it wait for the next link while one is being looked for.
    fn ask(&mut self, packet: &QueuedPacket, received: Timestamp, now: Instant) -> Result<(), Dropped> {
        let server = self.link.server().filter(|_| self.link.is_up());
        if server.is_none() && !self.link.is_looking() {
            return Err(Dropped::NoLink);
        }
        let tuple = packet::parse(&packet.payload, packet.hw_protocol, self.tracking)
            .map_err(Dropped::Unparsable)?
            .tuple;
        if server.is_some() && !self.sources.may_ask(tuple.src(), now) {
            return Err(Dropped::UnknownSource);
        }
        let mark = Mark(packet.mark);
        let bridged = packet.phys_in_dev != 0 || packet.phys_out_dev != 0;
        let ports = bridged.then(|| {
            Box::new(Ports {
                phys_in: self.names.name(packet.phys_in_dev),
                phys_out: self.names.name(packet.phys_out_dev),
            })
        });
        let ask = Ask {
            id: AskId(0),
            hook: packet.hook,
            zone: self.settings.zone_of(packet.queue),
            tuple,
            in_dev: self.names.name(packet.in_dev),
            out_dev: self.names.name(packet.out_dev),
            mark,
            received: packet.timestamp.unwrap_or(received),
            tracked: self.settings.follows(&tuple),
        };
        let waiting = Waiting {
            asked: now,
            queue: packet.queue,
            packet_id: packet.packet_id,
            mark,
            hook: packet.hook,
            is_ipv4: tuple.src().is_ipv4(),
            ask: ask.clone(),
            ports: ports.clone(),
            server,
        };
        let id = self
            .pending
            .insert(waiting, now)
            .map_err(|_| Dropped::TableFull)?;
        if server.is_some() {
            tracing::trace!(%id, %tuple, "asked");
            self.stats.asked += 1;
            self.asks.push(Ask { id, ..ask }, ports.as_deref());
        }
        Ok(())
    }

    /// An answer came: the packet goes on, or not.
    pub(super) fn answer(&mut self, Answer { id, verdict }: Answer) {
        if let Verdict::Accept { row, .. } = verdict
            && row != ConnId::UNLOGGED
        {
            self.last_row = self.last_row.max(Some(row));
        }
        let Some(waiting) = self.pending.answer(id) else {
            self.stats.late_answers += 1;
            if let Verdict::Accept { row, .. } = verdict {
                self.unused(id, row);
            }
            return;
        };
        let waited = self.observer.turn.saturating_duration_since(waiting.asked);
        self.observer.seen.waits.add(waited);
        let disposition = match verdict {
            Verdict::Accept { row, mark } => {
                self.stats.accepted += 1;
                self.accepted
                    .insert((waiting.queue, waiting.packet_id), (id, row));
                Disposition::Accept {
                    mark: self.settings.mark_of_user(waiting.mark, mark),
                }
            }
            Verdict::Drop => {
                self.stats.dropped += 1;
                Disposition::Drop
            }
            Verdict::Reject => {
                self.stats.rejected += 1;
                if self.refusals.sure(waiting.hook, waiting.is_ipv4) {
                    self.settings.rejection(waiting.mark)
                } else {
                    // With the bit it would pass if no rule refuses it.
                    Disposition::Drop
                }
            }
        };
        self.queue
            .verdict_in(waiting.queue, waiting.packet_id, disposition);
    }

    fn unused(&mut self, id: AskId, row: ConnId) {
        if self.unused.len() >= MAX_UNUSED {
            self.unused.remove(0);
        }
        self.unused.push(Unused { id, row });
    }
}
