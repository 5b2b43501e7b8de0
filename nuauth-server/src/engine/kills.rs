//! Ending live connections whose right is over: which, why, and until when their gateway is told again.
//!
//! Everything happens at a tick, in bounded portions. No row is closed here: only the kernel's own end closes it, in
//! `events`, or its absence, in `dumps`.

use super::conns::{Conn, Side, Slot};
use super::gateways::GatewayIdx;
use super::subject::Subject;
use super::types::{Decision, Effect, Identity, LinkId, Now};
use super::{Engine, Outcome, Refused};
use nufw_proto::gateway::{Expiry, KillStep, Killed, Live, ToAgent};
use nufw_proto::{Addr, Batch, ConnId, MAX_BATCH, Timestamp};
use nulog::CloseReason;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// An end is ordered again when nothing was heard of the order for so long.
const REPEAT: Duration = Duration::from_secs(15);
/// The agent takes up to 30 s to end what it refuses already; its event has this much longer to come.
const REFUSED_FOR: Duration = Duration::from_secs(45);
/// An entry that is gone has told so by an event within this time, or the event was lost.
const EVENT_PATIENCE: Duration = Duration::from_secs(5);
/// Ends that are looked at in one tick; more of them wait for the next.
const LOOKED_AT: usize = 16 * MAX_BATCH;
/// How long an end waits that found the batch of its gateway full: until the next tick.
const NEXT_TICK: Duration = Duration::from_millis(100);
/// Places of the table of connections that are judged again in one tick: some milliseconds.
const JUDGED: usize = 20_000;
/// Addresses that wait for their user to come back. Of a further one the grace is over at once.
const MAX_DEPARTURES: usize = 65_536;

/// What becomes of live connections when the right to them is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnEnd {
    /// They go on.
    #[default]
    Keep,
    /// They are ended.
    Kill,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Its client said goodbye.
    LoggedOut,
    /// Its connection was lost; the client may come back in a moment.
    Lost,
    /// Its user was thrown out: is not known any more, or has a revoked certificate.
    Removed,
}

/// Which refusals are told to the sender, where no rule says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejects {
    /// No client claimed the connection in time.
    pub timeout: bool,
    /// Every client at its source says that it is not its user's.
    pub disclaimed: bool,
    /// Nobody is logged in at its source.
    pub nobody: bool,
}

impl Rejects {
    /// Whether the sender of a packet with this outcome is told.
    pub(super) fn tells(self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Refused(Refused::ByRule { reject }) => reject,
            Outcome::Refused(Refused::Timeout) => self.timeout,
            Outcome::Refused(Refused::Disclaimed) => self.disclaimed,
            Outcome::Refused(Refused::Nobody) => self.nobody,
            Outcome::Granted { .. } | Outcome::Refused(Refused::Unlogged | Refused::Full) => false,
        }
    }
}

/// A connection that is to end.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    why: CloseReason,
    /// When it is ordered (again); `None` while it waits for its entry or its gateway.
    due: Option<Duration>,
    /// Its gateway was told: an end that is seen from here on is ours.
    ordered: bool,
    /// The agent says that the entry is gone, and nothing else has said so.
    gone: bool,
    /// The agent says that its packets are refused.
    refused: bool,
}

/// The table of connections is being judged again.
#[derive(Debug, Clone, Copy)]
struct Judging {
    next: usize,
    /// Only the ends are sought that rules set, of rows of an earlier run.
    first: bool,
}

/// What is to end, and when.
#[derive(Default)]
pub(super) struct Kills {
    /// As many as there are live connections at most.
    wanted: BTreeMap<ConnId, Wanted>,
    due: BTreeSet<(Duration, ConnId)>,
    /// Addresses that users have left, with the time of grace and the reason.
    departures: BTreeMap<(Duration, u64, Addr), CloseReason>,
    /// The ends that rules have set, by row and by time.
    ends: BTreeMap<ConnId, Duration>,
    ending: BTreeSet<(Duration, ConnId)>,
    /// Those of which the kernel is still to be told; it is when they were answered.
    untold: BTreeSet<ConnId>,
    /// Rows whose entries outlive them and are deleted for that reason.
    let_go: BTreeSet<ConnId>,
    /// The users by id; `None` until they are told the first time.
    users: Option<HashMap<u64, Arc<Identity>>>,
    judging: Option<Judging>,
}

impl Kills {
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// A rule lets the connection live until then.
    pub(super) fn ends_at(&mut self, row: ConnId, at: Duration) {
        if let Some(before) = self.ends.insert(row, at) {
            self.ending.remove(&(before, row));
        }
        self.ending.insert((at, row));
        self.untold.insert(row);
    }

