//! The command itself: what it prints, how it ends, what it refuses.

use crate::owner::{OtherUser, tuple};
use crate::peer::{Peer, Pki, this_program, within};
use nufw_proto::client::{ClaimRequest, Finding, Hook, Refusal, ToClient, ToServer};
use nufw_proto::{ClaimId, Transport};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

const LONG: Duration = Duration::from_mins(1);

fn nutcpc(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nutcpc"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    // Neither the configuration of whoever runs the tests nor one nutcpc at a time.
    for name in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"] {
        command.env_remove(name);
    }
    command
}

async fn output(mut command: Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = within("the end of the command", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

#[tokio::test]
async fn it_prints_a_line_a_state_and_logs_out_on_term() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let server = peer.address.to_string();
    let ca = pki.path("ca.crt");
    for (json, first) in [
        (
            false,
            format!("logged in as alice on server {server} from 127.0.0.1"),
        ),
        (
            true,
            format!(r#"{{"address":"127.0.0.1","event":"logged-in","server":"{server}","user":"alice"}}"#),
        ),
    ] {
        let mut command = nutcpc(&[
            "-H",
            &server,
            "--name",
            "fw.test",
            "-U",
            "alice",
            "--password-fd",
            "0",
        ]);
        command.arg("--ca").arg(&ca).args(json.then_some("--json"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"wonderland\n")
            .await
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut connection, _) = peer.accept_login().await;
        connection.welcome(&["PLAIN"]).await;
        assert_eq!(connection.login().await.response.expose(), b"\0alice\0wonderland");
        connection.logged_in(LONG, LONG).await;
        assert_eq!(within("a line", lines.next_line()).await.unwrap().unwrap(), first);
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = within("the end of the command", child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
        let mut last = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            last = line;
        }
        assert!(
            last.contains(if json { "logged-out" } else { "logged out" }),
            "{last}"
        );
    }
}

#[tokio::test]
async fn refused_credentials_end_it_with_77_and_a_sentence() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let mut command = nutcpc(&[
        "-H",
        "127.0.0.1",
        "-p",
        &peer.address.port().to_string(),
        "-U",
        "alice",
    ]);
    command.arg("--password-file").arg(pki.path("password"));
    command.arg("--ca").arg(pki.path("ca.crt"));
    let ends = tokio::spawn(output(command));
    let (mut connection, _) = peer.accept_login().await;
    connection.welcome(&["PLAIN"]).await;
    connection.login().await;
    connection.refuse(Refusal::Credentials).await;
    let (code, stdout, stderr) = ends.await.unwrap();
    assert_eq!((code, stdout.as_str()), (77, ""));
    assert!(
        stderr.starts_with("nutcpc: the server refused the login"),
        "{stderr}"
    );
}

#[tokio::test]
async fn it_ends_with_the_code_that_says_why() {
    let pki = Pki::new();
    let ca = pki.path("ca.crt").to_str().unwrap().to_owned();
    let password = pki.path("password").to_str().unwrap().to_owned();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--nonsense"], 64, "--nonsense"),
        (&["-U", "alice"], 64, "--server"),
        (&["-H", "127.0.0.1", "--ca", &ca], 64, "--user"),
        (
            &[
                "-H",
                "x:1",
                "-p",
                "2",
                "-U",
                "a",
                "--password-file",
                &password,
                "--ca",
                &ca,
            ],
            64,
            "--port 2",
        ),
        (&["-H", "127.0.0.1:0", "-U", "a"], 64, "not a port"),
        (
            &[
                "-H",
                "127.0.0.1",
                "--ca",
                &password,
                "-U",
                "a",
                "--password-file",
                &password,
            ],
            78,
            "authority",
        ),
        (
            &[
                "-H",
                "127.0.0.1",
                "--ca",
                &ca,
                "-U",
                "a",
                "--password-file",
                "/nonexistent",
            ],
            78,
            "/nonexistent",
        ),
        (
            &[
                "-H",
                "127.0.0.1:1",
                "--ca",
                &ca,
                "-U",
                "a",
                "--password-file",
                &password,
                "--once",
            ],
            69,
            "127.0.0.1:1",
        ),
    ];
    for (arguments, code, word) in cases {
        let (found, _, stderr) = output(nutcpc(arguments)).await;
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn help_teaches_and_version_tells() {
    let (code, help, _) = output(nutcpc(&["--help"])).await;
    assert_eq!(code, 0);
    for word in ["Examples:", "--password-file", "Exit codes", "-H", "-U", "-p"] {
        assert!(help.contains(word), "{word} is missing from:\n{help}");
    }
    let (code, version, _) = output(nutcpc(&["--version"])).await;
    assert_eq!(
        (code, version.as_str()),
        (0, concat!("nutcpc ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

#[tokio::test]
async fn with_system_it_claims_the_stated_users_sockets_and_no_others() {
    if !crate::support::has_other_users() {
        eprintln!("SKIPPED with_system_it_claims_the_stated_users_sockets_and_no_others: it needs root");
        return;
    }
    let other = OtherUser::start(54322, "127.0.0.1:5354", "127.0.0.1:9");
    let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    own.connect("127.0.0.1:9").unwrap();

    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let server = peer.address.to_string();
    let mut command = nutcpc(&["-H", &server, "-U", "alice", "--system", "--uid", "54322"]);
    command.arg("--password-file").arg(pki.path("password"));
    let _child = command
        .arg("--ca")
        .arg(pki.path("ca.crt"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut connection, hello) = peer.accept_login().await;
    assert!(hello.system);
    connection.welcome(&["PLAIN"]).await;
    connection.login().await;
    connection.logged_in(LONG, LONG).await;
    let ask = |id, local| ClaimRequest {
        id: ClaimId(id),
        hook: Hook::Forward,
        tuple: tuple(Transport::Udp, local, "127.0.0.1:9".parse().unwrap()),
    };
    let questions = vec![ask(1, other.udp), ask(2, own.local_addr().unwrap())];
    connection
        .send(ToClient::ClaimRequests(questions.try_into().unwrap()))
        .await;
    let Some(ToServer::Claims(claims)) = connection.next_word().await else {
        panic!("no claims");
    };
    match &claims[0].finding {
        // Seen without root's powers but the two that are kept.
        Finding::Mine(mine) => assert_eq!(mine.program.as_deref(), Some(this_program().as_str())),
        Finding::NotMine => panic!("the stated user's socket was not claimed"),
    }
    assert_eq!(claims[1].finding, Finding::NotMine);
}
