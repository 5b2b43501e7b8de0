//! The host's other addresses are proven, refreshed and withdrawn, and what was being opened from them is announced:
//! in a network namespace.

use crate::peer::{Connection, Peer, Pki, Running, this_program, within};
use crate::support::{in_namespace, ip};
use nufw_proto::Addr;
use nufw_proto::client::{Proven, Refusal, ToClient, ToServer};
use nutcpc::Event;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const LONG: Duration = Duration::from_mins(1);

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

/// Accepts the next proof and answers it.
async fn prove(peer: &Peer) -> Addr {
    let mut connection = peer.accept().await;
    match connection.next().await {
        Some(ToServer::Prove(prove)) => assert_eq!(prove.token.expose(), b"token"),
        other => panic!("{other:?} instead of a proof"),
    }
    let address = connection.from.ip().into();
    connection.send(ToClient::Proven(Proven { address })).await;
    assert_eq!(
        connection.next().await,
        None,
        "a proof is the only message of its connection"
    );
    address
}

async fn next_event(client: &mut Running) -> Event {
    within("an event", client.events.recv()).await.unwrap()
}

async fn word(connection: &mut Connection) -> ToServer {
    connection.next_word().await.expect("the session lives")
}

/// A server with an IPv4 and an IPv6 address, and a client that knows both and has logged in over IPv4.
async fn both_families(pki: &Pki, lease: Duration) -> (Peer, Peer, Connection, Running) {
    let v4 = Peer::new(pki, "10.0.0.5:0").await;
    let v6 = Peer::new(pki, "[fd00::5]:0").await;
    let mut options = pki.options(v4.address);
    options.also = vec![v6.address];
    let mut client = Running::start(options);
    let connection = v4.session(LONG, lease).await;
    assert!(matches!(next_event(&mut client).await, Event::LoggedIn { .. }));
    (v4, v6, connection, client)
}

#[tokio::test]
async fn every_other_global_address_is_proven_and_what_the_host_loses_is_withdrawn() {
    if !in_namespace(
        module_path!(),
        "every_other_global_address_is_proven_and_what_the_host_loses_is_withdrawn",
    ) {
        return;
    }
    ip("addr add 10.0.0.6/24 dev d0");
    ip("addr add 169.254.7.7/16 dev d0 scope link");
    let pki = Pki::new();
    let (v4, v6, mut connection, mut client) = both_families(&pki, LONG).await;

    assert_eq!(prove(&v4).await, addr("10.0.0.6"));
    assert_eq!(prove(&v6).await, addr("fd00::5"));
    let mut proved = BTreeSet::new();
    for _ in 0..2 {
        match next_event(&mut client).await {
            Event::Proved { address } => proved.insert(address),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(proved, BTreeSet::from([addr("10.0.0.6"), addr("fd00::5")]));

    // A privacy address appears.
    ip("addr add fd00::abcd/64 dev d0 nodad");
    assert_eq!(prove(&v6).await, addr("fd00::abcd"));
    assert_eq!(
        next_event(&mut client).await,
        Event::Proved {
            address: addr("fd00::abcd")
        }
    );
    // And goes.
    ip("addr del fd00::abcd/64 dev d0");
    match word(&mut connection).await {
        ToServer::Withdraw(withdraw) => assert_eq!(withdraw.address, addr("fd00::abcd")),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        next_event(&mut client).await,
        Event::Withdrawn {
            address: addr("fd00::abcd")
        }
    );
}

#[tokio::test]
async fn an_address_is_proven_again_long_before_its_lease_ends() {
    if !in_namespace(
        module_path!(),
        "an_address_is_proven_again_long_before_its_lease_ends",
    ) {
        return;
    }
    let pki = Pki::new();
    let lease = Duration::from_secs(3);
    let (_v4, v6, _connection, mut client) = both_families(&pki, lease).await;
    assert_eq!(prove(&v6).await, addr("fd00::5"));
    for _ in 0..2 {
        let again = tokio::time::timeout(lease / 2, prove(&v6)).await;
        assert_eq!(again.expect("within half the lease"), addr("fd00::5"));
    }
    // Said once only.
    assert!(matches!(next_event(&mut client).await, Event::Proved { .. }));
    assert!(client.events.try_recv().is_err());
}

#[tokio::test]
async fn a_refused_proof_is_told_once_and_tried_again() {
    if !in_namespace(module_path!(), "a_refused_proof_is_told_once_and_tried_again") {
        return;
    }
    let pki = Pki::new();
    let (_v4, v6, _connection, mut client) = both_families(&pki, Duration::from_secs(3)).await;
    for _ in 0..2 {
        let mut connection = v6.accept().await;
        assert!(matches!(connection.next().await, Some(ToServer::Prove(_))));
        connection.refuse(Refusal::Address).await;
    }
    assert_eq!(prove(&v6).await, addr("fd00::5"));
    match next_event(&mut client).await {
        Event::NotProved { address, reason } => {
            assert_eq!(address, addr("fd00::5"));
            assert!(reason.contains("another session"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(next_event(&mut client).await, Event::Proved { .. }));
}

#[tokio::test]
async fn what_was_being_opened_before_the_login_is_announced_when_its_address_is_proven() {
    if !in_namespace(
        module_path!(),
        "what_was_being_opened_before_the_login_is_announced_when_its_address_is_proven",
    ) {
        return;
    }
    let connecting = |local: &str, remote: &str| {
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(local), socket2::Type::STREAM, None).unwrap();
        socket.bind(&local.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&remote.into());
        socket
    };
    let _v4_socket = connecting("10.0.0.5:4004", "10.9.9.9:443");
    let _v6_socket = connecting("[fd00::5]:4006", "[fd09::9]:443");
    let pki = Pki::new();
    let (_v4, v6, mut connection, _client) = both_families(&pki, LONG).await;
    let announced = |message| match message {
        ToServer::Announce(batch) => {
            let [one] = &*batch else { panic!("{batch:?}") };
            assert_eq!(one.mine.program.as_deref(), Some(this_program().as_str()));
            one.mine.seen.to_string()
        }
        other => panic!("{other:?} instead of an announcement"),
    };
    let first = announced(word(&mut connection).await);
    assert_eq!(first, "tcp 10.0.0.5:4004 -> 10.9.9.9:443");
    assert_eq!(prove(&v6).await, addr("fd00::5"));
    let second = announced(word(&mut connection).await);
    assert_eq!(second, "tcp [fd00::5]:4006 -> [fd09::9]:443");
}

#[tokio::test]
async fn a_session_whose_own_address_is_lost_ends_at_once() {
    if !in_namespace(module_path!(), "a_session_whose_own_address_is_lost_ends_at_once") {
        return;
    }
    let pki = Pki::new();
    let (_v4, _v6, _connection, mut client) = both_families(&pki, LONG).await;
    ip("addr del 10.0.0.5/24 dev d0");
    match client.event().await {
        Event::Lost { reason, .. } => assert!(reason.contains("10.0.0.5"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
