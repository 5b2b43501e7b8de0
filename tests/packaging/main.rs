//! What is installed: units that systemd understands, and packages that install in a clean root and start nothing by
//! themselves.

#![cfg(test)]

mod root;
mod units;

use anyhow::{Context, Result, ensure};
use root::Root;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The tree of the project.
fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Past the capture of the test harness, which would hide it.
fn skipped(reason: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("test");
    writeln!(std::io::stderr(), "SKIPPED {name}: {reason}").ok();
}

/// The packages, made of the programs that this build has, and a root that they are installed in.
fn installed() -> Result<Option<(tempfile::TempDir, Root)>> {
    if !rustix::process::geteuid().is_root() {
        skipped("needs root, to install into a root of its own: sudo scripts/test");
        return Ok(None);
    }
    for tool in ["dpkg", "dpkg-deb", "chroot", "ldd", "systemd-sysusers", "unshare"] {
        if lab::in_path(tool).is_none() {
            skipped(&format!(
                "needs {tool}: apt-get install dpkg coreutils libc-bin systemd util-linux"
            ));
            return Ok(None);
        }
    }
    let out = tempfile::tempdir()?;
    let programs = lab::binary("nufw-agent")?;
    let programs = programs.parent().context("a directory of programs")?;
    let files = lab::packages(project(), programs, out.path(), false)?;
    assert_eq!(files.len(), 4, "{files:?}");
    let root = Root::new()?;
    root.install(&files)?;
    Ok(Some((out, root)))
}

#[test]
fn packages_install_in_a_clean_root_the_commands_of_the_units_start_and_the_server_serves() {
    let Some((_packages, root)) = installed().unwrap() else {
        return;
    };
    let users = root.read("etc/passwd").unwrap();
    for user in ["nufw-agent", "nuauth", "nu-sso"] {
        assert!(
            users.lines().any(|line| line.starts_with(&format!("{user}:"))),
            "{users}"
        );
    }
    assert!(root.path().join("etc/nufw").is_dir());
    assert!(root.path().join("etc/sysctl.d/60-nufw-agent.conf").is_file());
    assert!(
        root.read("var/lib/dpkg/status")
            .unwrap()
            .contains("/etc/sysctl.d/60-nufw-agent.conf"),
        "an administrator's changes to it are kept"
    );

    let units = root.units().unwrap();
    assert_eq!(units.len(), 6, "{units:?}");
    for unit in &units {
        let text = std::fs::read_to_string(unit).unwrap();
        let started: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart="))
            .collect();
        let [command] = started[..] else {
            panic!("{} starts {started:?}", unit.display());
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let version = root.run(&[words[0], "--version"]).unwrap();
        assert!(version.status.success(), "{command}: {version:?}");
        // A configuration that is missing is said with the code that systemd does not try again after.
        if words.contains(&"--config") || words.contains(&"-f") {
            let run = root.run(&words).unwrap();
            assert_eq!(run.status.code(), Some(78), "{command}: {run:?}");
        }
    }
    serve(&root).unwrap();
}

/// The installed server serves as its own user, and says so.
fn serve(root: &Root) -> Result<()> {
    for (example, name) in [
        ("nuauth.toml", "nuauth.toml"),
        ("users.toml", "users.toml"),
        ("policy.toml", "policy.toml"),
    ] {
        let example = root
            .path()
            .join("usr/share/doc/nuauth-server/examples")
            .join(example);
        std::fs::copy(example, root.path().join("etc/nufw").join(name))?;
    }
    for words in [&["init"][..], &["server", "nuauth"], &["gateway", "gw1"]] {
        let pki = [
            &["/usr/sbin/nuauth-server", "pki"],
            words,
            &["--dir", "/etc/nufw/pki"],
        ]
        .concat();
        root.checked(&pki)?;
    }
    let (uid, gid) = root.user("nuauth")?;
    lab::checked(
        Command::new("chown")
            .arg("-R")
            .arg(format!("{uid}:{gid}"))
            .arg(root.path().join("etc/nufw")),
    )?;
    lab::checked(
        Command::new("chmod")
            .arg("600")
            .arg(root.path().join("etc/nufw/users.toml")),
    )?;
    let unit = std::fs::read_to_string(root.path().join("usr/lib/systemd/system/nuauth-server.service"))?;
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .context("ExecStart")?;
    let command: Vec<&str> = command.split_whitespace().collect();
    root.checked(&[&command[..], &["check"]].concat())?;

    let manager = UnixDatagram::bind(root.path().join("run/notify"))?;
    std::os::unix::fs::chown(root.path().join("run/notify"), Some(uid), Some(gid))?;
    manager.set_read_timeout(Some(Duration::from_mins(1)))?;
    let mut server = root.start_as(&command, uid, gid)?;
    let mut buffer = [0; 64];
    let heard = manager
        .recv(&mut buffer)
        .map(|length| buffer.get(..length) == Some(&b"READY=1"[..]));
    let held = lab::checked(Command::new(lab::binary("nuauth-server")?).args([
        "privileges",
        "--json",
        &server.id().to_string(),
    ]));
    server.kill()?;
    let output = server.wait_with_output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(heard, Ok(true)), "{heard:?}\n{log}");
    let held: serde_json::Value = serde_json::from_str(&held?)?;
    ensure!(
        held[0]["uid"] == uid && held[0]["effective"] == serde_json::json!([]),
        "{held}\n{log}"
    );
    let state = root.path().join("var/lib/nufw/nulog.db");
    ensure!(
        state.is_file(),
        "the log is not where the unit has its state\n{log}"
    );
    Ok(())
}

#[test]
fn packages_depend_on_the_libraries_that_their_programs_are_linked_with() {
    if lab::in_path("dpkg-deb").is_none() {
        return skipped("needs dpkg-deb: apt-get install dpkg");
    }
    let out = tempfile::tempdir().unwrap();
    let programs = lab::binary("nufw-agent").unwrap();
    let files = lab::packages(project(), programs.parent().unwrap(), out.path(), false).unwrap();
    let depends = |name: &str| {
        let is_it = |file: &&std::path::PathBuf| {
            file.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}_")))
        };
        let file = files.iter().find(is_it).unwrap();
        lab::checked(Command::new("dpkg-deb").arg("--field").arg(file).arg("Depends")).unwrap()
    };
    let (server, client, agent) = (
        depends("nuauth-server"),
        depends("nufw-client"),
        depends("nufw-agent"),
    );
    assert!(server.contains("libpam0g"), "{server}");
    let kerberos = "libgssapi-krb5-2 (>= 1.19)";
    for with_kerberos in [&server, &client] {
        assert_eq!(
            with_kerberos.contains(kerberos),
            cfg!(feature = "kerberos"),
            "{with_kerberos}"
        );
    }
    assert!(
        !agent.contains(kerberos) && agent.contains("libc6 (>= 2."),
        "{agent}"
    );
}

#[test]
fn no_package_starts_a_daemon_or_brings_a_configuration() {
    let scripts = project().join("conf/debian");
    for package in std::fs::read_dir(scripts).unwrap() {
        for script in std::fs::read_dir(package.unwrap().path()).unwrap() {
            let path = script.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|line| line.contains("systemctl")) {
                let starts = [" start ", " restart ", " enable ", "--now"]
                    .iter()
                    .any(|word| line.contains(word));
                let stops = line.contains("disable --now");
                assert!(!starts || stops, "{}: {line}", path.display());
            }
        }
    }
}