    /// The kernel is told (again) when its time ends, if that is limited.
    pub(super) fn tell_end(&mut self, row: ConnId) {
        if self.ends.contains_key(&row) {
            self.untold.insert(row);
        }
    }

    fn want(&mut self, row: ConnId, why: CloseReason) {
        self.wanted.entry(row).or_insert_with(|| {
            self.due.insert((Duration::ZERO, row));
            Wanted {
                why,
                due: Some(Duration::ZERO),
                ordered: false,
                gone: false,
                refused: false,
            }
        });
    }

    fn set_due(&mut self, row: ConnId, due: Option<Duration>) {
        if let Some(wanted) = self.wanted.get_mut(&row) {
            if let Some(before) = wanted.due {
                self.due.remove(&(before, row));
            }
            wanted.due = due;
            self.due.extend(due.map(|at| (at, row)));
        }
    }

    /// Its entry is known from here on.
    pub(super) fn on_bound(&mut self, row: ConnId) {
        self.set_due(row, Some(Duration::ZERO));
        self.tell_end(row);
    }

    /// Whether its gateway was told to end it.
    pub(super) fn is_ordered(&self, row: ConnId) -> bool {
        self.wanted.get(&row).is_some_and(|wanted| wanted.ordered)
    }

    /// Whether its entry is deleted since it is over.
    pub(super) fn is_let_go(&self, row: ConnId) -> bool {
        self.let_go.contains(&row)
    }

    /// Why it was ended, if it was, where its end was not seen.
    pub(super) fn reason(&self, row: ConnId) -> Option<CloseReason> {
        let wanted = self.wanted.get(&row)?;
        match wanted.why {
            // Whether we came first or the kernel: its time was over.
            CloseReason::KilledExpired if !wanted.refused => Some(CloseReason::Expired),
            why => wanted.ordered.then_some(why),
        }
    }

    /// Why it was ended that was seen to end so.
    pub(super) fn reason_seen(&self, row: ConnId, seen: CloseReason) -> CloseReason {
        match self.wanted.get(&row).filter(|wanted| wanted.ordered) {
            // The kernel was faster than the agent.
            Some(wanted) if seen == CloseReason::Expired && !wanted.refused => seen,
            Some(wanted) => wanted.why,
            None => seen,
        }
    }

    /// It is over.
    pub(super) fn forget(&mut self, row: ConnId) {
        self.set_due(row, None);
        self.wanted.remove(&row);
        if let Some(at) = self.ends.remove(&row) {
            self.ending.remove(&(at, row));
        }
        self.untold.remove(&row);
        self.let_go.remove(&row);
    }

    /// Everything live is judged anew, when the rows and the users of this run are known.
    pub(super) fn judge_again(&mut self, first: bool) {
        if self.users.is_some() {
            self.judging = Some(Judging { next: 0, first });
        }
    }

    /// Takes the first thing of an ordered set whose time has come.
    fn take_due<T: Ord + Copy>(set: &mut BTreeSet<(Duration, T)>, now: Duration) -> Option<T> {
        let &(at, item) = set.first()?;
        if at > now {
            return None;
        }
        set.pop_first();
        Some(item)
    }
}

impl Engine {
    /// A user has left an address: after the grace, connections from there end unless a session of the same user is there.
    pub(super) fn departed(&mut self, user: u64, address: Addr, leaving: Leaving, now: Now) {
        // Whoever is thrown out has no session either.
        let (choice, why) = match leaving {
            Leaving::Removed if self.limits.on_removal == OnEnd::Kill => {
                (OnEnd::Kill, CloseReason::KilledRemoved)
            }
            Leaving::LoggedOut | Leaving::Lost | Leaving::Removed => {
                (self.limits.on_session_end, CloseReason::KilledSession)
            }
        };
        if choice == OnEnd::Keep {
            return;
        }
        let full = self.kills.departures.len() >= MAX_DEPARTURES;
        let grace = match leaving {
            Leaving::Lost if !full => self.limits.session_grace,
            _ => Duration::ZERO,
        };
        let departure = (now.mono + grace, user, address);
        self.kills.departures.insert(departure, why);
    }

    /// The users were read (again), and the access lists with them: live connections are judged anew.
    pub(super) fn users_told(&mut self, users: &HashMap<Arc<str>, Arc<Identity>>) {
        let by_id = users
            .values()
            .map(|identity| (identity.user.id, Arc::clone(identity)))
            .collect();
        let first = self.kills.users.replace(by_id).is_none();
        self.kills.judge_again(first);
    }

    /// What is to end is found and ordered.
    pub(super) fn end_connections(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.settle_departures(now);
        self.judge_live(now);
        while let Some(row) = Kills::take_due(&mut self.kills.ending, now.mono) {
            self.kills.ends.remove(&row);
            self.kills.want(row, CloseReason::KilledExpired);
        }
        self.order(now, out);
        self.tell_ends(now, out);
    }

