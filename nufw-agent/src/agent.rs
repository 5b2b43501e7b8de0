//! The story of a packet, and of an event, on the gateway.
//!
//! One task, one turn after the other: answers are applied, the queue is read to its end, then events, then everything
//! goes out in one write. The order is a promise to the server: a packet that was queued before an event came to be is
//! asked for before that event is relayed. Nothing here decides; what cannot be asked is dropped.

mod dumps;
mod end;
mod kernel_says;
mod kills;
mod observed;
mod refusals;
mod server;
mod settings;
mod wakers;

pub use refusals::{Reapply, Refusals, Watch};
pub use settings::Settings;

use crate::conntrack::{ConntrackError, Control, Events, Received, Tracking};
use crate::link::{Happened, Link, LinkLoss};
use crate::loss::OnLoss;
use crate::packet;
use crate::pending::Pending;
use crate::queue::{Disposition, InterfaceNames, Queue, QueueError, QueuedPacket};
use crate::relay::{Overflow, Relay};
use crate::sources::Sources;
use crate::stats::{self, Seldom, Stats};
use dumps::Dumps;
use hashbrown::HashMap;
use kernel_says::KernelSays;
use kills::Kills;
use nufw_common::clock;
use nufw_common::lifecycle::Signal;
use nufw_common::watchdog::Watchdog;
use nufw_proto::gateway::{
    Answer, Ask, BridgePorts, Gap, GapCause, Hook, ToAgent, ToServer, Unused, Verdict,
};
use nufw_proto::{AskId, Batch, ConnId, CtEvent, MAX_BATCH, Mark, Text, Timestamp};
use observed::Observer;
use server::bridge_ports;
use std::io;
use std::time::{Duration, Instant};
use wakers::Wakers;

/// Packets read at once.
const PACKETS: usize = 4096;
/// Events read in one turn.
const EVENTS: usize = 4096;
/// Events are left in their buffer for so long after a reading, so that each reading finds many. Packets never wait.
const EVENT_PAUSE: Duration = Duration::from_millis(5);

/// Reports of unused verdicts that are kept while the server is away; the oldest go, and the server learns from the
/// next dump.
const MAX_UNUSED: usize = 65_536;

/// What ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The event socket failed.
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    /// Something else of the system failed.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// What a waiting packet is known by.
#[derive(Debug, Clone)]
struct Waiting {
    asked: Instant,
    queue: u16,
    packet_id: u32,
    mark: Mark,
    hook: Hook,
    is_ipv4: bool,
    /// What is asked, should it have to be asked again; its id is that of the table.
    ask: Ask,
    /// Ports of a bridge: in and out.
    ports: [Text<15>; 2],
    /// The server that was asked, by its place in the list; `None` while none was.
    server: Option<usize>,
}

impl Waiting {
    /// Its queue and its number there.
    fn place(&self) -> (u16, u32) {
        (self.queue, self.packet_id)
    }
}

/// Makes the TLS configuration from its files, at each SIGHUP again.
pub type LoadTls = Box<dyn Fn() -> Result<std::sync::Arc<rustls::ClientConfig>, String> + Send>;

/// What the agent has of the kernel.
pub struct Kernel {
    /// Waiting packets.
    pub queue: Queue,
    /// Names of interfaces.
    pub names: InterfaceNames,
    /// Events of the connection table, if they are relayed.
    pub events: Option<Events>,
    /// Changes of the connection table, if connections may be ended.
    pub control: Option<Control>,
}

