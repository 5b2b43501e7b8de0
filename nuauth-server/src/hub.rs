//! The one task that owns the engine: what the ports and the journal say goes in, what must be done goes out.
//!
//! Batches in, batches out: everything that waits is handled before anything is delivered, so that verdicts, questions
//! and rows of one moment travel together. Decides nothing itself.

use crate::clients::renew;
use crate::control::Moment;
use crate::directory::Remembered;
use crate::engine::{
    Effect, Engine, Identity, Input, Judge, Leaving, LinkId, LiveConn, Now, ProofId, SessionFacts,
    SessionWord, Stats,
};
use crate::hooks::Hooks;
use crate::journal::{Entry, Journal, Report};
use nufw_common::clock;
use nufw_common::watchdog::Watchdog;
use nufw_proto::client::{ClaimRequest, EndCause, HashPrograms, Refusal};
use nufw_proto::gateway::{self, Answer, ToAgent};
use nufw_proto::{Addr, Batch, MAX_BATCH, SessionId, Text, Tuple, client};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Batches that may wait for the engine; a port that brings more waits with reading.
pub(crate) const WAITING_EVENTS: usize = 1024;
/// Batches that may wait for one peer; a peer that does not take them is cut off.
pub(crate) const WAITING_FOR_PEER: usize = 1024;
/// How often the engine looks at its time-outs.
const TICK: Duration = Duration::from_millis(100);
/// How long packets that wait may take when the server ends.
const DRAIN: Duration = Duration::from_secs(2);
/// How long peers may take to hear that the server ends.
const PARTING: Duration = Duration::from_secs(1);

/// What a port tells the hub.
#[derive(Debug)]
pub(crate) enum Event {
    /// A gateway's agent said hello.
    GatewayUp {
        link: LinkId,
        name: Arc<str>,
        hello: gateway::Hello,
        out: mpsc::Sender<ToLink>,
    },
    /// It says more.
    GatewaySaid {
        link: LinkId,
        messages: Vec<gateway::ToServer>,
    },
    /// Its link is over.
    GatewayDown { link: LinkId },
    /// A client has logged in.
    SessionUp {
        session: SessionId,
        facts: SessionFacts,
        out: mpsc::Sender<ToSession>,
    },
    /// It says more.
    ClientSaid {
        session: SessionId,
        messages: Vec<client::ToServer>,
    },
    /// Its session is over.
    SessionDown { session: SessionId, leaving: Leaving },
    /// Its client has shown its credentials again.
    Renewed { session: SessionId },
    /// Something else that the engine must hear.
    Tell(Box<Input>),
    /// Somebody looks at the engine, or at what it holds, and may order something.
    Ask(Box<dyn Question>),
    /// Somebody shows a session's token.
    Prove {
        session: SessionId,
        address: Addr,
        answer: oneshot::Sender<Result<Addr, Refusal>>,
    },
    /// Policy and users were read again.
    Reload {
        judge: Arc<dyn Judge>,
        users: HashMap<Arc<str>, Arc<Identity>>,
    },
    /// Somebody wants to ask again about those that other back-ends know.
    Remembered {
        answer: oneshot::Sender<Vec<Arc<Identity>>>,
    },
    /// What they say of them.
    Asked(Vec<Asked>),
    /// Somebody asks how things are.
    Moment { answer: oneshot::Sender<Moment> },
    /// Somebody doubts old rows of these gateways.
    Verify {
        gateways: Vec<String>,
        answer: oneshot::Sender<Moment>,
    },
    /// Somebody asks whose live connection this is.
    Find {
        ends: Tuple,
        answer: oneshot::Sender<Option<LiveConn>>,
    },
    /// The server ends: answer what waits, then tell every peer and stop.
    Stop { done: oneshot::Sender<Stats> },
}

/// What back-ends say of a user of whom they were asked again. Of whom they could not say, nothing is told.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It is this user.
    Known(Arc<Identity>),
    /// There is no such user any more.
    Gone(Arc<str>),
}

