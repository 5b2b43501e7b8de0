//! The engine: who asked, whose connection it is, what was decided, and what became of it.
//!
//! Pure: inputs and the time come in, effects go out. No socket, clock, thread or SQL may appear below this module; what
//! it keeps is bounded by [`Limits`], and every bound says what happens when it is met.

mod addressed;
mod admission;
mod adopt;
mod asks;
mod blind;
mod by_flags;
mod conns;
mod decide;
mod denials;
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
mod lifetimes;
mod limits;
mod marks;
mod modes;
mod pending;
mod quality;
mod related;
mod sessions;
mod stats;
mod subject;
mod types;
mod unasked;
mod views;
mod who;

pub use kills::{Leaving, OnEnd, Rejects};
pub use limits::Limits;
pub use marks::UserBits;
pub use modes::{Levels, LogMode, OnOverload};
pub use quality::Quality;
pub use stats::Stats;
pub use subject::{Judge, Subject};
pub use types::{
    Decision, Effect, Identity, Input, LinkId, LiveConn, LogEntry, Now, OnUserLimit, Outcome, ProofId,
    Refused, Ruling, SessionFacts, SessionWord,
};
pub use views::{ConnView, PendingView, SessionView};

use crate::hours::Hours;
use addressed::Addressed;
use by_flags::ByFlags;
use conns::ConnTable;
use drops::RecentDrops;
use early::EarlyClaims;
use ended::EndedUnseen;
use flood::Flood;
use gateways::Gateways;
use held::Held;
use kills::Kills;
use lifetimes::OddClaims;
use pending::{PendingTable, Ports};
use sessions::Sessions;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use nufw_proto::gateway::ToServer;
use nufw_proto::{ClaimId, ConnId, Mark, Tuple, client};
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
    flagged: ByFlags,
    ids: VecDeque<Range<u64>>,
    /// Ids up to this one were given by a run of which the log knows nothing.
    ids_used: u64,
    /// What waits until it is known which rows were live at the start.
    held: Option<Held>,
    kills: Kills,
    /// When who may be logged in.
    hours: Hours,
    addressed: Addressed,
    odd_claims: OddClaims,
    /// No login is admitted and no packet taken any more.
    draining: bool,
    stats: Stats,
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
            flagged: ByFlags::default(),
            ids: VecDeque::new(),
            ids_used: 0,
            held: None,
            kills: Kills::default(),
            hours: Hours::default(),
            addressed: Addressed::default(),
            odd_claims: OddClaims::default(),
            draining: false,
            stats: Stats::default(),
            limits,
        }
    }

    /// Takes one input and appends what must be done about it.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Effect>) {
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
                let before = std::mem::replace(&mut self.judge, judge);
                self.drops.forget_all();
                if before.judges_strangers() != self.judge.judges_strangers() {
                    self.tell_whom_to_ask_for(out);
                }
                let wanted = self.judge.looks_at_hashes();
                if before.looks_at_hashes() != wanted {
                    self.tell_hashes_wanted(wanted, out);
                }
            }
            Input::Users(users) => {
                self.know_marks(&users);
                self.addressed_users(&users);
                self.users_changed(&users, now, out);
                self.users_told(&users);
            }
            Input::Renewed { session } => self.renewed(session, now),
            Input::Hours(hours) => self.hours = hours,
            Input::Networks(networks) => self.networks(networks, now, out),
            Input::Identified { address, user } => self.identified(address, &user, now, out),
            Input::Unidentified { address } => self.unidentified(address, now, out),
            Input::Drain => self.draining = true,
            Input::Verify { gateways } => self.verify(&gateways),
            Input::Tick => self.tick(now, out),
            Input::Stopping => {
                self.sessions_stop(now, out);
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

    /// Whether nothing waits for a decision or for its row.
    pub fn is_idle(&self) -> bool {
        self.pending.len() == 0 && self.logging.is_empty() && self.unwritten.is_empty()
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
                ToServer::Asks(_)
                    | ToServer::BridgedAsks(_)
                    | ToServer::Unused(_)
                    | ToServer::LastRow(_)
                    | ToServer::Blind(_)
            )
        {
            return held.hold(link, message);
        }
        match message {
            ToServer::Asks(asks) => asks
                .into_iter()
                .for_each(|ask| self.packet(gateway, link, (ask, Ports::default()), now, out)),
            ToServer::BridgedAsks(asks) => asks.into_iter().for_each(|bridged| {
                let ports = Ports {
                    phys_in: bridged.phys_in,
                    phys_out: bridged.phys_out,
                };
                self.packet(gateway, link, (bridged.ask, ports), now, out);
            }),
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
            ToServer::LetGo(rows) => rows.iter().for_each(|&row| self.let_go(gateway, row)),
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
            client::ToServer::ProgramHashes(hashes) => self.learn_hashes(session, hashes),
            client::ToServer::Withdraw(withdraw) => self.withdraw(session, withdraw.address, now, out),
            client::ToServer::Hello(_)
            | client::ToServer::Login(_)
            | client::ToServer::Resume(_)
            | client::ToServer::Again(_)
            | client::ToServer::Respond(_)
            | client::ToServer::Prove(_)
            | client::ToServer::Heartbeat(_)
            | client::ToServer::Goodbye(_) => {}
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.time_out_asks(now, out);
        self.expire_addresses(now, out);
        self.sessions_age(now, out);
        self.drops.expire(now);
        self.early.expire(now);
        self.log_aggregated(now, false, out);
        self.log_deleted(now, false, out);
        self.end_connections(now, out);
        self.time_out_flags(now, out);
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