/// The agent.
pub struct Agent {
    settings: Settings,
    queue: Queue,
    names: InterfaceNames,
    events: Option<Events>,
    link: Link,
    load_tls: LoadTls,
    refusals: Refusals,
    tracking: Tracking,
    pending: Pending<Waiting>,
    sources: Sources,
    relay: Relay,
    dumps: Dumps,
    kills: Kills,
    stats: Stats,
    kernel_watch: stats::Watch,
    /// Accepting verdicts of this turn, until the kernel has had the chance to refuse them.
    accepted: HashMap<(u16, u32), (AskId, ConnId)>,
    unused: Vec<Unused>,
    /// The highest row id that an accept carried.
    last_row: Option<ConnId>,
    /// For each server, asks that another one was asked instead.
    elsewhere: Vec<Vec<Ask>>,
    asks: Vec<Ask>,
    /// Goes before them, where the server wants it.
    bridge_ports: Vec<BridgePorts>,
    wants_bridge_ports: bool,
    packets: Vec<QueuedPacket>,
    inbox: Vec<ToAgent>,
    fresh: Vec<CtEvent>,
    /// When the stream of events was last known to be whole.
    whole_at: Timestamp,
    overrun_log: Seldom,
    kernel_says: KernelSays,
    events_paused: bool,
    observer: Observer,
    watchdog: Watchdog,
}

/// Why a turn begins.
enum Woken {
    Work,
    Link(Happened),
    Signal(Signal),
    Report,
}

impl Agent {
    /// Puts the parts together. Without events no row outlives its verdict, and there is nothing to end.
    pub fn new(
        settings: Settings,
        kernel: Kernel,
        link: Link,
        load_tls: LoadTls,
        refusals: Refusals,
    ) -> Self {
        let now = clock::mono();
        let Kernel {
            queue,
            names,
            events,
            control,
        } = kernel;
        Self {
            queue,
            names,
            events,
            load_tls,
            refusals,
            tracking: Tracking::of_kernel(),
            pending: Pending::new(settings.max_pending, settings.packet_timeout),
            sources: Sources::new(now),
            relay: Relay::new(settings.max_unacknowledged),
            dumps: Dumps::new(settings.interest.clone()),
            kills: Kills::new(control, settings.kill_bit),
            stats: Stats::default(),
            kernel_watch: stats::Watch::new(now),
            accepted: HashMap::new(),
            unused: Vec::new(),
            last_row: None,
            elsewhere: vec![Vec::new(); link.servers()],
            asks: Vec::new(),
            bridge_ports: Vec::new(),
            wants_bridge_ports: false,
            packets: Vec::new(),
            inbox: Vec::new(),
            fresh: Vec::new(),
            whole_at: clock::wall(),
            overrun_log: Seldom::default(),
            kernel_says: KernelSays::default(),
            events_paused: false,
            link,
            observer: Observer::new(now),
            watchdog: Watchdog::from_environment(),
            settings,
        }
    }

    /// Runs until SIGTERM or SIGINT.
    pub async fn run(mut self) -> Result<(), AgentError> {
        let mut wakers = Wakers::new().map_err(|error| AgentError::System("wait for signals", error))?;
        loop {
            let happened = match self.wait(&mut wakers).await? {
                Woken::Work => None,
                Woken::Link(happened) => Some(happened),
                Woken::Signal(Signal::Terminate) => return self.end().await,
                Woken::Signal(Signal::Reload) => {
                    self.reload();
                    continue;
                }
                Woken::Report => {
                    self.stats().report("statistics");
                    continue;
                }
            };
            let paused = self.events_paused;
            self.turn(happened).await?;
            if self.events_paused && !paused {
                wakers.pause_for(EVENT_PAUSE);
            }
        }
    }

    /// The counters, those of the parts included.
    pub fn stats(&self) -> Stats {
        Stats {
            unrepresentable: self.stats.unrepresentable
                + self.events.as_ref().map_or(0, Events::unrepresentable),
            ..self.stats
        }
    }

