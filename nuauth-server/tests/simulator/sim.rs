//! The world: everything that can happen next, and one of it at a time.

use crate::agent::{Agent, Link, Up};
use crate::client::{Client, Socket, address, identity};
use crate::journal::Journal;
use crate::kernel::{Kernel, stamp};
use crate::reference::Reference;
use nuauth_server::engine::{
    Effect, Engine, Input, Leaving, Levels, Limits, LinkId, Now, OnEnd, OnOverload, ProofId, SessionFacts,
};
use nufw_proto::client::{Finding, OsInfo, ToServer as FromClient};
use nufw_proto::gateway::{Answer, ToAgent, ToServer, Verdict};
use nufw_proto::{Addr, AskId, Batch, ClaimId, ConnId, SessionId, Tuple, client::ClaimRequest};
use nulog::Change;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const GATEWAYS: usize = 2;
/// User and host of each client: two users share the first host.
pub(crate) const CLIENTS: [(usize, usize); 4] = [(0, 0), (1, 0), (2, 1), (3, 2)];

pub(crate) struct Server {
    pub(crate) engine: Engine,
    started: u64,
    pub(crate) sessions: BTreeMap<SessionId, usize>,
}

pub(crate) struct Sim {
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) trace: VecDeque<String>,
    /// Lines of the story that are remembered.
    pub(crate) remember: usize,
    pub(crate) limits: Limits,
    pub(crate) server: Option<Server>,
    pub(crate) journal: Journal,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) links: Vec<Link>,
    pub(crate) clients: Vec<Client>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) reference: Reference,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) questions: BTreeMap<ClaimId, Tuple>,
    pub(crate) asks: BTreeMap<(LinkId, AskId), (usize, u16, Tuple)>,
    pub(crate) last_number: u64,
    pub(crate) relays_events: bool,
    /// No further row may be on its way that no packet waits for.
    async_full: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64, remember: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let small = rng.random_ratio(1, 4);
        let liars = rng.random_ratio(1, 3);
        let counts_often = seed.is_multiple_of(2);
        let limits = Limits {
            log_sync: !rng.random_ratio(1, 5),
            levels: Levels {
                sessions: !rng.random_ratio(1, 10),
                drops: !rng.random_ratio(1, 10),
                connections: !rng.random_ratio(1, 20),
            },
            on_overload: if rng.random_bool(0.5) {
                OnOverload::Wait
            } else {
                OnOverload::Drop
            },
            waiting_async: if small { 2 } else { 1000 },
            drops_per_source: if small { 1 } else { 10 },
            drops_per_gateway: if small { 2 } else { 500 },
            drop_burst: Duration::from_secs(2),
            drop_sources: if small { 2 } else { 1000 },
            pending_asks: if small { 3 } else { 1000 },
            packets_per_ask: if small { 2 } else { 16 },
            connections: if small { 5 } else { 1000 },
            waiting_commits: if small { 2 } else { 1000 },
            address_lease: Duration::from_secs(40),
            adopt: seed % 4 < 2,
            counters_every: Duration::from_secs(if counts_often { 3 } else { 60 }),
            ..Limits::default()
        };
        // Half of the worlds leave everything to the defaults, until the policy changes.
        let modes = if rng.random_bool(0.5) { 0 } else { rng.random() };
        let mut on_end = || {
            if rng.random_ratio(1, 3) {
                OnEnd::Kill
            } else {
                OnEnd::Keep
            }
        };
        let limits = Limits {
            on_session_end: on_end(),
            on_removal: on_end(),
            on_reload: on_end(),
            ..limits
        };
        let mut sim = Self {
            now: 1_000_000,
            trace: VecDeque::new(),
            remember,
            limits,
            server: None,
            journal: Journal::default(),
            kernels: (0..GATEWAYS).map(|_| Kernel::default()).collect(),
            agents: (0..GATEWAYS)
                .map(|gateway| Agent::new(gateway, gateway as u64 + 1))
                .collect(),
            links: Vec::new(),
            clients: CLIENTS
                .iter()
                .map(|&(user, host)| Client::new(user, host, liars && user == 1))
                .collect(),
            sockets: Vec::new(),
            reference: Reference::new(&limits, modes),
            names: (0..GATEWAYS)
                .map(|gateway| Arc::from(format!("gw{gateway}")))
                .collect(),
            questions: BTreeMap::new(),
            asks: BTreeMap::new(),
            last_number: 100,
            async_full: false,
            relays_events: !rng.random_ratio(1, 20),
            rng,
        };
        sim.start_server();
        for client in 0..CLIENTS.len() {
            sim.login(client);
        }
        sim
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.remember == 0 {
            return;
        }
        if self.trace.len() >= self.remember {
            self.trace.pop_front();
        }
        let text = format!("{:>12} {}", self.now, text());
        self.trace.push_back(text);
    }

    /// How much happened, to show that a run was worth something.
    pub(crate) fn connections(&self) -> usize {
        self.reference.records.len()
    }

    // The server.

    pub(crate) fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        self.note(|| "the server starts".into());
        let policy = self.reference.policy;
        let users = (0..4)
            .map(identity)
            .map(|user| (Arc::clone(&user.user.name), user));
        let engine = Engine::new(self.limits, Arc::new(policy)).with_users(&users.collect());
        self.server = Some(Server {
            engine,
            started: self.now.saturating_sub(1),
            sessions: BTreeMap::new(),
        });
        let acknowledged = self.journal.acknowledged.iter();
        let acknowledged = acknowledged
            .map(|(name, (boot, through))| (Arc::clone(name), *boot, *through))
            .collect();
        let rows = self.journal.active();
        self.feed(Input::Loaded { rows, acknowledged });
        let ids = self.journal.reserve(100_000);
        self.feed(Input::Ids(ids));
    }

    pub(crate) fn crash_server(&mut self) {
        if self.server.take().is_none() {
            return;
        }
        self.note(|| "the server crashes".into());
        self.journal.crash();
        self.reference.server_crashed(self.now);
        self.reference.held.clear();
        self.questions.clear();
        for link in &mut self.links {
            link.cut = true;
            link.up.clear();
        }
        for client in &mut self.clients {
            client.disconnected();
        }
    }

    pub(crate) fn feed(&mut self, input: Input) {
        let Some(server) = &mut self.server else { return };
        let now = Now {
            mono: Duration::from_micros(self.now - server.started),
            wall: stamp(self.now),
        };
        let mut effects = Vec::new();
        server.engine.handle(input, now, &mut effects);
        let stats = server.engine.stats();
        assert!(
            stats.pending_asks <= self.limits.pending_asks as u64,
            "too many packets wait"
        );
        assert!(
            stats.waiting_commits <= self.limits.waiting_commits as u64
                && stats.waiting_async <= self.limits.waiting_async as u64,
            "too many rows are on their way"
        );
        self.async_full = stats.waiting_async == self.limits.waiting_async as u64;
        assert!(stats.sessions <= self.limits.sessions as u64, "too many sessions");
        let opens = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Log(entry) if matches!(entry.change, Change::Open(_))));
        assert!(
            !opens || stats.live_connections <= self.limits.connections as u64,
            "too many connections"
        );
        let mut answers: BTreeMap<LinkId, Vec<Answer>> = BTreeMap::new();
        for effect in effects {
            self.note(|| format!("  => {effect:?}"));
            if let Effect::Answer { link, answer } = effect {
                self.check_answer(link, answer);
                answers.entry(link).or_default().push(answer);
            } else {
                // What is said to an agent keeps its order; answers of one moment go together.
                self.send_answers(&mut answers);
                self.carry_out(effect);
            }
        }
        self.send_answers(&mut answers);
    }

    pub(crate) fn send_answers(&mut self, answers: &mut BTreeMap<LinkId, Vec<Answer>>) {
        for (link, answers) in std::mem::take(answers) {
            let answers = Batch::try_from(answers).unwrap_or_default();
            self.send_down(link, ToAgent::Answers(answers));
        }
    }

    pub(crate) fn check_answer(&mut self, link: LinkId, answer: Answer) {
        let asked = self.asks.remove(&(link, answer.id));
        let (gateway, zone, tuple) = asked.expect("a packet got two verdicts, or one that nobody asked for");
        match answer.verdict {
            Verdict::Accept { row, mark } => {
                self.reference
                    .accepts(&self.journal, (row, mark), &tuple, self.now);
                if row == ConnId::UNLOGGED {
                    self.reference.forget_drop(&self.names[gateway], zone, tuple);
                }
            }
            Verdict::Drop | Verdict::Reject => {
                self.reference
                    .refused(&self.names[gateway], zone, tuple, self.now);
            }
        }
    }

    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Question { session, request } => {
                self.questions.insert(request.id, request.tuple);
                self.question(session, request);
            }
            Effect::Agent { link, message } => {
                if let ToAgent::Kill(orders) = &message {
                    self.reference.ordered.extend(orders.iter().map(|live| live.row));
                }
                self.send_down(link, message);
            }
            Effect::EndLink { link, .. } => {
                if let Some(link) = self.links.iter_mut().find(|l| l.id == link.0) {
                    link.cut = true;
                }
            }
            Effect::NotAdmitted { session, .. } | Effect::EndSession { session, .. } => {
                self.forget_session(session);
            }
            Effect::Answer { .. }
            | Effect::Admitted { .. }
            | Effect::HashPrograms { .. }
            | Effect::Proof { .. }
            | Effect::Renew { .. }
            | Effect::Session(_) => {}
            Effect::Log(entry) => {
                match &entry.change {
                    Change::Open(row) => {
                        self.reference
                            .opens(row, (entry.urgent, self.async_full), self.now);
                    }
                    Change::Drop(row) => self.reference.drops(row, self.now),
                    Change::SessionStart(_) => assert!(self.limits.levels.sessions),
                    Change::Gap(gap) => self.reference.flood.gap(gap),
                    Change::Counted { .. } => drop(self.reference.seen.insert("counted")),
                    Change::Close(close) => self.reference.closes(close, self.now),
                    _ => {}
                }
                self.journal.submit(entry);
            }
        }
    }

    pub(crate) fn send_down(&mut self, link: LinkId, message: ToAgent) {
        if let Some(link) = self.links.iter_mut().find(|l| l.id == link.0 && !l.cut) {
            link.down.push_back(message);
        }
    }

    pub(crate) fn question(&mut self, session: SessionId, request: ClaimRequest) {
        let client = self
            .server
            .as_ref()
            .and_then(|server| server.sessions.get(&session).copied());
        if let Some(client) = client {
            self.clients[client].inbox.push_back(request);
        }
    }

    pub(crate) fn forget_session(&mut self, session: SessionId) {
        self.reference.held.remove(&session);
        if let Some(client) = self
            .server
            .as_mut()
            .and_then(|server| server.sessions.remove(&session))
        {
            self.clients[client].disconnected();
        }
    }

    // Clients.

    pub(crate) fn login(&mut self, client: usize) {
        if self.clients[client].session.is_some() || self.server.is_none() {
            return;
        }
        let session = SessionId(self.number());
        let (user, host) = (self.clients[client].user, self.clients[client].host);
        let at = address(host, false);
        self.note(|| format!("user {user} logs in at {at}"));
        self.clients[client].session = Some(session);
        if let Some(server) = &mut self.server {
            server.sessions.insert(session, client);
        }
        self.reference.held.entry(session).or_default().insert(at);
        self.reference.forget_drops_from(at);
        self.feed(Input::SessionUp {
            session,
            facts: SessionFacts::new(identity(user), at, OsInfo::default()),
        });
    }

    pub(crate) fn logout(&mut self, client: usize) {
        if let Some(session) = self.clients[client].session {
            self.note(|| format!("client {client} logs out"));
            self.forget_session(session);
            let leaving = if self.rng.random_bool(0.5) {
                Leaving::LoggedOut
            } else {
                Leaving::Lost
            };
            self.feed(Input::SessionDown { session, leaving });
        }
    }

    pub(crate) fn prove(&mut self, client: usize) {
        let Some(session) = self.clients[client].session else {
            return;
        };
        let at = address(self.clients[client].host, true);
        self.note(|| format!("client {client} proves {at}"));
        self.reference.held.entry(session).or_default().insert(at);
        self.reference.forget_drops_from(at);
        let proof = ProofId(self.number());
        self.feed(Input::Prove {
            proof,
            session,
            address: at,
        });
    }

    /// What a client sent arrives.
    pub(crate) fn hear(&mut self, client: usize) {
        let Some(session) = self.clients[client].session else {
            return;
        };
        let Some(message) = self.clients[client].outbox.pop_front() else {
            return;
        };
        self.note(|| format!("client {client} says {message:?}"));
        self.believe(session, client, &message);
        self.feed(Input::Client { session, message });
    }

    /// What of it is a claim that counts.
    pub(crate) fn believe(&mut self, session: SessionId, client: usize, message: &FromClient) {
        let user = identity(self.clients[client].user);
        let holds = |at: Addr| {
            self.reference
                .held
                .get(&session)
                .is_some_and(|held| held.contains(&at))
        };
        let mut valid = Vec::new();
        match message {
            FromClient::Claims(claims) => {
                for claim in claims.iter() {
                    if let (Finding::Mine(mine), Some(tuple)) =
                        (&claim.finding, self.questions.get(&claim.id))
                        && holds(tuple.src())
                    {
                        valid.push((*tuple, mine.seen));
                    }
                }
            }
            FromClient::Announce(announced) => {
                let seen = announced.iter().map(|announce| announce.mine.seen);
                valid.extend(seen.filter(|seen| holds(seen.src())).map(|seen| (seen, seen)));
            }
            FromClient::Withdraw(withdraw) => {
                if let Some(held) = self.reference.held.get_mut(&session)
                    && withdraw.address != address(self.clients[client].host, false)
                {
                    held.remove(&withdraw.address);
                }
            }
            _ => {}
        }
        for (tuple, seen) in valid {
            self.reference.claimed(&user, &tuple, &seen, self.now);
        }
    }

    // The network.

    pub(crate) fn connect(&mut self, gateway: usize) {
        if self.agents[gateway].link.is_some() || self.server.is_none() {
            return;
        }
        let id = self.number();
        self.note(|| format!("gateway {gateway} connects as link {id}"));
        let hello = self.agents[gateway].hello(self.relays_events);
        self.agents[gateway].link = Some(id);
        self.links.push(Link::new(id, gateway, hello));
    }

    pub(crate) fn cut(&mut self, gateway: usize) {
        if let Some(id) = self.agents[gateway].link
            && let Some(link) = self.links.iter_mut().find(|link| link.id == id)
        {
            link.cut = true;
            // What was on its way may be lost.
            let arrives = self.rng.random_range(0..=link.up.len());
            link.up.truncate(arrives);
            let arrives = self.rng.random_range(0..=link.down.len());
            link.down.truncate(arrives);
            self.note(|| format!("link {id} is cut"));
        }
    }

    /// The next message of a link reaches the server, or its end does.
    pub(crate) fn deliver(&mut self, index: usize) {
        let (id, gateway) = (self.links[index].id, self.links[index].gateway);
        let link = LinkId(id);
        self.links[index].heard(true);
        match self.links[index].up.pop_front() {
            Some(Up::Hello(hello)) => {
                self.note(|| format!("link {id} says hello, boot {}", hello.boot));
                let name = Arc::clone(&self.names[gateway]);
                self.feed(Input::GatewayUp { link, name, hello });
            }
            Some(Up::Say(message)) => {
                self.note(|| format!("link {id} says {message:?}"));
                if let ToServer::Asks(asks) = &message {
                    // Asks of a link that the server has given up are not even read.
                    for ask in asks.iter() {
                        self.asks.insert((link, ask.id), (gateway, ask.zone, ask.tuple));
                    }
                }
                self.feed(Input::Gateway { link, message });
            }
            None if self.links[index].cut => {
                self.note(|| format!("the end of link {id} is noticed"));
                if self.agents[gateway].link != Some(id) {
                    self.links.remove(index);
                }
                self.feed(Input::GatewayDown { link });
            }
            None => {}
        }
    }

    pub(crate) fn turn(&mut self, gateway: usize) {
        let agent = &mut self.agents[gateway];
        let link = agent
            .link
            .and_then(|id| self.links.iter_mut().find(|link| link.id == id));
        let over = link.as_ref().is_none_or(|link| link.cut && link.down.is_empty());
        if agent.link.is_some() && over {
            agent.lose_link();
            self.note(|| format!("gateway {gateway} notices the end of its link"));
            return;
        }
        let kernel = &mut self.kernels[gateway];
        let arrives = link.as_ref().filter(|link| link.cut).map(|link| link.up.len());
        let id = agent.link;
        agent.turn(link, kernel, self.now, &mut self.rng, &mut self.reference);
        // What it says into a link that is cut is lost, all of it after the first that was.
        if let Some(arrives) = arrives
            && let Some(link) = self.links.iter_mut().find(|link| Some(link.id) == id)
        {
            link.up.truncate(arrives);
        }
    }

    pub(crate) fn crash_agent(&mut self, gateway: usize) {
        let boot = self.number();
        self.note(|| format!("agent {gateway} crashes, boot {boot} begins"));
        self.cut(gateway);
        self.agents[gateway].crash(boot, &mut self.kernels[gateway], &mut self.reference);
    }
}
