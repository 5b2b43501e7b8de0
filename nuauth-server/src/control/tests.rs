//! The socket with a real hub, journal and log behind it.

use super::orders::{Administration, Order, PolicyInForce};
use super::socket::{Access, Level};
use super::*;
use crate::config::Control;
use crate::directory::AskedAgain;
use crate::engine::{Decision, Engine, Identity, Judge, Limits, LogMode, Ruling, Subject};
use crate::hub::{Hub, WAITING_EVENTS};
use crate::journal;
use arc_swap::ArcSwap;
use nufw_common::control::admin::Said;
use nufw_common::control::{Client, ControlError, Endpoints, Request, Verified};
use nufw_common::lifecycle;
use nufw_proto::Timestamp;
use nulog::{Location, Store, Upkeep, UpkeepDone};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

struct Nobody;

impl Judge for Nobody {
    fn judge(&self, _: &Subject<'_>) -> Ruling {
        Ruling {
            decision: Decision::Drop,
            rule: Arc::from("none"),
            prefix: Arc::from(""),
            log: LogMode::Sync,
            expires: None,
            until: None,
            mark: nufw_proto::Mark(0),
        }
    }
}

struct Lab {
    directory: TempDir,
    socket: PathBuf,
    trigger: lifecycle::Trigger,
    hub: mpsc::Sender<Event>,
    orders: mpsc::Receiver<Order>,
}

fn control(socket: &Path) -> Control {
    Control {
        socket: Some(socket.to_path_buf()),
        configured: true,
        readers: Vec::new(),
        admins: Vec::new(),
    }
}

async fn lab() -> Lab {
    lab_with(|_| {}).await
}

async fn lab_with(change: impl FnOnce(&mut Control)) -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nuauth.sock");
    let log = format!("sqlite:{}", directory.path().join("nulog.db").display());
    let store = Store::open(&Location::parse(&log).unwrap(), 7).await.unwrap();
    let (reports_in, reports) = mpsc::unbounded_channel();
    let journal = Journal::start(store, journal::Limits::default(), reports_in)
        .await
        .unwrap();
    let (hub, events) = mpsc::channel(WAITING_EVENTS);
    let engine = Engine::new(Limits::default(), Arc::new(Nobody));
    tokio::spawn(Hub::new(engine, journal.clone(), None).run(events, reports));
    let (orders_in, orders) = mpsc::channel(4);
    let port = ControlPort {
        hub: hub.clone(),
        journal,
        names: Arc::default(),
        server_number: 7,
        database: log,
        started: clock::mono(),
        locks: Mutex::default(),
        administration: Administration {
            orders: orders_in,
            tickets: None,
            policy: ArcSwap::from_pointee(PolicyInForce {
                file: "policy.toml".to_owned(),
                version: "abc".to_owned(),
                read: 0,
            }),
            reloads: Arc::new(crate::observe::Reloads::new()),
            asks_directories: false,
            gateways: ArcSwap::from_pointee(vec![Arc::from("gw1")]),
        },
    };
    let (trigger, shutdown) = lifecycle::shutdown();
    let mut settings = control(&socket);
    change(&mut settings);
    let listener = Listener::open(&settings).unwrap().unwrap();
    run(&Arc::new(port), listener, &shutdown);
    Lab {
        directory,
        socket,
        trigger,
        hub,
        orders,
    }
}

impl Lab {
    async fn client(&self) -> Client {
        Client::connect(&self.socket).await.unwrap()
    }
}

#[tokio::test]
async fn every_request_has_its_answer() {
    let lab = lab().await;
    let mut client = lab.client().await;
    let status = client.status().await.unwrap();
    assert_eq!((status.server_number, status.live_connections), (7, 0));
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.database.ends_with("/nulog.db"), "{}", status.database);
    assert_eq!(status.journal["waiting"]["opens"], 0);
    assert_eq!(status.counters["asks"], 0);
    let verified = client.verify(vec!["gw1".to_owned()]).await.unwrap();
    let nobody = Verified {
        absent: vec!["gw1".to_owned()],
        ..Verified::default()
    };
    assert_eq!(verified, nobody);
    let ends = Endpoints {
        protocol: 6,
        src: "10.0.0.7".parse().unwrap(),
        sport: 1,
        dst: "::ffff:10.0.0.8".parse().unwrap(),
        dport: 2,
    };
    assert_eq!(client.lookup(ends).await.unwrap(), None);
    let refused = client.lookup(Endpoints { protocol: 1, ..ends }).await;
    assert!(
        matches!(refused, Err(ControlError::Refused { .. })),
        "{refused:?}"
    );
    let step = Upkeep::MoveDead {
        after: 0,
        before: Timestamp::from_micros(0),
        dry: false,
    };
    let done: UpkeepDone = client.maintain(&step).await.unwrap();
    assert_eq!(done, UpkeepDone::default());
}

