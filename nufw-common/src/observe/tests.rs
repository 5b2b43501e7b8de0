use super::*;
use crate::lifecycle::{self, Trigger};
use crate::listen::Place;
use crate::waits::WaitHistogram;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

struct Facts {
    packets: u64,
    known: Option<u64>,
    waits: WaitHistogram,
}

type Row = Metric<Facts>;

const TABLE: &[Metric<Facts>] = &[
    Row::counter("x_packets", "Packets that came, by what became of them.", |f| {
        Some(f.packets)
    })
    .with(&[("verdict", "accept"), ("reason", "server")]),
    Row::counter("x_packets", "", |f| f.known).with(&[("verdict", "drop"), ("reason", "no \"link\"\n")]),
    Row::gauge("x_unknown", "What may not be known, and then is absent.", |f| {
        f.known
    }),
    Row::seconds("x_age_seconds", "How old the snapshot is at this moment.", |_| {
        Some(0.5)
    }),
    Row::waits(
        "x_wait_seconds",
        "How long packets waited for their verdict.",
        |f| Some(f.waits),
    ),
    Row::each(
        "x_up",
        "Whether each of the known names is there.",
        "name",
        |_| vec![("gw1".to_owned(), 1), ("gw2".to_owned(), 0)],
    ),
    Row::info("x_build", "What is running here, in words.", |_| {
        vec![("version", "1.0".to_owned())]
    }),
];

fn facts(known: Option<u64>) -> Facts {
    let mut waits = WaitHistogram::default();
    waits.add(Duration::from_millis(3));
    waits.add(Duration::from_mins(1));
    Facts {
        packets: u64::MAX,
        known,
        waits,
    }
}

#[test]
fn a_table_becomes_a_text_that_reads_back_as_it_was_meant() {
    assert_eq!(mistakes(TABLE), Vec::<String>::new());
    let text = render(TABLE, facts(Some(7))).unwrap();
    assert!(text.contains("x_packets_total{verdict=\"accept\",reason=\"server\"} 18446744073709551615\n"));
    let scrape = Scrape::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(
        scrape.get("x_packets_total", &[("reason", "no \"link\"\n")]),
        Some(7.0)
    );
    assert_eq!(scrape.get("x_unknown", &[]), Some(7.0));
    assert_eq!(scrape.get("x_age_seconds", &[]), Some(0.5));
    assert_eq!(scrape.get("x_wait_seconds_bucket", &[("le", "0.005")]), Some(1.0));
    assert_eq!(scrape.get("x_wait_seconds_bucket", &[("le", "+Inf")]), Some(2.0));
    assert_eq!(scrape.get("x_wait_seconds_sum", &[]), Some(60.003));
    assert_eq!(scrape.get("x_up", &[("name", "gw2")]), Some(0.0));
    assert_eq!(scrape.get("x_build_info", &[("version", "1.0")]), Some(1.0));
    let told: std::collections::HashSet<_> = scrape.samples().iter().map(|s| s.name.clone()).collect();
    assert_eq!(told, names(TABLE).into_iter().collect());
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let text = render(TABLE, facts(None)).unwrap();
    let scrape = Scrape::parse(&text).unwrap();
    assert_eq!(scrape.get("x_unknown", &[]), None);
    assert!(!text.contains("x_unknown"), "{text}");
    assert_eq!(scrape.get("x_packets_total", &[("verdict", "drop")]), None);
    assert!(scrape.get("x_packets_total", &[]).is_some());
}

