//! A model of the agent: packets that wait, events that are kept until acknowledged, dumps.
//!
//! Works in turns, like the real one: verdicts that came are applied, the queue is read, asks go out before events.

use crate::kernel::{Kernel, Key, Packet, Told};
use crate::reference::Reference;
use nufw_proto::gateway::{
    Ask, Capabilities, DumpBegin, DumpEnd, DumpPart, Events, Gap, GapCause, Hello, Hook, KillStep, Killed,
    Live, ToAgent, ToServer, Unused, Verdict,
};
use nufw_proto::{AskId, Batch, BootId, CtEntry, DumpId, EventSeq, Mark, TcpState, Text};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};

/// How long a packet is held, microseconds.
pub(crate) const PACKET_TIMEOUT: u64 = 15_000_000;
/// How long a peer may be silent, microseconds.
const DEAD_AFTER: u64 = 10_000_000;
/// Events that are kept.
const STORE: usize = 2000;

/// What is on its way from an agent to the server.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Hello(Hello),
    Say(ToServer),
}

/// One TLS connection. Each side learns of its end by itself.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) gateway: usize,
    pub(crate) up: VecDeque<Up>,
    pub(crate) down: VecDeque<ToAgent>,
    /// Since when something waits to be heard by the server, and by the agent.
    waits: [Option<u64>; 2],
    pub(crate) cut: bool,
}

impl Link {
    pub(crate) fn new(id: u64, gateway: usize, hello: Hello) -> Self {
        Self {
            id,
            gateway,
            up: VecDeque::from([Up::Hello(hello)]),
            down: VecDeque::new(),
            waits: [None; 2],
            cut: false,
        }
    }

    /// Heartbeats: whoever is not heard for so long is dead.
    pub(crate) fn is_dead(&mut self, now: u64) -> bool {
        let silent = [self.up.is_empty(), self.down.is_empty()];
        for (waits, silent) in self.waits.iter_mut().zip(silent) {
            *waits = if silent { None } else { waits.or(Some(now)) };
        }
        !self.cut && self.waits.iter().flatten().any(|since| now > since + DEAD_AFTER)
    }

    /// Nothing that is on its way will be heard any more.
    pub(crate) fn end(&mut self) {
        self.cut = true;
        self.up.clear();
        self.down.clear();
    }

    /// One side was heard.
    pub(crate) fn heard(&mut self, by_server: bool) {
        self.waits[usize::from(!by_server)] = None;
    }
}

#[derive(Debug)]
struct Dump {
    id: DumpId,
    /// Where the reading stands; `None` before the first part.
    after: Option<Key>,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) gateway: usize,
    pub(crate) boot: BootId,
    /// The link it has; the list of all links is the network's.
    pub(crate) link: Option<u64>,
    welcomed: bool,
    pending: BTreeMap<AskId, (Packet, u64)>,
    next_ask: u64,
    events: VecDeque<Told>,
    first: u64,
    unsent: u64,
    gap: Option<Gap>,
    /// The last one that a link carried: whether it arrived is not known.
    gap_sent: Option<Gap>,
    dumps: VecDeque<DumpId>,
    dump: Option<Dump>,
    /// What the server wants ended.
    kills: Vec<Live>,
}

impl Agent {
    pub(crate) fn new(gateway: usize, boot: u64) -> Self {
        Self {
            gateway,
            boot: BootId(boot),
            link: None,
            welcomed: false,
            pending: BTreeMap::new(),
            next_ask: 1,
            events: VecDeque::new(),
            first: 1,
            unsent: 1,
            gap: None,
            gap_sent: None,
            dumps: VecDeque::new(),
            dump: None,
            kills: Vec::new(),
        }
    }

    pub(crate) fn hello(&self, relays_events: bool) -> Hello {
        Hello {
            software: Text::default(),
            boot: self.boot,
            capabilities: Capabilities::KILL,
            packet_timeout_ms: u32::try_from(PACKET_TIMEOUT / 1000).unwrap_or(u32::MAX),
            relays_events,
            marked_only: false,
            sets_marks: true,
            first_held: EventSeq(self.first),
        }
    }

    /// The link is lost, and with it every packet that waited on it.
    pub(crate) fn lose_link(&mut self) {
        self.link = None;
        self.welcomed = false;
        self.pending.clear();
        self.dumps.clear();
        self.dump = None;
        self.gap = self.gap.or(self.gap_sent);
    }

