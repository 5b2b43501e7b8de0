//! What is found, and what must not be: on every database the same.

use crate::lab::{Lab, on_every_database};
use crate::log::{Conn, tcp};
use nu_sso::{Finder, FinderOptions};
use nufw_proto::Tuple;
use nulog::{Change, Side, Store};
use std::time::Duration;

on_every_database! {
    a_connection_without_translation_is_found_while_open_and_while_established,
    another_protocol_with_the_same_ports_is_another_connection,
    translated_connections_are_found_from_both_ends,
    of_two_live_rows_the_newer_one_counts_even_if_it_names_nobody,
    dropped_and_closed_rows_name_nobody,
    a_miss_is_looked_for_again_until_the_nat_side_is_there,
    a_port_that_was_taken_over_is_not_answered_with_its_former_user,
    connections_that_nothing_answers_do_not_hold_up_others_for_longer_than_the_patience,
}

const CLIENT: &str = "10.0.0.7:40312";
const WEB: &str = "192.0.2.80:443";
const GATEWAY: &str = "198.51.100.1:61000";

fn patient(retry: Duration) -> FinderOptions {
    FinderOptions {
        retry,
        timeout: Duration::from_mins(1),
        connections: 2,
    }
}

/// Looks once.
async fn finder(lab: &Lab) -> Finder {
    Finder::open(lab.location(), patient(Duration::ZERO))
        .await
        .unwrap()
}

async fn user(finder: &Finder, tuple: Tuple) -> Option<(String, Side)> {
    let answer = finder.find(&tuple).await.unwrap()?;
    Some((answer.user.to_string(), answer.row.side))
}

fn found(user: &str, side: Side) -> (String, Side) {
    (user.to_owned(), side)
}

async fn log(lab: &Lab, changes: &[Change]) -> Store {
    let mut store = lab.store().await;
    store.apply(changes).await.unwrap();
    store
}

async fn a_connection_without_translation_is_found_while_open_and_while_established(lab: Lab) {
    let conn = Conn::plain(1, "alice", CLIENT, WEB);
    let mut store = log(&lab, &[conn.open()]).await;
    let finder = finder(&lab).await;
    assert_eq!(
        user(&finder, conn.original).await,
        Some(found("alice", Side::Original))
    );
    store.apply(&[conn.established()]).await.unwrap();
    assert_eq!(
        user(&finder, conn.original).await,
        Some(found("alice", Side::Original))
    );
    for other in [
        tcp("10.0.0.8:40312", WEB),
        tcp("10.0.0.7:40313", WEB),
        tcp(CLIENT, "192.0.2.81:443"),
        tcp(CLIENT, "192.0.2.80:80"),
        tcp(WEB, CLIENT),
    ] {
        assert_eq!(user(&finder, other).await, None, "{other}");
    }
    store.apply(&[conn.close()]).await.unwrap();
    assert_eq!(user(&finder, conn.original).await, None);
}

async fn another_protocol_with_the_same_ports_is_another_connection(lab: Lab) {
    let conn = Conn::plain(1, "alice", CLIENT, WEB);
    let _store = log(&lab, &conn.live()).await;
    let finder = finder(&lab).await;
    let udp = nu_sso::parse_tuple("10.0.0.7", "40312", "192.0.2.80", "443", 17).unwrap();
    assert_eq!(user(&finder, udp).await, None);
}

async fn translated_connections_are_found_from_both_ends(lab: Lab) {
    // Client's view, service's view: masquerade, DNAT, both, a changed port alone; IPv6.
    let cases = [
        (tcp(CLIENT, WEB), tcp(GATEWAY, WEB)),
        (tcp(CLIENT, "198.51.100.1:8443"), tcp(CLIENT, WEB)),
        (tcp(CLIENT, "198.51.100.1:8443"), tcp(GATEWAY, WEB)),
        (tcp(CLIENT, WEB), tcp("10.0.0.7:1024", WEB)),
        (
            tcp("[fd00::7]:40312", "[2001:db8::80]:443"),
            tcp("[2001:db8::1]:61000", "[2001:db8::80]:443"),
        ),
    ];
    let mut store = lab.store().await;
    let finder = finder(&lab).await;
    for (number, (original, service)) in (1..).zip(cases) {
        let ports = service.transport().ports().unwrap();
        let reply = Tuple::new(
            service.dst(),
            service.src(),
            service.transport().with_ports(nufw_proto::Ports {
                src: ports.dst,
                dst: ports.src,
            }),
        )
        .unwrap();
        let conn = Conn::new(number, "alice", original, reply);
        store.apply(&conn.live()).await.unwrap();
        assert_eq!(
            user(&finder, original).await,
            Some(found("alice", Side::Original)),
            "{original}"
        );
        assert_eq!(
            user(&finder, service).await,
            Some(found("alice", Side::Reply)),
            "{service}"
        );
        // The two ends never mix.
        let mixed = tcp("10.0.0.7:40312", "192.0.2.80:444");
        assert_eq!(user(&finder, mixed).await, None);
        store.apply(&[conn.close()]).await.unwrap();
        assert_eq!(user(&finder, service).await, None);
    }
}

