//! `nu-sso serve`: answers, refusals, limits, signals.

use crate::log::{Conn, block_on, store};
use crate::process::{PATIENCE, Proc, ask, free_port, nu_sso, serve, start_ready, unix, until};
use nulog::Store;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use tempfile::tempdir;

const QUESTION: &str = "GET /lookup HTTP/1.1\r\nHost: x\r\nX-NuFW-Src: 10.0.0.7\r\nX-NuFW-Src-Port: 40312\r\nX-NuFW-Dst: \
                        192.0.2.80\r\nX-NuFW-Dst-Port: 443\r\nConnection: close\r\n\r\n";

fn log(dir: &Path, user: &'static str) -> Store {
    block_on(async {
        let mut store = store(dir).await;
        let conn = Conn::plain(1, user, "10.0.0.7:40312", "192.0.2.80:443");
        store.apply(&conn.live()).await.unwrap();
        store
    })
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn the_four_answers() {
    let dir = tempdir().unwrap();
    let _sso = serve(dir.path(), "[lookup]\nretry = \"20ms\"\n");
    let once = |request: &str| ask(&mut unix(dir.path()), request);
    let health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&once(QUESTION)), "503");
    assert_eq!(status(&once(health)), "503");
    let _store = log(dir.path(), "jürgen");
    let known = once(QUESTION);
    assert_eq!(status(&known), "200", "{known}");
    assert!(known.contains("\r\nx-remote-user: jürgen\r\n"), "{known}");
    assert!(known.contains("\r\nx-nufw-user-id: 1001\r\n"), "{known}");
    assert!(known.contains("\r\ncache-control: no-store\r\n"), "{known}");
    let nobody = once(&QUESTION.replace("40312", "40313"));
    assert_eq!(status(&nobody), "401");
    assert!(!nobody.contains("x-remote-user"), "{nobody}");
    assert_eq!(status(&once(health)), "200");
    assert_eq!(
        status(&once(&QUESTION.replace("/lookup", "/lookup/any/path?x"))),
        "200"
    );
    assert_eq!(
        status(&once(&QUESTION.replace("GET /lookup", "POST /lookup"))),
        "200"
    );
    assert_eq!(status(&once(&QUESTION.replace("/lookup", "/elsewhere"))), "404");
    for bad in [
        QUESTION.replace("10.0.0.7", "ten"),
        QUESTION.replace("X-NuFW-Dst: ", "X-Other: "),
        QUESTION.replace("Host: x", "X-NuFW-Src: 10.0.0.8"),
        QUESTION.replace("GET /lookup HTTP/1.1", "nonsense"),
    ] {
        assert_eq!(status(&once(&bad)), "400", "{bad}");
    }
    let long = QUESTION.replace("Host: x", &format!("X-Long: {}", "x".repeat(20_000)));
    assert_eq!(status(&once(&long)), "431");
    let many = QUESTION.replace("Host: x", "X-Many: x\r\n".repeat(100).trim_end());
    assert_eq!(status(&once(&many)), "431");
}

#[test]
fn a_name_that_no_header_can_carry_is_not_answered_with_another() {
    let dir = tempdir().unwrap();
    let _sso = serve(dir.path(), "");
    let _store = log(dir.path(), "root\u{7f}");
    let answer = ask(&mut unix(dir.path()), QUESTION);
    assert_eq!(status(&answer), "503", "{answer}");
}

#[test]
fn only_allowed_hosts_are_answered_over_tcp() {
    let dir = tempdir().unwrap();
    let _store = log(dir.path(), "alice");
    let start = |allow: &str| -> (Proc, u16) {
        let port = free_port();
        let mut command = nu_sso(dir.path(), &format!("[serve]\nallow-from = [{allow}]\n"));
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{port}")]);
        (start_ready(command), port)
    };
    let (_allowed, port) = start("\"127.0.0.0/8\"");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(status(&ask(&mut stream, QUESTION)), "200");
    let (_refused, port) = start("\"192.0.2.0/24\"");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // Closed without a word, however it shows.
    let _ = stream.write_all(QUESTION.as_bytes());
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn askers_are_bounded_and_idle_ones_make_room() {
    let dir = tempdir().unwrap();
    let _store = log(dir.path(), "alice");
    let _sso = serve(
        dir.path(),
        "[serve]\nmax-connections = 2\nidle-timeout = \"300ms\"\n",
    );
    let idle = [unix(dir.path()), unix(dir.path())];
    let mut refused = 0;
    until("an idle asker to make room", || {
        let mut stream = unix(dir.path());
        let _ = stream.write_all(QUESTION.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        refused += usize::from(answer.is_empty());
        status(&answer) == "200"
    });
    assert!(refused > 0, "a third asker was served beside two");
    drop(idle);
}

#[test]
fn hangup_opens_the_log_anew_and_terminate_drains() {
    let dir = tempdir().unwrap();
    let store = log(dir.path(), "alice");
    let mut sso = serve(dir.path(), "[lookup]\nretry = \"2s\"\ntimeout = \"20s\"\n");
    let mut kept = unix(dir.path());
    let keep = QUESTION.replace("Connection: close\r\n", "");
    let mut answered = |request: &str, expected: &str| {
        kept.write_all(request.as_bytes()).unwrap();
        let mut chunk = [0; 4096];
        let read = kept.read(&mut chunk).unwrap();
        assert_eq!(status(&String::from_utf8_lossy(&chunk[..read])), expected);
    };
    answered(&keep, "200");
    sso.signal("HUP");
    answered(&keep, "200");
    // A question that is being looked for, while it is told to end: it is still answered.
    let mut slow = unix(dir.path());
    slow.write_all(QUESTION.replace("40312", "5").as_bytes()).unwrap();
    answered(&keep, "200");
    sso.signal("TERM");
    until("the socket to go", || !dir.path().join("sso.sock").exists());
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "401", "{answer}");
    assert_eq!(sso.wait(), Some(0));
    drop(store);
}
