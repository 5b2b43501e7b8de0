//! The command with several servers, and what is asked of it while it runs.

use crate::peer::{Connection, PATIENCE, Peer, Pki, within};
use nufw_proto::client::{Denied, Mine, REFUSALS, Refusal, ToClient, ToServer};
use nufw_proto::{Ports, Transport, Tuple};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const LONG: Duration = Duration::from_mins(1);

/// A home with a configuration, and a place for sockets.
struct Home {
    dir: TempDir,
}

impl Home {
    fn new(config: &str) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        home.write(config);
        home
    }

    fn write(&self, config: &str) {
        let file = self.config();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, config).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("nufw/nutcpc.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nutcpc"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn start(&self, arguments: &[&str]) -> Nutcpc {
        let mut command = self.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Nutcpc {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = within("the end of the command", self.command(arguments).output());
        let Output {
            status,
            stdout,
            stderr,
        } = output.await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().expect("no signal"), text(stdout), text(stderr))
    }

    /// What `status --json` says of each server, once it exits with this code.
    async fn status(&self, code: i32) -> Vec<Value> {
        let asked = async {
            loop {
                let (found, stdout, _) = self.run(&["status", "--json"]).await;
                if found == code {
                    let answer: Value = serde_json::from_str(&stdout).unwrap();
                    return answer["servers"].as_array().unwrap().clone();
                }
            }
        };
        within("the state", asked).await
    }
}

struct Nutcpc {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Nutcpc {
    /// Reads on until a line has all of this in it.
    async fn line(&mut self, words: &[&str]) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it runs");
                if words.iter().all(|word| line.contains(word)) {
                    return line;
                }
            }
        };
        within(&format!("a line with {words:?}"), found).await
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    async fn ends(self) -> (i32, String) {
        // Nobody reads its lines any more: it must not mind.
        drop(self.lines);
        let output = within("the end of nutcpc", self.child.wait_with_output())
            .await
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().expect("no signal"), stderr)
    }
}

/// How alice logs in, and the servers.
fn config(pki: &Pki, more: &str, servers: &[&str]) -> String {
    let path = |name| pki.path(name).display().to_string();
    let mut text = format!(
        "user = \"alice\"\nca = \"{}\"\npassword-file = \"{}\"\n{more}\n",
        path("ca.crt"),
        path("password")
    );
    for server in servers {
        let _ = writeln!(text, "[[server]]\naddress = \"{server}\"\nname = \"fw.test\"");
    }
    text
}

async fn peers(pki: &Pki) -> [Peer; 2] {
    [
        Peer::new(pki, "127.0.0.1:0").await,
        Peer::new(pki, "127.0.0.1:0").await,
    ]
}

/// Both sessions of a home with this configuration.
async fn both(home: &Home, peers: &[Peer; 2], arguments: &[&str]) -> (Nutcpc, [Connection; 2]) {
    let nutcpc = home.start(arguments);
    let sessions = tokio::join!(peers[0].session(LONG, LONG), peers[1].session(LONG, LONG));
    (nutcpc, sessions.into())
}

#[tokio::test]
async fn one_of_two_servers_that_dies_disturbs_the_other_not() {
    let pki = Pki::new();
    let peers = peers(&pki).await;
    let [first, second] = [0, 1].map(|i: usize| peers[i].address.to_string());
    let home = Home::new(&config(&pki, "", &[&first, &second]));
    let (mut nutcpc, [dying, mut other]) = both(&home, &peers, &[]).await;
    nutcpc.line(&[&first, "logged in as alice"]).await;
    let servers = home.status(0).await;
    assert_eq!(
        servers
            .iter()
            .map(|s| s["server"].as_str().unwrap())
            .collect::<Vec<_>>(),
        [&first, &second]
    );
    assert!(
        servers
            .iter()
            .all(|s| s["state"] == "logged-in" && s["user"] == "alice")
    );

    drop(dying);
    nutcpc.line(&[&first, "trying again"]).await;
    let servers = home.status(75).await;
    assert_eq!(
        [&servers[0]["state"], &servers[1]["state"]],
        ["waiting", "logged-in"]
    );
    assert!(servers[0]["reason"].as_str().unwrap().contains("lost") && servers[0]["retry_in_ms"].is_u64());
    // The other one is there, and nobody has logged in at it again.
    other
        .send(ToClient::ClaimRequests(vec![question()].try_into().unwrap()))
        .await;
    assert!(matches!(other.next_word().await, Some(ToServer::Claims(_))));

    let _again = peers[0].session(LONG, LONG).await;
    nutcpc.line(&[&first, "logged in as alice"]).await;
    home.status(0).await;
    nutcpc.signal(Signal::TERM);
    assert!(matches!(other.next_word().await, Some(ToServer::Goodbye(_))));
    assert_eq!(nutcpc.ends().await.0, 0);
}