async fn of_two_live_rows_the_newer_one_counts_even_if_it_names_nobody(lab: Lab) {
    let old = Conn::plain(1, "alice", CLIENT, WEB);
    let new = Conn::plain(2, "bob", CLIENT, WEB);
    let mut store = log(&lab, &old.live()).await;
    store.apply(&new.live()).await.unwrap();
    let finder = finder(&lab).await;
    assert_eq!(
        user(&finder, old.original).await,
        Some(found("bob", Side::Original))
    );
    let mut nobody = Conn::plain(3, "", CLIENT, WEB);
    nobody.user = None;
    store.apply(&nobody.live()).await.unwrap();
    assert_eq!(user(&finder, old.original).await, None);
}

async fn dropped_and_closed_rows_name_nobody(lab: Lab) {
    let dropped = Conn::plain(1, "alice", CLIENT, WEB);
    let Change::Open(row) = dropped.open() else {
        unreachable!()
    };
    let closed = Conn::plain(2, "bob", "10.0.0.9:5", WEB);
    let _store = log(&lab, &[Change::Drop(row), closed.open(), closed.close()]).await;
    let finder = finder(&lab).await;
    assert_eq!(user(&finder, dropped.original).await, None);
    assert_eq!(user(&finder, closed.original).await, None);
}

async fn a_miss_is_looked_for_again_until_the_nat_side_is_there(lab: Lab) {
    let conn = Conn::new(1, "alice", tcp(CLIENT, WEB), tcp(WEB, GATEWAY)).just();
    let mut store = log(&lab, &[conn.open()]).await;
    let patience = Duration::from_secs(30);
    let finder = Finder::open(lab.location(), patient(patience)).await.unwrap();
    let asked = tokio::spawn(async move { user(&finder, tcp(GATEWAY, WEB)).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!asked.is_finished());
    store.apply(&[conn.established()]).await.unwrap();
    assert_eq!(asked.await.unwrap(), Some(found("alice", Side::Reply)));
}

/// The gateway gives bob the port that was alice's. Her row is live until its end is in the log, and his is not translated
/// yet when his first byte arrives: whoever answers at once calls him alice.
async fn a_port_that_was_taken_over_is_not_answered_with_its_former_user(lab: Lab) {
    let alice = Conn::new(1, "alice", tcp(CLIENT, WEB), tcp(WEB, GATEWAY));
    let bob = Conn::new(2, "bob", tcp("10.0.0.8:40312", WEB), tcp(WEB, GATEWAY)).just();
    let mut store = log(&lab, &alice.live()).await;
    let patience = Duration::from_secs(30);
    let finder = Finder::open(lab.location(), patient(patience)).await.unwrap();
    assert_eq!(
        user(&finder, tcp(GATEWAY, WEB)).await,
        Some(found("alice", Side::Reply))
    );
    store.apply(&[bob.open()]).await.unwrap();
    let asked = tokio::spawn(async move { user(&finder, tcp(GATEWAY, WEB)).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!asked.is_finished(), "answered while it could not be known");
    store.apply(&[alice.close(), bob.established()]).await.unwrap();
    assert_eq!(asked.await.unwrap(), Some(found("bob", Side::Reply)));
}

async fn connections_that_nothing_answers_do_not_hold_up_others_for_longer_than_the_patience(lab: Lab) {
    let alice = Conn::new(1, "alice", tcp(CLIENT, WEB), tcp(WEB, GATEWAY));
    // An old one: its first packet was long ago.
    let old = Conn::plain(2, "bob", "10.0.0.8:1", WEB);
    let mut store = log(&lab, &alice.live()).await;
    store.apply(&[old.open()]).await.unwrap();
    let finder = Finder::open(lab.location(), patient(Duration::from_secs(30)))
        .await
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), user(&finder, tcp(GATEWAY, WEB))).await;
    assert_eq!(answer.unwrap(), Some(found("alice", Side::Reply)));
    // A young one, with little patience: it is waited for, and then the answer is given.
    store
        .apply(&[Conn::plain(3, "bob", "10.0.0.8:2", WEB).just().open()])
        .await
        .unwrap();
    let finder = Finder::open(lab.location(), patient(Duration::from_millis(100)))
        .await
        .unwrap();
    assert_eq!(
        user(&finder, tcp(GATEWAY, WEB)).await,
        Some(found("alice", Side::Reply))
    );
}

