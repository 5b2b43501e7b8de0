//! Reads as an account that may only read, and cannot do more.

use crate::log::{Conn, block_on, store};
use crate::process::NU_SSO;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use tempfile::tempdir;

const READER: u32 = 64_123;
const GROUP: u32 = 64_124;

#[test]
fn an_account_of_the_logs_group_finds_users_and_changes_nothing() {
    let whole_map = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    if !rustix::process::geteuid().is_root() || !whole_map {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED account: needs two user ids, so it runs as root only"
        );
        return;
    }
    let dir = tempdir().unwrap();
    let conn = Conn::plain(1, "alice", "10.0.0.7:40312", "192.0.2.80:443");
    let _store = block_on(async {
        let mut store = store(dir.path()).await;
        store.apply(&conn.live()).await.unwrap();
        store
    });
    let mut command = Command::new(NU_SSO);
    command.args(["--database", &format!("sqlite:{}/nulog.db", dir.path().display())]);
    // As the server's unit has it: the group may read the directory and its files.
    let mode = |path: &std::path::Path, mode| {
        chown(path, None, Some(GROUP)).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        mode(&entry.unwrap().path(), 0o640);
    }
    mode(dir.path(), 0o750);
    command.args(["lookup", "10.0.0.7", "40312", "192.0.2.80", "443"]);
    let output = command.uid(READER).gid(GROUP).output().unwrap();
    assert_eq!(
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).as_ref()
        ),
        (Some(0), "alice\n"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = command.uid(READER).gid(READER).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(77),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