fn question() -> nufw_proto::client::ClaimRequest {
    nufw_proto::client::ClaimRequest {
        id: nufw_proto::ClaimId(1),
        hook: nufw_proto::client::Hook::Forward,
        tuple: tuple(),
    }
}

fn tuple() -> Tuple {
    let ports = Ports { src: 1, dst: 22 };
    Tuple::new(
        "127.0.0.1".parse().unwrap(),
        "127.0.0.9".parse().unwrap(),
        Transport::Tcp(ports),
    )
    .unwrap()
}

#[tokio::test]
async fn a_server_that_is_unknown_refuses_or_cannot_be_trusted_is_told_with_its_name_and_the_others_serve() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let good = Peer::new(&pki, "127.0.0.1:0").await;
    let untrusted = Peer::new(&stranger, "127.0.0.1:0").await;
    let refusing = Peer::new(&pki, "127.0.0.1:0").await;
    let names: Vec<String> = [&good, &untrusted, &refusing]
        .iter()
        .map(|peer| peer.address.to_string())
        .collect();
    let servers = [&names[0], &names[1], &names[2], "nowhere.invalid:4129"];
    let home = Home::new(&config(&pki, "", &servers));
    let nutcpc = home.start(&[]);
    let refuse = async {
        let (mut connection, _) = refusing.accept_login().await;
        connection.welcome(&["PLAIN"]).await;
        connection.login().await;
        connection.refuse(Refusal::Credentials).await;
    };
    let (_session, (), handshake) = tokio::join!(good.session(LONG, LONG), refuse, untrusted.try_accept());
    assert!(handshake.is_none(), "the client trusts a stranger");
    let told = async {
        loop {
            let servers = home.status(75).await;
            let states: Vec<_> = servers
                .iter()
                .map(|server| server["state"].as_str().unwrap())
                .collect();
            if states == ["logged-in", "failed", "failed", "waiting"] {
                return servers;
            }
        }
    };
    let servers = within("every state", told).await;
    let reason = |i: usize| servers[i]["reason"].as_str().unwrap();
    assert!(reason(1).contains("no secure connection"), "{}", reason(1));
    assert!(reason(2).contains("refused the login"), "{}", reason(2));
    assert!(reason(3).contains("nowhere.invalid"), "{}", reason(3));
    // In words, with its exit code.
    let (code, table, error) = home.run(&["status"]).await;
    assert_eq!(code, 75);
    assert!(
        table.contains("failed") && table.contains("refused the login"),
        "{table}"
    );
    assert!(error.contains("not logged in at 3 of 4 servers"), "{error}");

    let (code, out, _) = home.run(&["logout"]).await;
    assert_eq!((code, out.lines().count()), (0, 4), "{out}");
    let (code, stderr) = nutcpc.ends().await;
    assert_eq!(code, 0, "it was told to end");
    assert!(
        stderr.contains(&names[1]) && stderr.contains(&names[2]),
        "{stderr}"
    );
}

#[tokio::test]
async fn when_every_server_has_failed_it_ends_with_the_code_of_the_first() {
    let pki = Pki::new();
    let stranger = Pki::new();
    let peers = peers(&stranger).await;
    let servers = [0, 1].map(|i: usize| peers[i].address.to_string());
    let home = Home::new(&config(&pki, "", &[&servers[0], &servers[1]]));
    let nutcpc = home.start(&[]);
    tokio::join!(peers[0].try_accept(), peers[1].try_accept());
    let (code, stderr) = nutcpc.ends().await;
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("no secure connection"), "{stderr}");
}

