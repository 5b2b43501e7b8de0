//! The gateways: who is linked, how far their events are known, which dump is under way.
//!
//! A gateway is known by its name for ever; its link comes and goes. Connections are not kept here.

use super::conns::ConnTable;
use super::gaps::Deleted;
use super::limits::Limits;
use super::types::{Effect, LinkId, Now};
use super::{Engine, Identity};
use nufw_proto::gateway::{Capabilities, DumpRequest, EventAck, Hello, KnownAddresses, ToAgent, Welcome};
use nufw_proto::{Addr, Batch, BootId, ConnId, DumpId, EventSeq, MAX_BATCH, Mark, Text, Timestamp};
use nulog::Change;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A gateway's number within this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GatewayIdx(pub(super) u16);

/// A dump under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dump {
    pub(super) id: DumpId,
    /// Rows granted before this moment that wait for their entry must find it in there.
    pub(super) judges_before: Duration,
}

/// The present link of a gateway.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what an agent says of itself are facts of their own"
)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// Since when this boot of the agent is known. What became of the verdicts of before is not.
    pub(super) since: Duration,
    pub(super) relays_events: bool,
    /// Its events are what TCP segments show.
    pub(super) by_flags: bool,
    pub(super) sets_marks: bool,
    /// Live connections can be ended there.
    kills: bool,
    pub(super) packet_timeout: Duration,
    /// The bit of a mark that says that a connection passed without a verdict; 0 while none is known.
    pub(super) blind: Mark,
    /// The last event that it carried, taken or not: an agent must not hear of more than it has sent.
    carried: EventSeq,
    /// The last event whose acknowledgement it carried.
    told: EventSeq,
}

/// How far the events of one boot of an agent are known; outlives the link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) boot: BootId,
    /// The last event taken. What is sent again is not taken again.
    pub(super) taken: EventSeq,
    /// The last acknowledgement handed to the journal.
    acknowledging: EventSeq,
    /// The last event that need not be sent again.
    acknowledged: EventSeq,
    /// When this server first had a link with this boot: from then on no event of it has been missed.
    since: Option<Duration>,
}

impl Stream {
    fn at(boot: BootId, through: EventSeq) -> Self {
        Self {
            boot,
            taken: through,
            acknowledging: through,
            acknowledged: through,
            since: None,
        }
    }
}

/// A gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) name: Arc<str>,
    pub(super) link: Option<Link>,
    /// The events of the present boot, or of the last.
    pub(super) stream: Option<Stream>,
    /// Counts dumps, so that a connection can remember in which it was seen.
    pub(super) dump_count: u32,
    pub(super) dump: Option<Dump>,
    /// The dump asked for that has not begun: its id and when it was asked.
    pub(super) requested: Option<(DumpId, Duration)>,
    pub(super) last_request: Option<Duration>,
    /// Something may have been missed, or was not confirmed for long: a whole dump would tell.
    pub(super) doubted: bool,
    /// When it was last heard of, by the server's clock.
    pub(super) heard: Option<Timestamp>,
    /// The same before its present link.
    pub(super) heard_before: Option<Timestamp>,
    /// When it was last learnt that events were missed: of rows granted before, their own may be among them.
    pub(super) missed_before: Option<Duration>,
    /// Entries that programs deleted, and which the log has not been told of.
    pub(super) deleted: Option<Deleted>,
}

/// All gateways of this run.
#[derive(Default)]
pub(super) struct Gateways {
    all: Vec<Gateway>,
    links: HashMap<LinkId, GatewayIdx>,
    next_dump: u64,
    /// Rows granted, oldest first, until it is time to doubt those that the kernel has not confirmed.
    pub(super) grants: VecDeque<(Duration, ConnId)>,
    /// When the log was last told which gateways are linked.
    last_heartbeats: Option<Duration>,
}

/// Optional parts of the protocol that are spoken here.
const OFFERED: Capabilities = Capabilities::KILL
    .and(Capabilities::WITHOUT_VERDICT)
    .and(Capabilities::BRIDGE_PORTS)
    .and(Capabilities::BY_FLAGS);

/// Entries that may be stale before the queue of grants is cleaned of them.
const STALE_GRANTS: usize = 1024;

