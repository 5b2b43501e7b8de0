//! The live connections: found by what their packet showed, by the kernel's original tuple, or by row id.
//!
//! A connection is *unbound* until a conntrack entry is known to be its own, then *bound*. At most one that is bound has
//! the same original tuple in the same zone of the same gateway. Nothing here decides or logs.

use super::gateways::GatewayIdx;
use super::who::{WhoId, WhoTable};
use hashbrown::HashTable;
use nufw_proto::{ConnId, CtEntry, Mark, Ports, Timestamp, Tuple};
use nulog::Binding;
use slab::Slab;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Where a tuple means one connection at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) gateway: GatewayIdx,
    pub(super) zone: u16,
    pub(super) tuple: Tuple,
}

/// What a packet of the connection shows in FORWARD and INPUT: the original source, and as destination the source of
/// the reply direction (after DNAT, before SNAT). `None` for a translation between address families.
pub(super) fn shown_by(entry: &CtEntry) -> Option<Tuple> {
    translated_destination(&entry.original, &entry.reply)
}

fn translated_destination(original: &Tuple, reply: &Tuple) -> Option<Tuple> {
    let transport = match (original.transport().ports(), reply.transport().ports()) {
        (Some(there), Some(back)) => original.transport().with_ports(Ports {
            src: there.src,
            dst: back.src,
        }),
        _ => original.transport(),
    };
    Tuple::new(original.src(), reply.src(), transport).ok()
}

/// The tuple that a reply tuple answers: what the service sees as its peer, and itself. `None` without ports.
pub(super) fn answered_by(reply: &Tuple) -> Option<Tuple> {
    let ports = reply.transport().ports()?;
    let transport = reply.transport().with_ports(Ports {
        src: ports.dst,
        dst: ports.src,
    });
    Tuple::new(reply.dst(), reply.src(), transport).ok()
}

/// What is known of the kernel's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Nothing but the packet, which showed this tuple.
    Unbound { shown: Tuple },
    /// Its id and reply tuple.
    Bound { ct_id: u32, reply: Tuple },
}

/// One live connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) gateway: GatewayIdx,
    pub(super) zone: u16,
    /// The original tuple as best known.
    pub(super) original: Tuple,
    pub(super) side: Side,
    /// The user's id.
    pub(super) user: Option<u64>,
    /// The mark given with the verdict.
    pub(super) user_mark: Mark,
    /// The connection's mark, as last seen.
    pub(super) mark: Mark,
    /// Whether the server's first answer was seen.
    pub(super) established: bool,
    /// Accepting answers sent whose packets have not been reported as gone.
    pub(super) grants: u8,
    /// Some of them went out later than the first.
    pub(super) granted_again: bool,
    /// Packets of both directions that the log was last told.
    pub(super) counted: u64,
    /// The dump in which the entry was last seen, or which was under way when it was bound.
    pub(super) seen_in: u32,
    /// When the last accepting verdict was sent; `None` while the row is not durable.
    pub(super) granted: Option<Duration>,
    /// When the gateway received the first packet, by its clock.
    pub(super) received: Timestamp,
    /// When it received the last packet that was granted.
    pub(super) last_asked: Timestamp,
    /// When its entry was confirmed, by the gateway's clock, as far as it is known.
    pub(super) born: Option<Timestamp>,
    /// Its packets were queued where the destination is not translated yet.
    pub(super) before_nat: bool,
    /// Who is behind it; kept in [`ConnTable::who`] for this connection.
    pub(super) who: Option<WhoId>,
}

impl Conn {
    pub(super) fn binding(&self) -> Option<Binding> {
        match self.side {
            Side::Unbound { .. } => None,
            Side::Bound { ct_id, reply } => Some(Binding {
                ct_id,
                ct_mark: self.mark,
                original: self.original,
                reply,
            }),
        }
    }

    /// What its first packet showed where it was queued: what the access lists are asked about.
    pub(super) fn shown(&self) -> Tuple {
        match self.side {
            Side::Unbound { shown } => shown,
            Side::Bound { .. } if self.before_nat => self.original,
            Side::Bound { reply, .. } => {
                translated_destination(&self.original, &reply).unwrap_or(self.original)
            }
        }
    }

    fn shown_flow(&self) -> Option<Flow> {
        match self.side {
            Side::Unbound { shown } => Some(Flow {
                gateway: self.gateway,
                zone: self.zone,
                tuple: shown,
            }),
            Side::Bound { .. } => None,
        }
    }

