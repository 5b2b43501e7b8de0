//! Connections that another one brings with it: FTP data, and whatever else the kernel expects of one that was asked for.

use crate::world::{World, addr, answered, ended, entry, reversed, tcp, user};
use nuauth_server::engine::{Input, LinkId};
use nufw_proto::{ConnId, CtEntry, CtEventKind, DumpId, TcpState, Timestamp, Tuple};
use nulog::{ActiveRow, Binding, CloseReason, State, Translated};
use std::sync::Arc;

fn control() -> Tuple {
    tcp("10.0.0.7:40000", "192.0.2.1:21")
}

/// Data that the server opens to the client: active mode.
fn data() -> Tuple {
    tcp("192.0.2.1:20", "10.0.0.7:40001")
}

/// The entry of data that belongs to the control connection.
fn brought(id: u32, original: Tuple) -> CtEntry {
    CtEntry {
        master: Some(control()),
        mark: user("alice").mark,
        ..entry(id, original)
    }
}

/// A gateway with alice's control connection, and its row.
fn with_control(w: &mut World) -> (LinkId, ConnId) {
    let gw = w.gateway();
    let alice = w.login("alice", "10.0.0.7");
    let row = w.granted(gw, alice, control());
    let ct = CtEntry {
        mark: user("alice").mark,
        ..entry(1, control())
    };
    w.event(gw, CtEventKind::New, ct);
    (gw, row)
}

#[test]
fn data_has_a_row_of_its_own_with_the_user_of_its_parent() {
    let mut w = World::new();
    let (gw, parent) = with_control(&mut w);
    let at = w.wall();
    w.event(gw, CtEventKind::New, brought(2, data()));
    let row = w.opened()[1].clone();
    assert_eq!(row.parent, Some(parent));
    assert_eq!(row.received, at);
    assert_eq!(row.user, Some(user("alice").user.clone()));
    assert_eq!(row.client_app.as_deref(), Some("/usr/bin/curl"));
    assert_eq!((row.mark, row.original), (user("alice").mark, data()));
    assert_eq!(&*row.acl, "(related)");
    w.commit();
    let later = CtEntry {
        master: None,
        ..brought(2, data())
    };
    w.event(gw, CtEventKind::Update, answered(later));
    assert_eq!(w.established()[0].id, row.id);
    w.event(
        gw,
        CtEventKind::Destroy,
        ended(answered(later), TcpState::TIME_WAIT),
    );
    assert_eq!(w.ends(), [(row.id, CloseReason::Finished)]);
    assert_eq!((w.stats().related, w.stats().live_connections), (1, 1));
    assert_eq!(w.stats().unrelated_events, 0);
}

#[test]
fn what_belongs_to_nobodys_connection_has_no_row() {
    let mut w = World::new();
    let (gw, _) = with_control(&mut w);
    let stranger = CtEntry {
        master: Some(tcp("10.0.0.8:40000", "192.0.2.1:21")),
        ..entry(2, data())
    };
    w.event(gw, CtEventKind::New, stranger);
    let elsewhere = CtEntry {
        zone: 4,
        ..brought(3, data())
    };
    w.event(gw, CtEventKind::New, elsewhere);
    let other = w.gateway_as("gw2", |_| {});
    w.event(other, CtEventKind::New, brought(2, data()));
    assert_eq!(w.opened().len(), 1);
    assert_eq!(w.stats().unrelated_events, 3);
}

#[test]
fn data_of_a_control_connection_that_is_over_has_no_row() {
    let mut w = World::new();
    let (gw, _) = with_control(&mut w);
    w.event(
        gw,
        CtEventKind::Destroy,
        ended(entry(1, control()), TcpState::CLOSE),
    );
    w.event(gw, CtEventKind::New, brought(2, data()));
    assert_eq!(w.opened().len(), 1);
}

