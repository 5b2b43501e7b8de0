//! Dumps of a gateway's table: what is there is live, what is missing is gone.

use crate::world::{World, answered, counters, ended, entry, tcp};
use nuauth_server::engine::LinkId;
use nufw_proto::gateway::{DumpBegin, DumpEnd, DumpPart, Gap, GapCause, ToServer};
use nufw_proto::{Batch, CtEntry, CtEventKind, DumpId, SessionId, TcpState};
use nulog::CloseReason;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");
const CONFIRM: Duration = Duration::from_secs(30);

fn start() -> (World, LinkId, SessionId) {
    let mut w = World::new();
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    (w, gw, alice)
}

#[test]
fn a_dump_is_asked_of_every_gateway_that_relays_events() {
    let (w, ..) = start();
    assert!(w.requested().is_some());
}

#[test]
fn what_was_bound_and_is_missing_is_closed_as_resync() {
    let (mut w, gw, alice) = start();
    let gone = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.granted(gw, alice, tcp(WEB.0, "192.0.2.1:80"));
    let there = entry(2, tcp(WEB.0, "192.0.2.1:80"));
    w.event(gw, CtEventKind::New, there);
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[there], true);
    assert_eq!(w.ends(), [(gone, CloseReason::Resync)]);
    assert_eq!((w.closed()[0].at, w.closed()[0].counters), (Some(w.wall()), None));
}

#[test]
fn a_late_end_fills_what_was_missing() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let ct = entry(1, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, ct);
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    assert_eq!(
        w.ends(),
        [(row, CloseReason::Resync), (row, CloseReason::Refused)]
    );
    assert_eq!(w.closed()[1].counters, Some(counters()));
    assert!(w.closed()[1].at.is_some());
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    assert_eq!(w.closed().len(), 2, "once");
}

#[test]
fn a_dump_binds_and_establishes() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let dump = w.requested().unwrap();
    let ct = answered(entry(8, tcp(WEB.0, WEB.1)));
    w.dump(gw, dump, &[ct], true);
    let established = w.established()[0];
    assert_eq!((established.id, established.at), (row, None));
    assert_eq!(established.binding.unwrap().ct_id, 8);
    w.event(gw, CtEventKind::New, entry(8, tcp(WEB.0, WEB.1)));
    assert_eq!(w.ends(), [], "its first event may be read after the dump");
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    assert_eq!(w.ends(), [(row, CloseReason::Reset)]);
}

#[test]
fn a_dump_shows_an_older_entry_for_what_it_is() {
    let (mut w, gw, alice) = start();
    let born = w.wall();
    w.pass(Duration::from_secs(1));
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    let old = CtEntry {
        start: Some(born),
        ..answered(entry(8, tcp(WEB.0, WEB.1)))
    };
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[old], true);
    assert_eq!(w.established().len(), 0);
}

#[test]
fn what_was_granted_after_the_request_is_not_judged() {
    let (mut w, gw, alice) = start();
    let dump = w.requested().unwrap();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.dump(gw, dump, &[], true);
    assert_eq!(w.ends(), []);
}

#[test]
fn what_is_never_confirmed_is_looked_for_and_closed() {
    let mut w = World::with(|limits| limits.counters_every = Duration::ZERO);
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let first = w.requested().unwrap();
    w.dump(gw, first, &[], true);
    w.pass(Duration::from_secs(1));
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.pass(Duration::from_secs(29));
    assert_eq!(w.requested(), Some(first));
    w.pass(Duration::from_secs(1));
    let second = w.requested().unwrap();
    assert_ne!(first, second);
    w.dump(gw, second, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::NeverConfirmed)]);
    w.pass(CONFIRM * 3);
    assert_eq!(w.requested(), Some(second), "there is no doubt any more");
}

#[test]
fn an_incomplete_dump_concludes_nothing_and_is_asked_for_again() {
    let (mut w, gw, alice) = start();
    let row = w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let first = w.requested().unwrap();
    w.dump(gw, first, &[], false);
    assert_eq!(w.ends(), []);
    w.pass(CONFIRM);
    let second = w.requested().unwrap();
    assert_ne!(first, second);
    w.dump(gw, second, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::Resync)]);
}

#[test]
fn a_dump_that_is_never_answered_is_asked_for_again() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.pass(CONFIRM);
    let asked = w.requested();
    w.pass(CONFIRM);
    assert_ne!(w.requested(), asked);
}

#[test]
fn an_unasked_dump_judges_bound_rows_only() {
    let (mut w, gw, alice) = start();
    let old = w.granted(gw, alice, tcp(WEB.0, "192.0.2.1:1"));
    let bound = w.granted(gw, alice, tcp(WEB.0, "192.0.2.1:3"));
    w.event(gw, CtEventKind::New, entry(3, tcp(WEB.0, "192.0.2.1:3")));
    w.pass(CONFIRM * 2);
    w.dump(gw, DumpId(0), &[], true);
    assert_eq!(
        w.ends(),
        [(bound, CloseReason::Resync)],
        "a verdict may be on its way"
    );
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    assert_eq!(w.ends()[1], (old, CloseReason::NeverConfirmed));
}

#[test]
fn what_is_confirmed_while_the_dump_runs_is_live() {
    let (mut w, gw, alice) = start();
    let dump = w.requested().unwrap();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.said(gw, ToServer::DumpBegin(DumpBegin { dump }));
    let entries = Batch::default();
    w.said(gw, ToServer::DumpPart(DumpPart { dump, entries }));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    w.said(gw, ToServer::DumpEnd(DumpEnd { dump, complete: true }));
    assert_eq!(w.ends(), []);
}

#[test]
fn the_end_of_another_dump_concludes_nothing() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let dump = w.requested().unwrap();
    w.said(gw, ToServer::DumpEnd(DumpEnd { dump, complete: true }));
    w.said(gw, ToServer::DumpBegin(DumpBegin { dump }));
    let stale = DumpId(dump.0 + 1);
    w.said(
        gw,
        ToServer::DumpEnd(DumpEnd {
            dump: stale,
            complete: true,
        }),
    );
    assert_eq!(w.ends(), []);
}

#[test]
fn a_dump_does_not_outlive_its_link() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let dump = w.requested().unwrap();
    w.said(gw, ToServer::DumpBegin(DumpBegin { dump }));
    let gw = w.gateway();
    w.said(gw, ToServer::DumpEnd(DumpEnd { dump, complete: true }));
    assert_eq!(w.ends(), []);
}

#[test]
fn a_dump_says_nothing_of_other_gateways() {
    let (mut w, gw, alice) = start();
    w.granted(gw, alice, tcp(WEB.0, WEB.1));
    w.event(gw, CtEventKind::New, entry(1, tcp(WEB.0, WEB.1)));
    let other = w.gateway_as("other", |_| {});
    let dump = w.requested().unwrap();
    w.dump(other, dump, &[], true);
    assert_eq!(w.ends(), []);
}

#[test]
fn a_gap_asks_for_a_dump() {
    let (mut w, gw, _) = start();
    w.pass(CONFIRM);
    let before = w.requested().unwrap();
    let (from, to, cause) = (w.wall(), w.wall(), GapCause::StoreFull);
    w.said(gw, ToServer::Gap(Gap { from, to, cause }));
    w.pass(Duration::from_millis(100));
    assert_ne!(w.requested(), Some(before));
}
