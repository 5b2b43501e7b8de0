//! What a bystander who sees everything knows, and what must be true whatever happens.

use crate::client::identity;
use crate::flood::Flood;
use crate::journal::{Journal, Row};
use crate::kernel::{Kernel, Told, stamp};
use nuauth_server::engine::{Decision, Identity, Judge, Levels, Limits, LogMode, Ruling, Subject};
use nufw_proto::{Addr, ConnId, Counters, CtEventKind, Mark, Removal, SessionId, Timestamp, Tuple};
use nulog::{Close, CloseReason, OpenRow, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long an early claim counts, microseconds.
const EARLY: u64 = 5_000_000;
/// How long a drop is remembered, microseconds.
const DROP_MEMORY: u64 = 60_000_000;

/// The life of one kernel entry.
#[derive(Debug)]
struct Record {
    gateway: usize,
    /// The row under which the packet that made it was accepted.
    row: ConnId,
    /// What that packet showed, whose it was, and when it was accepted.
    shown: Tuple,
    mark: Mark,
    at: Timestamp,
    /// Its counters at its end, when that was, and whether a program brought it about.
    end: Option<Counters>,
    ended: Option<(Timestamp, Removal)>,
    /// The event of its end will never reach the server.
    end_lost: bool,
}

/// Every entry that any kernel ever confirmed.
#[derive(Debug, Default)]
pub(crate) struct Records(Vec<Record>);

impl Records {
    pub(crate) fn confirmed(
        &mut self,
        gateway: usize,
        row: ConnId,
        shown: Tuple,
        mark: Mark,
        at: Timestamp,
    ) -> usize {
        self.0.push(Record {
            gateway,
            row,
            shown,
            mark,
            at,
            end: None,
            ended: None,
            end_lost: false,
        });
        self.0.len() - 1
    }

    pub(crate) fn destroyed(
        &mut self,
        record: usize,
        counters: Option<Counters>,
        removal: Removal,
        at: Timestamp,
    ) {
        self.0[record].end = counters;
        self.0[record].ended = Some((at, removal));
    }

    pub(crate) fn lost(&mut self, told: &Told) {
        if told.event.kind == CtEventKind::Destroy {
            self.0[told.record].end_lost = true;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The policy of this world, in one of its versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) version: u8,
    /// Two bits for each kind of connection: its log mode.
    pub(crate) modes: u8,
}

impl Policy {
    fn log_of(self, tuple: &Tuple) -> LogMode {
        let kind = match tuple.transport().ports().map(|ports| ports.dst) {
            Some(443) => 0,
            Some(23) => 2,
            Some(25) => 4,
            _ => 6,
        };
        match (self.modes >> kind) & 3 {
            0 => LogMode::Default,
            1 => LogMode::Sync,
            2 => LogMode::Async,
            _ => LogMode::None,
        }
    }
}

impl Judge for Policy {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        let tuple = subject.tuple;
        let is_first = subject.user.is_some_and(|user| user.user.id == 1);
        let port = tuple.transport().ports().map(|ports| ports.dst);
        let decision = match port {
            Some(25) => Decision::Reject,
            Some(23) => Decision::Drop,
            // One version forbids the web to one user.
            Some(443) if self.version == 1 && is_first => Decision::Drop,
            _ => Decision::Accept,
        };
        Ruling {
            decision,
            rule: Arc::from("rule"),
            prefix: Arc::from(""),
            log: self.log_of(tuple),
            expires: None,
            until: None,
            mark: Mark(0),
        }
    }
}

fn is_adopted(open: &OpenRow) -> bool {
    &*open.acl == "(adopted)"
}

/// Whether a row that was made of a table's entry is of this one.
fn adopted_from(open: &OpenRow, record: &Record) -> bool {
    *open.gateway == format!("gw{}", record.gateway)
        && (open.shown, open.mark, open.received) == (record.shown, record.mark, record.at)
}

/// The user whose number a mark is.
fn user_of(mark: Mark) -> u64 {
    u64::from(mark.0) - 1
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// Whether things may go wrong; nothing does while the end is awaited.
    pub(crate) faulty: bool,
    pub(crate) records: Records,
    /// Addresses of the sessions, as far as the clients have shown them.
    pub(crate) held: BTreeMap<SessionId, BTreeSet<Addr>>,
    /// The policy in force.
    pub(crate) policy: Policy,
    /// What is logged where a rule does not say it, and which rows are written at all.
    log_sync: bool,
    levels: Option<Levels>,
    pub(crate) flood: Flood,
    /// What happened in this life, to show that lives are worth something.
    pub(crate) seen: BTreeSet<&'static str>,
    /// Rows that their packets waited for.
    urgent: BTreeSet<ConnId>,
    /// Packets of these tuples were accepted before their row was durable, or without one: a crash can leave them without,
    /// and an older row of the tuple can take what is told of them.
    unsure: BTreeSet<Tuple>,
    /// When a user last claimed a tuple validly.
    claims: BTreeMap<(Tuple, u64), u64>,
    /// When rows were accepted first.
    accepted: BTreeMap<ConnId, u64>,
    /// Rows that were granted again later.
    regranted: BTreeSet<ConnId>,
    /// Rows whose end was ordered.
    pub(crate) ordered: BTreeSet<ConnId>,
    /// Ids that the present and earlier servers used.
    used: BTreeSet<ConnId>,
    /// Drops that must be remembered: their last packet.
    drops: BTreeMap<(Arc<str>, u16, Tuple), u64>,
    /// When rows were closed last.
    closed: BTreeMap<ConnId, u64>,
    server_crashes: Vec<u64>,
}

impl Reference {
    pub(crate) fn new(limits: &Limits, modes: u8) -> Self {
        Self {
            faulty: true,
            log_sync: limits.log_sync,
            levels: Some(limits.levels),
            flood: Flood::new(limits),
            policy: Policy { version: 0, modes },
            ..Self::default()
        }
    }

    /// How a connection that is accepted is logged.
    fn mode(&self, shown: &Tuple) -> LogMode {
        match self.policy.log_of(shown) {
            _ if self.levels.is_some_and(|levels| !levels.connections) => LogMode::None,
            LogMode::Default if self.log_sync => LogMode::Sync,
            LogMode::Default => LogMode::Async,
            mode => mode,
        }
    }

    pub(crate) fn claimed(&mut self, user: &Identity, tuple: &Tuple, seen: &Tuple, now: u64) {
        let port = |tuple: &Tuple| tuple.transport().ports().map(|ports| ports.src);
        let same_source =
            seen.src() == tuple.src() && seen.protocol() == tuple.protocol() && port(seen) == port(tuple);
        if same_source {
            self.claims.insert((*tuple, user.user.id), now);
        }
    }

    /// The engine opens a row: somebody has just claimed it, or announced it a moment ago.
    pub(crate) fn opens(&mut self, open: &OpenRow, (urgent, async_full): (bool, bool), now: u64) {
        assert!(self.used.insert(open.id), "id {} was used twice", open.id);
        if is_adopted(open) {
            assert!(!urgent, "nobody waits for the adopted row {}", open.id);
            let known = self.records.0.iter().any(|record| adopted_from(open, record));
            assert!(
                known,
                "row {} is of a connection that never was: {open:?}",
                open.id
            );
            self.seen.insert("adopted");
            return;
        }
        self.assert_claimed(open, now);
        match self.mode(&open.shown) {
            LogMode::Sync => assert!(urgent, "the packet of row {} does not wait for it", open.id),
            LogMode::Async => assert!(!urgent || async_full, "a packet waits for row {}", open.id),
            mode => panic!("row {} is written under mode {mode:?}", open.id),
        }
        if urgent {
            self.urgent.insert(open.id);
        }
        self.forget_drop(&open.gateway, open.zone, open.shown);
    }

    fn assert_claimed(&self, open: &OpenRow, now: u64) {
        let user = open.user.as_ref().expect("a granted row has a user").id;
        self.assert_rightful(open.id, user, &open.shown, now);
    }

    fn assert_rightful(&self, row: ConnId, user: u64, shown: &Tuple, now: u64) {
        let claimed = self.claims.get(&(*shown, user));
        assert!(
            claimed.is_some_and(|at| at + EARLY >= now),
            "row {row} was granted to {user} without a claim"
        );
        let who = identity(usize::try_from(user).expect("small"));
        assert_eq!(
            self.policy
                .judge(&Subject::new(Some(&who), shown, Timestamp::from_micros(0)))
                .decision,
            Decision::Accept,
            "row {row} was granted against the policy"
        );
    }

    /// The engine writes a DROP row.
    pub(crate) fn drops(&mut self, row: &OpenRow, now: u64) {
        assert!(self.used.insert(row.id), "id {} was used twice", row.id);
        let by_rule = &*row.acl == "rule";
        assert!(
            self.levels.is_none_or(|levels| levels.drops)
                && !(by_rule && self.policy.log_of(&row.shown) == LogMode::None),
            "the drop {} has a row although it must have none",
            row.id
        );
        self.flood.row(row, now);
        let flow = (Arc::clone(&row.gateway), row.zone, row.shown);
        if let Some(last) = self.drops.insert(flow, now) {
            assert!(
                now >= last + DROP_MEMORY,
                "{} got a second DROP row for one connect",
                row.shown
            );
        }
    }

    /// A packet was refused: the drop of its flow is remembered anew, if it is.
    pub(crate) fn refused(&mut self, gateway: &Arc<str>, zone: u16, tuple: Tuple, now: u64) {
        if let Some(last) = self.drops.get_mut(&(Arc::clone(gateway), zone, tuple))
            && now < *last + DROP_MEMORY
        {
            *last = now;
        }
    }

    /// What was dropped is accepted.
    pub(crate) fn forget_drop(&mut self, gateway: &Arc<str>, zone: u16, tuple: Tuple) {
        self.drops.remove(&(Arc::clone(gateway), zone, tuple));
    }

    pub(crate) fn forget_drops_from(&mut self, source: Addr) {
        self.drops.retain(|(_, _, tuple), _| tuple.src() != source);
    }

    pub(crate) fn forget_drops(&mut self) {
        self.drops.clear();
    }

    pub(crate) fn server_crashed(&mut self, now: u64) {
        self.server_crashes.push(now);
        self.flood.server_crashed();
        self.forget_drops();
    }

    pub(crate) fn closes(&mut self, close: &Close, now: u64) {
        let row = close.id;
        let killed = matches!(
            close.reason,
            CloseReason::KilledSession | CloseReason::KilledRemoved | CloseReason::KilledPolicy
        );
        assert!(
            !killed || self.ordered.contains(&row),
            "row {row} says {:?}, which was not ordered",
            close.reason
        );
        self.closed.insert(row, now);
    }

    /// An accepting verdict leaves the server.
    pub(crate) fn accepts(
        &mut self,
        journal: &Journal,
        (row, mark): (ConnId, Mark),
        asked: &Tuple,
        now: u64,
    ) {
        if row == ConnId::UNLOGGED {
            self.assert_rightful(row, user_of(mark), asked, now);
            assert_eq!(
                self.mode(asked),
                LogMode::None,
                "{asked} was accepted without a row"
            );
            self.unsure.insert(*asked);
            self.seen.insert("none");
            return;
        }
        let durable = journal.rows.get(&row);
        if self.urgent.contains(&row) {
            let durable = durable.unwrap_or_else(|| panic!("row {row} was accepted before it was durable"));
            assert_ne!(durable.state, State::Drop, "a DROP row {row} was accepted");
            self.seen.insert("sync");
        } else {
            self.unsure.insert(*asked);
            self.seen.insert("async");
        }
        let again = *self.accepted.entry(row).or_insert(now) != now;
        if again {
            self.regranted.insert(row);
        }
        if let Some(durable) = durable {
            assert_eq!(
                durable.open.shown, *asked,
                "the row of another connection was given"
            );
            if again {
                self.assert_claimed(&durable.open, now);
            }
        }
    }

    /// The rows that an entry may stand under: the one that its packet was granted under. Where one was granted again,
    /// packets have crossed their verdicts, and it may be another of the same user and tuple; so may it after a crash, since
    /// the log knows of a row that waits only when its packet came.
    fn rows_of<'a>(&'a self, record: &Record, journal: &'a Journal) -> impl Iterator<Item = &'a Row> {
        let own = journal.rows.get(&record.row).map(|own| &own.open);
        let adopted = |row: &Row| is_adopted(&row.open) && adopted_from(&row.open, record);
        let unlogged = record.row == ConnId::UNLOGGED;
        let crossed = |id| self.regranted.contains(&id) || !self.server_crashes.is_empty();
        journal.rows.values().filter(move |row| {
            if is_adopted(&row.open) {
                return adopted(row);
            }
            if unlogged {
                return self.crossed_unlogged(record, row);
            }
            own.is_some_and(|own| {
                let row = &row.open;
                let kin = (&row.gateway, row.shown, &row.user) == (&own.gateway, own.shown, &own.user);
                row.id == own.id || (kin && (crossed(row.id) || crossed(own.id)))
            })
        })
    }

    /// Whether a row may stand for the connection of a packet that was accepted without one: another packet of it, which was
    /// queued before, was decided under another policy, before or after; or the end of the row's own connection was lost, and its tuple was
    /// used again.
    fn crossed_unlogged(&self, record: &Record, row: &Row) -> bool {
        let open = &row.open;
        *open.gateway == format!("gw{}", record.gateway)
            && open.shown == record.shown
            && open.user.as_ref().map(|user| user.id) == Some(user_of(record.mark))
            && open.received <= record.at
            && (!self.server_crashes.is_empty()
                || self.regranted.contains(&open.id)
                || self
                    .records
                    .0
                    .iter()
                    .all(|other| other.row != open.id || other.end_lost || other.at >= record.at))
    }

    /// Where the end of a session ends its connections, nobody has a live one without a session at its source. A server
    /// that crashes forgets whose session was over.
    pub(crate) fn assert_ended(&self, journal: &Journal, present: impl Fn(u64, Addr) -> bool) {
        if !self.server_crashes.is_empty() {
            return;
        }
        for row in journal.rows.values() {
            let user = row.open.user.as_ref().map(|user| user.id);
            if matches!(row.state, State::Open | State::Established)
                && let Some(user) = user
            {
                assert!(
                    present(user, row.open.shown.src()),
                    "user {user} has left, and has the live connection {row:?}"
                );
            }
        }
    }

    /// Everything is connected, everything is durable, every table was dumped.
    pub(crate) fn assert_settled(&self, journal: &Journal, kernels: &[Kernel], names: &[Arc<str>]) {
        let uncertain = |row: &Row| {
            // Without waiting for the log, the row of the entry may be lost and an older one of its tuple take its place.
            self.unsure.contains(&row.open.shown)
                && self
                    .server_crashes
                    .iter()
                    .any(|&at| stamp(at) >= row.open.received)
        };
        let is_live = |row: &Row| matches!(row.state, State::Open | State::Established);
        let mut live: BTreeMap<ConnId, usize> = BTreeMap::new();
        for entry in kernels.iter().flat_map(|kernel| kernel.table.values()) {
            let record = &self.records.0[entry.record];
            let row = self.rows_of(record, journal).find(|row| is_live(row));
            if !journal.rows.contains_key(&record.row) {
                // Without waiting for the log, a crash of the server can lose what it has granted.
                assert!(
                    !self.urgent.contains(&record.row),
                    "the accepted row {} is not in the log",
                    record.row
                );
                if let Some(row) = row {
                    *live.entry(row.open.id).or_default() += 1;
                }
                continue;
            }
            let taken = |row: &Row| {
                let mut unlogged = self.records.0.iter().filter(|r| r.row == ConnId::UNLOGGED);
                unlogged.any(|unlogged| self.crossed_unlogged(unlogged, row))
            };
            if row.is_none() && journal.rows.get(&record.row).is_some_and(taken) {
                // Its packet crossed the verdict of one that was accepted without a row, and whose entry took this row.
                continue;
            }
            if row.is_none() && self.regranted.contains(&record.row) && !self.server_crashes.is_empty() {
                // That a row was granted again is not in the log: a packet that crosses its verdict at the very time of a
                // crash can be taken for one of the entry before.
                continue;
            }
            let row = row.unwrap_or_else(|| {
                let row = journal.rows.get(&record.row);
                panic!(
                    "the live connection {} has no live row but {row:?}",
                    entry.ct.original
                )
            });
            *live.entry(row.open.id).or_default() += 1;
        }
        for row in journal
            .rows
            .values()
            .filter(|row| is_live(row) && !uncertain(row))
        {
            let id = row.open.id;
            let entries = live.get(&id).copied().unwrap_or(0);
            assert_eq!(
                entries, 1,
                "the live row {id} has {entries} live connections: {row:?}"
            );
        }
        let mut by_row: BTreeMap<ConnId, Vec<&Record>> = BTreeMap::new();
        for record in &self.records.0 {
            for row in self.rows_of(record, journal) {
                by_row.entry(row.open.id).or_default().push(record);
            }
        }
        let closed = journal.rows.values().filter(|row| row.state == State::Close);
        for row in closed.filter(|row| !uncertain(row)) {
            let entries = by_row.get(&row.open.id).map_or(&[][..], Vec::as_slice);
            self.assert_told_truly(journal, row, entries, names);
        }
    }

    /// The reason of a closed row is true, and so is the bound of an end that was not seen.
    fn assert_reason(&self, journal: &Journal, row: &Row, entries: &[&Record]) {
        let id = row.open.id;
        let packets = |counters: Counters| counters.original.packets + counters.reply.packets;
        let carried: u64 = entries.iter().filter_map(|record| record.end).map(packets).sum();
        assert!(
            row.interim <= carried,
            "row {id} was said to carry more than it did: {row:?}, {entries:?}"
        );
        // One that was granted again, or whose packet crossed another's, may stand for several entries.
        let [record] = entries else { return };
        let kin = |other: &Row| other.open.id != id;
        if record.row != id || self.regranted.contains(&id) || self.rows_of(record, journal).any(kin) {
            return;
        }
        let reason = row.reason.expect("a closed row has a reason");
        assert!(
            reason != CloseReason::NeverConfirmed,
            "row {id} is said never to have been confirmed: {row:?}, {record:?}"
        );
        let Some((at, removal)) = record.ended else { return };
        if reason.is_inferred() {
            assert!(
                row.end.is_none_or(|end| end >= at),
                "row {id} ended after the bound of its end: {row:?}, {record:?}"
            );
        }
        assert!(
            reason != CloseReason::Deleted || removal == Removal::ByProgram,
            "row {id} was not deleted: {row:?}, {record:?}"
        );
    }

    /// A closed row says what the kernel said of its own connection, or nothing.
    fn assert_told_truly(&self, journal: &Journal, row: &Row, entries: &[&Record], names: &[Arc<str>]) {
        let id = row.open.id;
        self.assert_reason(journal, row, entries);
        if let Some(counters) = row.counters {
            let ends: Vec<Counters> = entries.iter().filter_map(|record| record.end).collect();
            // A row that was granted again can have seen several entries of its tuple, and has the sum of them.
            let packets = |counters: &Counters| counters.original.packets + counters.reply.packets;
            let all: u64 = ends.iter().map(packets).sum();
            let sum = self.regranted.contains(&id) && packets(&counters) <= all;
            assert!(
                ends.contains(&counters) || sum,
                "row {id} has the counters of another connection: {row:?}, {entries:?}"
            );
            return;
        }
        for record in entries {
            assert_eq!(
                names[record.gateway], row.open.gateway,
                "row {id} is of another gateway"
            );
            if record.row != id || record.end.is_none() || record.end_lost || self.regranted.contains(&id) {
                continue;
            }
            let packets = |counters: Counters| counters.original.packets + counters.reply.packets;
            let holds = |row: &Row| {
                // One that was granted again has the sum of its entries.
                let sum = self.regranted.contains(&row.open.id)
                    && row.counters.map(packets) >= record.end.map(packets);
                row.open.id != id && (row.counters == record.end || sum)
            };
            if self.rows_of(record, journal).any(holds) {
                // It stands in the row of its kin.
                continue;
            }
            // Its end was told. Only a row that was closed without it, by a server that then forgot it, may lack it.
            let closed = self.closed.get(&id).copied().unwrap_or(0);
            let forgot = self.server_crashes.iter().any(|&at| at >= closed);
            let unseen = matches!(
                row.reason,
                Some(
                    CloseReason::Superseded
                        | CloseReason::Replaced
                        | CloseReason::Resync
                        | CloseReason::NeverConfirmed
                        | CloseReason::Untracked
                        | CloseReason::KilledSession
                        | CloseReason::KilledRemoved
                        | CloseReason::KilledPolicy
                )
            );
            assert!(
                unseen && forgot,
                "row {id} lacks the counters that the kernel told: {row:?}, {record:?}"
            );
        }
    }
}
