//! PAM modules that agree, refuse, sleep and crash, in a private `/etc/pam.d`; and the host's own users.

use crate::{directory, groups, is_wrong, log_in, program, unsaid, write};
use nuauth_server::config::Backend;
use nuauth_server::directory::{Directory, Settings, SystemSettings};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The services; each module is a program that `pam_exec` runs, save those that are part of PAM.
const SERVICES: [(&str, &str); 5] = [
    (
        "checks",
        "auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {dir}/check\nauth requisite pam_deny.so\n\
         auth required pam_permit.so\naccount required pam_permit.so\n",
    ),
    (
        "sleeps",
        "auth required pam_exec.so quiet {dir}/sleep\naccount required pam_permit.so\n",
    ),
    (
        "crashes",
        "auth required pam_exec.so quiet {dir}/crash\naccount required pam_permit.so\n",
    ),
    (
        "expired",
        "auth required pam_permit.so\naccount required pam_deny.so\n",
    ),
    (
        "other",
        "auth required pam_deny.so\naccount required pam_deny.so\n",
    ),
];

/// A directory that is `/etc/pam.d` to the helper alone.
struct Pam {
    dir: TempDir,
}

impl Pam {
    fn new() -> Self {
        let pam = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let dir = pam.dir.path();
        std::fs::create_dir(dir.join("pam.d")).unwrap();
        for (name, text) in SERVICES {
            write(
                &dir.join("pam.d").join(name),
                &text.replace("{dir}", &dir.display().to_string()),
            );
        }
        pam.script("check", "#!/bin/sh\n[ \"$(tr -d '\\000')\" = secret ]\n");
        let slept = dir.join("slept");
        let sleep = format!("#!/bin/sh\necho $$ >{}\nexec sleep 30\n", slept.display());
        pam.script("sleep", &sleep);
        pam.script("crash", "#!/bin/sh\nkill -ABRT $PPID\n");
        let launch = format!(
            "#!/bin/sh\nexec unshare --mount --propagation private sh -c 'mount --bind \"$0\" /etc/pam.d && exec \"$@\"' {}/pam.d {} \"$@\"\n",
            dir.display(),
            program().display()
        );
        pam.script("launch", &launch);
        pam
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        write(&path, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn directory(&self, service: &str, timeout: Duration) -> Directory {
        let settings = Settings {
            system: Some(SystemSettings {
                service: service.to_owned(),
                timeout,
                processes: 2,
            }),
            ..Settings::default()
        };
        directory(Backend::System, settings, self.dir.path().join("launch")).await
    }
}

const USUAL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_hosts_users_log_in_as_pam_says_and_are_who_nss_says() {
    let pam = Pam::new();
    let directory = pam.directory("checks", USUAL).await;
    let daemon = log_in(&directory, "daemon", "secret").await.unwrap();
    assert_eq!((daemon.user.id, daemon.mark.0), (1, 1));
    assert_eq!(groups(&daemon), ["daemon"]);
    assert!(is_wrong(&log_in(&directory, "daemon", "Secret").await));
    // PAM would let in whom nobody knows; there is no such user.
    assert!(is_wrong(
        &log_in(&directory, "nobody-of-that-name", "secret").await
    ));
    let why = unsaid(log_in(&directory, "root", "secret").await);
    assert!(
        why.ends_with("its id is 0, which is root's on every system"),
        "{why}"
    );
    // An account that PAM refuses is refused, whatever the password.
    let directory = pam.directory("expired", USUAL).await;
    assert!(log_in(&directory, "daemon", "secret").await.is_err());
    // So is a service that does not exist, by PAM's own `other`.
    let directory = pam.directory("none", USUAL).await;
    assert!(is_wrong(&log_in(&directory, "daemon", "secret").await));
}

#[tokio::test]
async fn a_module_that_sleeps_costs_its_login_alone_and_is_killed() {
    let pam = Pam::new();
    let directory = pam.directory("sleeps", Duration::from_secs(2)).await;
    let why = unsaid(log_in(&directory, "daemon", "secret").await);
    assert!(
        why.contains("no answer within 2 s; the process that asked it was killed"),
        "{why}"
    );
    // The module's program has a session of its own, and is the test's to end.
    let slept = std::fs::read_to_string(pam.dir.path().join("slept")).unwrap();
    std::process::Command::new("kill")
        .arg(slept.trim())
        .status()
        .unwrap();
}

#[tokio::test]
async fn a_module_that_crashes_costs_its_login_alone() {
    let pam = Pam::new();
    let directory = pam.directory("crashes", USUAL).await;
    for _ in 0..2 {
        let why = unsaid(log_in(&directory, "daemon", "secret").await);
        assert!(
            why.contains("the process that asked it ended without an answer"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn as_many_processes_ask_at_one_time_as_may() {
    let pam = Pam::new();
    let directory = pam.directory("sleeps", Duration::from_secs(2)).await;
    let three = tokio::join!(
        log_in(&directory, "daemon", "a"),
        log_in(&directory, "bin", "b"),
        log_in(&directory, "sys", "c"),
    );
    let whys = [three.0, three.1, three.2].map(unsaid);
    let waited = whys
        .iter()
        .filter(|why| why.contains("2 logins have been asking it"))
        .count();
    let killed = whys.iter().filter(|why| why.contains("was killed")).count();
    // The third may get its turn in the moment in which the others give up.
    assert!(killed >= 2 && waited + killed == 3, "{whys:?}");
}
