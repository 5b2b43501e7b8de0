//! `--once` and `--json` on every database, with the account of a reader where there are accounts.

use crate::support::{self, Kind};
use crate::{make, nutop, open_by, store_with_rows};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn printed(settings: &Path, arguments: &[&str]) -> String {
    let output = nutop()
        .arg("--config")
        .arg(settings)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{arguments:?}: {said}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn objects(settings: &Path, arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    serde_json::from_str(&printed(settings, &arguments)).unwrap()
}

async fn what_is_printed_is_what_is_live(administrator: &str, reader: &str) {
    let mut store = store_with_rows(administrator).await;
    let strange = open_by(8, "mallory\u{1b}[2J\u{202e}\n", "/opt/日本語 \"x\"", "10.0.0.8");
    store.apply(&[strange]).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("nulog.toml");
    std::fs::write(&settings, format!("[log]\ndatabase = \"{reader}\"\n")).unwrap();
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o600)).unwrap();

    let found = objects(&settings, &["--filter", "state:established"]);
    assert_eq!(
        (&found["cut"], found["connections"].as_array().unwrap().len()),
        (&json!(false), 1)
    );
    assert!(found["read_at"].as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "id": make::id(1).get().to_string(), "state": 2, "oob_time": "2027-01-15T08:00:00.000005Z",
        "oob_prefix": "web", "oob_mark": 1001, "oob_in": "eth0", "oob_out": null, "ip_protocol": 6,
        "ip_saddr": "10.0.0.7", "ip_daddr": "10.1.1.2", "sport": 40312, "dport": 444,
        "icmp_type": null, "icmp_code": null, "icmp_id": null, "user_id": "1001", "username": "alice",
        "client_os": "Linux", "client_app": "/usr/bin/firefox",
        "start_timestamp": "2027-01-15T08:00:01.000000Z",
        "packets_in": null, "packets_out": null, "bytes_in": null, "bytes_out": null,
        "reply_saddr": "192.168.0.9", "reply_daddr": "203.0.113.5", "reply_sport": 8443, "reply_dport": 61000,
        "gateway": "gw1", "ct_id": "77", "ct_mark": 1001, "ct_zone": 7, "acl": "web-out",
        "phys_in": "port1", "phys_out": null,
    });
    assert_eq!(found["connections"][0], expected);

    let users = |found: &Value| -> Vec<String> {
        let rows = found["connections"].as_array().unwrap().iter();
        rows.map(|row| row["username"].as_str().unwrap().to_owned())
            .collect()
    };
    let found = objects(&settings, &["--sort", "user", "--reverse"]);
    assert_eq!(
        users(&found),
        ["mallory\u{1b}[2J\u{202e}\n", "bob", "alice", "alice"]
    );
    let found = objects(&settings, &["--limit", "2"]);
    assert_eq!((users(&found).len(), &found["cut"]), (2, &json!(true)));
    let found = objects(&settings, &["--group", "user", "--filter", "src:2001:db8::7"]);
    assert_eq!(
        (&found["groups"][0]["user"], &found["groups"][0]["connections"]),
        (&json!("alice"), &json!(1))
    );

    let table = printed(&settings, &["--once", "--sort", "source"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(
        lines[0].starts_with("USER") && lines[1].starts_with("alice"),
        "{table}"
    );
    assert!(
        table.contains("mallory\\u{1b}[2J\\u{202e}\\u{a}") && table.contains("日本語 \"x\""),
        "{table}"
    );
    assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table:?}");
    let cut = printed(&settings, &["--once", "--limit", "1"]);
    assert!(cut.contains("There are more: only the newest 1 "), "{cut}");
    let grouped = printed(&settings, &["--once", "--group", "program"]);
    assert!(
        grouped.starts_with("PROGRAM") && grouped.contains("2 (0 est.)"),
        "{grouped}"
    );
}

async fn on_server(kind: Kind, test: &str) {
    let server = match support::shared(kind) {
        Ok(server) => server,
        Err(reason) => {
            support::skip(test, kind, reason);
            return;
        }
    };
    let database = server.database().await;
    let administrator = server.url(&database);
    nulog::migrate(&nulog::Location::parse(&administrator).unwrap())
        .await
        .unwrap();
    let reader = server.account(&database, "reader").await;
    what_is_printed_is_what_is_live(&administrator, &reader).await;
}

#[tokio::test]
async fn on_sqlite_what_is_printed_is_what_is_live() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/nulog.db", directory.path().display());
    what_is_printed_is_what_is_live(&url, &url).await;
}

#[tokio::test]
async fn on_postgresql_what_is_printed_is_what_is_live() {
    on_server(Kind::Postgres, "on_postgresql").await;
}

#[tokio::test]
async fn on_mariadb_what_is_printed_is_what_is_live() {
    on_server(Kind::MariaDb, "on_mariadb").await;
}

#[test]
fn mistakes_are_named_and_end_with_their_codes() {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("nulog.toml");
    std::fs::write(&settings, "[log]\ndatabse = \"x\"\n").unwrap();
    let settings = settings.display().to_string();
    let absent = format!("sqlite:{}/nulog.db", directory.path().display());
    for (arguments, code, words) in [
        (vec!["--config", &settings], 78, "nulog.toml:2"),
        (vec!["--config", "/nonexistent"], 78, "/nonexistent"),
        (
            vec!["--config", "/dev/null", "--database", "oracle:x"],
            78,
            "--database",
        ),
        (vec!["--interval", "1ms"], 64, "200ms to 1h"),
        (vec!["--limit", "0"], 64, "1..=100000"),
        (vec!["--sort", "colour"], 64, "colour"),
        (
            vec!["--config", "/dev/null", "--once", "--database", &absent],
            73,
            "there is no log",
        ),
    ] {
        let output = nutop().args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && said.contains(words),
            "{arguments:?}: {:?} {said}",
            output.status.code()
        );
    }
}