/// What the hub tells the task of a gateway's link.
#[derive(Debug)]
pub(crate) enum ToLink {
    Say(Vec<ToAgent>),
    End(&'static str),
}

/// What the hub tells the task of a session.
#[derive(Debug)]
pub(crate) enum ToSession {
    Admitted,
    Refused(Refusal),
    /// In a box, since a channel has room for 32 of these for each session that only waits.
    Say(Box<client::ToClient>),
    End {
        cause: Option<EndCause>,
        reason: Arc<str>,
    },
}

/// A question to the engine, put at a moment.
pub(crate) trait Question: Send {
    /// Finds the answer and hands it to whoever asked.
    fn put(self: Box<Self>, engine: &mut Engine, now: Now, out: &mut Vec<Effect>);
}

impl<F: FnOnce(&mut Engine, Now, &mut Vec<Effect>) + Send> Question for F {
    fn put(self: Box<Self>, engine: &mut Engine, now: Now, out: &mut Vec<Effect>) {
        self(engine, now, out);
    }
}

impl std::fmt::Debug for dyn Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

/// The engine with everything that connects it.
pub(crate) struct Hub {
    engine: Engine,
    journal: Journal,
    started: Instant,
    links: HashMap<LinkId, mpsc::Sender<ToLink>>,
    sessions: HashMap<SessionId, mpsc::Sender<ToSession>>,
    proofs: HashMap<ProofId, oneshot::Sender<Result<Addr, Refusal>>>,
    /// Where the users file does not say everything.
    remembered: Option<Remembered>,
    last_proof: u64,
    effects: Vec<Effect>,
    delivery: Delivery,
    /// Who wants to hear of sessions; one that is behind misses some, and counts them.
    hooks: Option<Hooks>,
}

/// The end of the server, under way.
struct Ending {
    done: oneshot::Sender<Stats>,
    /// Whether the peers have been told.
    told: bool,
    until: Instant,
}

impl Ending {
    fn new(done: oneshot::Sender<Stats>) -> Self {
        Self {
            done,
            told: false,
            until: clock::mono() + DRAIN,
        }
    }
}

/// Effects sorted by where they go; kept between turns for their memory.
#[derive(Default)]
struct Delivery {
    log: Vec<Entry>,
    answers: HashMap<LinkId, Vec<Answer>>,
    questions: HashMap<SessionId, Vec<ClaimRequest>>,
}

impl Hub {
    /// Connects an engine that has loaded what the log knew.
    pub(crate) fn new(engine: Engine, journal: Journal, remembered: Option<Remembered>) -> Self {
        Self {
            remembered,
            engine,
            journal,
            started: clock::mono(),
            links: HashMap::new(),
            sessions: HashMap::new(),
            proofs: HashMap::new(),
            last_proof: 0,
            effects: Vec::new(),
            delivery: Delivery::default(),
            hooks: None,
        }
    }

    /// The same, with programs that are run when sessions begin and end.
    pub(crate) fn with_hooks(mut self, hooks: Option<Hooks>) -> Self {
        self.hooks = hooks;
        self
    }

    /// Works until [`Event::Stop`].
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut reports: mpsc::UnboundedReceiver<Report>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending: Option<Ending> = None;
        let mut batch = Vec::with_capacity(WAITING_EVENTS);
        let mut watchdog = Watchdog::from_environment();
        loop {
            watchdog.turned(clock::mono());
            tokio::select! {
                biased;
                Some(report) = reports.recv() => {
                    self.report(report);
                    while let Ok(report) = reports.try_recv() {
                        self.report(report);
                    }
                }
                count = events.recv_many(&mut batch, WAITING_EVENTS) => {
                    if count == 0 {
                        return;
                    }
                    for event in batch.drain(..) {
                        match event {
                            Event::Stop { done } => ending = Some(Ending::new(done)),
                            event => self.event(event),
                        }
                    }
                }
                _ = ticks.tick() => self.input(Input::Tick),
            }
            self.deliver();
            if let Some(ended) = ending.take_if(|ending| self.has_ended(ending)) {
                self.input(Input::Stopping);
                self.deliver();
                let _ = ended.done.send(self.engine.stats());
                return;
            }
        }
    }

