//! Connections whose time is limited: when the gateway's kernel is told, and what its own end of one means.

use crate::world::{World, answered, counters, ended, entry, tcp};
use nuauth_server::engine::LinkId;
use nufw_proto::gateway::{Capabilities, Expiry, KillStep, Killed, Live, ToAgent, ToServer};
use nufw_proto::{
    Batch, ConnId, CtEntry, CtEvent, CtEventKind, CtStatus, Removal, SessionId, TcpState, Tuple,
};
use nulog::CloseReason;
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// A connection that its rule lets live for an hour.
fn limited() -> Tuple {
    tcp("10.0.0.7:4000", "192.0.2.1:2030")
}

/// The entry with an end that nothing prolongs.
fn fixed(entry: CtEntry) -> CtEntry {
    CtEntry {
        status: CtStatus(entry.status.0 | 1 << 10),
        ..entry
    }
}

impl World {
    fn ender(&mut self) -> LinkId {
        self.gateway_as("gw", |hello| hello.capabilities = Capabilities::KILL)
    }

    /// What was told of limited connections since the last call.
    fn expiries(&mut self) -> Vec<Expiry> {
        let mut told = Vec::new();
        self.agent.retain(|(_, message)| match message {
            ToAgent::Expire(batch) => {
                told.extend(batch.iter().copied());
                false
            }
            _ => true,
        });
        told
    }

    fn ordered(&mut self) -> bool {
        self.agent
            .iter()
            .any(|(_, message)| matches!(message, ToAgent::Kill(_)))
    }

    fn alive(&mut self, gw: LinkId, alice: SessionId) -> ConnId {
        let row = self.granted(gw, alice, limited());
        self.event(gw, CtEventKind::New, entry(7, limited()));
        self.event(gw, CtEventKind::Update, answered(entry(7, limited())));
        row
    }
}

#[test]
fn the_kernel_is_told_with_the_answer_and_over_each_later_link() {
    let mut w = World::new();
    let gw = w.ender();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, limited());
    w.event(gw, CtEventKind::New, entry(7, limited()));
    w.pass(Duration::from_mins(1));
    assert_eq!(w.expiries(), [], "what nobody answers ends by itself");
    w.event(gw, CtEventKind::Update, answered(entry(7, limited())));
    w.pass(Duration::from_millis(100));
    let live = Live {
        row,
        id: 7,
        zone: 0,
        original: limited(),
    };
    let told = w.expiries();
    assert_eq!((told.len(), told[0].live), (1, live));
    // What is left of the hour, and the minute that the server has to itself.
    assert_eq!(told[0].seconds, 3600);
    let unlimited = tcp("10.0.0.7:4001", "192.0.2.1:443");
    w.granted(gw, alice, unlimited);
    w.event(gw, CtEventKind::New, entry(8, unlimited));
    w.event(gw, CtEventKind::Update, answered(entry(8, unlimited)));
    w.pass(Duration::from_mins(10));
    assert_eq!(w.expiries(), [], "once is enough, and others have all the time");
    w.ender();
    w.pass(Duration::from_millis(100));
    let again = w.expiries();
    assert_eq!((again.len(), again[0].live, again[0].seconds), (1, live, 3000));
}

#[test]
fn where_it_is_not_wanted_the_kernel_is_not_told() {
    let mut w = World::with(|limits| limits.kernel_ends_after = None);
    let gw = w.ender();
    let alice = w.login("alice", "10.0.0.7");
    w.alive(gw, alice);
    w.pass(Duration::from_mins(1));
    assert_eq!(w.expiries(), []);
    let mut w = World::new();
    let older = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    w.alive(older, alice);
    w.pass(Duration::from_mins(1));
    assert_eq!(w.expiries(), [], "that agent cannot end anything");
}

