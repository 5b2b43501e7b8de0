//! Connections of a gateway whose kernel tells nothing: what SYN/ACK, FIN and RST mean for their rows.

use crate::world::{World, entry, reversed, tcp, udp};
use nuauth_server::engine::{Input, LinkId};
use nufw_proto::gateway::Capabilities;
use nufw_proto::{BootId, ConnId, CtEntry, CtEvent, CtEventKind, CtStatus, Mark, TcpState, Tuple};
use nulog::{ActiveRow, Binding, CloseReason, State, Translated};
use std::sync::Arc;
use std::time::Duration;

fn web() -> Tuple {
    tcp("10.0.0.7:4000", "192.0.2.1:443")
}

impl World {
    fn flagger(&mut self) -> LinkId {
        self.flagger_of(BootId(1))
    }

    fn flagger_of(&mut self, boot: BootId) -> LinkId {
        self.gateway_as("gw", |hello| {
            hello.capabilities = Capabilities::BY_FLAGS;
            hello.relays_events = false;
            hello.boot = boot;
        })
    }

    /// A segment passes that shows this tuple.
    fn segment(&mut self, gw: LinkId, tuple: Tuple, state: TcpState) {
        let kind = if state == TcpState::CLOSE {
            CtEventKind::Destroy
        } else {
            CtEventKind::Update
        };
        let shown = CtEntry {
            id: 0,
            reply: tuple,
            status: CtStatus(0),
            tcp_state: Some(state),
            counters: None,
            start: None,
            stop: None,
            ..entry(0, tuple)
        };
        let event = CtEvent {
            at_kernel: false,
            ..self.event_now(kind, shown)
        };
        self.next_event(gw, event);
    }
}

fn row_of_before(id: u64, original: Tuple, translated: Translated, w: &World) -> ActiveRow {
    ActiveRow {
        id: ConnId::try_from(id).unwrap(),
        gateway: Arc::from("gw"),
        state: State::Established,
        received: w.wall(),
        zone: 0,
        original,
        translated,
        mark: Mark(1),
        user_id: Some(1),
        username: Some(Arc::from("alice")),
        client_os: None,
        client_app: None,
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        auth: None,
    }
}

#[test]
fn a_whole_life_is_read_from_three_kinds_of_segments() {
    let mut w = World::new();
    let gw = w.flagger();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, web());
    assert!(w.closed().is_empty(), "it is followed");
    w.segment(gw, reversed(&web()), TcpState::SYN_RECV);
    let established = w.established()[0];
    assert_eq!(
        (established.id, established.binding),
        (row, None),
        "no entry is claimed to be known"
    );
    assert!(established.at.is_some());
    // Repeated segments, and the same side twice, are nothing new.
    w.segment(gw, reversed(&web()), TcpState::SYN_RECV);
    w.segment(gw, web(), TcpState::FIN_WAIT);
    w.segment(gw, web(), TcpState::FIN_WAIT);
    assert_eq!((w.established().len(), w.closed().len()), (1, 0));
    w.segment(gw, reversed(&web()), TcpState::FIN_WAIT);
    let close = w.closed()[0];
    assert_eq!((close.id, close.reason), (row, CloseReason::Finished));
    assert_eq!((close.counters, close.binding), (None, None));
    assert!(close.at.is_some());
    w.segment(gw, web(), TcpState::CLOSE);
    assert_eq!(w.closed().len(), 1);
    assert_eq!(w.requested(), None, "its table says nothing of these rows");
}

#[test]
fn resets_say_whether_anybody_had_answered() {
    for (answered, by_server, reason) in [
        (false, true, CloseReason::Refused),
        (true, true, CloseReason::Reset),
        (true, false, CloseReason::Reset),
    ] {
        let mut w = World::new();
        let gw = w.flagger();
        let alice = w.login("alice", "10.0.0.7");
        let row = w.granted(gw, alice, web());
        if answered {
            w.segment(gw, reversed(&web()), TcpState::SYN_RECV);
        }
        let shown = if by_server { reversed(&web()) } else { web() };
        w.segment(gw, shown, TcpState::CLOSE);
        assert_eq!(w.ends(), [(row, reason)]);
    }
}

