//! The program `nulog` on a log: what it prints, in which form, and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use nufw_proto::{Addr, ConnId, Mark, Ports, Timestamp, Transport, Tuple};
use nulog::{Binding, Change, Close, CloseReason, Established, Location, OpenRow, Store, User};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

/// 2026-11-20T14:00:00Z.
const BEGIN: i64 = 1_795_183_200_000_000;
const NASTY: &str = "x\"y,\u{1b}[2J\n\u{202e}é";

fn tcp(src: &str, dst: &str) -> Tuple {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let ports = Ports {
        src: src.port(),
        dst: dst.port(),
    };
    Tuple::new(Addr::from(src.ip()), Addr::from(dst.ip()), Transport::Tcp(ports)).unwrap()
}

/// A masqueraded connection that began at this minute and lasted one.
fn life(number: u64, minute: i64, user: &str) -> [Change; 3] {
    let id = ConnId::try_from((1 << 49) + number).unwrap();
    let at = |minute: i64| Timestamp::from_micros(BEGIN + minute * 60_000_000);
    let word = |text: &str| -> Arc<str> { Arc::from(text) };
    let original = tcp("10.0.0.7:40312", "192.0.2.80:443");
    let binding = Binding {
        ct_id: 7,
        ct_mark: Mark(1001),
        original,
        reply: tcp("192.0.2.80:443", "203.0.113.5:61000"),
    };
    let open = OpenRow {
        id,
        gateway: word("gw1"),
        received: at(minute),
        prefix: word("web"),
        mark: Mark(1001),
        in_dev: word("lan"),
        out_dev: word("wan"),
        phys_in: word(""),
        phys_out: word(""),
        zone: 0,
        original,
        shown: original,
        user: Some(User {
            id: 1001,
            name: word(user),
        }),
        client_os: None,
        client_app: Some(word("/usr/bin/firefox")),
        acl: word("web"),
        parent: None,
        policy: Arc::from(""),
        auth: None,
    };
    [
        Change::Open(Box::new(open)),
        Change::Established(Box::new(Established {
            id,
            at: Some(at(minute)),
            binding: Some(binding),
        })),
        Change::Close(Box::new(Close {
            id,
            at: Some(at(minute + 1)),
            reason: CloseReason::Finished,
            counters: None,
            binding: Some(binding),
        })),
    ]
}

struct Log {
    directory: tempfile::TempDir,
}

impl Log {
    fn new(lives: &[[Change; 3]]) -> Self {
        let log = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let location = Location::parse(&log.url()).unwrap();
            let mut store = Store::open(&location, 1).await.unwrap();
            store.apply(&lives.concat()).await.unwrap();
            store.close().await.unwrap();
        });
        log
    }

    fn url(&self) -> String {
        format!("sqlite:{}/nulog.db", self.directory.path().display())
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let settings = self.directory.path().join("nulog.toml");
        std::fs::write(&settings, format!("[log]\ndatabase = \"{}\"\n", self.url())).unwrap();
        said(&nulog(&settings, words))
    }
}

