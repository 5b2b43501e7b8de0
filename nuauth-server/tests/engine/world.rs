//! A small world around the engine: gateways that ask, clients that answer, a log that commits when told.

pub(crate) use crate::entries::{addr, answered, counters, ended, entry, natted, ping, reversed, tcp, udp};
use nuauth_server::engine::{
    Decision, Effect, Engine, Identity, Input, Judge, Leaving, Limits, LinkId, LiveConn, LogEntry, LogMode,
    Now, ProofId, Ruling, SessionFacts, Stats, Subject,
};
use nufw_proto::client::{self, Announce, Claim, ClaimRequest, Finding, Mine, OsInfo, Refusal, Withdraw};
use nufw_proto::gateway::{
    Ask, Capabilities, DumpBegin, DumpEnd, DumpPart, Events, Hello, Hook, ToAgent, ToServer, Unused, Verdict,
};
use nufw_proto::{
    Addr, AskId, Batch, BootId, ConnId, CtEntry, CtEvent, CtEventKind, DumpId, EventSeq, Mark, Removal,
    SessionId, Text, Timestamp, Tuple,
};
use nulog::{Change, Close, CloseReason, Established, GapRow, OpenRow, User};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the agents of this world hold a packet.
pub(crate) const PACKET_TIMEOUT: Duration = Duration::from_secs(15);

type Acknowledged = (Arc<str>, BootId, EventSeq);

/// Accepts everything but port 23 (dropped) and port 25 (rejected). The ports from 2001 have log modes of their own: sync,
/// async, none, strict; port 2023 is dropped without a row. Connections to port 2030 live for an hour.
struct Rules;

impl Judge for Rules {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        let port = subject.tuple.transport().ports().map(|ports| ports.dst);
        let decision = match port {
            Some(23 | 2023) => Decision::Drop,
            Some(25) => Decision::Reject,
            _ => Decision::Accept,
        };
        Ruling {
            decision,
            rule: Arc::from("rule"),
            prefix: Arc::from("prefix"),
            log: match port {
                Some(2001) => LogMode::Sync,
                Some(2002) => LogMode::Async,
                Some(2003 | 2023) => LogMode::None,
                Some(2004) => LogMode::Strict,
                _ => LogMode::Default,
            },
            expires: (port == Some(2030)).then_some(Duration::from_hours(1)),
            until: None,
            mark: Mark(0),
        }
    }
}

/// Accepts everything, and logs nothing.
pub(crate) struct NoLog;

impl Judge for NoLog {
    fn judge(&self, subject: &Subject<'_>) -> Ruling {
        Ruling {
            log: LogMode::None,
            ..Rules.judge(subject)
        }
    }
}

/// The same lists read again.
pub(crate) fn rules() -> Arc<dyn Judge> {
    Arc::new(Rules)
}

pub(crate) fn user(name: &str) -> Arc<Identity> {
    let id = name.bytes().map(u64::from).sum();
    Arc::new(Identity {
        user: User {
            id,
            name: Arc::from(name),
        },
        mark: Mark(u32::try_from(id).unwrap()),
        groups: Arc::from([]),
    })
}