    /// The agent's process dies.
    pub(crate) fn crash(&mut self, boot: u64, kernel: &mut Kernel, reference: &mut Reference) {
        kernel.unbind_queue();
        kernel.lose_events(&mut reference.records);
        for told in self.events.drain(..) {
            reference.records.lost(&told);
        }
        *self = Self::new(self.gateway, boot);
    }

    /// The kernel's buffer of events has overflowed.
    pub(crate) fn overrun(&mut self, kernel: &mut Kernel, reference: &mut Reference, now: u64) {
        kernel.lose_events(&mut reference.records);
        let at = crate::kernel::stamp(now);
        self.gap = Some(Gap {
            from: at,
            to: at,
            cause: GapCause::NetlinkOverrun,
        });
        self.dumps.push_back(DumpId(0));
    }

    pub(crate) fn is_idle(&self, kernel: &Kernel) -> bool {
        self.welcomed && self.dump.is_none() && self.dumps.is_empty() && kernel.queue.is_empty()
    }

    /// One turn of its loop.
    pub(crate) fn turn(
        &mut self,
        link: Option<&mut Link>,
        kernel: &mut Kernel,
        now: u64,
        rng: &mut StdRng,
        reference: &mut Reference,
    ) {
        let Some(link) = link else {
            // Fail closed: nobody could be asked.
            kernel.unbind_queue();
            self.read_events(kernel, reference);
            return;
        };
        self.pending.retain(|_, (_, deadline)| *deadline > now);
        self.listen(link, kernel, now, rng, reference);
        self.read_queue(link, kernel, now);
        self.end_connections(link, kernel, now, rng, reference);
        self.read_events(kernel, reference);
        self.send_events(link);
        self.work_on_dump(link, kernel, rng, reference);
    }

    fn listen(
        &mut self,
        link: &mut Link,
        kernel: &mut Kernel,
        now: u64,
        rng: &mut StdRng,
        reference: &mut Reference,
    ) {
        let messages = rng.random_range(0..=link.down.len());
        if messages > 0 {
            link.heard(false);
        }
        let mut unused = Vec::new();
        for message in link.down.drain(..messages) {
            match message {
                ToAgent::Welcome(welcome) => {
                    self.welcomed = true;
                    self.forget(welcome.acknowledged, true);
                    self.unsent = self.first;
                }
                ToAgent::Answers(answers) => {
                    for answer in answers {
                        let waiting = self.pending.remove(&answer.id);
                        match (answer.verdict, waiting) {
                            (Verdict::Accept { row, mark }, Some((packet, _))) => {
                                let to = (self.gateway, row, mark);
                                kernel.accept(packet, to, now, rng, &mut reference.records);
                            }
                            (Verdict::Accept { row, .. }, None) => unused.push(Unused { id: answer.id, row }),
                            (Verdict::Drop | Verdict::Reject, _) => {}
                        }
                    }
                }
                ToAgent::EventAck(ack) => self.forget(ack.through, false),
                ToAgent::DumpRequest(request) => self.dumps.push_back(request.dump),
                ToAgent::Kill(orders) => self.kills.extend(orders),
                // An agent that never tells its kernel is the worst one.
                ToAgent::KnownAddresses(_)
                | ToAgent::Heartbeat(_)
                | ToAgent::Goodbye(_)
                | ToAgent::Expire(_) => {}
            }
        }
        if !unused.is_empty() {
            link.up.push_back(Up::Say(ToServer::Unused(batch(unused))));
        }
    }

    /// Ends what the server wants ended, or forgets that it was told to.
    fn end_connections(
        &mut self,
        link: &mut Link,
        kernel: &mut Kernel,
        now: u64,
        rng: &mut StdRng,
        reference: &mut Reference,
    ) {
        let mut told = Vec::new();
        self.kills.retain(|live| {
            let key = (live.zone, live.original);
            let is_there = kernel.table.get(&key).is_some_and(|entry| entry.ct.id == live.id);
            let step = match rng.random_range(0..10) {
                0 if reference.faulty => return false,
                1..5 if is_there => KillStep::Refused,
                _ => KillStep::Gone,
            };
            if is_there && step == KillStep::Gone {
                kernel.destroy(&key, TcpState::CLOSE, now, &mut reference.records);
                reference.seen.insert("killed");
            }
            told.push(Killed { row: live.row, step });
            step == KillStep::Refused
        });
        if !told.is_empty() {
            link.up.push_back(Up::Say(ToServer::Killed(batch(told))));
        }
    }

