//! TCP segments that say how a connection goes on, for hosts whose conntrack tells nothing.
//!
//! They are let pass at once and never asked about. What one shows goes to the server like an event; what it means for a row
//! is the server's part, which knows the other direction.

use super::Agent;
use crate::packet::{self, TcpStep};
use crate::queue::{Disposition, QueuedPacket};
use nufw_proto::{CtEntry, CtEvent, CtEventKind, CtStatus, Mark, Removal, TcpState, Timestamp, Tuple};

impl Agent {
    /// A segment of a user's connection passes.
    pub(super) fn passing(&mut self, packet: &QueuedPacket, received: Timestamp) {
        let accept = Disposition::Accept { mark: None };
        self.queue.verdict_in(packet.queue, packet.packet_id, accept);
        let parsed = packet::parse(&packet.payload, packet.hw_protocol, self.tracking);
        let Ok(packet::Parsed {
            tuple,
            tcp: Some(step),
        }) = parsed
        else {
            self.stats.unparsable += 1;
            return;
        };
        let at = packet.timestamp.unwrap_or(received);
        let zone = self.settings.zone_of(packet.queue);
        self.fresh.extend(shown(tuple, step, zone, Mark(packet.mark), at));
    }
}

/// What a segment shows, as an event: the tuple is its own, whichever direction that is.
fn shown(tuple: Tuple, step: TcpStep, zone: u16, mark: Mark, at: Timestamp) -> Option<CtEvent> {
    let (kind, state) = match step {
        TcpStep::Opens => return None,
        TcpStep::Answers => (CtEventKind::Update, TcpState::SYN_RECV),
        TcpStep::Finishes => (CtEventKind::Update, TcpState::FIN_WAIT),
        TcpStep::Resets => (CtEventKind::Destroy, TcpState::CLOSE),
    };
    Some(CtEvent {
        kind,
        entry: CtEntry {
            id: 0,
            zone,
            original: tuple,
            reply: tuple,
            master: None,
            mark,
            status: CtStatus(0),
            tcp_state: Some(state),
            counters: None,
            start: None,
            stop: None,
        },
        at,
        at_kernel: false,
        removal: Removal::Unsaid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nufw_proto::{Ports, Transport};

    #[test]
    fn a_segment_is_told_as_it_is_seen() {
        let addr = |text: &str| text.parse().unwrap();
        let ports = Transport::Tcp(Ports { src: 80, dst: 4000 });
        let tuple = Tuple::new(addr("10.0.0.2"), addr("10.0.0.1"), ports).unwrap();
        let at = Timestamp::from_micros(7);
        let show = |step| {
            let event = shown(tuple, step, 3, Mark(1001), at)?;
            assert_eq!((event.entry.original, event.entry.zone, event.at), (tuple, 3, at));
            Some((event.kind, event.entry.tcp_state?))
        };
        assert_eq!(show(TcpStep::Opens), None, "that is asked about");
        assert_eq!(
            show(TcpStep::Answers),
            Some((CtEventKind::Update, TcpState::SYN_RECV))
        );
        assert_eq!(
            show(TcpStep::Finishes),
            Some((CtEventKind::Update, TcpState::FIN_WAIT))
        );
        assert_eq!(
            show(TcpStep::Resets),
            Some((CtEventKind::Destroy, TcpState::CLOSE))
        );
    }
}