    /// Works on the end: first the packets that wait get their answers, then every peer is told and leaves.
    fn has_ended(&mut self, ending: &mut Ending) -> bool {
        let late = clock::mono() >= ending.until;
        if !ending.told && (late || self.engine.stats().pending_asks == 0) {
            self.say_goodbye();
            ending.told = true;
            ending.until = clock::mono() + PARTING;
            return self.links.is_empty() && self.sessions.is_empty();
        }
        ending.told && (late || (self.links.is_empty() && self.sessions.is_empty()))
    }

    fn now(&self) -> Now {
        Now {
            mono: clock::mono().saturating_duration_since(self.started),
            wall: clock::wall(),
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(input, now, &mut self.effects);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::GatewayUp {
                link,
                name,
                hello,
                out,
            } => {
                self.links.insert(link, out);
                self.input(Input::GatewayUp { link, name, hello });
            }
            Event::GatewaySaid { link, messages } => {
                for message in messages {
                    self.input(Input::Gateway { link, message });
                }
            }
            Event::GatewayDown { link } => {
                self.links.remove(&link);
                self.input(Input::GatewayDown { link });
            }
            Event::SessionUp { session, facts, out } => {
                self.sessions.insert(session, out);
                if let Some(remembered) = &mut self.remembered {
                    remembered.logged_in(session, &facts.identity);
                }
                self.input(Input::SessionUp { session, facts });
            }
            Event::ClientSaid { session, messages } => {
                for message in messages {
                    self.input(Input::Client { session, message });
                }
            }
            Event::SessionDown { session, leaving } => {
                self.sessions.remove(&session);
                if let Some(remembered) = &mut self.remembered {
                    remembered.logged_out(session);
                }
                self.input(Input::SessionDown { session, leaving });
            }
            Event::Renewed { session } => self.input(Input::Renewed { session }),
            Event::Tell(input) => self.input(*input),
            Event::Ask(question) => {
                let now = self.now();
                question.put(&mut self.engine, now, &mut self.effects);
            }
            Event::Prove {
                session,
                address,
                answer,
            } => {
                self.last_proof += 1;
                let proof = ProofId(self.last_proof);
                self.proofs.insert(proof, answer);
                self.input(Input::Prove {
                    proof,
                    session,
                    address,
                });
            }
            Event::Reload { judge, users } => {
                self.input(Input::Judge(judge));
                let users = match &mut self.remembered {
                    None => users,
                    Some(remembered) => remembered.read(users),
                };
                self.input(Input::Users(users));
            }
            Event::Remembered { answer } => {
                let _ = answer.send(self.remembered.as_ref().map_or_else(Vec::new, Remembered::all));
            }
            Event::Asked(answers) => {
                if let Some(remembered) = &mut self.remembered {
                    let users = remembered.asked(answers);
                    self.input(Input::Users(users));
                }
            }
            // Whoever asked may have gone.
            Event::Moment { answer } => {
                let _ = answer.send(self.moment());
            }
            Event::Verify { gateways, answer } => {
                self.input(Input::Verify { gateways });
                let _ = answer.send(self.moment());
            }
            Event::Find { ends, answer } => {
                let _ = answer.send(self.engine.find(&ends));
            }
            Event::Stop { .. } => {}
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            stats: self.engine.stats(),
            gateways: self
                .engine
                .linked_gateways()
                .map(|(name, relays)| (Arc::clone(name), relays))
                .collect(),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Committed { opened, acknowledged } => {
                self.input(Input::Committed { opened, acknowledged });
            }
            Report::Failed { opened, .. } => self.input(Input::LogFailed { opened }),
            Report::Ids(mut block) => {
                let left = block.remaining();
                if let Some(first) = block.next().map(u64::from) {
                    self.input(Input::Ids(first..first + left));
                }
            }
            Report::Loaded { rows, acknowledged } => self.input(Input::Loaded { rows, acknowledged }),
            Report::Recovered => {}
        }
    }