#[test]
fn its_end_is_its_own() {
    let mut w = World::new();
    let (gw, parent) = with_control(&mut w);
    w.event(gw, CtEventKind::New, brought(2, data()));
    let child = w.opened()[1].id;
    w.event(
        gw,
        CtEventKind::Destroy,
        ended(entry(1, control()), TcpState::CLOSE),
    );
    assert_eq!(w.ends(), [(parent, CloseReason::Refused)]);
    w.event(gw, CtEventKind::Destroy, ended(entry(2, data()), TcpState::CLOSE));
    assert_eq!(w.ends()[1], (child, CloseReason::Refused));
}

#[test]
fn a_dump_shows_what_events_did_not_tell_and_makes_no_row_twice() {
    let mut w = World::new();
    let (gw, parent) = with_control(&mut w);
    let born = CtEntry {
        start: Some(w.wall()),
        ..brought(2, data())
    };
    let table = [entry(1, control()), answered(born)];
    w.dump(gw, DumpId(0), &table, true);
    w.dump(gw, DumpId(0), &table, true);
    let rows = w.opened();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[1].parent, Some(rows[1].received)),
        (Some(parent), born.start)
    );
    assert_eq!(w.established().len(), 1);
    // Without the kernel's time nobody knows when it came to be.
    let undated = brought(3, tcp("192.0.2.1:20", "10.0.0.7:40002"));
    w.dump(gw, DumpId(0), &[table[0], table[1], undated], true);
    assert_eq!(w.opened().len(), 2);
    assert_eq!(w.ends(), []);
}

#[test]
fn where_there_is_no_room_it_is_counted_and_has_no_row() {
    let mut w = World::with(|limits| limits.connections = 2);
    let (gw, _) = with_control(&mut w);
    w.event(gw, CtEventKind::New, brought(2, data()));
    w.event(
        gw,
        CtEventKind::New,
        brought(3, tcp("192.0.2.1:20", "10.0.0.7:40002")),
    );
    assert_eq!(w.opened().len(), 2);
    assert_eq!((w.stats().related, w.stats().related_without_row), (1, 1));
    let mut w = World::with(|limits| limits.waiting_async = 0);
    let (gw, _) = with_control(&mut w);
    w.event(gw, CtEventKind::New, brought(2, data()));
    assert_eq!(w.stats().related_without_row, 1);
}

#[test]
fn a_row_that_cannot_be_logged_is_forgotten() {
    let mut w = World::new();
    let (gw, _) = with_control(&mut w);
    w.event(gw, CtEventKind::New, brought(2, data()));
    w.fail();
    assert_eq!(w.stats().live_connections, 1);
}

#[test]
fn a_server_that_starts_again_knows_whose_its_children_are() {
    let mut w = World::without_ids(|_| {});
    w.input(Input::Ids(1000..2000));
    let received: Timestamp = w.wall();
    let rows = vec![ActiveRow {
        id: ConnId::try_from(1).unwrap(),
        gateway: Arc::from("gw"),
        state: State::Established,
        received,
        zone: 0,
        original: control(),
        translated: Translated::Bound(Binding {
            ct_id: 1,
            ct_mark: user("alice").mark,
            original: control(),
            reply: reversed(&control()),
        }),
        mark: user("alice").mark,
        user_id: Some(user("alice").user.id),
        username: Some(Arc::from("alice")),
        client_os: Some(Arc::from("Linux")),
        client_app: None,
        in_dev: Arc::from(""),
        out_dev: Arc::from(""),
        phys_in: Arc::from(""),
        phys_out: Arc::from(""),
        auth: None,
    }];
    let acknowledged = Vec::new();
    w.input(Input::Loaded { rows, acknowledged });
    let gw = w.gateway();
    w.event(gw, CtEventKind::New, brought(2, data()));
    let row = w.opened()[0];
    assert_eq!(row.user, Some(user("alice").user.clone()));
    assert_eq!(row.client_os.as_deref(), Some("Linux"));
    assert_eq!(row.parent, ConnId::try_from(1).ok());
    assert_eq!(row.original.src(), addr("192.0.2.1"));
}