    fn forget(&mut self, through: EventSeq, at_welcome: bool) {
        let known = if at_welcome {
            self.first + self.events.len() as u64
        } else {
            self.unsent
        };
        assert!(
            through.0 < known,
            "the server acknowledged event {through}, which the link has not carried"
        );
        while self.first <= through.0 && self.events.pop_front().is_some() {
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
    }

    fn read_queue(&mut self, link: &mut Link, kernel: &mut Kernel, now: u64) {
        let mut asks = Vec::new();
        for packet in kernel.queue.drain(..) {
            if !self.welcomed {
                continue;
            }
            let id = AskId(self.next_ask);
            self.next_ask += 1;
            self.pending.insert(id, (packet, now + PACKET_TIMEOUT));
            asks.push(Ask {
                id,
                hook: Hook::Forward,
                zone: packet.key.0,
                tuple: packet.shown,
                in_dev: Text::default(),
                out_dev: Text::default(),
                mark: Mark(0),
                received: crate::kernel::stamp(now),
                tracked: true,
            });
        }
        if !asks.is_empty() {
            link.up.push_back(Up::Say(ToServer::Asks(batch(asks))));
        }
    }

    fn read_events(&mut self, kernel: &mut Kernel, reference: &mut Reference) {
        for told in kernel.events.drain(..) {
            self.events.push_back(told);
            if self.events.len() > STORE {
                let lost = self.events.pop_front();
                self.first += 1;
                self.unsent = self.unsent.max(self.first);
                if let Some(lost) = lost {
                    reference.records.lost(&lost);
                }
            }
        }
    }

    fn send_events(&mut self, link: &mut Link) {
        if !self.welcomed {
            return;
        }
        if let Some(gap) = self.gap.take() {
            self.gap_sent = Some(gap);
            link.up.push_back(Up::Say(ToServer::Gap(gap)));
        }
        let begin = usize::try_from(self.unsent - self.first).expect("small");
        let events: Vec<_> = self.events.range(begin..).map(|told| told.event).collect();
        if !events.is_empty() {
            let first = EventSeq(self.unsent);
            self.unsent += events.len() as u64;
            let events = batch(events);
            link.up
                .push_back(Up::Say(ToServer::Events(Events { first, events })));
        }
    }

    /// A dump is read in parts, while the table changes under it.
    fn work_on_dump(
        &mut self,
        link: &mut Link,
        kernel: &mut Kernel,
        rng: &mut StdRng,
        reference: &mut Reference,
    ) {
        let Some(Dump { id: dump, after }) = self.dump.take() else {
            if self.welcomed
                && let Some(id) = self.dumps.pop_front()
            {
                link.up
                    .push_back(Up::Say(ToServer::DumpBegin(DumpBegin { dump: id })));
                self.dump = Some(Dump { id, after: None });
            }
            return;
        };
        let end = |complete| Up::Say(ToServer::DumpEnd(DumpEnd { dump, complete }));
        if reference.faulty && rng.random_ratio(1, 20) {
            // The kernel broke off.
            link.up.push_back(end(false));
            return;
        }
        let take = rng.random_range(0..8);
        let rest: Vec<(Key, CtEntry)> = kernel
            .table
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| **key > after))
            .map(|(key, entry)| (*key, entry.ct))
            .collect();
        let part = &rest[..rest.len().min(take)];
        let entries = batch(part.iter().map(|(_, ct)| *ct).collect());
        link.up
            .push_back(Up::Say(ToServer::DumpPart(DumpPart { dump, entries })));
        if part.len() < rest.len() {
            let after = part.last().map(|(key, _)| *key).or(after);
            self.dump = Some(Dump { id: dump, after });
            return;
        }
        self.read_events(kernel, reference);
        self.send_events(link);
        link.up.push_back(end(true));
    }
}

fn batch<T>(items: Vec<T>) -> Batch<T> {
    Batch::try_from(items).unwrap_or_else(|_| panic!("the model keeps its batches small"))
}
