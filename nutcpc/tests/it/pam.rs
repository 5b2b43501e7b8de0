//! The script for `pam_exec`: the password of a login is its user's alone, and is gone after the last session.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/pam/nutcpc-pam")
}

/// Runs it as `pam_exec` does, and tells whether it succeeded.
fn run(directory: &Path, kind: &str, user: &str, password: &[u8]) -> bool {
    let mut child = Command::new("sh")
        .arg(script())
        .arg(directory)
        .env("PAM_TYPE", kind)
        .env("PAM_USER", user)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(password);
    child.wait().unwrap().success()
}

/// Who runs this, and another user where one can be made the owner of a file.
fn users() -> Vec<(String, u32)> {
    let own = rustix::process::geteuid().as_raw();
    let ids = if crate::support::has_other_users() {
        vec![own, 65_534]
    } else {
        vec![own]
    };
    ids.into_iter()
        .filter_map(|id| Some((uzers::get_user_by_uid(id)?.name().to_str()?.to_owned(), id)))
        .collect()
}

#[test]
fn the_password_of_a_login_is_the_users_alone_until_the_last_session_ends() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("login");
    for (user, uid) in users() {
        for (given, kept) in [(&b"first one\0"[..], "first one"), (b"another", "another")] {
            assert!(run(&directory, "auth", &user, given), "{user}");
            let file = directory.join(&user);
            let meta = std::fs::metadata(&file).unwrap();
            assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (0o600, uid));
            assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);
        }
        // It begins with what is not a session of systemd's here: there is no other.
        assert!(run(&directory, "close_session", &user, b""));
        assert!(!directory.join(&user).exists());
    }
    let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o711, "nobody looks around in it");
    assert_eq!(
        std::fs::read_dir(&directory).unwrap().count(),
        0,
        "something is left"
    );
}

#[test]
fn a_login_without_a_password_or_of_nobody_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (user, _) = users().remove(0);
    for (user, password) in [
        (user.as_str(), &b""[..]),
        (&user, b"\0"),
        ("no such user, surely", b"x"),
        ("../escaped", b"x"),
        ("-rf", b"x"),
        (".hidden", b"x"),
    ] {
        assert!(
            run(dir.path(), "auth", user, password),
            "{user} cannot log in for it"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{user}");
    }
    assert!(!dir.path().parent().unwrap().join("escaped").exists());
}

#[test]
fn the_script_passes_shellcheck() {
    match Command::new("shellcheck").arg(script()).output() {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(_) => {
            eprintln!(
                "SKIPPED the_script_passes_shellcheck: it needs shellcheck: apt-get install shellcheck"
            );
        }
    }
}