fn nulog(settings: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nulog"))
        .arg("--config")
        .arg(settings)
        .args(words)
        .env("TZ", "Asia/Kathmandu")
        .output()
        .unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8(output.stdout.clone()).unwrap(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}

#[test]
fn whois_shows_every_candidate_and_exits_1_when_there_is_none() {
    let log = Log::new(&[life(1, 0, "alice"), life(2, 1, "bob")]);
    let ask =
        |at: &str, more: &[&str]| log.run(&[&["whois", "203.0.113.5:61000", "--at", at], more].concat());
    let (code, out, _) = ask("2026-11-20T14:00:30Z", &[]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("surely") && out.contains("alice") && !out.contains("bob"),
        "{out}"
    );
    assert!(
        out.contains("2026-11-20 14:00:00.000000") && out.contains("time (UTC)"),
        "{out}"
    );
    // In doubt between two.
    let (code, out, _) = ask("2026-11-20T14:01:00Z", &["--clock-error", "5s", "--json"]);
    assert_eq!(code, Some(0));
    let answer: Value = serde_json::from_str(&out).unwrap();
    let users: Vec<_> = answer["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["username"].clone())
        .collect();
    assert_eq!(users, ["bob", "alice"]);
    assert_eq!(answer["candidates"][0]["covers"], "possibly");
    assert_eq!(answer["candidates"][0]["ip_saddr"], "10.0.0.7");
    assert_eq!(answer["more"], false);
    assert_eq!(
        ask("2026-11-20T13:00:00Z", &[]),
        (Some(1), String::new(), String::new())
    );
    let (code, out, _) = ask("2026-11-20T13:00:00Z", &["--json"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(1), "{\"candidates\":[],\"more\":false}\n")
    );
    assert_eq!(ask("2026-11-20T14:00:30Z", &["--proto", "udp"]).0, Some(1));
    // The machine's zone is 5:45 ahead.
    let (code, out, _) = ask("2026-11-20 19:45:30", &["--local"]);
    assert!(
        code == Some(0) && out.contains("2026-11-20 19:45:00.000000"),
        "{out}"
    );
    for words in [
        &["whois", "203.0.113.5"][..],
        &["whois", "203.0.113.5:1", "--at", "noon"],
        &["whois", "203.0.113.5:1", "--clock-error", "2"],
        &["search", "--src", "10.0.0.0/33"],
        &["search", "--since", "1h", "--until", "2h"],
        &["search", "--after", "7"],
        &["search", "--state", "closed"],
    ] {
        let (code, _, error) = log.run(words);
        assert_eq!(code, Some(64), "{words:?}: {error}");
    }
}

#[test]
fn search_reads_on_where_the_page_before_ended() {
    let lives: Vec<_> = (1..=5)
        .map(|n| life(n, i64::try_from(n).unwrap(), "alice"))
        .collect();
    let log = Log::new(&lives);
    let rows_of = |words: &[&str]| {
        let words = [&["search", "--format", "json"], words].concat();
        let (code, out, error) = log.run(&words);
        assert_eq!(code, Some(0), "{error}");
        let rows: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (rows, error)
    };
    let (all, error) = rows_of(&[]);
    assert_eq!((all.len(), error.as_str()), (5, ""));
    assert_eq!(all[0]["oob_time"], "2026-11-20T14:05:00.000000Z");
    assert_eq!(all[0]["id"], ((1_u64 << 49) + 5).to_string());
    let (first, error) = rows_of(&["--limit", "2"]);
    let after = first[1]["after"].as_str().unwrap();
    assert!(error.contains(&format!("--after {after} ")), "{error}");
    let (rest, error) = rows_of(&["--after", after]);
    assert_eq!((rest.as_slice(), error.as_str()), (&all[2..], ""));
    let (oldest, _) = rows_of(&["--oldest-first", "--all", "--until", "2026-11-20T14:03:00Z"]);
    assert_eq!(oldest.len(), 2);
    assert_eq!(oldest[0], all[4]);
    let (local, _) = rows_of(&["--limit", "1", "--local"]);
    assert_eq!(local[0]["oob_time"], "2026-11-20T19:50:00.000000+05:45");
}

#[test]
fn a_name_of_any_kind_breaks_neither_a_screen_nor_a_table_of_values() {
    let log = Log::new(&[life(1, 0, NASTY)]);
    // Neither can what was put into the file by hand.
    let (_, table, _) = log.run(&["search"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(
        !table.contains('\u{1b}') && table.contains("x\"y,\\u{1b}[2J\\u{a}\\u{202e}é"),
        "{table}"
    );
    let (_, csv, _) = log.run(&["search", "--format", "csv"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let cell = |name: &str| &rows[0][names.iter().position(|found| found == name).unwrap()];
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (cell("username"), cell("client_os"), cell("dport")),
        (NASTY, "", "443")
    );
    let (_, json, _) = log.run(&["search", "--format", "json", "--user", NASTY]);
    assert!(
        json.trim_end()
            .chars()
            .all(|c| !c.is_control() && c != '\u{202e}'),
        "{json}"
    );
    let row: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(row["username"], NASTY);
    // A head without rows is still a head.
    let (_, csv, _) = log.run(&["search", "--format", "csv", "--user", "nobody"]);
    assert!(
        csv.starts_with("id,oob_time,") && csv.lines().count() == 1,
        "{csv}"
    );
}

#[test]
fn what_cannot_be_read_is_said_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("nulog.toml");
    let missing = format!("sqlite:{}/nulog.db", dir.path().display());
    for (text, expected, sentence) in [
        (
            format!("[log]\ndatabase = \"{missing}\"\n"),
            66,
            "there is no log",
        ),
        (
            "[log]\ndatabase = \"postgres://x@localhost/x?host=/nonexistent\"\n".to_owned(),
            69,
            "cannot be reached",
        ),
        (
            "[search]\nclock-eror = \"1s\"\n".to_owned(),
            78,
            "unknown key search.clock-eror",
        ),
    ] {
        std::fs::write(&settings, text).unwrap();
        let (code, _, error) = said(&nulog(&settings, &["search"]));
        assert_eq!(code, Some(expected), "{error}");
        assert!(error.contains(sentence), "{error}");
    }
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/nulog.toml");
    let (code, _, error) = said(&nulog(&sample, &["--database", &missing, "search"]));
    assert_eq!(code, Some(66), "{error}");
}