impl Gateways {
    /// The number of a name; numbers are handed out as names appear. Names come from the configuration and from rows.
    pub(super) fn intern(&mut self, name: &Arc<str>) -> GatewayIdx {
        let index = self.all.iter().position(|g| g.name == *name).unwrap_or_else(|| {
            self.all.push(Gateway {
                name: Arc::clone(name),
                link: None,
                stream: None,
                dump_count: 0,
                dump: None,
                requested: None,
                last_request: None,
                doubted: false,
                heard: None,
                heard_before: None,
                missed_before: None,
                deleted: None,
            });
            self.all.len() - 1
        });
        GatewayIdx(u16::try_from(index).unwrap_or(u16::MAX))
    }

    pub(super) fn get(&self, gateway: GatewayIdx) -> &Gateway {
        &self.all[usize::from(gateway.0)]
    }

    pub(super) fn get_mut(&mut self, gateway: GatewayIdx) -> &mut Gateway {
        &mut self.all[usize::from(gateway.0)]
    }

    pub(super) fn by_link(&self, link: LinkId) -> Option<GatewayIdx> {
        self.links.get(&link).copied()
    }

    /// The link over which live connections of a gateway can be ended.
    pub(super) fn killer(&self, gateway: GatewayIdx) -> Option<LinkId> {
        let link = self.get(gateway).link.as_ref()?;
        link.kills.then_some(link.id)
    }

    pub(super) fn linked(&self) -> impl Iterator<Item = (GatewayIdx, &Link)> {
        self.all.iter().enumerate().filter_map(|(i, g)| {
            let link = g.link.as_ref()?;
            Some((GatewayIdx(u16::try_from(i).unwrap_or(u16::MAX)), link))
        })
    }

    /// Every gateway that was ever heard of.
    pub(super) fn indices(&self) -> impl Iterator<Item = GatewayIdx> {
        (0..self.all.len()).map(|index| GatewayIdx(u16::try_from(index).unwrap_or(u16::MAX)))
    }

    /// Tells the log in a while which gateways are linked: what says, when no server runs, whether a row may still be live.
    pub(super) fn tell_heartbeats(&mut self, now: Now, interval: Duration, out: &mut Vec<Effect>) {
        if self
            .last_heartbeats
            .is_some_and(|last| now.mono < last + interval)
        {
            return;
        }
        self.last_heartbeats = Some(now.mono);
        for (gateway, _) in self.linked() {
            self.tell_heartbeat(gateway, now, out);
        }
    }

    fn tell_heartbeat(&self, gateway: GatewayIdx, now: Now, out: &mut Vec<Effect>) {
        let change = Change::Heartbeat {
            gateway: Arc::clone(&self.get(gateway).name),
            at: now.wall,
        };
        Engine::log(change, out);
    }

