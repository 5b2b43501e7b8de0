//! Who is behind a connection whose row is in the spool and not yet where others look it up.
//!
//! Bounded, in memory, and only as good as what was spooled since it was last cleared; the database knows all others.

use nufw_proto::{ConnId, Ports, Tuple};
use nulog::{Change, User};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rows that are known; above it the oldest are forgotten here, not in the spool.
const ROWS: usize = 262_144;

/// A live row that is in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledRow {
    /// The row's id.
    pub id: ConnId,
    /// The user, if it has one.
    pub user: Option<User>,
    /// The gateway it passes.
    pub gateway: Arc<str>,
    /// Whether it was found by the original direction, as the client's side sees it.
    pub original: bool,
}

struct Known {
    row: SpooledRow,
    source: Tuple,
    /// Under which tuples it is found.
    tuples: Vec<Tuple>,
}

/// The rows, by what a look-up may ask for.
#[derive(Default)]
pub(super) struct SpoolIndex {
    rows: BTreeMap<ConnId, Known>,
    by_tuple: HashMap<Tuple, ConnId>,
}

impl SpoolIndex {
    /// Notes what was put into the spool.
    pub(super) fn note(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Open(open) => {
                    let row = SpooledRow {
                        id: open.id,
                        user: open.user.clone(),
                        gateway: Arc::clone(&open.gateway),
                        original: false,
                    };
                    let known = Known {
                        row,
                        source: open.original,
                        tuples: Vec::new(),
                    };
                    self.rows.insert(open.id, known);
                    self.name(open.id, open.original);
                    self.name(open.id, open.shown);
                    if self.rows.len() > ROWS
                        && let Some(oldest) = self.rows.keys().next().copied()
                    {
                        self.remove(oldest);
                    }
                }
                Change::Established(established) => {
                    let Some(binding) = established.binding else {
                        continue;
                    };
                    if let Some(known) = self.rows.get_mut(&established.id) {
                        known.source = binding.original;
                    }
                    self.name(established.id, binding.original);
                    // As whoever is asked sees it: from the translated source to the service itself.
                    if let Some(seen) = reversed(&binding.reply) {
                        self.name(established.id, seen);
                    }
                }
                Change::Close(close) => self.remove(close.id),
                _ => {}
            }
        }
    }

    pub(super) fn find(&self, tuple: &Tuple) -> Option<SpooledRow> {
        let id = self.by_tuple.get(tuple)?;
        let known = self.rows.get(id)?;
        Some(SpooledRow {
            original: known.source == *tuple,
            ..known.row.clone()
        })
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The newest row of a tuple is the one that counts.
    fn name(&mut self, id: ConnId, tuple: Tuple) {
        let Some(known) = self.rows.get_mut(&id) else {
            return;
        };
        if !known.tuples.contains(&tuple) {
            known.tuples.push(tuple);
        }
        let newest = self.by_tuple.entry(tuple).or_insert(id);
        *newest = (*newest).max(id);
    }

    fn remove(&mut self, id: ConnId) {
        let Some(known) = self.rows.remove(&id) else {
            return;
        };
        for tuple in known.tuples {
            if self.by_tuple.get(&tuple) == Some(&id) {
                self.by_tuple.remove(&tuple);
            }
        }
    }
}

/// The other direction's addresses and ports.
fn reversed(tuple: &Tuple) -> Option<Tuple> {
    let transport = match tuple.transport().ports() {
        Some(Ports { src, dst }) => tuple.transport().with_ports(Ports { src: dst, dst: src }),
        None => tuple.transport(),
    };
    Tuple::new(tuple.dst(), tuple.src(), transport).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::{Addr, Mark, Timestamp, Transport};
    use nulog::{Binding, Close, CloseReason, Established, OpenRow};

    fn tuple(src: &str, sport: u16, dst: &str, dport: u16) -> Tuple {
        let addr = |text: &str| text.parse::<Addr>().unwrap();
        let ports = Transport::Tcp(Ports {
            src: sport,
            dst: dport,
        });
        Tuple::new(addr(src), addr(dst), ports).unwrap()
    }

    fn open(id: u64, original: Tuple) -> Change {
        let text = || Arc::from("");
        Change::Open(Box::new(OpenRow {
            id: ConnId::try_from(id).unwrap(),
            gateway: Arc::from("gw1"),
            received: Timestamp::from_micros(0),
            prefix: text(),
            mark: Mark(0),
            in_dev: text(),
            out_dev: text(),
            phys_in: text(),
            phys_out: text(),
            zone: 0,
            original,
            shown: original,
            user: Some(User {
                id,
                name: Arc::from(format!("user{id}")),
            }),
            client_os: None,
            client_app: None,
            acl: text(),
            parent: None,
            policy: Arc::from(""),
            auth: None,
        }))
    }

    #[test]
    fn a_live_row_is_found_from_both_ends_and_a_closed_one_no_more() {
        let original = tuple("10.0.0.1", 1000, "192.0.2.1", 80);
        let reply = tuple("192.0.2.1", 80, "198.51.100.1", 2000);
        let id = ConnId::try_from(1).unwrap();
        let mut index = SpoolIndex::default();
        let binding = Binding {
            ct_id: 1,
            ct_mark: Mark(0),
            original,
            reply,
        };
        let at = None;
        index.note(&[
            open(1, original),
            Change::Established(Box::new(Established {
                id,
                at,
                binding: Some(binding),
            })),
        ]);
        for (asked, side) in [
            (original, true),
            (tuple("198.51.100.1", 2000, "192.0.2.1", 80), false),
        ] {
            let found = index.find(&asked).unwrap();
            assert_eq!((found.id, found.original), (id, side), "{asked:?}");
        }
        assert_eq!(index.find(&reply), None);
        // The same tuple again: the newest counts, and outlives the end of the older.
        index.note(&[open(2, original)]);
        let close = |id| {
            Change::Close(Box::new(Close {
                id,
                at: None,
                reason: CloseReason::Finished,
                counters: None,
                binding: None,
            }))
        };
        index.note(&[close(id)]);
        assert_eq!(&*index.find(&original).unwrap().user.unwrap().name, "user2");
        index.note(&[close(ConnId::try_from(2).unwrap())]);
        assert_eq!(index.find(&original), None);
        assert!(index.by_tuple.is_empty() && index.rows.is_empty());
    }
}
