//! The socket with a real hub, journal and log behind it.

use super::socket::refuses;
use super::*;
use crate::config::Control;
use crate::engine::{Decision, Engine, Identity, Judge, Limits, LogMode, Ruling};
use crate::hub::{Hub, WAITING_EVENTS};
use crate::journal;
use nufw_common::control::{Client, ControlError, Endpoints, Verified};
use nufw_common::lifecycle;
use nufw_proto::{Timestamp, Tuple};
use nulog::{Location, Store, Upkeep, UpkeepDone};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

struct Nobody;

impl Judge for Nobody {
    fn judge(&self, _: &Identity, _: &Tuple) -> Ruling {
        Ruling {
            decision: Decision::Drop,
            rule: Arc::from("none"),
            prefix: Arc::from(""),
            log: LogMode::Sync,
            expires: None,
        }
    }
}

struct Lab {
    directory: TempDir,
    socket: PathBuf,
    trigger: lifecycle::Trigger,
}

fn control(socket: &Path) -> Control {
    Control {
        socket: Some(socket.to_path_buf()),
        configured: true,
    }
}

async fn lab() -> Lab {
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
    let port = ControlPort {
        hub,
        journal,
        names: Arc::default(),
        server_number: 7,
        database: log,
        started: clock::mono(),
        locks: Mutex::default(),
    };
    let (trigger, shutdown) = lifecycle::shutdown();
    let listener = Listener::open(&control(&socket)).unwrap().unwrap();
    run(&Arc::new(port), listener, &shutdown);
    Lab {
        directory,
        socket,
        trigger,
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
fn only_root_the_servers_user_and_its_group_may_ask() {
    assert_eq!(refuses(0, 0, 33, 44), None);
    assert_eq!(refuses(33, 1, 33, 44), None);
    assert_eq!(refuses(50, 44, 33, 44), None);
    let why = refuses(50, 51, 33, 44).unwrap();
    assert!(why.starts_with("user 50 with group 51 may not ask"), "{why}");
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
        configured: true,
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