    /// Linked gateways whose tables must be looked at: those in doubt that have not been asked for a dump lately, and those
    /// whose connections were not counted for long.
    pub(super) fn to_look_at(&self, now: Now, limits: &Limits) -> Vec<GatewayIdx> {
        let Limits {
            dump_interval,
            counters_every,
            ..
        } = *limits;
        self.linked()
            .filter(|&(index, link)| {
                let gateway = self.get(index);
                let since = |interval| {
                    gateway
                        .last_request
                        .is_none_or(|last| now.mono >= last + interval)
                };
                // One that does not come to an end, at an agent with much to do, is not asked for twice.
                let idle = gateway.dump.is_none() && gateway.requested.is_none();
                let to_doubt = gateway.doubted && gateway.dump.is_none() && since(dump_interval);
                let to_count = !counters_every.is_zero() && idle && since(counters_every);
                link.relays_events && (to_doubt || to_count)
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// Notes a grant, to doubt it when the kernel does not confirm it.
    pub(super) fn note_grant(&mut self, at: Duration, row: ConnId, conns: &ConnTable) {
        if self.grants.len() >= 2 * conns.len() + STALE_GRANTS {
            self.grants.retain(|&(_, row)| conns.is_unbound(row));
        }
        self.grants.push_back((at, row));
    }

    fn link_down(&mut self, link: LinkId) {
        if let Some(gateway) = self.links.remove(&link) {
            let gateway = self.get_mut(gateway);
            gateway.link = None;
            gateway.dump = None;
            gateway.requested = None;
        }
    }

    /// Notes an event of the present link; tells whether it must be taken.
    pub(super) fn take_event(&mut self, gateway: GatewayIdx, seq: EventSeq) -> bool {
        let gateway = self.get_mut(gateway);
        let (Some(link), Some(stream)) = (&mut gateway.link, &mut gateway.stream) else {
            return false;
        };
        link.carried = link.carried.max(seq);
        let new = seq > stream.taken;
        stream.taken = stream.taken.max(seq);
        new
    }

    fn tell_acknowledged(&mut self, gateway: GatewayIdx, out: &mut Vec<Effect>) {
        let gateway = self.get_mut(gateway);
        let (Some(link), Some(stream)) = (&mut gateway.link, &gateway.stream) else {
            return;
        };
        let through = stream.acknowledged.min(link.carried);
        if link.told < through {
            link.told = through;
            out.push(Effect::Agent {
                link: link.id,
                message: ToAgent::EventAck(EventAck { through }),
            });
        }
    }

    /// What the log knows of a gateway's events.
    pub(super) fn loaded(&mut self, name: &Arc<str>, boot: BootId, through: EventSeq) {
        let gateway = self.intern(name);
        let gateway = self.get_mut(gateway);
        // An agent that came before this was known may be another boot by now, of which the log knows nothing.
        if gateway.stream.is_none_or(|stream| stream.boot == boot) {
            gateway.stream = Some(Stream::at(boot, through));
        }
    }

    /// Asks a linked gateway for a dump of its table.
    pub(super) fn request_dump(&mut self, gateway: GatewayIdx, now: Now, out: &mut Vec<Effect>) {
        self.next_dump += 1;
        let dump = DumpId(self.next_dump);
        let gateway = self.get_mut(gateway);
        let Some(link) = &gateway.link else { return };
        gateway.requested = Some((dump, now.mono));
        gateway.last_request = Some(now.mono);
        out.push(Effect::Agent {
            link: link.id,
            message: ToAgent::DumpRequest(DumpRequest { dump }),
        });
    }
}

impl Engine {
    pub(super) fn gateway_up(
        &mut self,
        link: LinkId,
        name: &Arc<str>,
        hello: &Hello,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let index = self.gateways.intern(name);
        let former = self.gateways.get(index).link.as_ref().map(|l| l.id);
        if let Some(former) = former {
            self.link_down(former);
            out.push(Effect::EndLink {
                link: former,
                reason: "the gateway has connected anew",
            });
        }
        self.note_restart(index, hello, now, out);
        let gateway = self.gateways.get_mut(index);
        gateway.heard_before = gateway.heard.replace(now.wall);
        // Nothing is known of a boot that the log has not heard of: its events are taken from the first it still has.
        let mut stream = gateway
            .stream
            .take_if(|stream| stream.boot == hello.boot)
            .unwrap_or_else(|| Stream::at(hello.boot, EventSeq(0)));
        let acknowledged = stream.acknowledged;
        let since = *stream.since.get_or_insert(now.mono);
        gateway.stream = Some(stream);
        gateway.link = Some(Link {
            id: link,
            since,
            relays_events: hello.relays_events,
            by_flags: hello.capabilities.has(Capabilities::BY_FLAGS),
            sets_marks: hello.sets_marks,
            kills: hello.capabilities.has(Capabilities::KILL),
            packet_timeout: Duration::from_millis(u64::from(hello.packet_timeout_ms)),
            blind: Mark(0),
            carried: acknowledged,
            told: acknowledged,
        });
        self.gateways.links.insert(link, index);
        self.gateways.tell_heartbeat(index, now, out);
        out.push(Effect::Agent {
            link,
            message: ToAgent::Welcome(Welcome {
                software: Text::lossy(concat!("nuauth-server ", env!("CARGO_PKG_VERSION"))),
                capabilities: OFFERED,
                gateway: Text::lossy(name),
                acknowledged,
                dead_after_ms: u32::try_from(self.limits.dead_after.as_millis()).unwrap_or(u32::MAX),
                mark_mask: self.limits.mark_mask,
            }),
        });
        self.tell_addresses(link, out);
        self.order_again(index);
        let by_flags = hello.capabilities.has(Capabilities::BY_FLAGS);
        if !by_flags {
            self.end_by_flags(index);
        }
        if by_flags {
            self.begin_by_flags(index, now, out);
        } else if hello.relays_events {
            // Before the rows are known a dump proves nothing.
            if self.held.is_none() {
                self.look_at_table(index, now, out);
            }
        } else {
            self.untrack(index, out);
        }
    }

    /// A link is over. The packets that waited on it are gone with it.
    pub(super) fn link_down(&mut self, link: LinkId) {
        self.gateways.link_down(link);
        if let Some(held) = &mut self.held {
            held.link_down(link);
        }
        self.pending.forget_link(link);
    }

    /// Tells a new link every address that has a session.
    fn tell_addresses(&self, link: LinkId, out: &mut Vec<Effect>) {
        let mut addresses: Vec<Addr> = self.sessions.addresses().collect();
        addresses.sort_unstable();
        let mut chunks = addresses.chunks(MAX_BATCH);
        let mut reset = true;
        // The first message goes out even when it is empty: it ends what the agent knew before.
        loop {
            let chunk = chunks.next();
            if chunk.is_none() && !reset {
                return;
            }
            out.push(self.known(link, reset, chunk.unwrap_or_default(), &[]));
            reset = false;
        }
    }

    /// Tells every gateway that an address has its first session, or has lost its last.
    pub(super) fn address_changed(&mut self, address: Addr, present: bool, out: &mut Vec<Effect>) {
        let (added, removed): (&[Addr], &[Addr]) = if present {
            (&[address], &[])
        } else {
            (&[], &[address])
        };
        let links = self.gateways.linked();
        out.extend(links.map(|(_, link)| self.known(link.id, false, added, removed)));
    }

    /// Tells every gateway whether packets from addresses without session can pass, which may have changed.
    pub(super) fn tell_whom_to_ask_for(&self, out: &mut Vec<Effect>) {
        let links = self.gateways.linked();
        out.extend(links.map(|(_, link)| self.known(link.id, false, &[], &[])));
    }

    fn known(&self, link: LinkId, reset: bool, added: &[Addr], removed: &[Addr]) -> Effect {
        let batch = |addresses: &[Addr]| Batch::try_from(addresses.to_vec()).unwrap_or_default();
        Effect::Agent {
            link,
            message: ToAgent::KnownAddresses(KnownAddresses {
                reset,
                added: batch(added),
                removed: batch(removed),
                others_can_pass: self.addressed.covers_networks() || self.judge.judges_strangers(),
            }),
        }
    }

    /// Acknowledgements became durable: the agents may forget.
    pub(super) fn acknowledged(
        &mut self,
        name: &Arc<str>,
        boot: BootId,
        through: EventSeq,
        out: &mut Vec<Effect>,
    ) {
        let index = self.gateways.intern(name);
        // Of an earlier boot nothing will be sent again.
        if let Some(stream) = &mut self.gateways.get_mut(index).stream
            && stream.boot == boot
        {
            stream.acknowledged = stream.acknowledged.max(through);
            stream.acknowledging = stream.acknowledging.max(through);
            self.gateways.tell_acknowledged(index, out);
        }
    }

    /// Everything taken so far need not be sent again: at once when nothing of it is in the log, else once it is durable.
    pub(super) fn acknowledge(&mut self, index: GatewayIdx, changed: bool, out: &mut Vec<Effect>) {
        let gateway = self.gateways.get_mut(index);
        let Some(stream) = &mut gateway.stream else { return };
        let through = stream.taken;
        if !changed && stream.acknowledging == stream.acknowledged {
            stream.acknowledging = through;
            stream.acknowledged = through;
        } else if stream.acknowledging < through {
            stream.acknowledging = through;
            Self::log(
                Change::Acknowledge {
                    gateway: Arc::clone(&gateway.name),
                    boot: stream.boot,
                    through,
                },
                out,
            );
        }
        self.gateways.tell_acknowledged(index, out);
    }

    /// The mark that goes out with an accepting verdict: the user's number and the bits that the access lists add.
    pub(super) fn mark_of(&self, gateway: GatewayIdx, who: Option<&Identity>, beside: Mark) -> Mark {
        match &self.gateways.get(gateway).link {
            Some(link) if link.sets_marks => {
                let number = who.map_or(Mark(0), |who| self.limits.user_marks.place(who.mark));
                Mark((number.0 | beside.0) & self.limits.mark_mask.0)
            }
            _ => Mark(0),
        }
    }
}