    /// Tells the gateways' kernels when the time of connections is over, a little later than it is here.
    fn tell_ends(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(margin) = self.limits.kernel_ends_after else {
            return self.kills.untold.clear();
        };
        let mut batches: BTreeMap<LinkId, Vec<Expiry>> = BTreeMap::new();
        for _ in 0..LOOKED_AT {
            let Some(row) = self.kills.untold.pop_first() else {
                break;
            };
            let (Some(&at), Some(slot)) = (self.kills.ends.get(&row), self.conns.by_id(row)) else {
                continue;
            };
            let conn = self.conns.get(slot);
            let (Some(live), Some(link)) = (live(conn), self.gateways.killer(conn.gateway)) else {
                // Comes again with the entry, or with the gateway.
                continue;
            };
            // One that is not answered does not live long by itself, and comes again with the answer.
            if conn.established {
                let left = at.saturating_sub(now.mono) + margin;
                let seconds = u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX);
                batches.entry(link).or_default().push(Expiry { live, seconds });
            }
        }
        for (link, batch) in batches {
            out.extend(batch.chunks(MAX_BATCH).map(|part| Effect::Agent {
                link,
                message: ToAgent::Expire(Batch::try_from(part.to_vec()).unwrap_or_default()),
            }));
        }
    }

    /// An agent deletes the entry of a connection that is over. It is believed about its own connections only.
    pub(super) fn let_go(&mut self, gateway: GatewayIdx, row: ConnId) {
        let own = self
            .conns
            .by_id(row)
            .is_some_and(|slot| self.conns.get(slot).gateway == gateway);
        if own && self.kills.ends.contains_key(&row) {
            self.kills.let_go.insert(row);
        }
    }

    fn settle_departures(&mut self, now: Now) {
        let mut left: HashMap<(u64, Addr), CloseReason> = HashMap::new();
        while let Some(entry) = self.kills.departures.first_entry() {
            let &(at, user, address) = entry.key();
            if at > now.mono {
                break;
            }
            let why = entry.remove();
            if !self.is_present(user, address) {
                left.insert((user, address), why);
            }
        }
        if left.is_empty() {
            return;
        }
        let over: Vec<(ConnId, CloseReason)> = self
            .conns
            .iter()
            .filter_map(|(_, conn)| Some((conn.id, *left.get(&(conn.user?, conn.original.src()))?)))
            .collect();
        for (row, why) in over {
            self.kills.want(row, why);
        }
    }

    fn is_present(&self, user: u64, address: Addr) -> bool {
        self.sessions.at(address).iter().any(|&session| {
            self.sessions
                .get(session)
                .is_some_and(|session| session.identity.user.id == user)
        })
    }

    fn judge_live(&mut self, now: Now) {
        let Some(Judging { next, first }) = self.kills.judging else {
            return;
        };
        let (slots, next) = self.conns.part(next, JUDGED);
        for slot in slots {
            self.judge_conn(slot, first, now);
        }
        self.kills.judging = next.map(|next| Judging { next, first });
    }

    fn judge_conn(&mut self, slot: Slot, first: bool, now: Now) {
        let conn = self.conns.get(slot);
        let (id, received) = (conn.id, conn.received);
        let (Some(users), Some(who)) = (
            &self.kills.users,
            conn.who.and_then(|who| self.conns.who.get(who)),
        ) else {
            // Nothing was decided about it: it passed without a verdict.
            return;
        };
        let identity = conn.user.and_then(|user| users.get(&user));
        if conn.user.is_some() && identity.is_none() {
            // Where directories are asked, somebody who is not known may only not have logged in since the start.
            if self.limits.all_known && self.limits.on_removal == OnEnd::Kill {
                self.kills.want(id, CloseReason::KilledRemoved);
            }
            return;
        }
        let shown = conn.shown();
        let subject = Subject {
            quality: who.quality,
            program: who.app.as_deref(),
            program_hash: who.hash.as_ref(),
            os: who.os.as_deref(),
            in_dev: &who.in_dev,
            out_dev: &who.out_dev,
            phys_in: &who.phys_in,
            phys_out: &who.phys_out,
            gateway: &self.gateways.get(conn.gateway).name,
            // Of an earlier run only the ends are sought: those that it got with its first packet.
            ..Subject::new(
                identity.map(|identity| &**identity),
                &shown,
                if first { received } else { now.wall },
            )
        };
        let accepted = |subject: &Subject<'_>| {
            let ruling = if identity.is_some() {
                Some(self.judge.judge(subject))
            } else {
                self.judge.judge_stranger(subject)
            };
            ruling.filter(|ruling| ruling.decision == Decision::Accept)
        };
        // What was accepted once for its hash must not be ended for want of it.
        let ruling = accepted(&subject).or_else(|| {
            let any_hash = who.hash_is_forgotten && self.judge.looks_at_hashes();
            any_hash.then(|| accepted(&Subject { any_hash, ..subject }))?
        });
        let kills = self.limits.on_reload == OnEnd::Kill;
        let Some(ruling) = ruling else {
            if kills {
                self.kills.want(id, CloseReason::KilledPolicy);
            }
            return;
        };
        if let Some(left) = ruling.time_left(age(received, now.wall), now.wall)
            && (kills || first)
        {
            self.kills.ends_at(id, now.mono + left);
        }
    }

    /// Tells the gateways, a batch each.
    fn order(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut batches: BTreeMap<GatewayIdx, (LinkId, Vec<Live>)> = BTreeMap::new();
        let mut doubted: HashSet<GatewayIdx> = HashSet::new();
        for _ in 0..LOOKED_AT {
            let Some(row) = Kills::take_due(&mut self.kills.due, now.mono) else {
                break;
            };
            let Some(conn) = self.conns.by_id(row).map(|slot| *self.conns.get(slot)) else {
                // Whoever wanted it came too late.
                self.kills.wanted.remove(&row);
                continue;
            };
            let Some(wanted) = self.kills.wanted.get_mut(&row) else {
                continue;
            };
            wanted.due = None;
            let (Some(live), Some(link)) = (live(&conn), self.gateways.killer(conn.gateway)) else {
                // Comes again with the entry, or with the gateway.
                continue;
            };
            if std::mem::take(&mut wanted.gone) {
                doubted.insert(conn.gateway);
            }
            let batch = &mut batches.entry(conn.gateway).or_insert((link, Vec::new())).1;
            let again = if batch.len() < MAX_BATCH {
                wanted.ordered = true;
                batch.push(live);
                REPEAT
            } else {
                NEXT_TICK
            };
            self.kills.set_due(row, Some(now.mono + again));
        }
        for gateway in doubted {
            self.gateways.get_mut(gateway).doubted = true;
        }
        for (link, batch) in batches.into_values() {
            self.stats.kills_ordered += batch.len() as u64;
            out.push(Effect::Agent {
                link,
                message: ToAgent::Kill(Batch::try_from(batch).unwrap_or_default()),
            });
        }
    }

    /// An agent tells how far it is. It is believed about its own connections only, and only of what was ordered.
    pub(super) fn killed(&mut self, gateway: GatewayIdx, killed: Killed, now: Now) {
        let own = self
            .conns
            .by_id(killed.row)
            .is_some_and(|slot| self.conns.get(slot).gateway == gateway);
        let wanted = self.kills.wanted.get_mut(&killed.row);
        let Some(wanted) = wanted.filter(|wanted| own && wanted.ordered) else {
            self.stats.foreign_kills += u64::from(!own && self.conns.by_id(killed.row).is_some());
            return;
        };
        wanted.gone = killed.step == KillStep::Gone;
        wanted.refused |= killed.step == KillStep::Refused;
        // What ends of itself meanwhile was not ended by us.
        wanted.ordered = killed.step != KillStep::Failed;
        let again = match killed.step {
            KillStep::Refused => REFUSED_FOR,
            KillStep::Gone => EVENT_PATIENCE,
            KillStep::Failed => {
                self.stats.kills_failed += 1;
                REPEAT
            }
        };
        self.kills.set_due(killed.row, Some(now.mono + again));
    }

    /// A gateway is back, and gets what waited for it.
    pub(super) fn order_again(&mut self, gateway: GatewayIdx) {
        let rows: Vec<ConnId> = self
            .kills
            .wanted
            .keys()
            .copied()
            .filter(|&row| {
                self.conns
                    .by_id(row)
                    .is_some_and(|slot| self.conns.get(slot).gateway == gateway)
            })
            .collect();
        for row in rows {
            self.kills.set_due(row, Some(Duration::ZERO));
        }
        let limited: Vec<ConnId> = self
            .kills
            .ends
            .keys()
            .copied()
            .filter(|&row| {
                self.conns
                    .by_id(row)
                    .is_some_and(|slot| self.conns.get(slot).gateway == gateway)
            })
            .collect();
        self.kills.untold.extend(limited);
    }
}

/// The entry to end; `None` while it is not known.
fn live(conn: &Conn) -> Option<Live> {
    let Side::Bound { ct_id, .. } = conn.side else {
        return None;
    };
    Some(Live {
        row: conn.id,
        id: ct_id,
        zone: conn.zone,
        original: conn.original,
    })
}

/// How long ago that was. The gateway's clock and the server's may differ by as much as they do.
fn age(received: Timestamp, now: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(now.micros().saturating_sub(received.micros())).unwrap_or(0))
}
