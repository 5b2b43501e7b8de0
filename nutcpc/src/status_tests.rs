//! Who gets in at the socket, what is asked there, and who may hold it.

use super::*;
use crate::state::State;
use nufw_common::clock;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

struct Open {
    dir: TempDir,
    asks: mpsc::Receiver<Ask>,
}

impl Open {
    /// A door that takes this user for its own.
    fn of(uid: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut door = Door::open(dir.path(), None).unwrap();
        door.uid = uid;
        let (sender, asks) = mpsc::channel(1);
        tokio::spawn(door.serve(sender, Askers::default()));
        Self { dir, asks }
    }

    async fn ask(&self, question: &[u8]) -> String {
        let mut stream = UnixStream::connect(socket(self.dir.path(), None)).await.unwrap();
        // Whoever is hung up on may notice while asking.
        let _ = stream.write_all(question).await;
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("an end");
        answer
    }
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[tokio::test]
async fn questions_reach_who_can_answer_and_nonsense_does_not() {
    let mut open = Open::of(own());
    let mut asks = std::mem::replace(&mut open.asks, mpsc::channel(1).1);
    tokio::spawn(async move {
        while let Some(Ask { request, answer }) = asks.recv().await {
            let now = clock::mono();
            let _ = answer.send(match request {
                Request::Status => Reply::Servers(vec![State::new(now).view("fw:4129", now)]),
                Request::Logout { server } => Reply::LoggedOut(server.into_iter().collect()),
            });
        }
    });
    let status = open.ask(b"{\"request\":\"status\"}\n").await;
    let reply: Reply = serde_json::from_str(&status).unwrap();
    assert!(matches!(reply, Reply::Servers(views) if views[0].server == "fw:4129"));
    let logout = open.ask(b"{\"request\":\"logout\",\"server\":\"fw\"}\n").await;
    assert_eq!(logout, "{\"logged-out\":[\"fw\"]}\n");
    for nonsense in ["{}\n", "status\n", "{\"request\":\"reboot\"}\n"] {
        let answer = open.ask(nonsense.as_bytes()).await;
        assert!(answer.starts_with("{\"error\":\"this is no question"), "{answer}");
    }
    let long = vec![b'x'; 100_000];
    assert!(open.ask(&long).await.len() < 1000);
}

#[tokio::test]
async fn a_process_of_another_user_is_not_answered() {
    let mut open = Open::of(own() + 1);
    assert_eq!(open.ask(b"{\"request\":\"status\"}\n").await, "");
    assert!(open.asks.try_recv().is_err(), "the question was let through");
}

#[tokio::test]
async fn more_askers_than_there_is_room_for_are_hung_up_on() {
    let open = Open::of(own());
    let path = socket(open.dir.path(), None);
    let mut idle = Vec::new();
    for _ in 0..MAX_ASKERS {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    assert_eq!(open.ask(b"{\"request\":\"status\"}\n").await, "");
}

#[tokio::test]
async fn the_socket_is_the_users_alone_and_replaces_one_that_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("nufw");
    let door = Door::open(&place, None).unwrap();
    let path = socket(&place, None);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(&path)), (0o700, 0o600));
    drop(door);
    // As a process leaves it that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Door::open(&place, None).unwrap();
}

#[tokio::test]
async fn a_second_one_of_the_same_name_is_refused_with_the_first_ones_number() {
    let dir = tempfile::tempdir().unwrap();
    let first = Door::open(dir.path(), None).unwrap();
    let Err(error) = Door::open(dir.path(), None) else {
        panic!("two at once");
    };
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(text.contains("--instance"), "{text}");
    Door::open(dir.path(), Some("work")).unwrap();
    drop(first);
    Door::open(dir.path(), None).unwrap();
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = Door::open(dir.path(), None).err().unwrap().to_string();
    assert!(error.contains("nobody else can write"), "{error}");
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/tmp", link.path().join("nufw")).unwrap();
    assert!(Door::open(&link.path().join("nufw"), None).is_err(), "a link");
}

#[test]
fn an_instances_name_cannot_leave_the_directory() {
    for good in [None, Some("work"), Some("a.b_c-9")] {
        assert!(check_instance(good).is_ok());
    }
    for bad in ["", "../x", "a/b", "ü", &"x".repeat(33)] {
        assert_eq!(check_instance(Some(bad)).unwrap_err().exit, Exit::Usage, "{bad}");
    }
}
