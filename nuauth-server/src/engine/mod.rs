//! The engine: who asked, whose connection it is, what was decided, and what became of it.
//!
//! Pure: inputs and the time come in, effects go out. No socket, clock, thread or SQL may appear below this module; what
//! it keeps is bounded by [`Limits`], and every bound says what happens when it is met.

mod adopt;
mod asks;
mod blind;
mod conns;
mod decide;
mod drops;
mod dumps;
mod early;
mod ended;
mod events;
mod flood;
mod gaps;
mod gateways;
mod held;
mod kills;
mod modes;
mod pending;
mod related;
mod sessions;
mod types;
mod who;

pub use kills::{Leaving, OnEnd, Rejects};
pub use modes::{Levels, LogMode, OnOverload};
pub use types::{
    Decision, Effect, Identity, Input, Judge, Limits, LinkId, LiveConn, LogEntry, Now, Outcome, ProofId,
    Refused, Ruling, SessionFacts, Stats,
};

use conns::ConnTable;
use drops::RecentDrops;
use early::EarlyClaims;
use ended::EndedUnseen;
use flood::Flood;
use gateways::Gateways;
use held::Held;
use kills::Kills;
use pending::PendingTable;
use sessions::Sessions;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use nufw_proto::gateway::ToServer;
use nufw_proto::{ClaimId, ConnId, Mark, Timestamp, Tuple, client};
use nulog::Close;

/// The state of one server.
pub struct Engine {
    limits: Limits,
    judge: Arc<dyn Judge>,
    /// Whose mark is whose.
    marks: HashMap<Mark, Arc<Identity>>,
    gateways: Gateways,
    sessions: Sessions,
    pending: PendingTable,
    conns: ConnTable,
    /// Rows whose commit is awaited, with the question whose packets wait for it; `None` where they have waited too long.
    logging: HashMap<ConnId, Option<ClaimId>>,
    /// Rows that are not durable, and whose packets did not wait.
    unwritten: HashSet<ConnId>,
    /// Ends of live connections that another packet may have begun anew; as many as there are connections at most.
    lingering: HashMap<ConnId, Close>,
    drops: RecentDrops,
    flood: Flood,
    early: EarlyClaims,
    ended: EndedUnseen,
    ids: VecDeque<Range<u64>>,
    /// Ids up to this one were given by a run of which the log knows nothing.
    ids_used: u64,
    /// What waits until it is known which rows were live at the start.
    held: Option<Held>,
    kills: Kills,
    stats: Stats,
    /// The calendar time of the present input.
    wall: Timestamp,
}

impl Engine {
    /// An engine that knows nobody yet.
    pub fn new(limits: Limits, judge: Arc<dyn Judge>) -> Self {
        Self {
            judge,
            marks: HashMap::new(),
            gateways: Gateways::default(),
            sessions: Sessions::new(&limits),
            pending: PendingTable::default(),
            conns: ConnTable::default(),
            logging: HashMap::new(),
            unwritten: HashSet::new(),
            lingering: HashMap::new(),
            drops: RecentDrops::new(limits.recent_drops, limits.drop_memory),
            flood: Flood::new(&limits),
            early: EarlyClaims::new(limits.early_claims, limits.early_claim_age),
            ended: EndedUnseen::new(limits.ended_unseen),
            ids: VecDeque::new(),
            ids_used: 0,
            held: None,
            kills: Kills::default(),
            stats: Stats::default(),
            wall: Timestamp::from_micros(0),
            limits,
        }
    }

