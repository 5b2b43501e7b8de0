//! What the server says, and what its coming and going means here.
//!
//! Answers become verdicts at once; they are sent to the kernel by the turn that hears them.

use super::{Agent, send_batches};
use crate::link::{Happened, LinkLoss};
use crate::sources::Sources;
use nufw_common::{clock, lifecycle};
use nufw_proto::gateway::{Ask, Blind, BridgePorts, Capabilities, LastRow, ToAgent, ToServer, Welcome};
use nufw_proto::{AskId, Text};

/// Asks that are remembered for a server that is away; of further ones it learns that nothing came of them from a dump.
const MAX_ELSEWHERE: usize = 16_384;

impl Agent {
    pub(super) fn hear_link(&mut self, happened: Happened) {
        match happened {
            Happened::Up(welcome) => self.link_up(&welcome),
            Happened::Messages => {}
            Happened::Lost(_) => {
                self.link_lost();
                return;
            }
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        for message in inbox.drain(..) {
            self.hear(message);
        }
        self.inbox = inbox;
    }

    fn hear(&mut self, message: ToAgent) {
        match message {
            ToAgent::Answers(answers) => answers.into_iter().for_each(|answer| self.answer(answer)),
            ToAgent::EventAck(ack) => {
                if let Err(error) = self.relay.acknowledge(ack.through) {
                    self.link.cut(LinkLoss::Protocol(error.to_string()));
                }
            }
            ToAgent::Kill(orders) => {
                let now = clock::mono();
                for live in orders {
                    self.kills.order(live, &mut self.stats, now);
                }
            }
            ToAgent::DumpRequest(request) => self.dumps.request(request.dump),
            ToAgent::KnownAddresses(news) => {
                if !self.sources.learn(&news) {
                    tracing::warn!(
                        known = self.sources.known(),
                        "the server told of more addresses than are remembered; those beyond count as unknown"
                    );
                }
            }
            ToAgent::Heartbeat(_) => {}
            ToAgent::Goodbye(goodbye) => self.link.cut(LinkLoss::Goodbye(goodbye.reason)),
            ToAgent::Welcome(_) => self.link.cut(LinkLoss::Protocol("a second welcome".to_owned())),
        }
    }

    fn link_up(&mut self, welcome: &Welcome) {
        self.observer.linked(clock::mono());
        self.sources = Sources::new(clock::mono());
        tracing::info!(
            server = welcome.software.as_str(),
            gateway = welcome.gateway.as_str(),
            acknowledged = %welcome.acknowledged,
            held = self.relay.len(),
            "linked to the server"
        );
        if welcome.mark_mask != self.settings.mark_mask {
            tracing::warn!(
                ours = format_args!("{:#010x}", self.settings.mark_mask.0),
                servers = format_args!("{:#010x}", welcome.mark_mask.0),
                "marks.mask differs from the server's mark-mask; user marks will be cut to ours"
            );
        }
        if let Err(error) = self.relay.resume(welcome.acknowledged) {
            self.link.cut(LinkLoss::Protocol(error.to_string()));
            return;
        }
        self.forget_link();
        self.wants_bridge_ports = welcome.capabilities.has(Capabilities::BRIDGE_PORTS);
        self.ask_again();
        if welcome.capabilities.has(Capabilities::WITHOUT_VERDICT) {
            let bit = self.settings.blind_bit;
            self.link.queue(&ToServer::Blind(Blind { bit }));
            if let Some(elsewhere) = self.link.server().and_then(|at| self.elsewhere.get_mut(at)) {
                send_batches(elsewhere, &mut self.link, ToServer::Elsewhere);
            }
        } else if self.settings.on_loss.may_be_blind() {
            tracing::warn!("the server is too old to log what passes while it is away");
        }
        if let Some(row) = self.last_row
            && self.link.is_up()
        {
            self.link.queue(&ToServer::LastRow(LastRow { row }));
        }
    }

    /// Asks this server for every packet that waits. Another one that was asked before is told so when it is back.
    fn ask_again(&mut self) {
        let Some(server) = self.link.server() else {
            return;
        };
        let (asks, elsewhere, stats) = (&mut self.asks, &mut self.elsewhere, &mut self.stats);
        let (ports, wants_ports) = (&mut self.bridge_ports, self.wants_bridge_ports);
        self.pending.for_each_mut(|id, waiting| {
            let ask = Ask {
                id,
                ..waiting.ask.clone()
            };
            if let Some(before) = waiting.server.replace(server) {
                stats.asked_again += 1;
                if before != server
                    && let Some(told) = elsewhere.get_mut(before)
                    && told.len() < MAX_ELSEWHERE
                {
                    told.push(ask.clone());
                }
            } else {
                stats.asked += 1;
            }
            if wants_ports {
                ports.extend(bridge_ports(id, waiting.ports.clone()));
            }
            asks.push(ask);
        });
    }

    /// Nothing that belongs to one link goes out over the next.
    fn forget_link(&mut self) {
        self.asks.clear();
        self.bridge_ports.clear();
        self.dumps.abandon();
    }

    /// What waits goes on waiting while another link is looked for; then it fails as chosen, closed by default.
    fn link_lost(&mut self) {
        self.observer.link_lost();
        self.inbox.clear();
        self.forget_link();
        if self.link.is_looking() {
            return;
        }
        let waiting: Vec<_> = self.pending.drain().collect();
        for waiting in waiting {
            self.stats.without_link += 1;
            self.unasked(waiting.place(), waiting.mark, self.settings.on_loss.server);
        }
    }

    pub(super) fn reload(&mut self) {
        lifecycle::notify_reloading();
        self.refusals.look_at_once();
        match (self.load_tls)() {
            Ok(tls) => {
                self.link.set_tls(tls);
                tracing::info!("certificates are read again; the next link uses them");
            }
            Err(error) => tracing::warn!(
                error,
                "the certificates cannot be read again; those of before stay in use"
            ),
        }
        lifecycle::notify_ready();
    }
}

/// What is told of a packet that uses a port of a bridge.
pub(super) fn bridge_ports(id: AskId, [in_port, out_port]: [Text<15>; 2]) -> Option<BridgePorts> {
    let uses = !in_port.is_empty() || !out_port.is_empty();
    uses.then_some(BridgePorts {
        id,
        in_port,
        out_port,
    })
}