    /// What the service behind the gateway sees, where that is not the original tuple.
    fn translated(&self) -> Option<Tuple> {
        match self.side {
            Side::Unbound { .. } => None,
            Side::Bound { reply, .. } => answered_by(&reply).filter(|tuple| *tuple != self.original),
        }
    }

    fn original_flow(&self) -> Flow {
        Flow {
            gateway: self.gateway,
            zone: self.zone,
            tuple: self.original,
        }
    }
}

/// A connection's place in the table; valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u32);

/// Places that the table grows by at least.
const LEAST_GROWTH: usize = 256;

#[derive(Default)]
pub(super) struct ConnTable {
    conns: Slab<Conn>,
    by_id: HashTable<u32>,
    unbound: HashTable<u32>,
    bound: HashTable<u32>,
    /// Those that are bound and whose reply tuple is not the original one reversed, by what the service sees.
    translated: HashTable<u32>,
    /// Every zone that a connection was ever in; nearly always one.
    zones: BTreeSet<u16>,
    pub(super) who: WhoTable,
    hasher: RandomState,
}

fn at(conns: &Slab<Conn>, slot: u32) -> &Conn {
    &conns[slot as usize]
}

/// The hash under which an unbound connection stands; asked only of connections of that table.
fn hash_shown(hasher: &RandomState, conn: &Conn) -> u64 {
    conn.shown_flow().map_or(0, |flow| hasher.hash_one(flow))
}

/// The hash under which a translated connection stands; asked only of connections of that table.
fn hash_translated(hasher: &RandomState, conn: &Conn) -> u64 {
    conn.translated().map_or(0, |tuple| hasher.hash_one(tuple))
}

