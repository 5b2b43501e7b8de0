//! What is no LDAP server, or a bad one, costs the login that asked it.

use crate::{by_ldap, ldap_settings, log_in, unsaid, wait_until};
use nuauth_server::directory::{Directory, LdapSettings};
use nufw_common::clock;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Serves every connection by this, each in a thread of its own; gives the URL.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ldap://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    url
}

/// Waits for a request.
fn asked(stream: &mut TcpStream) -> bool {
    let mut request = [0; 1024];
    stream.read(&mut request).is_ok_and(|read| read > 0)
}

/// Nobody binds before the search, so that the first request is that.
async fn at(url: &str) -> Directory {
    by_ldap(LdapSettings {
        timeout: Duration::from_millis(500),
        ..ldap_settings(url)
    })
    .await
}

/// An empty entry, in answer to the first request of a connection.
const ENTRY: &[u8] = b"\x30\x09\x02\x01\x01\x64\x04\x04\x00\x30\x00";

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let url = server(|stream| {
        std::thread::park();
        drop(stream);
    });
    let directory = at(&url).await;
    let why = unsaid(log_in(&directory, "alice", "x").await);
    assert!(why.contains("no answer"), "{why}");
}

#[tokio::test]
async fn a_port_at_which_nobody_listens_is_said_so() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = at(&format!("ldap://{port}")).await;
    let why = unsaid(log_in(&directory, "alice", "x").await);
    assert!(why.contains("Connection refused"), "{why}");
}

#[tokio::test]
async fn answers_without_end_are_not_heard_to_their_end() {
    let url = server(|mut stream| {
        if asked(&mut stream) {
            while stream.write_all(&ENTRY.repeat(100)).is_ok() {}
        }
    });
    let directory = at(&url).await;
    let why = unsaid(log_in(&directory, "alice", "x").await);
    assert!(why.contains("several entries"), "{why}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_ends_the_process_that_asked_and_the_next_one_asks_again() {
    for answer in [
        // No message, one without parts, one that is not what it says, one whose length is a lie.
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x30\x00",
        b"\x30\x05\x02\x01\x01\x64\x00",
        b"\x30\x03\x02\x01\x01",
        b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01",
        &[0xff; 4096],
    ] {
        let url = server(move |mut stream| {
            if asked(&mut stream) {
                let _ = stream.write_all(answer);
                while asked(&mut stream) {}
            }
        });
        let directory = at(&url).await;
        for _ in 0..2 {
            let why = unsaid(log_in(&directory, "alice", "x").await);
            assert!(!why.is_empty());
        }
    }
}

#[tokio::test]
async fn a_process_that_crashed_is_started_again() {
    // Crashes what asks first, and later answers that there is nobody.
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let url = server(move |mut stream| {
        while asked(&mut stream) {
            let crash = first.swap(false, std::sync::atomic::Ordering::SeqCst);
            let answer: &[u8] = if crash {
                b"\x30\x00"
            } else {
                b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00"
            };
            let _ = stream.write_all(answer);
        }
    });
    let directory = at(&url).await;
    unsaid(log_in(&directory, "alice", "x").await);
    let deadline = clock::mono() + crate::PATIENCE;
    loop {
        let result = log_in(&directory, "alice", "x").await;
        if crate::is_wrong(&result) {
            break;
        }
        assert!(clock::mono() < deadline, "{result:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_until("nothing more", || true);
}