#[tokio::test]
async fn a_lock_is_held_once_and_ends_with_its_connection() {
    let lab = lab().await;
    let (mut first, mut second) = (lab.client().await, lab.client().await);
    first.lock("clean").await.unwrap();
    first.lock("clean").await.unwrap();
    second.lock("rotate").await.unwrap();
    assert!(matches!(second.lock("clean").await, Err(ControlError::Busy(_))));
    drop(first);
    let got = tokio::time::timeout(Duration::from_secs(20), async {
        while second.lock("clean").await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    got.await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_gets_a_sentence_and_a_line_without_end_is_cut_off() {
    let lab = lab().await;
    let stream = UnixStream::connect(&lab.socket).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    for bad in [
        "{}\n",
        "\u{fffd}\n",
        "{\"request\":\"maintain\",\"step\":{\"step\":\"burn\"}}\n",
        "\n",
    ] {
        writer.write_all(bad.as_bytes()).await.unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("{\"error\":\"this is no "), "{bad}: {line}");
    }
    // The server may have ended the connection before all of it was sent.
    let _ = writer.write_all(&vec![b'x'; MAX_LINE + 1]).await;
    let mut rest = String::new();
    let _ = reader.read_to_string(&mut rest).await;
    assert!(
        rest.is_empty() || rest.starts_with("{\"error\":\"a line may have"),
        "{rest}"
    );
    assert_eq!(lab.client().await.status().await.unwrap().server_number, 7);
}

#[tokio::test]
async fn askers_above_the_limit_are_told_so() {
    let lab = lab().await;
    let mut clients = Vec::new();
    for _ in 0..MAX_ASKERS {
        let mut client = lab.client().await;
        client.status().await.unwrap();
        clients.push(client);
    }
    let answer = lab.client().await.status().await;
    assert!(matches!(answer, Err(ControlError::Busy(_))), "{answer:?}");
    clients[0].status().await.unwrap();
}

#[test]
fn each_may_ask_what_its_groups_say() {
    let access = Access {
        own: 33,
        group: 44,
        readers: vec![60, 61],
        admins: vec![70],
    };
    for (uid, groups, level) in [
        (0, &[][..], Level::Admin),
        (33, &[1], Level::Admin),
        (50, &[1, 70, 60], Level::Admin),
        (50, &[44, 60], Level::Upkeep),
        (50, &[1, 61], Level::Reader),
    ] {
        assert_eq!(access.level(uid, groups), Ok(level), "{uid} {groups:?}");
    }
    let why = access.level(50, &[51]).unwrap_err();
    assert!(why.starts_with("user 50 may not ask: root may"), "{why}");
}

#[tokio::test]
async fn the_socket_of_a_killed_server_is_replaced_and_that_of_a_running_one_is_not() {
    let lab = lab().await;
    let other = Listener::open(&control(&lab.socket));
    let why = format!("{:#}", other.err().unwrap());
    assert!(why.contains("another server listens there"), "{why}");
    assert_eq!(lab.client().await.status().await.unwrap().server_number, 7);

    let stale = lab.directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let listener = Listener::open(&control(&stale)).unwrap().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&stale).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    drop(listener);
    assert!(!stale.exists());

    let file = lab.directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(Listener::open(&control(&file)).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn a_missing_directory_is_an_error_only_where_the_socket_was_configured() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("missing/nuauth.sock");
    let why = format!("{:#}", Listener::open(&control(&socket)).err().unwrap());
    assert!(why.contains("missing/nuauth.sock cannot be opened"), "{why}");
    let usual = Control {
        configured: false,
        ..control(&socket)
    };
    assert!(Listener::open(&usual).unwrap().is_none());
    let none = Control {
        socket: None,
        ..control(&socket)
    };
    assert!(Listener::open(&none).unwrap().is_none());
}

#[tokio::test]
async fn a_server_that_ends_takes_its_socket_with_it() {
    let lab = lab().await;
    let mut client = lab.client().await;
    client.status().await.unwrap();
    lab.trigger.shut_down();
    let gone = tokio::time::timeout(Duration::from_secs(20), async {
        while lab.socket.exists() || client.status().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    gone.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rows_of_a_log_in_a_file_go_through_the_server() {
    use nulog::rotate::Kept;
    let lab = lab().await;
    let mut client = lab.client().await;
    client.lock("rotate").await.unwrap();
    let mut other = lab.client().await;
    let error = other.lock("rotate").await.unwrap_err();
    assert!(matches!(error, ControlError::Busy(_)), "{error}");
    // Nothing is there; the step is known and done.
    let step = Upkeep::Forget {
        kept: Kept::Archive,
        before: 7,
        ids: (0..i64::try_from(nulog::rotate::MOST_IDS).unwrap())
            .map(|id| i64::MAX - id)
            .collect(),
    };
    let done: UpkeepDone = client.maintain(&step).await.unwrap();
    assert!(done.seen > 0 && done.moved == 0, "{done:?}");
    let done: UpkeepDone = client.maintain(&Upkeep::Shrink).await.unwrap();
    assert_eq!(done, UpkeepDone::default());
    lab.trigger.shut_down();
}

impl Lab {
    /// Has a user logged in, as a port does.
    async fn login(&self, session: u64, name: &str, address: &str) -> mpsc::Receiver<crate::hub::ToSession> {
        let (out, said) = mpsc::channel(8);
        let identity = Arc::new(Identity {
            user: nulog::User {
                id: session,
                name: Arc::from(name),
            },
            mark: nufw_proto::Mark(1),
            groups: Arc::from([]),
        });
        let facts = crate::engine::SessionFacts::new(
            identity,
            address.parse().unwrap(),
            nufw_proto::client::OsInfo::default(),
        );
        let session = nufw_proto::SessionId(session);
        self.hub
            .send(Event::SessionUp { session, facts, out })
            .await
            .unwrap();
        said
    }

    /// What the program prints.
    async fn ctl(&self, args: &[&str]) -> Result<String, nufw_common::exit::Failure> {
        use clap::Parser as _;
        let socket = self.socket.display().to_string();
        let args = [&["nuauth-ctl", "--socket", &socket], args].concat();
        let cli = crate::ctl::Cli::try_parse_from(args).unwrap();
        let printed = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            crate::ctl::run(cli, &mut out).map(|()| String::from_utf8(out).unwrap())
        });
        printed.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_listed_whole_and_thrown_out_as_meant() {
    use crate::hub::ToSession;
    let lab = lab().await;
    let mut said = Vec::new();
    // More than a page.
    for session in 1..=50 {
        let name = if session == 7 {
            "alice".to_owned()
        } else {
            format!("guest-{session}")
        };
        said.push(lab.login(session, &name, &format!("10.0.0.{session}")).await);
    }
    let list: Vec<serde_json::Value> =
        serde_json::from_str(&lab.ctl(&["users", "--json"]).await.unwrap()).unwrap();
    assert_eq!(list.len(), 50);
    assert_eq!(list[6]["username"], "alice");
    assert_eq!(list[6]["addresses"][0], "10.0.0.7");
    let table = lab.ctl(&["users"]).await.unwrap();
    assert_eq!(table.lines().count(), 51, "{table}");

    let done = lab
        .ctl(&[
            "disconnect",
            "--address",
            "10.0.0.7",
            "--reason",
            "the exam is over",
        ])
        .await;
    assert_eq!(done.unwrap(), "session 7 was ended\n");
    let told = said.get_mut(6).unwrap();
    assert!(matches!(told.recv().await, Some(ToSession::Admitted)));
    match told.recv().await {
        Some(ToSession::End { cause, reason }) => {
            assert_eq!(cause, Some(nufw_proto::client::EndCause::Ordered));
            assert_eq!(&*reason, "the exam is over");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        lab.ctl(&["disconnect", "--pattern", "guest-1*"]).await.unwrap(),
        "11 sessions were ended\n"
    );
    assert_eq!(
        lab.ctl(&["disconnect", "--session", "2"]).await.unwrap(),
        "session 2 was ended\n"
    );
    let nobody = lab.ctl(&["disconnect", "--user", "guest-2"]).await.unwrap();
    assert_eq!(nobody, "nobody was logged in whom that means\n");
    let error = lab
        .ctl(&["disconnect", "--user", "x", "--reason", "a\nb"])
        .await
        .unwrap_err();
    assert_eq!(error.exit, nufw_common::exit::Exit::Software);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_has_its_answer() {
    let mut lab = lab().await;
    assert_eq!(
        lab.ctl(&["gateways"]).await.unwrap(),
        "GATEWAY  CONNECTED  EVENTS\ngw1      no         no\n"
    );
    for empty in ["pending", "connections"] {
        let table = lab.ctl(&[empty]).await.unwrap();
        assert_eq!(table.lines().count(), 1, "{table}");
        assert_eq!(lab.ctl(&[empty, "--json"]).await.unwrap(), "[]\n");
    }
    assert!(lab.ctl(&["policy"]).await.unwrap().contains("version  abc\n"));
    assert!(lab.ctl(&["statistics"]).await.unwrap().contains("ended idle"));
    let error = lab.ctl(&["revoke-tickets"]).await.unwrap_err();
    assert!(
        error.error.to_string().contains("there are no tickets"),
        "{}",
        error.error
    );
    assert!(lab.ctl(&["log-level", "what=is=this"]).await.is_err());
    let socket = lab.socket.clone();
    let refreshed = tokio::spawn(async move {
        let mut client = Client::connect(&socket).await.unwrap();
        client.ask::<Said>(&Request::RefreshCache).await
    });
    let Some(Order::RefreshCache(answer)) = lab.orders.recv().await else {
        panic!("another order")
    };
    let again = AskedAgain {
        asked: 7,
        gone: 2,
        unsaid: 1,
    };
    answer.send(Refreshed { forgotten: 9, again }).unwrap();
    let said = refreshed.await.unwrap().unwrap().text;
    for part in ["of 9 users", "of 7 users", "2 are gone", "of 1 they cannot say"] {
        assert!(said.contains(part), "{said}");
    }
    let drained = lab.ctl(&["drain", "--within", "2m"]).await.unwrap();
    assert!(drained.contains("in 120 s at the latest"), "{drained}");
    assert!(matches!(lab.orders.recv().await, Some(Order::Drain(within)) if within.as_secs() == 120));
    let socket = lab.socket.clone();
    let asked = tokio::spawn(async move {
        let mut client = Client::connect(&socket).await.unwrap();
        let first: Result<Said, ControlError> = client.ask(&Request::Reload).await;
        let second: Result<Said, ControlError> = client.ask(&Request::Reload).await;
        (
            first.map(|said| said.text),
            second.map_err(|error| error.to_string()),
        )
    });
    for result in [Ok(()), Err("policy.toml:3: nonsense".to_owned())] {
        match lab.orders.recv().await {
            Some(Order::Reload(answer)) => answer.send(result).unwrap(),
            _ => panic!("no reload was ordered"),
        }
    }
    let (first, second) = asked.await.unwrap();
    assert_eq!(first.unwrap(), "reloaded");
    let why = second.unwrap_err();
    assert!(
        why.ends_with("everything stays as it was: policy.toml:3: nonsense"),
        "{why}"
    );
}

/// Runs the program as a user of this system, in these groups and no others.
fn ctl_as(socket: &Path, uid: u32, groups: &str, args: &[&str]) -> Option<(i32, String)> {
    let program = std::env::current_exe().unwrap();
    let program = program.ancestors().nth(2).unwrap().join("nuauth-ctl");
    if !rustix::process::geteuid().is_root() || !program.exists() {
        return None;
    }
    // A place that others may run it from.
    let copy = socket.with_file_name("nuauth-ctl");
    std::process::Command::new("cp")
        .arg(&program)
        .arg(&copy)
        .status()
        .unwrap();
    let output = std::process::Command::new("setpriv")
        .args([
            &format!("--reuid={uid}"),
            "--regid=65533",
            &format!("--groups={groups}"),
            "--",
        ])
        .arg(&copy)
        .arg("--socket")
        .arg(socket)
        .args(args)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.code().unwrap(), String::from_utf8(text).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_credentials_decide_who_may_look_and_who_may_order() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = lab_with(|control| {
        control.readers = vec![60_001];
        control.admins = vec![60_002];
    })
    .await;
    std::fs::set_permissions(lab.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = lab.socket.clone();
    let ask = |groups: &'static str, args: &'static [&'static str]| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || ctl_as(&socket, 65_533, groups, args))
    };
    let order = &["disconnect", "--user", "alice"][..];
    for (groups, args, code, text) in [
        ("60001", &["users"][..], 0, "SESSION"),
        (
            "60001",
            order,
            77,
            "this needs root, the server's own user or a member of a group of control.admins",
        ),
        ("60002", order, 0, "nobody was logged in"),
        ("60003", &["users"], 77, "user 65533 may not ask"),
    ] {
        let Some((exit, printed)) = ask(groups, args).await.unwrap() else {
            eprintln!("SKIPPED: needs root, and nuauth-ctl: cargo build -p nuauth-server --bins");
            return;
        };
        assert_eq!(exit, code, "{groups} {args:?}: {printed}");
        assert!(printed.contains(text), "{groups} {args:?}: {printed}");
    }
}