    async fn wait(&mut self, wakers: &mut Wakers) -> Result<Woken, AgentError> {
        if self.link.is_broken() || self.kills.has_work() || self.dumps.has_work(&self.link, clock::mono()) {
            // Whoever else is ready comes first; the runtime must look.
            tokio::task::yield_now().await;
            return Ok(Woken::Work);
        }
        let first_held = self.relay.first_held();
        let (events, paused) = (self.events.as_ref(), self.events_paused);
        let event = async {
            match events {
                Some(events) if !paused => events.readable().await,
                _ => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            packet = self.queue.readable() => packet.map(|()| Woken::Work)?,
            happened = self.link.next(first_held, &mut self.inbox) => Woken::Link(happened),
            event = event => event.map(|()| Woken::Work).map_err(ConntrackError::Receive)?,
            () = wakers.pause.as_mut(), if paused => {
                self.events_paused = false;
                Woken::Work
            }
            _ = wakers.tick.tick() => Woken::Work,
            signal = wakers.signals.next() => Woken::Signal(signal),
            _ = wakers.report.recv() => Woken::Report,
        })
    }

    /// One turn. Read it as the life of a packet: asked for here, answered in a later turn.
    async fn turn(&mut self, mut happened: Option<Happened>) -> Result<(), AgentError> {
        let now = clock::mono();
        self.observer.turn = now;
        self.watchdog.turned(now);
        // Before any answer is heard: the server relies on it that no verdict counts after the packet's time.
        self.expire(now);
        if happened.is_none() {
            happened = self.link.next_now(self.relay.first_held(), &mut self.inbox).await;
        }
        if let Some(happened) = happened {
            self.hear_link(happened);
        }
        // Verdicts go before the queue is read: events that they cause cannot overtake a packet that is there already.
        self.queue.flush()?;
        let drained = self.read_packets(now)?;
        self.queue.flush()?;
        // While a dump runs events are not left alone: the parts wait for them.
        if drained && (!self.events_paused || self.dumps.is_running()) {
            self.read_events()?;
        }
        let refusals = &mut self.refusals;
        self.kills
            .step(|is_ipv4| refusals.ends(is_ipv4), &mut self.stats, now);
        self.link.tick(now);
        self.send(now);
        self.link.flush(now).await;
        self.refusals.step(now);
        if let Some(gap) = self.refusals.take_gap() {
            self.relay.note_gap(gap);
        }
        self.kernel_watch
            .look(&self.stats, || self.queue.kernel_counters(), now);
        self.tell(now);
        Ok(())
    }

    /// Ends the waiting of what was not answered in time. The server answers two seconds earlier even where the user does
    /// not, so that its silence is its own.
    fn expire(&mut self, now: Instant) {
        while let Some((ask, waiting)) = self.pending.expire(now) {
            tracing::trace!(%ask, "no answer in time");
            self.stats.timed_out += 1;
            self.unasked(waiting.place(), waiting.mark, self.settings.on_loss.server);
        }
    }

    /// A packet about which nobody could be asked.
    fn unasked(&mut self, (queue, packet_id): (u16, u32), mark: Mark, choice: OnLoss) {
        let disposition = self.settings.unasked(choice, mark);
        if disposition != Disposition::Drop {
            self.stats.blind += 1;
        }
        self.queue.verdict_in(queue, packet_id, disposition);
    }

    /// Reads the queue to its end. `false` if it would not end: then no event may be read in this turn.
    fn read_packets(&mut self, now: Instant) -> Result<bool, AgentError> {
        // No verdict is sent meanwhile, so the kernel's own limit of waiting packets bounds this.
        let rounds = self.settings.most_waiting() / PACKETS + 2;
        let mut drained = false;
        for _ in 0..rounds {
            let mut packets = std::mem::take(&mut self.packets);
            let read = self.queue.recv_batch(&mut packets, PACKETS);
            let received = clock::wall();
            if !packets.is_empty() {
                self.names.refresh();
            }
            for packet in packets.drain(..) {
                self.packet(&packet, received, now);
            }
            self.packets = packets;
            if read? < PACKETS {
                drained = true;
                break;
            }
        }
        for refused in self.queue.take_refused() {
            if !refused.gone {
                self.stats.refused += 1;
            }
            if let Some((id, row)) = self.accepted.remove(&(refused.queue, refused.packet_id)) {
                self.stats.gone += 1;
                self.unused(id, row);
            }
        }
        if drained {
            self.accepted.clear();
        }
        Ok(drained)
    }

