//! What the machine lets the lab do.
//!
//! Asked once per process, so that tests can say loudly why they do not run.

use crate::netns::NetNs;
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// Whether network namespaces can be made; the reason if not.
pub fn can_make_namespaces() -> std::result::Result<(), String> {
    static ANSWER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    ANSWER
        .get_or_init(|| NetNs::new().map(drop).map_err(|error| format!("{error:#}")))
        .clone()
}

/// Whether processes can run as other users: not in a user namespace that maps one user only.
pub(crate) fn can_change_user() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        map.lines()
            .any(|line| line.split_whitespace().nth(2).and_then(|n| n.parse::<u64>().ok()) > Some(1))
    }) && rustix::process::geteuid().is_root()
}

/// Whether this process is root of its user namespace only.
pub(crate) fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

/// Makes this process root of a user namespace of its own if it is not root already: runs the same command again under
/// `unshare -Urnm`.
pub fn become_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let exe = std::env::current_exe().context("cannot learn the path of this program")?;
    let error = Command::new("unshare")
        .arg("-Urnm")
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot run unshare: install util-linux, or run as root")
}