impl ConnTable {
    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn get(&self, slot: Slot) -> &Conn {
        at(&self.conns, slot.0)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Conn {
        &mut self.conns[slot.0 as usize]
    }

    pub(super) fn by_id(&self, id: ConnId) -> Option<Slot> {
        self.by_id
            .find(self.hasher.hash_one(id), |&s| at(&self.conns, s).id == id)
            .map(|&s| Slot(s))
    }

    /// Whether a row is live and waits for its entry.
    pub(super) fn is_unbound(&self, row: ConnId) -> bool {
        self.by_id(row)
            .is_some_and(|slot| matches!(self.get(slot).side, Side::Unbound { .. }))
    }

    /// The connections that wait for an entry of this flow: one, or one for each user whose packet was granted.
    pub(super) fn unbound(&self, flow: Flow) -> impl Iterator<Item = Slot> {
        self.unbound
            .iter_hash(self.hasher.hash_one(flow))
            .filter(move |&&s| at(&self.conns, s).shown_flow() == Some(flow))
            .map(|&s| Slot(s))
    }

    pub(super) fn bound(&self, flow: &Flow) -> Option<Slot> {
        self.bound
            .find(self.hasher.hash_one(flow), |&s| {
                at(&self.conns, s).original_flow() == *flow
            })
            .map(|&s| Slot(s))
    }

    /// The connection that is bound to this very entry.
    pub(super) fn bound_to(&self, flow: &Flow, ct_id: u32) -> Option<Slot> {
        self.bound
            .find(self.hasher.hash_one(flow), |&s| {
                let conn = at(&self.conns, s);
                conn.original_flow() == *flow
                    && matches!(conn.side, Side::Bound { ct_id: id, .. } if id == ct_id)
            })
            .map(|&s| Slot(s))
    }

    /// The newest connection between these ends, on whichever gateway and in whichever zone, and whether they are of its
    /// original direction.
    pub(super) fn find(
        &self,
        gateways: impl Iterator<Item = GatewayIdx>,
        tuple: &Tuple,
    ) -> Option<(Slot, bool)> {
        let mut newest: Option<(ConnId, Slot, bool)> = None;
        let mut consider = |slot: Slot| {
            let conn = self.get(slot);
            if newest.is_none_or(|(id, ..)| conn.id > id) {
                newest = Some((conn.id, slot, conn.original == *tuple));
            }
        };
        for gateway in gateways {
            for &zone in &self.zones {
                let flow = Flow {
                    gateway,
                    zone,
                    tuple: *tuple,
                };
                self.bound(&flow).into_iter().for_each(&mut consider);
                self.unbound(flow).for_each(&mut consider);
            }
        }
        self.translated
            .iter_hash(self.hasher.hash_one(tuple))
            .filter(|&&slot| at(&self.conns, slot).translated() == Some(*tuple))
            .for_each(|&slot| consider(Slot(slot)));
        newest.map(|(_, slot, original)| (slot, original))
    }

    /// Adds a connection. The caller has made sure that no other is bound to the same tuple.
    pub(super) fn insert(&mut self, conn: Conn) -> Slot {
        let id = conn.id;
        self.zones.insert(conn.zone);
        if self.conns.len() == self.conns.capacity() {
            // Doubling would leave up to half of the largest table empty.
            let more = (self.conns.len() / 8).max(LEAST_GROWTH);
            self.conns.reserve_exact(more);
        }
        let slot = u32::try_from(self.conns.insert(conn)).unwrap_or(u32::MAX);
        let Self {
            conns, by_id, hasher, ..
        } = self;
        by_id.insert_unique(hasher.hash_one(id), slot, |&s| hasher.hash_one(at(conns, s).id));
        self.link(Slot(slot));
        Slot(slot)
    }

    fn link(&mut self, slot: Slot) {
        let Self {
            conns,
            unbound,
            bound,
            translated,
            hasher,
            ..
        } = self;
        let conn = at(conns, slot.0);
        if let Some(tuple) = conn.translated() {
            translated.insert_unique(hasher.hash_one(tuple), slot.0, |&s| {
                hash_translated(hasher, at(conns, s))
            });
        }
        match conn.shown_flow() {
            Some(flow) => {
                unbound.insert_unique(hasher.hash_one(flow), slot.0, |&s| {
                    hash_shown(hasher, at(conns, s))
                });
            }
            None => {
                bound.insert_unique(hasher.hash_one(conn.original_flow()), slot.0, |&s| {
                    hasher.hash_one(at(conns, s).original_flow())
                });
            }
        }
    }

    /// Takes a connection out.
    pub(super) fn remove(&mut self, slot: Slot) -> Conn {
        self.unlink(slot);
        let id = self.get(slot).id;
        if let Ok(entry) = self.by_id.find_entry(self.hasher.hash_one(id), |&s| s == slot.0) {
            entry.remove();
        }
        let conn = self.conns.remove(slot.0 as usize);
        if let Some(who) = conn.who {
            self.who.release(who);
        }
        conn
    }

    /// The entry is this connection's own: its tuples, id and mark are known from here on.
    pub(super) fn bind(&mut self, slot: Slot, entry: &CtEntry, born: Option<Timestamp>, seen_in: u32) {
        self.unlink(slot);
        let conn = self.get_mut(slot);
        conn.original = entry.original;
        conn.side = Side::Bound {
            ct_id: entry.id,
            reply: entry.reply,
        };
        conn.mark = entry.mark;
        conn.born = born;
        conn.seen_in = seen_in;
        self.link(slot);
    }

    /// Its entry is gone, and it waits for another that a later packet of its flow makes.
    pub(super) fn unbind(&mut self, slot: Slot, shown: Tuple) {
        self.unlink(slot);
        self.get_mut(slot).side = Side::Unbound { shown };
        self.link(slot);
    }

    /// The connections at `count` places from a place on, and the next place; `None` at the table's end.
    pub(super) fn part(&self, from: usize, count: usize) -> (Vec<Slot>, Option<usize>) {
        let end = from.saturating_add(count);
        let slots = (from..end.min(self.conns.capacity()))
            .filter(|&place| self.conns.contains(place))
            .map(|place| Slot(u32::try_from(place).unwrap_or(u32::MAX)))
            .collect();
        (slots, (end < self.conns.capacity()).then_some(end))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Conn)> {
        self.conns
            .iter()
            .map(|(slot, conn)| (Slot(u32::try_from(slot).unwrap_or(u32::MAX)), conn))
    }

    fn unlink(&mut self, slot: Slot) {
        let conn = at(&self.conns, slot.0);
        if let Some(tuple) = conn.translated()
            && let Ok(entry) = self
                .translated
                .find_entry(self.hasher.hash_one(tuple), |&s| s == slot.0)
        {
            entry.remove();
        }
        let (table, hash) = match conn.shown_flow() {
            Some(flow) => (&mut self.unbound, self.hasher.hash_one(flow)),
            None => (&mut self.bound, self.hasher.hash_one(conn.original_flow())),
        };
        if let Ok(entry) = table.find_entry(hash, |&s| s == slot.0) {
            entry.remove();
        }
    }
}

/// Whether the entry is older than the connection whose first packet the gateway received at `received`: it was
/// confirmed, or the kernel told something of it, before that. All times are the gateway's.
pub(super) fn too_old(entry: &CtEntry, told: Option<Timestamp>, received: Timestamp) -> bool {
    entry.start.is_some_and(|start| start < received) || told.is_some_and(|told| told < received)
}
