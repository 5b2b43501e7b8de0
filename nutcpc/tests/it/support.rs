//! What the tests of this package share: a network namespace of their own.

use std::process::Command;

const INSIDE: &str = "NUTCPC_TEST_NAMESPACE";

/// Runs the test `name` of a module again inside a network namespace of its own and returns false; inside it, sets up the
/// loopback and an interface `d0` that swallows every packet, and returns true. Says loudly when there can be none.
#[must_use]
pub(crate) fn in_namespace(module: &str, name: &str) -> bool {
    let name = &module
        .split_once("::")
        .map_or(name.to_owned(), |(_, module)| format!("{module}::{name}"));
    if std::env::var_os(INSIDE).is_some() {
        for command in [
            "link set lo up",
            "link add d0 type veth peer name d1",
            "link set d1 up",
            "addr add 10.0.0.5/24 dev d0",
            "addr add fd00::5/64 dev d0 nodad",
            "link set d0 up",
            "neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev d0 nud permanent",
            "neigh add fd00::1 lladdr 02:00:00:00:00:01 dev d0 nud permanent",
            "route add default via 10.0.0.1",
            "-6 route add default via fd00::1 dev d0",
        ] {
            ip(command);
        }
        return true;
    }
    let program = std::env::current_exe().unwrap();
    for flags in ["-n", "-Urn"] {
        let possible = Command::new("unshare").args([flags, "true"]).output();
        if !possible.is_ok_and(|output| output.status.success()) {
            continue;
        }
        let output = Command::new("unshare")
            .arg(flags)
            .arg(&program)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        print!("{stdout}");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} failed inside the namespace");
        assert!(stdout.contains(" 1 passed;"), "there is no test {name}");
        return false;
    }
    eprintln!(
        "SKIPPED {name}: no network namespace can be made here; run it as root, or allow user namespaces"
    );
    false
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether the caller can become other users.
pub(crate) fn has_other_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let is_whole = map
        .split_ascii_whitespace()
        .nth(2)
        .is_some_and(|length| length != "1");
    rustix::process::geteuid().is_root() && is_whole
}
