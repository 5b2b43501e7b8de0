//! How a session ends by the server's will, and how it is had again without the password.

use crate::peer::{Connection, Peer, Pki, Running};
use nufw_common::exit::Exit;
use nufw_proto::client::{
    CONVERSATION, Capabilities, Challenge, EndCause, Ended, REASONS, Refusal, Renew, Renewed, Resume,
    TICKETS, Ticket, ToClient, ToServer,
};
use nufw_proto::{SecretBytes, Text};
use nutcpc::{Command, Event};
use std::time::Duration;

const LONG: Duration = Duration::from_mins(1);

fn everything() -> Capabilities {
    REASONS.and(TICKETS)
}

async fn session(peer: &Peer) -> Connection {
    let (mut connection, hello) = peer.accept_login().await;
    assert!(hello.capabilities.has(everything()));
    connection.welcome_with(&["PLAIN"], everything()).await;
    connection.login().await;
    connection.logged_in(LONG, LONG).await;
    connection
}

impl Connection {
    async fn give_ticket(&mut self, ticket: &[u8]) {
        let ticket = SecretBytes::new(ticket.to_vec()).unwrap();
        let lifetime_ms = 60_000;
        self.send(ToClient::Ticket(Ticket { ticket, lifetime_ms })).await;
        // The client has read it when it answers what came behind it.
        self.send(ToClient::Renew(Renew { within_ms: 1000 })).await;
        assert!(matches!(self.next_word().await, Some(ToServer::Again(_))));
    }

    async fn end(&mut self, cause: EndCause) {
        let reason = Text::lossy("so says the test");
        self.send(ToClient::Ended(Ended { cause, reason })).await;
    }
}

#[tokio::test]
async fn who_is_thrown_out_stays_away_and_its_exit_code_says_so() {
    let pki = Pki::new();
    for cause in [
        EndCause::Ordered,
        EndCause::Removed,
        EndCause::Replaced,
        EndCause::Idle,
        EndCause::Hours,
        EndCause::Misbehaved,
    ] {
        let peer = Peer::new(&pki, "127.0.0.1:0").await;
        let mut client = Running::start(pki.options(peer.address));
        let mut connection = session(&peer).await;
        assert!(matches!(client.event().await, Event::LoggedIn { .. }));
        connection.end(cause).await;
        let reason = "so says the test".to_owned();
        assert_eq!(client.event().await, Event::Ended { cause, reason });
        let error = client.ends().await.unwrap_err();
        assert_eq!(error.exit(), Exit::TempFail, "{error}");
        assert_eq!(
            error.to_string(),
            "the server ended the session: so says the test"
        );
    }
}

#[tokio::test]
async fn a_session_that_grew_too_old_is_had_again_by_the_password_and_not_by_the_ticket() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let mut connection = session(&peer).await;
    connection.give_ticket(b"a ticket").await;
    connection.end(EndCause::Expired).await;
    session(&peer).await;
    drop(client);
}

#[tokio::test]
async fn a_lost_session_is_had_again_by_the_ticket_and_a_bad_one_falls_back_upon_the_password() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut client = Running::start(pki.options(peer.address));
    let mut connection = session(&peer).await;
    connection.give_ticket(b"an old ticket").await;
    connection.give_ticket(b"the last ticket").await;
    drop(connection);
    // Nobody needs the password's file for it.
    std::fs::remove_file(pki.path("password")).unwrap();
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome_with(&["PLAIN"], everything()).await;
    match connection.next().await {
        Some(ToServer::Resume(Resume { ticket })) => assert_eq!(ticket.expose(), b"the last ticket"),
        other => panic!("{other:?} instead of the ticket"),
    }
    connection.refuse(Refusal::Ticket).await;
    // At once, and with what it remembers.
    let _again = session(&peer).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    assert!(matches!(client.event().await, Event::Lost { .. }));
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    client.commands.send(Command::Stop).await.unwrap();
    assert_eq!(client.event().await, Event::LoggedOut);
}

#[tokio::test]
async fn a_ticket_that_cannot_be_checked_at_the_moment_is_kept_and_shown_nowhere_else() {
    let pki = Pki::new();
    let [peer, other] = [
        Peer::new(&pki, "127.0.0.1:0").await,
        Peer::new(&pki, "127.0.0.1:0").await,
    ];
    let mut options = pki.options(peer.address);
    options.also = vec![other.address];
    let _client = Running::start(options);
    let mut connection = session(&peer).await;
    connection.give_ticket(b"a ticket").await;
    drop(connection);
    for _ in 0..2 {
        // Whoever went to the other address would wait there for longer than this side waits here.
        let (mut connection, _) = peer.accept_login().await;
        connection.welcome_with(&["PLAIN"], everything()).await;
        assert!(matches!(connection.next().await, Some(ToServer::Resume(_))));
        connection.refuse(Refusal::Unavailable).await;
    }
}