    /// Carries the effects of this turn out: rows first, since verdicts of others may wait for the disk.
    fn deliver(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Log(entry) => {
                    self.delivery.log.push(Entry {
                        change: entry.change,
                        urgent: entry.urgent,
                    });
                }
                Effect::Answer { link, answer } => {
                    self.delivery.answers.entry(link).or_default().push(answer);
                }
                Effect::Question { session, request } => {
                    self.delivery.questions.entry(session).or_default().push(request);
                }
                Effect::Agent { link, message } => self.hand_to_link(link, ToLink::Say(vec![message])),
                Effect::EndLink { link, reason } => {
                    self.hand_to_link(link, ToLink::End(reason));
                    self.links.remove(&link);
                }
                Effect::Admitted { session } => self.hand_to_session(session, ToSession::Admitted),
                Effect::HashPrograms { session, wanted } => {
                    let message = client::ToClient::HashPrograms(HashPrograms { wanted });
                    self.hand_to_session(session, ToSession::Say(Box::new(message)));
                }
                Effect::NotAdmitted { session, cause } => {
                    self.hand_to_session(session, ToSession::Refused(cause));
                    // Its task ends without a word.
                    self.sessions.remove(&session);
                    if let Some(remembered) = &mut self.remembered {
                        remembered.logged_out(session);
                    }
                }
                Effect::EndSession {
                    session,
                    cause,
                    reason,
                } => {
                    self.hand_to_session(session, ToSession::End { cause, reason });
                    self.sessions.remove(&session);
                }
                Effect::Renew { session, within } => {
                    self.hand_to_session(session, ToSession::Say(Box::new(renew(within))));
                }
                Effect::Denied { session, denied } => {
                    self.hand_to_session(
                        session,
                        ToSession::Say(Box::new(client::ToClient::Denied(*denied))),
                    );
                }
                Effect::Session(word) => self.tell_hooks(&word),
                Effect::Proof { proof, result } => {
                    if let Some(answer) = self.proofs.remove(&proof) {
                        let _ = answer.send(result);
                    }
                }
            }
        }
        self.effects = effects;
        if !self.delivery.log.is_empty() {
            self.journal.submit(std::mem::take(&mut self.delivery.log));
        }
        let mut answers = std::mem::take(&mut self.delivery.answers);
        for (link, answers) in answers.drain() {
            self.hand_to_link(
                link,
                ToLink::Say(batches(answers).map(ToAgent::Answers).collect()),
            );
        }
        self.delivery.answers = answers;
        let mut questions = std::mem::take(&mut self.delivery.questions);
        for (session, questions) in questions.drain() {
            for batch in batches(questions) {
                self.hand_to_session(
                    session,
                    ToSession::Say(Box::new(client::ToClient::ClaimRequests(batch))),
                );
            }
        }
        self.delivery.questions = questions;
    }

    /// Hands a batch to a link's task. One that does not take it is cut off: its channel ends with the entry.
    fn hand_to_link(&mut self, link: LinkId, what: ToLink) {
        if let Some(out) = self.links.get(&link)
            && out.try_send(what).is_err()
        {
            self.links.remove(&link);
        }
    }

    fn hand_to_session(&mut self, session: SessionId, what: ToSession) {
        if let Some(out) = self.sessions.get(&session)
            && out.try_send(what).is_err()
        {
            self.sessions.remove(&session);
        }
    }

    fn tell_hooks(&self, word: &SessionWord) {
        if let Some(hooks) = &self.hooks {
            hooks.tell(word);
        }
    }

    fn say_goodbye(&mut self) {
        let reason = "the server is being stopped";
        for out in self.links.values() {
            let _ = out.try_send(ToLink::End(reason));
        }
        for out in self.sessions.values() {
            let _ = out.try_send(ToSession::End {
                cause: None,
                reason: Arc::from(reason),
            });
        }
    }
}

/// Cuts a list into batches that fit a message.
fn batches<T: Clone>(items: Vec<T>) -> impl Iterator<Item = Batch<T>> {
    let mut rest = items;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let tail = rest.split_off(rest.len().min(MAX_BATCH));
        Batch::try_from(std::mem::replace(&mut rest, tail)).ok()
    })
}

/// A sentence for a peer, cut to what a message may carry.
pub(crate) fn goodbye(reason: &str) -> gateway::Goodbye {
    gateway::Goodbye {
        reason: Text::lossy(reason),
    }
}