pub(crate) struct World {
    pub(crate) engine: Engine,
    now: Duration,
    /// How far the calendar was stepped, microseconds.
    stepped: i64,
    out: Vec<Effect>,
    /// Every verdict, by packet; none may get two.
    verdicts: HashMap<AskId, Verdict>,
    questions: Vec<(SessionId, ClaimRequest)>,
    pub(crate) agent: Vec<(LinkId, ToAgent)>,
    pub(crate) log: Vec<LogEntry>,
    /// What of it says which gateways are there.
    pub(crate) heartbeats: Vec<(Arc<str>, Timestamp)>,
    pub(crate) others: Vec<Effect>,
    committed: usize,
    last_id: u64,
    seqs: HashMap<LinkId, u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut world = Self::without_ids(change);
        world.input(Input::Ids(1..1000));
        world
    }

    pub(crate) fn without_ids(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self {
            engine: Engine::new(limits, rules()),
            now: Duration::from_secs(100),
            stepped: 0,
            out: Vec::new(),
            verdicts: HashMap::new(),
            questions: Vec::new(),
            agent: Vec::new(),
            log: Vec::new(),
            heartbeats: Vec::new(),
            others: Vec::new(),
            committed: 0,
            last_id: 0,
            seqs: HashMap::new(),
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        // Every input comes a moment after the last one.
        self.now += Duration::from_micros(1);
        let now = self.moment();
        self.engine.handle(input, now, &mut self.out);
        let effects = std::mem::take(&mut self.out);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { answer, .. } => {
                    let second = self.verdicts.insert(answer.id, answer.verdict);
                    assert_eq!(second, None, "a packet got two verdicts");
                }
                Effect::Question { session, request } => self.questions.push((session, request)),
                Effect::Agent { link, message } => self.agent.push((link, message)),
                Effect::Log(LogEntry {
                    change: Change::Heartbeat { gateway, at },
                    urgent: false,
                }) => self.heartbeats.push((gateway, at)),
                Effect::Log(entry) => self.log.push(entry),
                other => self.others.push(other),
            }
        }
    }

    /// The gateways' clock, which is also the server's here.
    pub(crate) fn wall(&self) -> Timestamp {
        let passed = i64::try_from(self.now.as_micros()).unwrap();
        Timestamp::from_micros(1_800_000_000_000_000 + self.stepped + passed)
    }

    /// Somebody sets the calendar, of gateways and server alike.
    pub(crate) fn step_wall(&mut self, seconds: i64) {
        self.stepped += seconds * 1_000_000;
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.input(Input::Tick);
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn stats(&self) -> Stats {
        self.engine.stats()
    }

    pub(crate) fn find(&self, ends: &Tuple) -> Option<LiveConn> {
        self.engine.find(ends)
    }

    pub(crate) fn verify(&mut self, gateways: &[&str]) {
        let gateways = gateways.iter().map(ToString::to_string).collect();
        self.input(Input::Verify { gateways });
    }

    // Gateways.

    pub(crate) fn down(&mut self, link: LinkId) {
        self.input(Input::GatewayDown { link });
    }

    pub(crate) fn gateway(&mut self) -> LinkId {
        self.gateway_as("gw", |_| {})
    }

    pub(crate) fn gateway_as(&mut self, name: &str, change: impl FnOnce(&mut Hello)) -> LinkId {
        let link = LinkId(self.id());
        let mut hello = Hello {
            software: Text::default(),
            boot: BootId(1),
            capabilities: Capabilities::default(),
            packet_timeout_ms: u32::try_from(PACKET_TIMEOUT.as_millis()).unwrap(),
            relays_events: true,
            marked_only: false,
            sets_marks: true,
            first_held: EventSeq(1),
        };
        change(&mut hello);
        self.input(Input::GatewayUp {
            link,
            name: Arc::from(name),
            hello,
        });
        link
    }

    pub(crate) fn said(&mut self, link: LinkId, message: ToServer) {
        self.input(Input::Gateway { link, message });
    }

    pub(crate) fn ask(&mut self, link: LinkId, tuple: Tuple) -> AskId {
        self.ask_at(link, tuple, Hook::Forward)
    }

    pub(crate) fn ask_at(&mut self, link: LinkId, tuple: Tuple, hook: Hook) -> AskId {
        self.ask_with(link, tuple, |ask| ask.hook = hook)
    }

    pub(crate) fn ask_with(&mut self, link: LinkId, tuple: Tuple, change: impl FnOnce(&mut Ask)) -> AskId {
        let mut ask = self.packet(tuple);
        let id = ask.id;
        change(&mut ask);
        self.said(link, ToServer::Asks(Batch::try_from(vec![ask]).unwrap()));
        id
    }

    /// A packet of this moment, from eth0 to eth1.
    pub(crate) fn packet(&mut self, tuple: Tuple) -> Ask {
        Ask {
            id: AskId(self.id()),
            hook: Hook::Forward,
            zone: 0,
            tuple,
            in_dev: Text::lossy("eth0"),
            out_dev: Text::lossy("eth1"),
            mark: Mark(0),
            received: self.wall(),
            tracked: true,
        }
    }

    pub(crate) fn unused(&mut self, link: LinkId, id: AskId, row: ConnId) {
        let unused = Batch::try_from(vec![Unused { id, row }]).unwrap();
        self.said(link, ToServer::Unused(unused));
    }

    /// The next event of this link's agent, told by the kernel at this moment.
    pub(crate) fn event(&mut self, link: LinkId, kind: CtEventKind, entry: CtEntry) {
        let event = self.event_now(kind, entry);
        self.next_event(link, event);
    }

    pub(crate) fn next_event(&mut self, link: LinkId, event: CtEvent) {
        let first = self.seqs.get(&link).map_or(1, |last| last + 1);
        self.events(link, first, &[event]);
    }

    pub(crate) fn event_now(&self, kind: CtEventKind, entry: CtEntry) -> CtEvent {
        CtEvent {
            kind,
            entry,
            at: self.wall(),
            at_kernel: true,
            removal: Removal::Unsaid,
        }
    }

    pub(crate) fn events(&mut self, link: LinkId, first: u64, events: &[CtEvent]) {
        let last = self.seqs.entry(link).or_insert(0);
        *last = (*last).max(first.saturating_add(events.len() as u64 - 1));
        let events = Batch::try_from(events.to_vec()).unwrap();
        let first = EventSeq(first);
        self.said(link, ToServer::Events(Events { first, events }));
    }

    /// A dump of these entries, as an answer to a request or unasked.
    pub(crate) fn dump(&mut self, link: LinkId, dump: DumpId, entries: &[CtEntry], complete: bool) {
        self.said(link, ToServer::DumpBegin(DumpBegin { dump }));
        let entries = Batch::try_from(entries.to_vec()).unwrap();
        self.said(link, ToServer::DumpPart(DumpPart { dump, entries }));
        self.said(link, ToServer::DumpEnd(DumpEnd { dump, complete }));
    }

    /// The last dump that the engine asked for.
    pub(crate) fn requested(&self) -> Option<DumpId> {
        self.agent.iter().rev().find_map(|(_, message)| match message {
            ToAgent::DumpRequest(request) => Some(request.dump),
            _ => None,
        })
    }

    pub(crate) fn acks(&self) -> Vec<u64> {
        self.agent
            .iter()
            .filter_map(|(_, message)| match message {
                ToAgent::EventAck(ack) => Some(ack.through.0),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn welcomed_at(&self, link: LinkId) -> u64 {
        self.agent
            .iter()
            .find_map(|(to, message)| match message {
                ToAgent::Welcome(welcome) if *to == link => Some(welcome.acknowledged.0),
                _ => None,
            })
            .unwrap()
    }

    // Clients.

    pub(crate) fn login(&mut self, name: &str, address: &str) -> SessionId {
        let session = SessionId(self.id());
        let facts = SessionFacts::new(user(name), addr(address), OsInfo::default());
        self.input(Input::SessionUp { session, facts });
        session
    }

    pub(crate) fn login_with(
        &mut self,
        name: &str,
        address: &str,
        change: impl FnOnce(&mut SessionFacts),
    ) -> SessionId {
        let session = SessionId(self.id());
        let mut facts = SessionFacts::new(user(name), addr(address), OsInfo::default());
        change(&mut facts);
        self.input(Input::SessionUp { session, facts });
        session
    }

    /// What an administrator throws out, by the names of users.
    pub(crate) fn disconnect(&mut self, name: &str) -> Vec<SessionId> {
        let now = self.moment();
        let mut out = Vec::new();
        let meant = self.engine.disconnect(
            |_, identity, _| *identity.user.name == *name,
            "maintenance",
            now,
            &mut out,
        );
        self.take(out);
        meant
    }

    pub(crate) fn moment(&self) -> Now {
        Now {
            mono: self.now,
            wall: self.wall(),
        }
    }

    pub(crate) fn logout(&mut self, session: SessionId) {
        self.leave(session, Leaving::LoggedOut);
    }

    pub(crate) fn leave(&mut self, session: SessionId, leaving: Leaving) {
        self.input(Input::SessionDown { session, leaving });
    }

    pub(crate) fn prove(&mut self, session: SessionId, address: &str) -> Result<Addr, Refusal> {
        let proof = ProofId(self.id());
        self.input(Input::Prove {
            proof,
            session,
            address: addr(address),
        });
        match self.others.pop() {
            Some(Effect::Proof { proof: of, result }) if of == proof => result,
            other => panic!("no answer to the proof but {other:?}"),
        }
    }

    pub(crate) fn withdraw(&mut self, session: SessionId, address: &str) {
        let message = client::ToServer::Withdraw(Withdraw {
            address: addr(address),
        });
        self.input(Input::Client { session, message });
    }

    pub(crate) fn announce(&mut self, session: SessionId, seen: Tuple) {
        let mine = Mine { seen, program: None };
        let announced = Batch::try_from(vec![Announce { mine }]).unwrap();
        let message = client::ToServer::Announce(announced);
        self.input(Input::Client { session, message });
    }

    pub(crate) fn questions_to(&self, session: SessionId) -> usize {
        self.questions.iter().filter(|(to, _)| *to == session).count()
    }

    /// The last question to a session.
    pub(crate) fn question(&self, session: SessionId) -> ClaimRequest {
        let last = self.questions.iter().rev().find(|(to, _)| *to == session);
        last.expect("the session was not asked").1
    }

    /// Answers the last question to this session.
    pub(crate) fn answer(&mut self, session: SessionId, finding: Finding) {
        let id = self.question(session).id;
        self.answer_to(session, Claim { id, finding });
    }

    pub(crate) fn answer_to(&mut self, session: SessionId, claim: Claim) {
        let claims = Batch::try_from(vec![claim]).unwrap();
        let message = client::ToServer::Claims(claims);
        self.input(Input::Client { session, message });
    }

    /// Claims what was asked last, as it was asked.
    pub(crate) fn claim(&mut self, session: SessionId) {
        let seen = self.question(session).tuple;
        self.claim_as(session, seen);
    }

    pub(crate) fn claim_as(&mut self, session: SessionId, seen: Tuple) {
        let program = Some(Text::lossy("/usr/bin/curl"));
        self.answer(session, Finding::Mine(Mine { seen, program }));
    }

    pub(crate) fn disclaim(&mut self, session: SessionId) {
        self.answer(session, Finding::NotMine);
    }

    // The log.

    fn uncommitted(&mut self) -> (Vec<ConnId>, Vec<Acknowledged>) {
        let (mut opened, mut acknowledged) = (Vec::new(), Vec::new());
        for entry in &self.log[self.committed..] {
            match &entry.change {
                Change::Open(row) => opened.push(row.id),
                Change::Acknowledge {
                    gateway,
                    boot,
                    through,
                } => acknowledged.push((Arc::clone(gateway), *boot, *through)),
                _ => {}
            }
        }
        self.committed = self.log.len();
        (opened, acknowledged)
    }

    pub(crate) fn commit(&mut self) {
        let (opened, acknowledged) = self.uncommitted();
        self.input(Input::Committed { opened, acknowledged });
    }

    pub(crate) fn fail(&mut self) {
        let (opened, _) = self.uncommitted();
        self.input(Input::LogFailed { opened });
    }

    pub(crate) fn opened(&self) -> Vec<&OpenRow> {
        self.of_log(|change| match change {
            Change::Open(row) => Some(&**row),
            _ => None,
        })
    }

    pub(crate) fn dropped(&self) -> Vec<&OpenRow> {
        self.of_log(|change| match change {
            Change::Drop(row) => Some(&**row),
            _ => None,
        })
    }

    pub(crate) fn gaps(&self) -> Vec<&GapRow> {
        self.of_log(|change| match change {
            Change::Gap(gap) => Some(&**gap),
            _ => None,
        })
    }

    pub(crate) fn established(&self) -> Vec<&Established> {
        self.of_log(|change| match change {
            Change::Established(established) => Some(&**established),
            _ => None,
        })
    }

    pub(crate) fn closed(&self) -> Vec<&Close> {
        self.of_log(|change| match change {
            Change::Close(close) => Some(&**close),
            _ => None,
        })
    }

    /// Rows and reasons of the ends that were logged.
    pub(crate) fn ends(&self) -> Vec<(ConnId, CloseReason)> {
        self.closed()
            .iter()
            .map(|close| (close.id, close.reason))
            .collect()
    }

    fn of_log<'a, T>(&'a self, pick: impl Fn(&'a Change) -> Option<T>) -> Vec<T> {
        self.log.iter().filter_map(|entry| pick(&entry.change)).collect()
    }

    // The whole way.

    pub(crate) fn verdict(&self, ask: AskId) -> Option<Verdict> {
        self.verdicts.get(&ask).copied()
    }

    pub(crate) fn accepted(&self, ask: AskId) -> Option<ConnId> {
        match self.verdict(ask)? {
            Verdict::Accept { row, .. } => Some(row),
            Verdict::Drop | Verdict::Reject => None,
        }
    }

    /// A connection that is asked for, claimed, logged and accepted.
    pub(crate) fn granted(&mut self, link: LinkId, session: SessionId, tuple: Tuple) -> ConnId {
        let ask = self.ask(link, tuple);
        self.claim(session);
        self.commit();
        self.accepted(ask).expect("it was accepted")
    }
}
