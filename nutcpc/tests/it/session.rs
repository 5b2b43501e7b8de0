//! The client against a server of the test's own: login, claims, loss and return.

use crate::peer::{Peer, Pki, Running, this_program, within};
use nufw_common::exit::Exit;
use nufw_proto::client::{CONVERSATION, ClaimRequest, Finding, Hook, Notice, Refusal, ToClient, ToServer};
use nufw_proto::{Batch, ClaimId, Ports, Text, Transport, Tuple};
use nutcpc::{ClientError, Command, Event, Login, Mechanism, Password};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const LONG: Duration = Duration::from_mins(1);

fn udp_tuple(socket: &UdpSocket) -> Tuple {
    let (local, remote) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
    let ports = Ports {
        src: local.port(),
        dst: remote.port(),
    };
    Tuple::new(local.ip().into(), remote.ip().into(), Transport::Udp(ports)).unwrap()
}

fn question(id: u64, tuple: Tuple) -> ClaimRequest {
    ClaimRequest {
        id: ClaimId(id),
        hook: Hook::Forward,
        tuple,
    }
}

async fn refused_with(running: Running) -> (Exit, String) {
    let error = running.ends().await.unwrap_err();
    (error.exit(), error.to_string())
}

#[tokio::test]
async fn it_logs_in_and_claims_its_own_sockets_only() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut client = Running::start(pki.options(peer.address));
    let (mut connection, hello) = peer.accept_login().await;
    assert!(hello.software.starts_with("nutcpc "), "{hello:?}");
    assert_eq!(hello.os.name.as_str(), "Linux");
    assert!(!hello.system);
    connection.welcome(&["PLAIN"]).await;
    let login = connection.login().await;
    assert_eq!(
        (login.mechanism.as_str(), login.response.expose()),
        ("PLAIN", &b"\0alice\0wonderland"[..])
    );
    connection.logged_in(LONG, LONG).await;
    let expected = Event::LoggedIn {
        user: "alice".to_owned(),
        server: peer.address,
        address: "127.0.0.1".parse().unwrap(),
    };
    assert_eq!(client.event().await, expected);

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    let mine = udp_tuple(&socket);
    let nobodys = mine
        .with_destination("192.0.2.1".parse().unwrap(), Some(1))
        .unwrap();
    let nobodys = Tuple::new(
        nobodys.src(),
        nobodys.dst(),
        Transport::Tcp(nobodys.transport().ports().unwrap()),
    )
    .unwrap();
    // As many as a batch may have; the answer must not need a larger frame than there may be.
    let questions: Vec<_> = (0..1024)
        .map(|id| question(id, if id % 2 == 0 { mine } else { nobodys }))
        .collect();
    connection
        .send(ToClient::ClaimRequests(questions.try_into().unwrap()))
        .await;
    let mut claims = Vec::new();
    while claims.len() < 1024 {
        match connection.next_word().await {
            Some(ToServer::Claims(batch)) => claims.extend(batch),
            other => panic!("{other:?} instead of claims"),
        }
    }
    for (number, claim) in claims.iter().enumerate() {
        assert_eq!(claim.id, ClaimId(number as u64));
        match &claim.finding {
            Finding::Mine(found) if number % 2 == 0 => {
                assert_eq!(found.seen, mine);
                assert_eq!(found.program.as_deref(), Some(this_program().as_str()));
            }
            Finding::NotMine if number % 2 == 1 => {}
            other => panic!("{number}: {other:?}"),
        }
    }

    let text = Text::lossy("the gateway is restarted at noon");
    connection
        .send(ToClient::Notice(Notice { text: text.clone() }))
        .await;
    assert_eq!(client.event().await, Event::Notice { text: text.into() });

    client.commands.send(Command::Stop).await.unwrap();
    assert!(matches!(connection.next_word().await, Some(ToServer::Goodbye(_))));
    assert_eq!(connection.next_word().await, None);
    assert_eq!(client.event().await, Event::LoggedOut);
    client.ends().await.unwrap();
}

#[tokio::test]
async fn refused_credentials_are_not_tried_twice() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&["PLAIN"]).await;
    connection.login().await;
    connection.refuse(Refusal::Credentials).await;
    let (exit, sentence) = refused_with(client).await;
    assert_eq!(exit, Exit::NoPerm);
    assert!(
        sentence.contains("user name, password or certificate is wrong"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_login_that_may_work_later_is_tried_again_later() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    for (cause, least) in [
        (Refusal::TooManyFailures, 30),
        (Refusal::Full, 0),
        (Refusal::Unavailable, 0),
    ] {
        let mut client = Running::start(pki.options(peer.address));
        let (mut connection, _) = peer.accept_login().await;
        connection.welcome(&["PLAIN"]).await;
        connection.login().await;
        connection.refuse(cause).await;
        match client.event().await {
            Event::Lost { retry_in, .. } => assert!(retry_in >= Duration::from_secs(least), "{retry_in:?}"),
            other => panic!("{other:?}"),
        }
        client.commands.send(Command::Stop).await.unwrap();
        client.ends().await.unwrap();
    }
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_sends_no_password() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&["EXTERNAL"]).await;
    assert_eq!(connection.next().await, None);
    let (exit, sentence) = refused_with(client).await;
    assert_eq!(exit, Exit::NoPerm);
    assert!(
        sentence.contains("PLAIN") && sentence.contains("EXTERNAL"),
        "{sentence}"
    );
}