#[test]
fn one_whose_end_nobody_sees_is_closed_in_its_time() {
    let mut w = World::with(|limits| limits.flags_timeout = Duration::from_hours(2));
    let gw = w.flagger();
    let alice = w.login("alice", "10.0.0.7");
    let open = w.granted(gw, alice, web());
    w.segment(gw, reversed(&web()), TcpState::SYN_RECV);
    let silent = tcp("10.0.0.7:4001", "192.0.2.1:443");
    let unanswered = w.granted(gw, alice, silent);
    w.pass(Duration::from_mins(6));
    assert_eq!(w.ends(), [(unanswered, CloseReason::Unanswered)]);
    // The agent is away: its segments pass unseen, and nothing prolongs the time.
    w.down(gw);
    w.pass(Duration::from_hours(1));
    assert_eq!(w.closed().len(), 1);
    w.pass(Duration::from_hours(1));
    let close = w.closed()[1];
    assert_eq!(
        (close.id, close.reason, close.at),
        (open, CloseReason::IdleTimeout, None)
    );
    w.pass(Duration::from_hours(9));
    assert_eq!(w.stats().live_connections, 0);
}

#[test]
fn what_flags_say_nothing_of_ends_untracked() {
    let mut w = World::new();
    let gw = w.flagger();
    let alice = w.login("alice", "10.0.0.7");
    let ask = w.ask_with(gw, udp("10.0.0.7:4000", "192.0.2.1:53"), |ask| {
        ask.tracked = false;
    });
    w.claim(alice);
    w.commit();
    assert_eq!(w.ends(), [(w.accepted(ask).unwrap(), CloseReason::Untracked)]);
}

#[test]
fn a_new_connection_of_an_open_ones_tuple_is_another_row() {
    let mut w = World::new();
    let gw = w.flagger();
    let alice = w.login("alice", "10.0.0.7");
    let former = w.granted(gw, alice, web());
    // A retransmission that crossed its verdict is the same one.
    assert_eq!(w.granted(gw, alice, web()), former);
    w.segment(gw, reversed(&web()), TcpState::SYN_RECV);
    let latter = w.granted(gw, alice, web());
    assert_ne!(latter, former);
    assert_eq!(w.ends(), [(former, CloseReason::Superseded)]);
    w.segment(gw, reversed(&web()), TcpState::CLOSE);
    assert_eq!(w.ends()[1], (latter, CloseReason::Refused));
}

#[test]
fn rows_of_before_a_restart_are_followed_if_they_can_be() {
    let mut w = World::with(|limits| limits.flags_timeout = Duration::from_hours(2));
    let bound = tcp("10.0.0.7:4001", "192.0.2.1:443");
    let binding = Binding {
        ct_id: 7,
        ct_mark: Mark(1),
        original: bound,
        reply: reversed(&bound),
    };
    let other = tcp("10.0.0.8:1", "192.0.2.1:443");
    let rows = vec![
        row_of_before(5001, web(), Translated::Shown(web()), &w),
        row_of_before(5002, bound, Translated::Bound(binding), &w),
        row_of_before(5003, other, Translated::Shown(other), &w),
    ];
    let acknowledged = Vec::new();
    w.input(Input::Loaded { rows, acknowledged });
    let gw = w.flagger_of(BootId(9));
    let [followed, kernels, silent] = [5001, 5002, 5003].map(|id| ConnId::try_from(id).unwrap());
    assert_eq!(w.ends(), [(kernels, CloseReason::Untracked)]);
    w.segment(gw, web(), TcpState::FIN_WAIT);
    w.segment(gw, reversed(&web()), TcpState::FIN_WAIT);
    assert_eq!(w.ends()[1], (followed, CloseReason::Finished));
    w.pass(Duration::from_hours(2));
    assert_eq!(w.ends()[2], (silent, CloseReason::IdleTimeout));
}

#[test]
fn a_kernel_that_tells_again_takes_over() {
    let mut w = World::with(|limits| limits.flags_timeout = Duration::from_hours(2));
    let gw = w.flagger();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, web());
    w.down(gw);
    let gw = w.gateway_as("gw", |hello| hello.boot = BootId(2));
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[crate::world::answered(entry(7, web()))], true);
    w.pass(Duration::from_hours(3));
    assert!(w.closed().is_empty(), "the kernel has it");
    assert_eq!(w.established()[0].id, row);
    assert!(w.established()[0].binding.is_some());
}