#[tokio::test]
async fn logout_ends_one_session_by_its_name_and_then_the_last_one_and_nutcpc() {
    let pki = Pki::new();
    let peers = peers(&pki).await;
    let [first, second] = [0, 1].map(|i: usize| peers[i].address.to_string());
    let home = Home::new(&config(&pki, "", &[&first, &second]));
    let (mut nutcpc, [mut one, mut other]) = both(&home, &peers, &[]).await;
    home.status(0).await;
    let (code, _, error) = home.run(&["logout", "fw9"]).await;
    assert_eq!((code, error.contains("fw9")), (64, true), "{error}");
    let (code, _, error) = home.run(&["logout", "127.0.0.1"]).await;
    assert_eq!((code, error.contains("say which port")), (64, true), "{error}");

    let (code, out, _) = home.run(&["logout", &first]).await;
    assert_eq!((code, out), (0, format!("logged out at {first}\n")));
    assert!(matches!(one.next_word().await, Some(ToServer::Goodbye(_))));
    nutcpc.line(&[&first, "logged out"]).await;
    let servers = home.status(75).await;
    assert_eq!(
        [&servers[0]["state"], &servers[1]["state"]],
        ["logged-out", "logged-in"]
    );

    let (code, ..) = home.run(&["logout", &second]).await;
    assert_eq!(code, 0);
    assert!(matches!(other.next_word().await, Some(ToServer::Goodbye(_))));
    assert_eq!(nutcpc.ends().await.0, 0);
    let (code, _, error) = home.run(&["status"]).await;
    assert_eq!(
        (code, error.contains("no nutcpc of yours runs")),
        (69, true),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_nutcpc_of_the_same_user_is_refused_unless_it_has_a_name() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let server = peer.address.to_string();
    let home = Home::new(&config(&pki, "", &[&server]));
    let first = home.start(&[]);
    let _session = peer.session(LONG, LONG).await;
    let (code, _, error) = home.run(&[]).await;
    assert_eq!(code, 73, "{error}");
    assert!(
        error.contains("another nutcpc of yours runs (process ") && error.contains("--instance"),
        "{error}"
    );
    home.status(0).await;

    let named = home.start(&["--instance", "work"]);
    let _another = peer.session(LONG, LONG).await;
    let (code, ..) = home.run(&["logout", "--instance", "work"]).await;
    assert_eq!(code, 0);
    assert_eq!(named.ends().await.0, 0);
    home.status(0).await;
    // Killed, it leaves a socket, which is nobody's.
    first.signal(Signal::KILL);
    drop(first);
    let stale = home.dir.path().join("nufw/nutcpc.sock");
    assert!(stale.exists());
    let (code, ..) = home.run(&["status"]).await;
    assert_eq!(code, 69);
    let next = home.start(&[]);
    let _session = peer.session(LONG, LONG).await;
    home.status(0).await;
    next.signal(Signal::TERM);
    assert_eq!(next.ends().await.0, 0);
    assert!(!stale.exists());
}

#[tokio::test]
async fn another_users_process_is_not_answered_whatever_the_file_says() {
    if !crate::support::has_other_users() {
        eprintln!("SKIPPED another_users_process_is_not_answered_whatever_the_file_says: it needs root");
        return;
    }
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let home = Home::new(&config(&pki, "", &[&peer.address.to_string()]));
    let _nutcpc = home.start(&[]);
    let _session = peer.session(LONG, LONG).await;
    home.status(0).await;
    let socket = home.dir.path().join("nufw/nutcpc.sock");
    // Somebody has opened the doors.
    for (path, mode) in [
        (home.dir.path(), 0o755),
        (socket.parent().unwrap(), 0o755),
        (&*socket, 0o666),
    ] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    }
    let asked_as = |uid: u32| {
        let socket = socket.clone();
        std::thread::spawn(move || ask_as(uid, &socket)).join().unwrap()
    };
    assert!(asked_as(0).contains("logged-in"));
    assert_eq!(asked_as(54_321), "");
}