/// Every mechanism for people with a password.
const ALL: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];

/// The client's nonce in its first message.
fn nonce(first: &str) -> &str {
    first.split_once(",r=").unwrap().1
}

#[tokio::test]
async fn the_best_mechanism_keeps_the_password_and_wants_proof_of_the_server() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let (mut connection, hello) = peer.accept_login().await;
    assert!(hello.capabilities.has(CONVERSATION));
    connection.welcome_with(&ALL, CONVERSATION).await;
    let login = connection.login().await;
    assert_eq!(login.mechanism.as_str(), "SCRAM-SHA-256-PLUS");
    let first = String::from_utf8(login.response.expose().to_vec()).unwrap();
    assert!(first.starts_with("p=tls-exporter,,n=alice,r="), "{first}");
    let challenge = format!("r={}server,s=c2FsdHNhbHQ=,i=4096", nonce(&first));
    let proof = connection.challenge(&challenge).await.unwrap();
    assert!(proof.contains(",p=") && !proof.contains("wonderland"), "{proof}");
    // A server that does not know alice's keys.
    let last = format!("v={}=", "A".repeat(43));
    assert_eq!(connection.challenge(&last).await, None);
    let (exit, sentence) = refused_with(client).await;
    assert_eq!(exit, Exit::Config);
    assert!(
        sentence.contains("the server's part of the login is wrong"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_server_cannot_make_it_compute_for_ever() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome_with(&ALL, CONVERSATION).await;
    let login = connection.login().await;
    let first = String::from_utf8(login.response.expose().to_vec()).unwrap();
    let challenge = format!("r={}server,s=c2FsdHNhbHQ=,i=4000000000", nonce(&first));
    assert_eq!(connection.challenge(&challenge).await, None);
    let (_, sentence) = refused_with(client).await;
    assert!(sentence.contains("rounds of computing"), "{sentence}");
}

#[tokio::test]
async fn an_older_server_gets_the_login_that_it_knows_and_a_wanted_mechanism_is_the_only_one() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let _client = Running::start(pki.options(peer.address));
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&ALL).await;
    assert_eq!(connection.login().await.mechanism.as_str(), "PLAIN");

    let mut options = pki.options(peer.address);
    options.mechanism = Some(Mechanism::Scram);
    let client = Running::start(options);
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome_with(&["PLAIN"], CONVERSATION).await;
    assert_eq!(connection.next().await, None);
    let (exit, sentence) = refused_with(client).await;
    assert_eq!(exit, Exit::NoPerm);
    assert!(
        sentence.contains("does not offer SCRAM-SHA-256 logins"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_server_that_cannot_check_at_the_moment_is_told_from_one_that_is_away() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    for (cause, expected) in [
        (Refusal::Unavailable, Exit::TempFail),
        (Refusal::Full, Exit::Unavailable),
    ] {
        let mut options = pki.options(peer.address);
        options.once = true;
        let client = Running::start(options);
        let (mut connection, _) = peer.accept_login().await;
        connection.welcome(&["PLAIN"]).await;
        connection.login().await;
        connection.refuse(cause).await;
        assert_eq!(refused_with(client).await.0, expected);
    }
}

#[tokio::test]
async fn a_certificate_logs_in_without_a_password() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut options = pki.options(peer.address);
    options.certificate = Some((pki.path("alice.crt"), pki.path("alice.key")));
    options.login = Login::Certificate { user: None };
    let mut client = Running::start(options);
    let (mut connection, _) = peer.accept_login().await;
    assert_eq!(connection.common_name.as_deref(), Some("alice"));
    connection.welcome(&["EXTERNAL"]).await;
    let login = connection.login().await;
    assert_eq!(
        (login.mechanism.as_str(), login.response.expose()),
        ("EXTERNAL", &b""[..])
    );
    connection.logged_in(LONG, LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
}

#[tokio::test]
async fn a_certificate_that_the_server_does_not_know_ends_it_like_a_wrong_password() {
    let (pki, other) = (Pki::new(), Pki::new());
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut options = pki.options(peer.address);
    options.certificate = Some((other.path("alice.crt"), other.path("alice.key")));
    options.login = Login::Certificate { user: None };
    let client = Running::start(options);
    assert!(peer.try_accept().await.is_none());
    let (exit, sentence) = refused_with(client).await;
    assert_eq!(exit, Exit::NoPerm, "{sentence}");
    assert!(sentence.contains("certificate"), "{sentence}");
}

#[tokio::test]
async fn a_server_with_another_name_or_authority_gets_no_word() {
    let (pki, other) = (Pki::new(), Pki::new());
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut wrong_name = pki.options(peer.address);
    wrong_name.name = Some("other.test".to_owned());
    let mut wrong_ca = pki.options(peer.address);
    wrong_ca.ca = other.path("ca.crt");
    for (options, word) in [(wrong_name, "another name"), (wrong_ca, "certificate authority")] {
        let client = Running::start(options);
        assert!(peer.try_accept().await.is_none());
        let (exit, sentence) = refused_with(client).await;
        assert_eq!(exit, Exit::Config);
        assert!(sentence.contains(word), "{sentence}");
    }
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_left_and_found_again() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut client = Running::start(pki.options(peer.address));
    let mut connection = peer.session(LONG, LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    // A length of 16 MiB, the type of claim requests, no flags.
    connection.send_raw(&[1, 0, 0, 0, 0, 133, 0, 0]).await;
    assert_eq!(connection.next_word().await, None, "the client cuts");
    match client.event().await {
        Event::Lost { reason, .. } => assert!(reason.contains("larger than"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let _connection = peer.session(LONG, LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
}

#[tokio::test]
async fn before_the_login_only_small_frames_are_taken() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut client = Running::start(pki.options(peer.address));
    let (mut connection, _) = peer.accept_login().await;
    let filler: Vec<Text<20>> = (0..1000).map(|_| Text::lossy("12345678901234567890")).collect();
    let filler: Vec<&str> = filler.iter().map(Text::as_str).collect();
    connection.welcome(&filler).await;
    assert_eq!(connection.next().await, None, "no login was sent");
    match client.event().await {
        Event::Lost { reason, .. } => assert!(reason.contains("larger than"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_comes_back_when_the_server_does() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let address = peer.address;
    let mut client = Running::start(pki.options(address));
    let connection = peer.session(LONG, LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    drop((connection, peer));
    // Lost, and then nobody listens for a while.
    assert!(matches!(client.event().await, Event::Lost { .. }));
    assert!(matches!(client.event().await, Event::Lost { .. }));
    let peer = Peer::new(&pki, &address.to_string()).await;
    let mut connection = peer.session(LONG, LONG).await;
    loop {
        match client.event().await {
            Event::LoggedIn { .. } => break,
            Event::Lost { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:9").unwrap();
    let questions = Batch::try_from(vec![question(7, udp_tuple(&socket))]).unwrap();
    connection.send(ToClient::ClaimRequests(questions)).await;
    match connection.next_word().await {
        Some(ToServer::Claims(claims)) => assert!(matches!(claims[0].finding, Finding::Mine(_))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_silent_server_is_noticed_and_was_told_that_the_client_lives() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut client = Running::start(pki.options(peer.address));
    let mut connection = peer.session(Duration::from_millis(900), LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    let mut heartbeats = 0;
    while let Some(message) = connection.next().await {
        if matches!(message, ToServer::Heartbeat(_)) {
            heartbeats += 1;
        }
    }
    assert!(heartbeats >= 1);
    match client.event().await {
        Event::Lost { reason, .. } => assert!(reason.contains("silent"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn with_once_a_server_that_is_not_there_is_the_end() {
    let pki = Pki::new();
    let nowhere = Peer::new(&pki, "127.0.0.1:0").await.address;
    let mut options = pki.options(nowhere);
    options.once = true;
    let (exit, sentence) = refused_with(Running::start(options)).await;
    assert_eq!(exit, Exit::Unavailable);
    assert!(sentence.contains(&nowhere.to_string()), "{sentence}");

    // Without it, it can still be stopped.
    let mut client = Running::start(pki.options(nowhere));
    assert!(matches!(client.event().await, Event::Lost { .. }));
    client.commands.send(Command::Stop).await.unwrap();
    client.ends().await.unwrap();
}

#[tokio::test]
async fn it_can_be_stopped_while_the_server_does_not_answer() {
    let pki = Pki::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Running::start(pki.options(listener.local_addr().unwrap()));
    let _silent = within("a connection", listener.accept()).await.unwrap();
    client.commands.send(Command::Stop).await.unwrap();
    client.ends().await.unwrap();
}

#[tokio::test]
async fn a_new_password_is_used_after_a_reload() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut client = Running::start(pki.options(peer.address));
    let connection = peer.session(LONG, LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    pki.secret("password", "looking-glass\n");
    client.commands.send(Command::Reload).await.unwrap();
    // The command is taken before the end of the connection can be seen.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(connection);
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&["PLAIN"]).await;
    assert_eq!(
        connection.login().await.response.expose(),
        b"\0alice\0looking-glass"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_before_anything_is_sent() {
    let pki = Pki::new();
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut options = pki.options(nowhere);
    options.login = Login::Password {
        user: "alice".to_owned(),
        password: Password::File(pki.path("missing")),
    };
    let missing = nutcpc::Client::new(options).err().unwrap();
    assert_eq!(missing.exit(), Exit::Config);
    assert!(missing.to_string().contains("missing"), "{missing}");

    let mut options = pki.options(nowhere);
    options.ca = pki.path("password");
    let no_ca = nutcpc::Client::new(options).err().unwrap();
    assert!(matches!(no_ca, ClientError::Tls(_)), "{no_ca}");
    assert_eq!(no_ca.exit(), Exit::Config);
}
