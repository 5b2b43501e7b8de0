//! `nu-sso lookup`: what it prints, and its exit codes.

use crate::log::{Conn, block_on, store, tcp};
use crate::process::{NU_SSO, nu_sso, output};
use std::process::Command;
use tempfile::tempdir;

fn lookup(dir: &std::path::Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = nu_sso(dir, "[lookup]\nretry = \"20ms\"\n");
    let output = output(command.arg("lookup").args(words));
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn the_user_is_printed_or_the_exit_code_says_that_there_is_none() {
    let dir = tempdir().unwrap();
    let service = tcp("192.0.2.80:443", "198.51.100.1:61000");
    let conn = Conn::new(1, "alice", tcp("10.0.0.7:40312", "192.0.2.80:443"), service);
    let _store = block_on(async {
        let mut store = store(dir.path()).await;
        store.apply(&conn.live()).await.unwrap();
        store
    });
    let seen = ["198.51.100.1", "61000", "192.0.2.80", "443"];
    assert_eq!(
        lookup(dir.path(), &seen),
        (Some(0), "alice\n".to_owned(), String::new())
    );
    let (code, json, _) = lookup(dir.path(), &[&seen[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(
        json,
        serde_json::json!({
            "user": "alice", "user_id": "1001", "id": ((1u64 << 49) + 1).to_string(), "gateway": "gw1", "matched": "reply",
        })
    );
    let other = ["198.51.100.1", "61001", "192.0.2.80", "443"];
    assert_eq!(
        lookup(dir.path(), &other),
        (Some(1), String::new(), String::new())
    );
    let (code, json, _) = lookup(dir.path(), &[&other[..], &["--json"]].concat());
    assert_eq!((code, json.as_str()), (Some(1), "{\"user\":null}\n"));
    let udp = [&seen[..], &["--proto", "udp"]].concat();
    assert_eq!(lookup(dir.path(), &udp).0, Some(1));
}

#[test]
fn what_cannot_be_answered_ends_with_the_code_of_sysexits_that_fits() {
    let dir = tempdir().unwrap();
    let good = ["198.51.100.1", "61000", "192.0.2.80", "443"];
    let (code, out, error) = lookup(dir.path(), &good);
    assert_eq!((code, out.as_str()), (Some(66), ""));
    assert!(
        error.contains("there is no log") && error.starts_with("nu-sso: "),
        "{error}"
    );

    std::fs::write(
        dir.path().join("nulog.db"),
        "not a database, whatever it is, but long enough",
    )
    .unwrap();
    let (code, _, error) = lookup(dir.path(), &good);
    assert_eq!(code, Some(65), "{error}");

    for words in [
        &["198.51.100.1", "61000", "192.0.2.80"][..],
        &["198.51.100.1", "x", "192.0.2.80", "443"],
        &["198.51.100.1", "1", "192.0.2.80", "443", "--proto", "icmp"],
    ] {
        assert_eq!(lookup(dir.path(), words).0, Some(64), "{words:?}");
    }
    let missing = output(
        Command::new(NU_SSO)
            .args(["--config", "/nowhere/nu-sso.toml", "lookup"])
            .args(good),
    );
    assert_eq!(missing.status.code(), Some(78));
}