#[tokio::test]
async fn a_log_that_was_replaced_is_opened_anew() {
    let lab = Lab::sqlite();
    let conn = Conn::plain(1, "alice", CLIENT, WEB);
    let store = log(&lab, &conn.live()).await;
    let finder = finder(&lab).await;
    assert_eq!(
        user(&finder, conn.original).await,
        Some(found("alice", Side::Original))
    );
    store.close().await.unwrap();
    for name in ["nulog.db", "nulog.db-wal", "nulog.db-shm"] {
        let _ = std::fs::remove_file(lab.directory().join(name));
    }
    assert!(finder.find(&conn.original).await.is_err());
    assert!(finder.check().await.is_err());
    let other = Conn::plain(1, "bob", CLIENT, WEB);
    let _store = log(&lab, &other.live()).await;
    assert_eq!(
        user(&finder, conn.original).await,
        Some(found("bob", Side::Original))
    );
    finder.check().await.unwrap();
}

/// A socket that answers each question with this line, as a server does.
fn server(directory: &std::path::Path, line: &'static str) -> std::path::PathBuf {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let socket = directory.join("nuauth.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (from, mut to) = stream.into_split();
            tokio::spawn(async move {
                let mut lines = BufReader::new(from).lines();
                while let Ok(Some(question)) = lines.next_line().await {
                    assert!(
                        question.contains("\"lookup\"") && question.contains("40312"),
                        "{question}"
                    );
                    to.write_all(line.as_bytes()).await.unwrap();
                }
            });
        }
    });
    socket
}

const BOB: &str = "{\"ok\":{\"id\":\"562949953421399\",\"user_id\":\"1002\",\"username\":\"bob\",\"gateway\":\"gw1\",\
                   \"side\":\"reply\"}}\n";

#[tokio::test]
async fn what_is_not_in_the_log_is_asked_of_the_server() {
    let lab = Lab::sqlite();
    let conn = Conn::plain(1, "alice", CLIENT, WEB);
    let mut store = log(&lab, &conn.live()).await;
    let socket = server(lab.directory(), BOB);
    let options = patient(Duration::from_millis(20));
    let finder = Finder::open(lab.location(), options)
        .await
        .unwrap()
        .with_server(Some(socket));
    // The log comes first.
    assert_eq!(
        user(&finder, conn.original).await,
        Some(found("alice", Side::Original))
    );
    store.apply(&[conn.close()]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            user(&finder, conn.original).await,
            Some(found("bob", Side::Reply))
        );
    }
    // Also while the log is away.
    store.close().await.unwrap();
    for name in ["nulog.db", "nulog.db-wal", "nulog.db-shm"] {
        let _ = std::fs::remove_file(lab.directory().join(name));
    }
    assert_eq!(
        user(&finder, conn.original).await,
        Some(found("bob", Side::Reply))
    );
}

#[tokio::test]
async fn a_server_that_knows_nobody_or_is_away_changes_nothing() {
    for line in ["{\"ok\":null}\n", "{\"error\":\"no\"}\n", "nonsense\n"] {
        let lab = Lab::sqlite();
        let conn = Conn::plain(1, "alice", CLIENT, WEB);
        let options = patient(Duration::from_millis(20));
        let socket = server(lab.directory(), line);
        let closed = Finder::closed(lab.location(), options).with_server(Some(socket.clone()));
        assert!(closed.find(&conn.original).await.is_err(), "{line}");
        let _store = log(&lab, &[conn.open(), conn.close()]).await;
        assert_eq!(user(&closed, conn.original).await, None, "{line}");
        let nowhere = lab.directory().join("nowhere.sock");
        let finder = Finder::open(lab.location(), options)
            .await
            .unwrap()
            .with_server(Some(nowhere));
        assert_eq!(user(&finder, conn.original).await, None);
    }
}