#[test]
fn an_end_by_the_kernels_own_clock_is_no_end_by_idleness() {
    let mut w = World::new();
    let gw = w.ender();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.alive(gw, alice);
    w.down(gw);
    // The agent is away when the time is over, and brings the kernel's word afterwards.
    w.pass(HOUR + Duration::from_mins(2));
    assert!(!w.ordered());
    let gw = w.ender();
    let last = CtEntry {
        counters: Some(counters()),
        ..fixed(answered(entry(7, limited())))
    };
    // The third event of this boot.
    let event = w.event_now(CtEventKind::Destroy, last);
    w.events(gw, 3, &[event]);
    let close = w.closed()[0];
    assert_eq!((close.id, close.reason), (row, CloseReason::Expired));
    assert_eq!(close.counters, Some(counters()));
}

#[test]
fn one_that_is_found_gone_after_its_time_has_expired_at_a_time_that_nobody_knows() {
    let mut w = World::new();
    let gw = w.ender();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.alive(gw, alice);
    w.down(gw);
    w.pass(HOUR + Duration::from_mins(2));
    let gw = w.ender();
    w.pass(Duration::from_millis(100));
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    let close = w.closed()[0];
    assert_eq!(
        (close.id, close.reason, close.at),
        (row, CloseReason::Expired, None)
    );
}

#[test]
fn what_the_server_ended_in_time_says_so() {
    for refused in [true, false] {
        let mut w = World::new();
        let gw = w.ender();
        let alice = w.login("alice", "10.0.0.7");
        let row = w.alive(gw, alice);
        w.pass(HOUR);
        assert!(w.ordered());
        let step = if refused {
            KillStep::Refused
        } else {
            KillStep::Gone
        };
        let killed = Batch::try_from(vec![Killed { row, step }]).unwrap();
        w.said(gw, ToServer::Killed(killed));
        let event = CtEvent {
            removal: Removal::ByProgram,
            ..w.event_now(CtEventKind::Destroy, fixed(answered(entry(7, limited()))))
        };
        w.next_event(gw, event);
        assert_eq!(w.ends(), [(row, CloseReason::KilledExpired)]);
    }
}

#[test]
fn an_entry_that_is_let_go_ends_as_its_connection_did() {
    let over = |state| ended(fixed(answered(entry(7, limited()))), state);
    for (told, last, reason) in [
        (true, over(TcpState::TIME_WAIT), CloseReason::Finished),
        (true, over(TcpState::CLOSE), CloseReason::Reset),
        (
            true,
            fixed(answered(entry(7, limited()))),
            CloseReason::IdleTimeout,
        ),
        (false, over(TcpState::TIME_WAIT), CloseReason::Deleted),
    ] {
        let mut w = World::new();
        let gw = w.ender();
        let alice = w.login("alice", "10.0.0.7");
        let row = w.alive(gw, alice);
        if told {
            w.said(gw, ToServer::LetGo(Batch::try_from(vec![row]).unwrap()));
        }
        let event = CtEvent {
            removal: Removal::ByProgram,
            ..w.event_now(CtEventKind::Destroy, last)
        };
        w.next_event(gw, event);
        assert_eq!(w.ends(), [(row, reason)]);
        assert_eq!(w.stats().deleted_entries, u64::from(!told));
    }
}

#[test]
fn an_agent_lets_go_its_own_limited_connections_alone() {
    let mut w = World::new();
    let gw = w.ender();
    let other = w.gateway_as("other", |hello| hello.capabilities = Capabilities::KILL);
    let alice = w.login("alice", "10.0.0.7");
    let row = w.alive(gw, alice);
    w.said(other, ToServer::LetGo(Batch::try_from(vec![row]).unwrap()));
    let unlimited = tcp("10.0.0.7:4001", "192.0.2.1:443");
    let plain = w.granted(gw, alice, unlimited);
    w.event(gw, CtEventKind::New, entry(8, unlimited));
    w.said(gw, ToServer::LetGo(Batch::try_from(vec![plain]).unwrap()));
    for last in [entry(7, limited()), entry(8, unlimited)] {
        let event = CtEvent {
            removal: Removal::ByProgram,
            ..w.event_now(CtEventKind::Destroy, last)
        };
        w.next_event(gw, event);
    }
    assert_eq!(
        w.ends(),
        [(row, CloseReason::Deleted), (plain, CloseReason::Deleted)]
    );
}
