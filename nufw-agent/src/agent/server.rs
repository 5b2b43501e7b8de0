//! What the server says, and what its coming and going means here.
//!
//! Answers become verdicts at once; they are sent to the kernel by the turn that hears them.

use super::Agent;
use crate::link::{Happened, LinkLoss};
use crate::queue::Disposition;
use crate::sources::Sources;
use nufw_common::clock;
use nufw_proto::gateway::{ToAgent, Welcome};

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
        }
    }

    /// Fails closed: what waits is dropped at once.
    fn link_lost(&mut self) {
        self.held = None;
        self.inbox.clear();
        self.asks.clear();
        self.dumps.abandon();
        for waiting in self.pending.drain() {
            self.stats.without_link += 1;
            self.queue.verdict(waiting.packet_id, Disposition::Drop);
        }
    }

    pub(super) fn reload(&mut self) {
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
    }
}