    /// A packet came: it is asked for, or dropped.
    fn packet(&mut self, packet: &QueuedPacket, received: Timestamp, now: Instant) {
        self.stats.packets += 1;
        let dropped = match self.ask(packet, received, now) {
            Ok(()) => return,
            Err(dropped) => dropped,
        };
        let choices = self.settings.on_loss;
        let mut choice = OnLoss::Drop;
        match dropped {
            Dropped::NoLink => {
                self.stats.without_link += 1;
                choice = choices.server;
            }
            Dropped::Unparsable(why) => {
                tracing::trace!(%why, "a packet without a tuple is dropped");
                self.stats.unparsable += 1;
            }
            Dropped::UnknownSource => self.stats.unknown_source += 1,
            Dropped::TableFull => {
                self.stats.table_full += 1;
                choice = choices.full;
            }
        }
        let place = (packet.queue, packet.packet_id);
        self.unasked(place, Mark(packet.mark), choice);
    }

    /// Asks for a packet, or lets it wait for the next link while one is being looked for.
    fn ask(&mut self, packet: &QueuedPacket, received: Timestamp, now: Instant) -> Result<(), Dropped> {
        let server = self.link.server().filter(|_| self.link.is_up());
        if server.is_none() && !self.link.is_looking() {
            return Err(Dropped::NoLink);
        }
        let tuple = packet::parse(&packet.payload, packet.hw_protocol, self.tracking)
            .map_err(Dropped::Unparsable)?
            .tuple;
        if server.is_some() && !self.sources.may_ask(tuple.src(), now) {
            return Err(Dropped::UnknownSource);
        }
        let mark = Mark(packet.mark);
        let ask = Ask {
            id: AskId(0),
            hook: packet.hook,
            zone: self.settings.zone_of(packet.queue),
            tuple,
            in_dev: self.names.name(packet.in_dev),
            out_dev: self.names.name(packet.out_dev),
            mark,
            received: packet.timestamp.unwrap_or(received),
            tracked: self.settings.interest.will_include(&tuple),
        };
        let waiting = Waiting {
            asked: now,
            queue: packet.queue,
            packet_id: packet.packet_id,
            mark,
            hook: packet.hook,
            is_ipv4: tuple.src().is_ipv4(),
            ask: ask.clone(),
            ports: [packet.phys_in_dev, packet.phys_out_dev].map(|device| self.names.name(device)),
            server,
        };
        let ports = waiting.ports.clone();
        let id = self
            .pending
            .insert(waiting, now)
            .map_err(|_| Dropped::TableFull)?;
        if server.is_some() {
            tracing::trace!(%id, %tuple, "asked");
            self.stats.asked += 1;
            if self.wants_bridge_ports {
                self.bridge_ports.extend(bridge_ports(id, ports));
            }
            self.asks.push(Ask { id, ..ask });
        }
        Ok(())
    }

    /// An answer came: the packet goes on, or not.
    fn answer(&mut self, Answer { id, verdict }: Answer) {
        if let Verdict::Accept { row, .. } = verdict
            && row != ConnId::UNLOGGED
        {
            self.last_row = self.last_row.max(Some(row));
        }
        let Some(waiting) = self.pending.answer(id) else {
            self.stats.late_answers += 1;
            if let Verdict::Accept { row, .. } = verdict {
                self.unused(id, row);
            }
            return;
        };
        let waited = self.observer.turn.saturating_duration_since(waiting.asked);
        self.observer.seen.waits.add(waited);
        let disposition = match verdict {
            Verdict::Accept { row, mark } => {
                self.stats.accepted += 1;
                self.accepted
                    .insert((waiting.queue, waiting.packet_id), (id, row));
                Disposition::Accept {
                    mark: self.settings.mark_of_user(waiting.mark, mark),
                }
            }
            Verdict::Drop => {
                self.stats.dropped += 1;
                Disposition::Drop
            }
            Verdict::Reject => {
                self.stats.rejected += 1;
                if self.refusals.sure(waiting.hook, waiting.is_ipv4) {
                    self.settings.rejection(waiting.mark)
                } else {
                    // With the bit it would pass if no rule refuses it.
                    Disposition::Drop
                }
            }
        };
        self.queue
            .verdict_in(waiting.queue, waiting.packet_id, disposition);
    }