    /// Takes one input and appends what must be done about it.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Effect>) {
        self.wall = now.wall;
        match input {
            Input::LoadedLater => self.held = Some(Held::default()),
            Input::Loaded { rows, acknowledged } => {
                match self.held.take() {
                    Some(held) => self.loaded_late(held, rows, acknowledged, now, out),
                    None => self.load(rows, acknowledged, out),
                }
                self.kills.judge_again(true);
            }
            Input::GatewayUp { link, name, hello } => self.gateway_up(link, &name, &hello, now, out),
            Input::Gateway { link, message } => self.gateway_says(link, message, now, out),
            Input::GatewayDown { link } => self.link_down(link),
            Input::SessionUp { session, facts } => self.session_up(session, facts, now, out),
            Input::Client { session, message } => self.client_says(session, message, now, out),
            Input::Prove {
                proof,
                session,
                address,
            } => self.prove(proof, session, address, now, out),
            Input::SessionDown { session, leaving } => self.session_down(session, leaving, now, out),
            Input::Committed { opened, acknowledged } => self.committed(&opened, &acknowledged, now, out),
            Input::LogFailed { opened } => self.log_failed(&opened, now, out),
            Input::Ids(block) => {
                if let Some(held) = &mut self.held {
                    held.ids(&block);
                }
                self.ids.push_back(block);
            }
            Input::Judge(judge) => {
                self.judge = judge;
                self.drops.forget_all();
            }
            Input::Users(users) => {
                self.know_marks(&users);
                self.users_changed(&users, now, out);
                self.users_told(&users);
            }
            Input::Verify { gateways } => self.verify(&gateways),
            Input::Tick => self.tick(now, out),
            Input::Stopping => {
                self.log_aggregated(now, true, out);
                self.log_deleted(now, true, out);
            }
        }
    }

    /// The newest live connection between these ends, seen from either side.
    pub fn find(&self, ends: &Tuple) -> Option<LiveConn> {
        let (slot, original) = self.conns.find(self.gateways.indices(), ends)?;
        let conn = self.conns.get(slot);
        Some(LiveConn {
            id: conn.id,
            user: conn.user,
            gateway: Arc::clone(&self.gateways.get(conn.gateway).name),
            original,
        })
    }

    /// The gateways that are linked, and whether they relay what becomes of their connections.
    pub fn linked_gateways(&self) -> impl Iterator<Item = (&Arc<str>, bool)> {
        self.gateways
            .linked()
            .map(|(index, link)| (&self.gateways.get(index).name, link.relays_events))
    }

    /// What was counted since the start.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.live_connections = self.conns.len() as u64;
        stats.pending_asks = self.pending.len() as u64;
        stats.sessions = self.sessions.len() as u64;
        stats.waiting_commits = self.logging.len() as u64;
        stats.waiting_async = self.unwritten.len() as u64;
        stats.waiting_kills = self.kills.len() as u64;
        stats.ids_left = self
            .ids
            .iter()
            .map(|block| block.end.saturating_sub(block.start))
            .sum();
        stats
    }

    fn gateway_says(&mut self, link: LinkId, message: ToServer, now: Now, out: &mut Vec<Effect>) {
        let Some(gateway) = self.gateways.by_link(link) else {
            // The gateway connected anew while this was on its way; the agent asks or sends again on its new link.
            self.stats.stale_messages += 1;
            return;
        };
        self.gateways.get_mut(gateway).heard = Some(now.wall);
        if let Some(held) = &mut self.held
            && !matches!(
                message,
                ToServer::Asks(_) | ToServer::Unused(_) | ToServer::LastRow(_) | ToServer::Blind(_)
            )
        {
            return held.hold(link, message);
        }
        match message {
            ToServer::Asks(asks) => asks
                .into_iter()
                .for_each(|ask| self.packet(gateway, link, ask, now, out)),
            ToServer::Unused(unused) => unused.iter().for_each(|&u| self.unused(gateway, u, out)),
            ToServer::Events(events) => self.events(gateway, &events, now, out),
            ToServer::Gap(gap) => self.gap(gateway, gap, now, out),
            ToServer::Blind(blind) => self.blind(gateway, blind),
            ToServer::Elsewhere(asks) => self.elsewhere(gateway, &asks, out),
            ToServer::DumpBegin(begin) => self.dump_begin(gateway, begin),
            ToServer::DumpPart(part) => self.dump_part(gateway, &part, now, out),
            ToServer::DumpEnd(end) => self.dump_end(gateway, end, now, out),
            ToServer::LastRow(last) => self.skip_used_ids(gateway, last.row, now, out),
            ToServer::Killed(killed) => killed.iter().for_each(|&k| self.killed(gateway, k, now)),
            ToServer::Hello(_) | ToServer::Heartbeat(_) | ToServer::Goodbye(_) => {}
        }
    }

    fn client_says(
        &mut self,
        session: nufw_proto::SessionId,
        message: client::ToServer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        match message {
            client::ToServer::Claims(claims) => {
                claims
                    .into_iter()
                    .for_each(|claim| self.claim(session, claim, now, out));
            }
            client::ToServer::Announce(announced) => {
                announced
                    .into_iter()
                    .for_each(|a| self.announce(session, a.mine, now, out));
            }
            client::ToServer::Withdraw(withdraw) => self.withdraw(session, withdraw.address, now, out),
            client::ToServer::Hello(_)
            | client::ToServer::Login(_)
            | client::ToServer::Respond(_)
            | client::ToServer::Prove(_)
            | client::ToServer::Heartbeat(_)
            | client::ToServer::Goodbye(_) => {}
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.time_out_asks(now, out);
        self.expire_addresses(now, out);
        self.drops.expire(now);
        self.early.expire(now);
        self.log_aggregated(now, false, out);
        self.log_deleted(now, false, out);
        self.end_connections(now, out);
        self.doubt_unconfirmed(now, out);
        self.gateways
            .tell_heartbeats(now, self.limits.heartbeat_interval, out);
    }

    /// The next row id; `None` when the log has not reserved any more.
    fn next_id(&mut self) -> Option<ConnId> {
        loop {
            let used = self.ids_used;
            let block = self.ids.front_mut()?;
            block.start = block.start.max((used + 1).min(block.end));
            match block.next() {
                Some(raw) => return ConnId::try_from(raw).ok(),
                None => {
                    self.ids.pop_front();
                }
            }
        }
    }

    fn log(change: nulog::Change, out: &mut Vec<Effect>) {
        out.push(Effect::Log(LogEntry {
            change,
            urgent: false,
        }));
    }
}
