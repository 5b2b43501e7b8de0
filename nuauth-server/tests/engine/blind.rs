//! What passed without a verdict: a row without a user, found by the bit of its mark, in events and in dumps.

use crate::world::{World, answered, counters, ended, entry, tcp, udp, user};
use nuauth_server::engine::{Input, LinkId};
use nufw_proto::gateway::{Ask, Blind, Hook, ToServer};
use nufw_proto::{AskId, Batch, BootId, CtEntry, CtEventKind, Mark, TcpState, Text, Timestamp, Tuple};
use nulog::{ActiveRow, CloseReason, State, Translated};
use std::sync::Arc;
use std::time::Duration;

const WEB: (&str, &str) = ("10.0.0.7:40000", "192.0.2.1:443");
const BIT: Mark = Mark(0x0400_0000);

fn web() -> Tuple {
    tcp(WEB.0, WEB.1)
}

fn blind(id: u32, tuple: Tuple) -> CtEntry {
    CtEntry {
        mark: BIT,
        ..entry(id, tuple)
    }
}

fn start() -> (World, LinkId) {
    let mut w = World::new();
    let gw = w.gateway();
    w.said(gw, ToServer::Blind(Blind { bit: BIT }));
    (w, gw)
}

#[test]
fn a_blind_connection_has_a_row_without_a_user_that_is_followed_to_its_end() {
    let (mut w, gw) = start();
    let ct = blind(7, web());
    w.event(gw, CtEventKind::New, ct);
    let row = w.opened()[0].clone();
    assert_eq!((&*row.acl, row.mark, row.original), ("(blind)", BIT, web()));
    assert!(row.user.is_none() && row.client_app.is_none());
    w.event(gw, CtEventKind::Update, answered(ct));
    assert_eq!(w.established()[0].id, row.id);
    w.event(gw, CtEventKind::Destroy, ended(answered(ct), TcpState::TIME_WAIT));
    assert_eq!(w.ends(), [(row.id, CloseReason::Finished)]);
    assert_eq!(w.closed()[0].counters, Some(counters()));
    // The kernel may tell the end twice.
    w.event(gw, CtEventKind::Destroy, ended(answered(ct), TcpState::TIME_WAIT));
    assert_eq!(w.opened().len(), 1);
    assert_eq!(w.stats().blind, 1);
}

#[test]
fn a_dump_finds_what_passed_while_nobody_listened_and_once_is_enough() {
    let (mut w, gw) = start();
    let ct = answered(blind(7, web()));
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[ct, entry(8, tcp(WEB.0, "192.0.2.1:80"))], true);
    assert_eq!(w.opened().len(), 1, "only what has the bit is taken up");
    let row = w.opened()[0].id;
    assert_eq!((w.established()[0].id, w.established()[0].at), (row, None));
    w.verify(&["gw"]);
    w.pass(Duration::from_secs(40));
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[ct], true);
    assert_eq!((w.opened().len(), w.ends()), (1, vec![]));
    w.verify(&["gw"]);
    w.pass(Duration::from_secs(40));
    let dump = w.requested().unwrap();
    w.dump(gw, dump, &[], true);
    assert_eq!(w.ends(), [(row, CloseReason::Resync)]);
}

#[test]
fn of_a_connection_that_was_over_before_anybody_listened_the_end_makes_the_row() {
    let (mut w, gw) = start();
    let ct = ended(answered(blind(7, web())), TcpState::CLOSE);
    for _ in 0..3 {
        w.event(gw, CtEventKind::Destroy, ct);
    }
    assert_eq!(
        (w.opened().len(), w.established().len()),
        (1, 1),
        "told three times"
    );
    let row = w.opened()[0].id;
    assert!(w.ends().iter().all(|end| *end == (row, CloseReason::Reset)));
}

#[test]
fn without_the_bit_or_before_it_is_told_nothing_is_taken_up() {
    let mut w = World::new();
    let gw = w.gateway();
    w.event(gw, CtEventKind::New, blind(7, web()));
    w.said(gw, ToServer::Blind(Blind { bit: BIT }));
    w.event(gw, CtEventKind::New, entry(8, tcp(WEB.0, "192.0.2.1:80")));
    assert_eq!(w.opened().len(), 0);
    let mut w = World::with(|limits| limits.levels.connections = false);
    let gw = w.gateway();
    w.said(gw, ToServer::Blind(Blind { bit: BIT }));
    w.event(gw, CtEventKind::New, blind(7, web()));
    assert_eq!(w.opened().len(), 0, "no rows are wanted");
}