    fn unused(&mut self, id: AskId, row: ConnId) {
        if self.unused.len() >= MAX_UNUSED {
            self.unused.remove(0);
        }
        self.unused.push(Unused { id, row });
    }

    /// Takes over the events that are there, and what is lost of them.
    fn read_events(&mut self) -> Result<(), AgentError> {
        let received = clock::wall();
        let outcome = match &mut self.events {
            Some(events) => events.receive(EVENTS, received, &mut self.fresh)?,
            None => Received::Empty,
        };
        self.events_paused = !self.fresh.is_empty();
        let mut overflow = Overflow::None;
        for event in self.fresh.drain(..) {
            self.stats.events += 1;
            self.kernel_says.look(&event);
            self.observer.seen.event(event.kind);
            self.dumps.on_event(&event);
            match self.relay.push(event) {
                Overflow::None => {}
                other => {
                    self.stats.forgotten_events += 1;
                    overflow = other;
                }
            }
        }
        if overflow != Overflow::None {
            self.dumps.want_one();
        }
        if overflow == Overflow::Unsent && self.link.is_up() {
            // The stream of one link has no holes: the next link says where it begins.
            self.link.cut(LinkLoss::Protocol(
                "it does not take the events that wait for it".to_owned(),
            ));
        }
        match outcome {
            Received::Empty => {
                self.whole_at = received;
                self.dumps.on_events_whole(self.relay.last_held());
            }
            Received::BudgetSpent => {}
            Received::Overrun => self.events_lost(received),
        }
        Ok(())
    }

    fn events_lost(&mut self, noticed: Timestamp) {
        self.stats.overruns += 1;
        if self.overrun_log.may_warn(clock::mono()) {
            tracing::warn!(
                overruns = self.stats.overruns,
                "the kernel dropped conntrack events because the receive buffer was full; the table is compared instead"
            );
        }
        self.relay.note_gap(Gap {
            from: self.whole_at,
            to: noticed,
            cause: GapCause::NetlinkOverrun,
        });
        self.dumps.spoil();
        self.dumps.want_one();
    }

    /// Puts what the server should hear on the link: asks first, then events, then dumps.
    fn send(&mut self, now: Instant) {
        send_batches(&mut self.bridge_ports, &mut self.link, ToServer::BridgePorts);
        send_batches(&mut self.asks, &mut self.link, ToServer::Asks);
        if self.link.is_up() {
            send_batches(&mut self.unused, &mut self.link, ToServer::Unused);
            send_batches(self.kills.told(), &mut self.link, ToServer::Killed);
        } else {
            self.kills.told().clear();
        }
        self.send_events();
        self.dumps
            .step(&mut self.link, self.relay.last_sent(), &mut self.stats, now);
    }

    fn send_events(&mut self) {
        while self.link.has_room()
            && let Some(message) = self.relay.next_message()
        {
            self.link.queue(&message);
        }
    }
}

/// Why a packet is not asked about.
enum Dropped {
    NoLink,
    Unparsable(packet::Unparsable),
    UnknownSource,
    TableFull,
}

fn send_batches<T>(items: &mut Vec<T>, link: &mut Link, message: impl Fn(Batch<T>) -> ToServer) {
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(MAX_BATCH));
        let part = std::mem::replace(items, rest);
        if let Ok(batch) = Batch::try_from(part) {
            link.queue(&message(batch));
        }
    }
}