/// Asks as a thread of this user, which ends with it.
fn ask_as(uid: u32, socket: &Path) -> String {
    use std::io::{Read as _, Write as _};
    let uid = rustix::thread::Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"{\"request\":\"status\"}\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[tokio::test]
async fn hangup_reads_the_configuration_again_and_moves_only_what_has_changed() {
    let pki = Pki::new();
    let peers = peers(&pki).await;
    let third = Peer::new(&pki, "127.0.0.1:0").await;
    let [first, second] = [0, 1].map(|i: usize| peers[i].address.to_string());
    let new = third.address.to_string();
    let home = Home::new(&config(&pki, "", &[&first, &second]));
    let (nutcpc, [mut stays, mut leaves]) = both(&home, &peers, &[]).await;
    home.status(0).await;

    home.write("nonsense = 1\n");
    nutcpc.signal(Signal::HUP);
    home.write(&config(&pki, "", &[&first, &new]));
    nutcpc.signal(Signal::HUP);
    let _joined = third.session(LONG, LONG).await;
    assert!(matches!(leaves.next_word().await, Some(ToServer::Goodbye(_))));
    let servers = home.status(0).await;
    assert_eq!(
        servers
            .iter()
            .map(|s| s["server"].as_str().unwrap())
            .collect::<Vec<_>>(),
        [&first, &new]
    );
    stays
        .send(ToClient::ClaimRequests(vec![question()].try_into().unwrap()))
        .await;
    assert!(
        matches!(stays.next_word().await, Some(ToServer::Claims(_))),
        "its session went on"
    );
    nutcpc.signal(Signal::TERM);
    assert_eq!(nutcpc.ends().await.0, 0);
}

#[tokio::test]
async fn a_mistake_at_a_hangup_is_told_with_file_and_line_and_changes_nothing() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let server = peer.address.to_string();
    let home = Home::new(&config(&pki, "", &[&server]));
    let mut nutcpc = home.start(&[]);
    let mut session = peer.session(LONG, LONG).await;
    home.status(0).await;
    home.write("\nnonsense = 1\n");
    nutcpc.signal(Signal::HUP);
    let mut errors = BufReader::new(nutcpc.child.stderr.take().unwrap()).lines();
    let line = within("a complaint", errors.next_line()).await.unwrap().unwrap();
    assert!(
        line.contains("nutcpc.toml:2: ") && line.contains("nonsense"),
        "{line}"
    );
    home.status(0).await;
    nutcpc.signal(Signal::TERM);
    assert!(matches!(session.next_word().await, Some(ToServer::Goodbye(_))));
    assert_eq!(nutcpc.ends().await.0, 0);
}

#[tokio::test]
async fn a_bad_configuration_ends_it_with_78_before_anything_is_connected_to() {
    let home = Home::new("user = \"alice\"\n[[server]]\naddress = 7\n");
    let (code, _, error) = home.run(&[]).await;
    assert_eq!(code, 78);
    let place = format!(
        "{}:3: key server[0].address: found integer 7",
        home.config().display()
    );
    assert!(error.contains(&place), "{error}");
}

#[tokio::test]
async fn a_refusal_is_shown_by_the_program_of_the_configuration_and_asked_for_only_then() {
    let pki = Pki::new();
    let peer = Peer::new(&pki, "127.0.0.1:0").await;
    let server = peer.address.to_string();
    let home = Home::new("");
    let (script, out) = (home.dir.path().join("show"), home.dir.path().join("out"));
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >{0}.next\nmv {0}.next {0}\n",
            out.display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = format!("notify-command = \"{}\"\n", script.display());
    for (more, wants) in [("", false), ("notify = true\n", true)] {
        home.write(&config(&pki, &format!("{program}{more}"), &[&server]));
        let nutcpc = home.start(&[]);
        let (mut connection, hello) = peer.accept_login().await;
        assert_eq!(hello.capabilities.has(REFUSALS), wants);
        connection.welcome_with(&["PLAIN"], REFUSALS).await;
        connection.login().await;
        connection.logged_in(LONG, LONG).await;
        if wants {
            let mine = Mine {
                seen: tuple(),
                program: None,
            };
            connection
                .send(ToClient::Denied(Denied {
                    mine,
                    rejected: false,
                    untold: 0,
                }))
                .await;
            let shown = async {
                loop {
                    if let Ok(text) = std::fs::read_to_string(&out) {
                        return text;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let text = within("the notification", shown).await;
            assert_eq!(
                text,
                "Connection refused by the firewall\ntcp 127.0.0.1:1 to 127.0.0.9:22\n"
            );
            assert_eq!(home.status(0).await[0]["refused"], 1);
        }
        nutcpc.signal(Signal::TERM);
        assert_eq!(nutcpc.ends().await.0, 0);
    }
}