#[test]
fn a_blind_entry_is_not_taken_for_a_granted_connection_of_the_same_tuple() {
    let (mut w, gw) = start();
    let alice = w.login("alice", "10.0.0.7");
    let granted = w.granted(gw, alice, web());
    // The verdict was lost with its link, and the retransmission passed unasked.
    let ct = blind(7, web());
    w.event(gw, CtEventKind::New, ct);
    let rows = w.opened();
    assert_eq!(rows.len(), 2);
    let row = rows[1].id;
    w.event(gw, CtEventKind::Destroy, ended(ct, TcpState::CLOSE));
    assert_eq!(w.ends(), [(row, CloseReason::Refused)]);
    // And an entry that was granted is not taken for a blind one.
    w.event(
        gw,
        CtEventKind::Update,
        CtEntry {
            mark: user("alice").mark,
            ..answered(entry(8, web()))
        },
    );
    assert_eq!(w.established()[0].id, granted);
}

#[test]
fn after_a_restart_a_blind_row_goes_on_with_its_entry_or_has_vanished() {
    for is_there in [true, false] {
        let mut w = World::without_ids(|_| {});
        w.input(Input::Ids(1000..2000));
        let row = nufw_proto::ConnId::try_from(1).unwrap();
        let rows = vec![ActiveRow {
            id: row,
            gateway: Arc::from("gw"),
            state: State::Open,
            received: w.wall(),
            zone: 0,
            original: web(),
            translated: Translated::Shown(web()),
            mark: BIT,
            user_id: None,
            username: None,
            client_os: None,
            client_app: None,
            in_dev: Arc::from(""),
            out_dev: Arc::from(""),
            phys_in: Arc::from(""),
            phys_out: Arc::from(""),
            auth: None,
        }];
        let acknowledged = vec![(Arc::from("gw"), BootId(1), nufw_proto::EventSeq(0))];
        w.input(Input::Loaded { rows, acknowledged });
        let gw = w.gateway();
        w.said(gw, ToServer::Blind(Blind { bit: BIT }));
        let dump = w.requested().unwrap();
        let there = [blind(7, web())];
        w.dump(gw, dump, if is_there { &there } else { &[] }, true);
        assert_eq!(w.opened().len(), 0);
        if is_there {
            assert_eq!(w.ends(), []);
            w.event(gw, CtEventKind::Destroy, ended(there[0], TcpState::CLOSE));
            assert_eq!(w.ends(), [(row, CloseReason::Refused)]);
        } else {
            assert_eq!(w.ends(), [(row, CloseReason::Resync)]);
        }
    }
}

#[test]
fn without_room_there_is_no_row_and_another_look_later() {
    let mut w = World::with(|limits| limits.connections = 1);
    let gw = w.gateway();
    w.said(gw, ToServer::Blind(Blind { bit: BIT }));
    let first = w.requested().unwrap();
    w.dump(gw, first, &[], true);
    let kept = blind(1, web());
    w.event(gw, CtEventKind::New, kept);
    let other = blind(2, udp("10.0.0.8:5000", "192.0.2.1:53"));
    w.event(gw, CtEventKind::New, other);
    assert_eq!((w.opened().len(), w.stats().blind_unlogged), (1, 1));
    w.event(gw, CtEventKind::Destroy, ended(kept, TcpState::CLOSE));
    w.pass(Duration::from_secs(40));
    let second = w.requested().unwrap();
    assert_ne!(first, second);
    w.dump(gw, second, &[other], true);
    assert_eq!(w.opened().len(), 2);
}

#[test]
fn what_another_server_was_asked_instead_is_superseded() {
    let (mut w, gw) = start();
    let alice = w.login("alice", "10.0.0.7");
    let ask = |received: Timestamp, tuple| Ask {
        id: AskId(77),
        hook: Hook::Forward,
        zone: 0,
        tuple,
        in_dev: Text::lossy("eth0"),
        out_dev: Text::lossy("eth1"),
        mark: Mark(0),
        received,
        tracked: true,
    };
    let row = w.granted(gw, alice, web());
    let received = w.opened()[0].received;
    w.down(gw);
    let gw = w.gateway();
    let later = Timestamp::from_micros(received.micros() + 1);
    let tell = |w: &mut World, ask| {
        w.said(gw, ToServer::Elsewhere(Batch::try_from(vec![ask]).unwrap()));
    };
    tell(&mut w, ask(later, web()));
    tell(&mut w, ask(received, tcp(WEB.0, "192.0.2.1:80")));
    assert_eq!(w.ends(), [], "another packet is another story");
    tell(&mut w, ask(received, web()));
    assert_eq!(w.ends(), [(row, CloseReason::Superseded)]);
}