#[tokio::test]
async fn a_server_without_tickets_is_logged_in_to_as_ever() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let _client = Running::start(pki.options(peer.address));
    let mut connection = session(&peer).await;
    connection.give_ticket(b"a ticket").await;
    drop(connection);
    // It looks what the server can before it says anything, and comes again for the password.
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&["PLAIN"]).await;
    assert_eq!(connection.next().await, None);
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&["PLAIN"]).await;
    connection.login().await;
}

#[tokio::test]
async fn credentials_are_shown_again_when_they_are_asked_for() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let mut connection = session(&peer).await;
    connection
        .send(ToClient::Renew(Renew { within_ms: 60_000 }))
        .await;
    match connection.next_word().await {
        Some(ToServer::Again(login)) => {
            assert_eq!(login.mechanism.as_str(), "PLAIN");
            assert_eq!(login.response.expose(), b"\0alice\0wonderland");
        }
        other => panic!("{other:?} instead of the credentials"),
    }
    connection.send(ToClient::Renewed(Renewed)).await;
    connection
        .send(ToClient::Renew(Renew { within_ms: 60_000 }))
        .await;
    assert!(matches!(connection.next_word().await, Some(ToServer::Again(_))));
    connection.refuse(Refusal::Credentials).await;
    assert_eq!(client.ends().await.unwrap_err().exit(), Exit::NoPerm);
}

#[tokio::test]
async fn credentials_that_are_shown_again_keep_the_password_here_where_the_server_can_do_without_it() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let client = Running::start(pki.options(peer.address));
    let mut connection = session(&peer).await;
    connection.give_ticket(b"a ticket").await;
    drop(connection);
    let (mut connection, hello) = peer.accept_login().await;
    assert!(hello.capabilities.has(CONVERSATION));
    let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
    connection
        .welcome_with(&mechanisms, everything().and(CONVERSATION))
        .await;
    assert!(matches!(connection.next().await, Some(ToServer::Resume(_))));
    connection.logged_in(LONG, LONG).await;
    connection
        .send(ToClient::Renew(Renew { within_ms: 60_000 }))
        .await;
    let first = match connection.next_word().await {
        Some(ToServer::Again(login)) => {
            assert_eq!(login.mechanism.as_str(), "SCRAM-SHA-256-PLUS");
            String::from_utf8(login.response.expose().to_vec()).unwrap()
        }
        other => panic!("{other:?} instead of the credentials"),
    };
    let nonce = first.split_once(",r=").unwrap().1;
    let challenge = |text: String| {
        let challenge = SecretBytes::new(text.into_bytes()).unwrap();
        ToClient::Challenge(Challenge { challenge })
    };
    connection
        .send(challenge(format!("r={nonce}more,s=c2FsdHNhbHQ=,i=4096")))
        .await;
    match connection.next_word().await {
        Some(ToServer::Respond(respond)) => {
            let proof = String::from_utf8(respond.response.expose().to_vec()).unwrap();
            assert!(proof.contains(",p=") && !proof.contains("wonderland"), "{proof}");
        }
        other => panic!("{other:?} instead of the proof"),
    }
    // Whoever cannot prove that it knows the keys is not talked to.
    connection.send(challenge("v=bm8=".to_owned())).await;
    assert_eq!(connection.next_word().await, None);
    drop(client);
}

#[tokio::test]
async fn a_ticket_in_a_file_serves_the_next_run_and_goes_with_the_logout() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut options = pki.options(peer.address);
    let file = pki.path("ticket");
    options.ticket_file = Some(file.clone());
    let client = Running::start(options.clone());
    let mut connection = session(&peer).await;
    connection.give_ticket(b"a ticket").await;
    // As if it were killed.
    client.task.abort();
    drop(connection);
    std::fs::remove_file(pki.path("password")).unwrap();
    let mut client = Running::start(options);
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome_with(&["PLAIN"], everything()).await;
    assert!(matches!(connection.next().await, Some(ToServer::Resume(_))));
    connection.logged_in(LONG, LONG).await;
    assert!(matches!(client.event().await, Event::LoggedIn { .. }));
    assert!(file.exists());
    client.commands.send(Command::Stop).await.unwrap();
    assert_eq!(client.event().await, Event::LoggedOut);
    assert!(!file.exists());
}
