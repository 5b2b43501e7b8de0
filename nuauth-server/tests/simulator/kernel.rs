//! A model of one gateway's kernel: its queue, its conntrack table, its events.
//!
//! The kernel's promises are those that were measured: an entry is confirmed when a packet is accepted, packets of a
//! confirmed entry are never queued, each event is readable as soon as what it tells has happened.

use crate::reference::Records;
use nufw_proto::{
    ConnId, Count, Counters, CtEntry, CtEvent, CtEventKind, CtStatus, Mark, Ports, Removal, TcpState,
    Timestamp, Transport, Tuple,
};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};

/// Packets that fit into the queue.
const QUEUE: usize = 64;

/// What the table is keyed by: zone and original tuple.
pub(crate) type Key = (u16, Tuple);

/// A packet that begins, or would begin, a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) key: Key,
    /// What it shows in the queue: the destination is translated already.
    pub(crate) shown: Tuple,
    pub(crate) reply: Tuple,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) ct: CtEntry,
    pub(crate) record: usize,
}

/// An event, and what it is about in the reference's books.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) event: CtEvent,
    pub(crate) record: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) queue: VecDeque<Packet>,
    pub(crate) table: BTreeMap<Key, Entry>,
    pub(crate) events: VecDeque<Told>,
}

pub(crate) fn stamp(now: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + i64::try_from(now).unwrap_or(i64::MAX))
}

impl Kernel {
    /// A packet arrives. Only one without entry waits.
    pub(crate) fn arrive(&mut self, packet: Packet) {
        if let Some(entry) = self.table.get_mut(&packet.key) {
            count(&mut entry.ct, true);
        } else if self.queue.len() < QUEUE {
            self.queue.push_back(packet);
        }
    }

    /// An accepting verdict for a packet that was queued.
    pub(crate) fn accept(
        &mut self,
        packet: Packet,
        (gateway, row, mark): (usize, ConnId, Mark),
        now: u64,
        rng: &mut StdRng,
        records: &mut Records,
    ) {
        if self.table.contains_key(&packet.key) {
            // The packet of a connection that another packet has begun: it is merged or dropped.
            return;
        }
        if rng.random_ratio(1, 40) {
            // A later rule dropped it: the entry is never confirmed.
            return;
        }
        let mut ct = CtEntry {
            // A hash: the same tuple often gets the same id again.
            id: u32::from(packet.key.1.transport().ports().map_or(0, |ports| ports.src))
                + u32::from(rng.random_ratio(1, 3)),
            zone: packet.key.0,
            original: packet.key.1,
            reply: packet.reply,
            master: None,
            mark,
            status: CtStatus(1 << 3),
            tcp_state: is_tcp(&packet.key.1).then_some(TcpState::SYN_SENT),
            counters: Some(Counters {
                original: Count { packets: 0, bytes: 0 },
                reply: Count { packets: 0, bytes: 0 },
            }),
            start: Some(stamp(now)),
            stop: None,
        };
        count(&mut ct, true);
        let record = records.confirmed(gateway, row, packet.shown, mark, stamp(now));
        self.tell((CtEventKind::New, Removal::Unsaid), &ct, record, now);
        self.table.insert(packet.key, Entry { ct, record });
    }

    /// The first answer, or a later one.
    pub(crate) fn reply(&mut self, key: &Key, now: u64) {
        let Some(entry) = self.table.get_mut(key) else {
            return;
        };
        count(&mut entry.ct, false);
        if !entry.ct.status.seen_reply() {
            entry.ct.status.0 |= 1 << 1;
            entry.ct.tcp_state = entry.ct.tcp_state.map(|_| TcpState::SYN_RECV);
            let (ct, record) = (entry.ct, entry.record);
            self.tell((CtEventKind::Update, Removal::Unsaid), &ct, record, now);
        }
    }

    /// The entry is gone.
    pub(crate) fn destroy(&mut self, key: &Key, state: TcpState, now: u64, records: &mut Records) {
        self.remove(key, (state, Removal::Unsaid), now, records);
    }

    /// Another program empties the table.
    pub(crate) fn flush(&mut self, now: u64, records: &mut Records) {
        let keys: Vec<Key> = self.table.keys().copied().collect();
        for key in keys {
            self.remove(&key, (TcpState::ESTABLISHED, Removal::ByProgram), now, records);
        }
    }

    fn remove(&mut self, key: &Key, (state, removal): (TcpState, Removal), now: u64, records: &mut Records) {
        let Some(mut entry) = self.table.remove(key) else {
            return;
        };
        entry.ct.tcp_state = entry.ct.tcp_state.map(|_| state);
        entry.ct.stop = Some(stamp(now));
        records.destroyed(entry.record, entry.ct.counters, removal, stamp(now));
        self.tell((CtEventKind::Destroy, removal), &entry.ct, entry.record, now);
    }

    fn tell(&mut self, (kind, removal): (CtEventKind, Removal), ct: &CtEntry, record: usize, now: u64) {
        let mut entry = *ct;
        if kind != CtEventKind::Destroy {
            // Only dumps and the last event carry these.
            (entry.start, entry.counters) = (None, None);
        }
        let event = CtEvent {
            kind,
            entry,
            at: stamp(now),
            at_kernel: true,
            removal,
        };
        self.events.push_back(Told { event, record });
    }

    /// Nobody reads the queue any more.
    pub(crate) fn unbind_queue(&mut self) {
        self.queue.clear();
    }

    /// The receive buffer of the events is lost.
    pub(crate) fn lose_events(&mut self, records: &mut Records) {
        for told in self.events.drain(..) {
            records.lost(&told);
        }
    }
}

fn is_tcp(tuple: &Tuple) -> bool {
    matches!(tuple.transport(), Transport::Tcp(_))
}

fn count(ct: &mut CtEntry, original: bool) {
    if let Some(counters) = &mut ct.counters {
        let direction = if original {
            &mut counters.original
        } else {
            &mut counters.reply
        };
        direction.packets += 1;
        direction.bytes += 60;
    }
}

/// The other direction of an untranslated connection.
pub(crate) fn reversed(tuple: &Tuple) -> Tuple {
    let ports = tuple.transport().ports().unwrap_or(Ports { src: 0, dst: 0 });
    let swapped = Ports {
        src: ports.dst,
        dst: ports.src,
    };
    Tuple::new(tuple.dst(), tuple.src(), tuple.transport().with_ports(swapped)).expect("one family")
}