#[test]
fn a_table_with_mistakes_is_found_out() {
    const BAD: &[Metric<()>] = &[
        Metric::<()>::counter("x_a", "A sentence that is long enough.", |()| None),
        Metric::<()>::gauge("x_b", "short.", |()| None),
        Metric::<()>::counter("x_a", "A sentence that is long enough.", |()| None),
        Metric::<()>::counter("x_c", "A sentence that is long enough.", |()| None).with(&[("k", "1")]),
        Metric::<()>::counter("x_c", "", |()| None).with(&[("k", "1")]),
        Metric::<()>::gauge("x_c", "", |()| None).with(&[("other", "1")]),
    ];
    let found = mistakes(BAD).join("; ");
    for part in [
        "x_a: rows of one family",
        "x_b: its help",
        "is there twice",
        "x_c: its rows differ",
    ] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn the_reader_forgives_nothing() {
    let good = "# HELP x_total Text.\n# TYPE x_total counter\nx_total{a=\"b\"} 1\n";
    assert!(Scrape::parse(good).is_ok());
    for bad in [
        "x_total 1\n",
        "# HELP x_total Text.\nx_total 1\n",
        "# HELP x_total Text.\n# TYPE x_total gauge\nx_total 1\n",
        "# HELP x Text.\n# TYPE x counter\nx 1\n",
        "# HELP x_total Text.\n# TYPE x_total counter\ny_total 1\n",
        "# HELP x_total Text.\n# TYPE x_total counter\nx_total 1\nx_total 2\n",
        "# HELP x_total Text.\n# TYPE x_total counter\nx_total{a=\"b} 1\n",
        "# HELP x_total Text.\n# TYPE x_total counter\nx_total{a=\"b\",a=\"c\"} 1\n",
        "# HELP x_total Text.\n# TYPE x_total counter\nx_total one\n",
        "# HELP x_total Text.\n# TYPE x_total counter\nx_total 1",
        "# HELP x Text.\n# TYPE x histogram\nx_bucket{le=\"1\"} 2\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 1\n",
        "# HELP x Text.\n# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_sum 1\nx_count 1\n",
        "# HELP x Text.\n# TYPE x histogram\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 2\n",
    ] {
        assert!(Scrape::parse(bad).is_err(), "{bad}");
    }
}

struct Daemon {
    well: AtomicBool,
    page: usize,
}

impl Observed for Daemon {
    async fn metrics(&self) -> Result<String, String> {
        Ok("#".repeat(self.page))
    }

    async fn health(&self) -> Report {
        Report::new().with("loop", true, "it turns")
    }

    async fn ready(&self) -> Report {
        let well = self.well.load(Ordering::Relaxed);
        Report::new()
            .with("queue", true, "bound")
            .with("link", well, "to the server")
    }
}

struct Watched {
    daemon: Arc<Daemon>,
    address: SocketAddr,
    _trigger: Trigger,
}

fn watched(page: usize) -> Watched {
    let bound = Bound::open(&Place::parse("127.0.0.1:0").unwrap(), SOCKET_MODE).unwrap();
    let address = bound.place().parse().unwrap();
    let daemon = Arc::new(Daemon {
        well: AtomicBool::new(true),
        page,
    });
    let (trigger, shutdown) = lifecycle::shutdown();
    tokio::spawn(serve(bound, Arc::clone(&daemon), shutdown));
    Watched {
        daemon,
        address,
        _trigger: trigger,
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A connection that is hung up on may be reset.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn the_three_paths_answer_with_their_status_and_reasons() {
    let watched = watched(10);
    let page = get(watched.address, "/metrics").await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    assert!(get(watched.address, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(get(watched.address, "/ready").await.starts_with("HTTP/1.1 200 "));
    watched.daemon.well.store(false, Ordering::Relaxed);
    let ready = get(watched.address, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    let json = ready.split_once("\r\n\r\n").unwrap().1;
    let report: Report = serde_json::from_str(json).unwrap();
    assert!(!report.ok && report.checks[0].ok && report.checks[1].name == "link");
    assert!(get(watched.address, "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(get(watched.address, "/").await.starts_with("HTTP/1.1 404 "));
    let posted = ask(
        watched.address,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(posted.await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn too_large_a_head_is_refused() {
    let watched = watched(10);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(64 * 1024));
    let answer = ask(watched.address, &request).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(get(watched.address, "/health").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn those_who_say_or_read_nothing_keep_their_places_for_a_bounded_time() {
    // More than the buffers of two sockets hold, so that the answer is stuck.
    let watched = watched(64 * 1024 * 1024);
    let mut slow = Vec::new();
    for _ in 0..MAX_ASKERS {
        let mut stream = TcpStream::connect(watched.address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        // The first bytes prove that it has its place.
        stream.readable().await.unwrap();
        slow.push(stream);
    }
    // One more is hung up on.
    assert_eq!(get(watched.address, "/health").await, "");
    // Nobody leaves, and places come free all the same.
    let free = tokio::time::timeout(Duration::from_mins(1), async {
        while !get(watched.address, "/health").await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    free.await.unwrap();
    drop(slow);
}

#[test]
fn a_label_has_1024_values_and_not_one_more() {
    const MANY: &[Metric<usize>] = &[Metric::each(
        "x_up",
        "Whether each of many is there.",
        "name",
        |count| (0..*count).map(|name| (name.to_string(), 1)).collect(),
    )];
    let text = render(MANY, MAX_VALUES + 1).unwrap();
    assert_eq!(Scrape::parse(&text).unwrap().samples().len(), MAX_VALUES);
}
