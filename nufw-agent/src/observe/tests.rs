use super::*;
use nufw_common::clock;
use nufw_common::observe::Scrape;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tempfile::TempDir;

fn facts() -> Facts {
    Facts {
        began: clock::mono(),
        started: 1_800_000_000,
        set: Set {
            server: "nuauth.test:4128".to_owned(),
            queue: 65_001,
            ..Set::default()
        },
        inodes: (None, None),
    }
}

struct Lab {
    dir: TempDir,
    address: String,
    moments: watch::Sender<Moment>,
    watching: Watching,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            metrics: Place::parse("127.0.0.1:0"),
            status: Some(dir.path().join("agent.sock")),
            status_named: true,
        };
        let opened = Opened::open(&places).unwrap();
        let address = opened.metrics.as_ref().unwrap().place();
        let (moments, receiver) = watch::channel(Moment::first(clock::mono()));
        let watching = watch(opened, facts(), receiver).unwrap().unwrap();
        Self {
            dir,
            address,
            moments,
            watching,
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }
}

#[test]
fn what_the_main_loop_told_last_is_what_everybody_reads() {
    let lab = Lab::new();
    let mut moment = Moment::first(clock::mono());
    moment.stats.accepted = 7;
    moment.pending = 3;
    moment.link_since = Some(clock::mono());
    moment.seen.waits.add(Duration::from_millis(3));
    lab.moments.send_replace(moment);
    let (status, page) = lab.get("/metrics");
    assert_eq!(status, 200);
    let scrape = Scrape::parse(&page).unwrap();
    let accepted = [("verdict", "accept"), ("reason", "server")];
    assert_eq!(scrape.get("nufw_agent_verdicts_total", &accepted), Some(7.0));
    assert_eq!(scrape.get("nufw_agent_pending_packets", &[]), Some(3.0));
    assert_eq!(scrape.get("nufw_agent_wait_seconds_count", &[]), Some(1.0));
    assert_eq!(
        scrape.get("process_start_time_seconds", &[]),
        Some(1_800_000_000.0)
    );
    let told = ask(&lab.dir.path().join("agent.sock")).unwrap();
    assert_eq!((told.counters.accepted, told.pending), (7, 3));
    assert_eq!(told.version, env!("CARGO_PKG_VERSION"));
    let mut shown = Vec::new();
    show(&told, &mut shown).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("accepted                   7\n"), "{shown}");
}

#[test]
fn an_agent_without_a_link_or_a_queue_lives_and_is_not_ready() {
    let lab = Lab::new();
    assert_eq!(lab.get("/health").0, 200);
    let (status, body) = lab.get("/ready");
    assert_eq!(status, 503);
    let report: Report = serde_json::from_str(&body).unwrap();
    let bad: Vec<_> = report
        .checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(bad, ["queue", "link"]);
    assert!(body.contains("no link to nuauth.test:4128"), "{body}");
}

#[test]
fn a_main_loop_that_hangs_or_is_gone_is_no_life() {
    let lab = Lab::new();
    lab.moments.send_modify(|moment| moment.at -= STALE * 2);
    let (status, body) = lab.get("/health");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("it hangs"), "{body}");
    assert!(ask(&lab.dir.path().join("agent.sock")).unwrap().hung);
    lab.moments.send_modify(|moment| moment.at = clock::mono());
    assert_eq!(lab.get("/health").0, 200);
    let Lab {
        moments,
        watching,
        address,
        dir,
    } = lab;
    drop(moments);
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    drop(watching);
    assert!(!dir.path().join("agent.sock").exists(), "the socket stayed");
}

#[test]
fn the_status_socket_answers_those_who_say_nothing_and_bounds_those_who_read_nothing() {
    let lab = Lab::new();
    let path = lab.dir.path().join("agent.sock");
    let idle: Vec<_> = (0..4 * common::MAX_ASKERS)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    // The status fits the buffers of a socket, so nobody is stuck.
    let answered = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        ask(&path).is_ok()
    });
    assert!(answered);
    drop(idle);
}

#[test]
fn without_an_agent_the_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    assert!(matches!(ask(&path), Err(StatusError::Absent(_))));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = ask(&path).unwrap_err();
    assert!(error.to_string().contains("no agent runs here"), "{error}");
}

#[test]
fn a_missing_directory_is_an_error_only_where_the_socket_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let named = Places {
        metrics: None,
        status: Some(dir.path().join("missing/agent.sock")),
        status_named: true,
    };
    let error = Opened::open(&named).unwrap_err().to_string();
    assert!(error.contains("missing/agent.sock"), "{error}");
    let usual = Places {
        status_named: false,
        ..named
    };
    assert!(Opened::open(&usual).unwrap().status.is_none());
    let (_moments, receiver) = watch::channel(Moment::first(clock::mono()));
    assert!(watch(Opened::default(), facts(), receiver).unwrap().is_none());
}

#[test]
fn a_worker_answers_where_the_supervisor_listens_and_leaves_the_names_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places {
        metrics: Place::parse("127.0.0.1:0"),
        status: Some(dir.path().join("agent.sock")),
        status_named: true,
    };
    let supervisors = Opened::open(&places).unwrap();
    let hand = || {
        let (metrics, status) = supervisors.descriptors();
        let own = |socket: Option<BorrowedFd<'_>>| socket.map(|socket| socket.try_clone_to_owned().unwrap());
        (own(metrics), own(status))
    };
    for _ in 0..2 {
        let (metrics, status) = hand();
        let opened = Opened::handed(&places, metrics, status);
        let (moments, receiver) = watch::channel(Moment::first(clock::mono()));
        let watching = watch(opened, facts(), receiver).unwrap();
        let socket = places.status.as_deref().unwrap();
        assert_eq!(ask(socket).unwrap().set.queue, 65_001);
        drop((watching, moments));
        assert!(socket.exists(), "the next worker answers there");
    }
    // Another place in the configuration than what is open: it is not used.
    let (metrics, status) = hand();
    let elsewhere = Places {
        status: Some(dir.path().join("other.sock")),
        ..places.clone()
    };
    let opened = Opened::handed(&elsewhere, metrics, status);
    assert!(opened.status.is_none() && opened.metrics.is_some());
    // And none in the configuration.
    let (metrics, status) = hand();
    let opened = Opened::handed(&Places::default(), metrics, status);
    assert!(opened.status.is_none() && opened.metrics.is_none());
}
