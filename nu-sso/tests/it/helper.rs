//! `nu-sso squid` as Squid would talk to it.

use crate::log::{Conn, block_on, store};
use crate::process::{Proc, nu_sso, output};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use tempfile::tempdir;

#[test]
fn every_line_gets_one_answer_whatever_it_is() {
    let dir = tempdir().unwrap();
    let alice = Conn::plain(1, "al ice%", "10.0.0.7:40312", "192.0.2.80:443");
    let _store = block_on(async {
        let mut store = store(dir.path()).await;
        store.apply(&alice.live()).await.unwrap();
        store
    });
    let mut helper = nu_sso(
        dir.path(),
        "[lookup]\nretry = \"20ms\"\n[squid]\nmax-in-flight = 2\n",
    );
    let mut helper = Proc(
        helper
            .arg("squid")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut input = helper.0.stdin.take().unwrap();
    let mut lines = BufReader::new(helper.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();

    writeln!(input, "10.0.0.7 40312 192.0.2.80 443").unwrap();
    assert_eq!(next(), "OK user=al%20ice%25");
    writeln!(input, "10.0.0.7 40313 192.0.2.80 443").unwrap();
    assert_eq!(next(), "ERR");
    writeln!(input, "\x01garbage %zz").unwrap();
    assert!(next().starts_with("BH message="));
    writeln!(input).unwrap();
    assert!(next().starts_with("BH message="));
    input.write_all(&vec![0xff; 20_000]).unwrap();
    writeln!(input, "\n10.0.0.7 40312 192.0.2.80 443 -").unwrap();
    assert!(next().starts_with("BH message="));
    assert_eq!(next(), "OK user=al%20ice%25");

    // With channels, in any order, more than fit at once; the last without its end of line.
    for channel in 0..50 {
        let port = if channel % 2 == 0 { 40312 } else { 1 };
        writeln!(input, "{channel} 10.0.0.7 {port} 192.0.2.80 443").unwrap();
    }
    write!(input, "99 x").unwrap();
    drop(input);
    let mut answers: Vec<String> = lines.map(Result::unwrap).collect();
    answers.sort_by_key(|line| line.split_once(' ').unwrap().0.parse::<u32>().unwrap());
    assert_eq!(answers.len(), 51);
    for (channel, answer) in answers.iter().take(50).enumerate() {
        let expected = if channel % 2 == 0 {
            "OK user=al%20ice%25"
        } else {
            "ERR"
        };
        assert_eq!(*answer, format!("{channel} {expected}"));
    }
    assert!(answers[50].starts_with("99 BH message="), "{}", answers[50]);
    assert_eq!(helper.wait(), Some(0));
}

#[test]
fn without_a_log_each_question_is_answered_as_broken() {
    let dir = tempdir().unwrap();
    let ended = output(nu_sso(dir.path(), "").arg("squid"));
    assert_eq!(ended.status.code(), Some(0));
    let mut helper = nu_sso(dir.path(), "");
    let mut helper = Proc(
        helper
            .arg("squid")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(helper.0.stdout.take().unwrap()).lines();
    let mut input = helper.0.stdin.take().unwrap();
    writeln!(input, "7 10.0.0.7 40312 192.0.2.80 443").unwrap();
    assert!(lines.next().unwrap().unwrap().starts_with("7 BH message="));
}
