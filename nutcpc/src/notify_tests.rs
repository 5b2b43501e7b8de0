//! What reaches the program that shows refusals, how often, and what becomes of one that hangs.

use super::*;
use nufw_common::clock;
use nufw_proto::{Ports, Transport, Tuple};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn denied(program: Option<&str>, untold: u32) -> Event {
    let ports = Ports { src: 40_000, dst: 22 };
    let [src, dst] = ["10.0.0.5", "192.0.2.1"].map(|text| text.parse().unwrap());
    Event::Denied {
        seen: Tuple::new(src, dst, Transport::Tcp(ports)).unwrap(),
        program: program.map(str::to_owned),
        rejected: false,
        untold,
    }
}

/// A notifier whose program is this script.
fn scripted(dir: &Path, script: &str) -> Notifier {
    let path = dir.join("show");
    // Written by another process: a file that is open for writing here may be inherited by what another test starts.
    let written = std::process::Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\""])
        .arg(&path)
        .arg(script)
        .status();
    assert!(written.unwrap().success());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut notifier = Notifier::default();
    notifier.set_program(Some(path));
    notifier
}

/// Works until nothing runs.
async fn finish(notifier: &mut Notifier) {
    let work = async {
        while notifier.running.is_some() {
            notifier.work().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), work).await.unwrap();
}

#[tokio::test]
async fn the_program_gets_two_arguments_of_plain_text_and_no_shell_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut notifier = scripted(
        dir.path(),
        &format!("printf '%s|' \"$#\" \"$@\" >{}", out.display()),
    );
    let evil = "/tmp/$(touch x);\n\u{1b}[31m<b>\u{202e}`id`";
    notifier.show(&denied(Some(evil), 0), clock::mono());
    finish(&mut notifier).await;
    let told = std::fs::read_to_string(out).unwrap();
    assert_eq!(
        told,
        "2|Connection refused by the firewall|tcp 10.0.0.5:40000 to 192.0.2.1:22 of \
         /tmp/$(touch x);\u{fffd}\u{fffd}[31m_b_\u{fffd}`id`|"
    );
}

#[test]
fn a_text_of_any_length_is_cut() {
    assert_eq!(text("x", Some(&"ü".repeat(10_000))).chars().count(), MAX_TEXT);
}

#[tokio::test]
async fn a_flood_starts_one_program_at_a_time_and_not_more_than_ten_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!(
        "mkdir {0}.d || echo two at once >>{0}; echo \"$2\" >>{0}; rmdir {0}.d",
        out.display()
    );
    let mut notifier = scripted(dir.path(), &script);
    let mut now = clock::mono();
    for _ in 0..1000 {
        notifier.show(&denied(None, 0), now);
    }
    finish(&mut notifier).await;
    let lines = |path: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    // The first at once, and nine more that came while it ran.
    let told = lines(&out);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].ends_with("22, and 8 more"), "{told:?}");

    now += Duration::from_mins(1);
    notifier.show(&denied(None, 5), now);
    finish(&mut notifier).await;
    assert!(lines(&out)[2].ends_with("22, and 995 more"), "{:?}", lines(&out));
    for _ in 0..100 {
        notifier.show(&denied(None, 0), now);
        finish(&mut notifier).await;
    }
    assert_eq!(lines(&out).len(), 3 + 9);
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_all_that_it_started_and_leaves_no_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!(
        "sleep 1000 & echo $$ $! >{0}.next; mv {0}.next {0}; wait",
        pids.display()
    );
    let mut notifier = scripted(dir.path(), &script);
    notifier.show(&denied(None, 0), clock::mono());
    while !pids.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its time is over.
    notifier.running.as_mut().unwrap().until = tokio::time::Instant::from_std(clock::mono());
    finish(&mut notifier).await;
    let text = std::fs::read_to_string(pids).unwrap();
    for (pid, reaped_by_us) in text.split_whitespace().zip([true, false]) {
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Err(_) => true,
            // Whoever inherits it may be slow to reap it.
            Ok(stat) => !reaped_by_us && stat.contains(") Z "),
        };
        let until = clock::mono() + Duration::from_secs(20);
        while !gone() {
            assert!(clock::mono() < until, "process {pid} lives");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_and_one_that_fails_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut notifier = Notifier::default();
    notifier.set_program(Some(dir.path().join("none")));
    notifier.show(&denied(None, 0), clock::mono());
    assert!(notifier.running.is_none());
    let mut notifier = scripted(dir.path(), "exit 1");
    for _ in 0..2 {
        notifier.show(&denied(None, 0), clock::mono());
        finish(&mut notifier).await;
    }
}

#[tokio::test]
async fn without_a_program_and_for_other_events_nothing_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut notifier = Notifier::default();
    notifier.show(&denied(None, 0), clock::mono());
    assert!(notifier.running.is_none());
    let mut notifier = scripted(dir.path(), "exit 0");
    notifier.show(&Event::LoggedOut, clock::mono());
    assert!(notifier.running.is_none());
}

#[test]
fn descriptors_are_not_the_programs() {
    let file = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    keep_descriptors();
    assert!(
        rustix::io::fcntl_getfd(&file)
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
}
