//! What goes out at the end of a turn: asks, with the ports of a bridge where the server wants to know them.
//!
//! Nothing is decided here, and nothing waits: what is not sent with the link that it is for is cleared.

use crate::link::Link;
use nufw_proto::gateway::{Ask, BridgedAsk, ToServer};
use nufw_proto::{Batch, MAX_BATCH, Text};

/// By which ports of a bridge a packet came in and would leave.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub(super) phys_in: Text<15>,
    pub(super) phys_out: Text<15>,
}

/// Asks that go out at the end of the turn.
#[derive(Debug, Default)]
pub(super) struct Asks {
    plain: Vec<Ask>,
    bridged: Vec<BridgedAsk>,
    /// Whether the server that is linked wants to know the ports of bridges.
    pub(super) with_ports: bool,
}

impl Asks {
    pub(super) fn push(&mut self, ask: Ask, ports: Option<&Ports>) {
        match ports.filter(|_| self.with_ports) {
            Some(ports) => self.bridged.push(BridgedAsk {
                ask,
                phys_in: ports.phys_in.clone(),
                phys_out: ports.phys_out.clone(),
            }),
            None => self.plain.push(ask),
        }
    }

    pub(super) fn clear(&mut self) {
        self.plain.clear();
        self.bridged.clear();
    }

    pub(super) fn send(&mut self, link: &mut Link) {
        send_batches(&mut self.plain, link, ToServer::Asks);
        send_batches(&mut self.bridged, link, ToServer::BridgedAsks);
    }
}

pub(super) fn send_batches<T>(items: &mut Vec<T>, link: &mut Link, message: impl Fn(Batch<T>) -> ToServer) {
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(MAX_BATCH));
        let part = std::mem::replace(items, rest);
        if let Ok(batch) = Batch::try_from(part) {
            link.queue(&message(batch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::gateway::Hook;
    use nufw_proto::{AskId, Mark, Timestamp, Transport, Tuple};

    #[test]
    fn a_server_that_does_not_know_bridges_is_asked_all_the_same() {
        let addr = |text: &str| text.parse().unwrap();
        let tuple = Tuple::new(addr("10.0.0.1"), addr("10.0.0.2"), Transport::Other(50)).unwrap();
        let ask = Ask {
            id: AskId(1),
            hook: Hook::Forward,
            zone: 0,
            tuple,
            in_dev: Text::lossy("br0"),
            out_dev: Text::lossy("br0"),
            mark: Mark(0),
            received: Timestamp::from_micros(0),
            tracked: true,
        };
        let ports = Ports {
            phys_in: Text::lossy("port1"),
            phys_out: Text::lossy("port2"),
        };
        let mut asks = Asks::default();
        asks.push(ask.clone(), Some(&ports));
        assert_eq!((asks.plain.len(), asks.bridged.len()), (1, 0));
        asks.with_ports = true;
        asks.push(ask.clone(), Some(&ports));
        asks.push(ask, None);
        assert_eq!((asks.plain.len(), asks.bridged.len()), (2, 1));
        assert_eq!(asks.bridged[0].phys_out.as_str(), "port2");
    }
}
