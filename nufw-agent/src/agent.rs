//! The story of a packet, and of an event, on the gateway.
//!
//! One task, one turn after the other: answers are applied, the queue is read to its end, then events, then everything
//! goes out in one write. The order is a promise to the server: a packet that was queued before an event came to be is
//! asked for before that event is relayed. Nothing here decides; what cannot be asked is dropped.

mod asks;
mod dumps;
mod end;
mod events;
mod expiries;
mod flags;
mod kept;
mod kernel_says;
mod kills;
mod observed;
mod packets;
mod refusals;
mod server;
mod settings;
mod wakers;
mod watched;

pub use refusals::{Load, Reapply, Refusals, Watch};
pub use settings::Settings;

use crate::conntrack::{ConntrackError, Control, Events, Tracking};
use crate::keeper::{Access, Keeper, Memory};
use crate::link::{Happened, Link};
use crate::pending::Pending;
use crate::queue::{InterfaceNames, Queue, QueueError, QueuedPacket};
use crate::relay::Relay;
use crate::sources::Sources;
use crate::stats::{self, Seldom, Stats};
use asks::{Asks, Ports, send_batches};
use dumps::Dumps;
use expiries::Expiries;
use hashbrown::HashMap;
use kernel_says::KernelSays;
use kills::Kills;
use nufw_common::clock;
use nufw_common::lifecycle::Signal;
use nufw_common::watchdog::Watchdog;
use nufw_proto::gateway::{Ask, Hook, ToAgent, ToServer, Unused};
use nufw_proto::{AskId, ConnId, CtEvent, Mark, Timestamp};
use observed::Observer;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wakers::Wakers;

/// Events are left in their buffer for so long after a reading, so that each reading finds many. Packets never wait.
const EVENT_PAUSE: Duration = Duration::from_millis(5);

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
    /// The ports of a bridge, where it passes through one.
    ports: Option<Box<Ports>>,
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
pub type LoadTls = Box<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send>;

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
    expiries: Expiries,
    stats: Stats,
    kernel_watch: stats::Watch,
    /// Accepting verdicts of this turn, until the kernel has had the chance to refuse them.
    accepted: HashMap<(u16, u32), (AskId, ConnId)>,
    unused: Vec<Unused>,
    /// The highest row id that an accept carried.
    last_row: Option<ConnId>,
    /// For each server, asks that another one was asked instead.
    elsewhere: Vec<Vec<Ask>>,
    asks: Asks,
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
    /// What outlives this process, if there is a supervisor.
    memory: Option<Memory>,
    /// The supervisor, if there is one.
    keeper: Option<Arc<Keeper>>,
    /// Until when the queue is left alone: till then there may be a link.
    held: Option<Instant>,
}

/// Why a turn begins.
enum Woken {
    Work,
    Link(Happened),
    Signal(Signal),
    Report,
    Leave,
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
        let another = control.as_ref().and_then(|control| {
            control
                .another()
                .inspect_err(
                    |error| tracing::warn!(%error, "the kernel will not be told when connections are to end"),
                )
                .ok()
        });
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
            dumps: Dumps::new(Access::Own, settings.interest.clone()),
            expiries: Expiries::new(another),
            kills: Kills::new(control, settings.kill_bit),
            stats: Stats::default(),
            kernel_watch: stats::Watch::new(now),
            accepted: HashMap::new(),
            unused: Vec::new(),
            last_row: None,
            elsewhere: vec![Vec::new(); link.servers()],
            asks: Asks::default(),
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
            memory: None,
            keeper: None,
            held: None,
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
                    self.reload()?;
                    continue;
                }
                Woken::Report => {
                    self.stats().report("statistics");
                    continue;
                }
                Woken::Leave if self.keeper.is_some() => return self.leave().await,
                Woken::Leave => {
                    tracing::warn!(
                        "SIGUSR2 is ignored: without a supervisor there is no successor to make room for"
                    );
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
        if self.link.is_broken()
            || self.kills.has_work()
            || self.expiries.has_work()
            || self.dumps.has_work(&self.link, clock::mono())
        {
            // Whoever else is ready comes first; the runtime must look.
            tokio::task::yield_now().await;
            return Ok(Woken::Work);
        }
        let first_held = self.relay.first_held();
        let held = self.held.is_some();
        let (events, paused) = (self.events.as_ref(), self.events_paused || held);
        let event = async {
            match events {
                Some(events) if !paused => events.readable().await,
                _ => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            packet = self.queue.readable(), if !held => packet.map(|()| Woken::Work)?,
            happened = self.link.next(first_held, &mut self.inbox) => Woken::Link(happened),
            event = event => event.map(|()| Woken::Work).map_err(ConntrackError::Receive)?,
            () = wakers.pause.as_mut(), if self.events_paused => {
                self.events_paused = false;
                Woken::Work
            }
            _ = wakers.tick.tick() => Woken::Work,
            signal = wakers.signals.next() => Woken::Signal(signal),
            _ = wakers.report.recv() => Woken::Report,
            _ = wakers.leave.recv() => Woken::Leave,
        })
    }

    /// One turn. Read it as the life of a packet: asked for here, answered in a later turn.
    async fn turn(&mut self, mut happened: Option<Happened>) -> Result<(), AgentError> {
        let now = clock::mono();
        self.observer.turn = now;
        self.watchdog.turned(now);
        if let Some(keeper) = &self.keeper {
            keeper
                .beat(now)
                .map_err(|error| AgentError::System("reach the supervisor", error))?;
        }
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
        let drained = !self.holds(now) && self.read_packets(now)?;
        self.queue.flush()?;
        // While a dump runs events are not left alone: the parts wait for them.
        if drained && (!self.events_paused || self.dumps.is_running()) {
            self.read_events()?;
        }
        if let Some(memory) = &mut self.memory {
            memory.keep_from(self.relay.first_held());
        }
        let refusals = &mut self.refusals;
        self.kills
            .step(|is_ipv4| refusals.ends(is_ipv4), &mut self.stats, now);
        self.expiries.step(now);
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

    /// Whether the queue is still left alone.
    fn holds(&mut self, now: Instant) -> bool {
        if self.link.is_up() || self.held.is_some_and(|until| now >= until) {
            self.held = None;
        }
        self.held.is_some()
    }

    /// Puts what the server should hear on the link: asks first, then events, then dumps.
    fn send(&mut self, now: Instant) {
        self.asks.send(&mut self.link);
        if self.link.is_up() {
            send_batches(&mut self.unused, &mut self.link, ToServer::Unused);
            send_batches(self.kills.told(), &mut self.link, ToServer::Killed);
            send_batches(self.expiries.told(), &mut self.link, ToServer::LetGo);
        } else {
            self.kills.told().clear();
            self.expiries.told().clear();
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
