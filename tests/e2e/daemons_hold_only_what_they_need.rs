//! Whoever takes a running daemon over can write nothing outside its state directory, start nothing, and reach nothing that
//! the daemon has no business with; `privileges` says so; and the daemon goes on working.

use crate::inject::{Arg, Taken};
use anyhow::{Context, Result};
use lab::{Attempt, Lab, Options, Outcome, State, TcpService, addr, checked, two_users_possible, with_lab};
use serde_json::Value;
use std::path::Path;

/// `nobody` of every system.
const NOBODY: u32 = 65_534;

fn opened_for_writing(taken: &Taken, path: &Path) -> Result<i32> {
    let path = path.to_str().context("a path that is no text")?;
    let flags = libc::O_WRONLY | libc::O_CREAT;
    let arguments = [
        Arg::Number(libc::AT_FDCWD.into()),
        Arg::Text(path),
        Arg::Number(flags.into()),
        Arg::Number(0o600),
    ];
    taken.error(libc::SYS_openat, &arguments)
}

/// What neither daemon may do, whatever it is made to try.
fn nothing_forbidden(taken: &Taken) -> Result<()> {
    let number = |number: i32| Arg::Number(number.into());
    let refused = [libc::EPERM, libc::EACCES];
    let exec = taken.error(
        libc::SYS_execve,
        &[Arg::Text("/bin/true"), Arg::Number(0), Arg::Number(0)],
    )?;
    assert!(refused.contains(&exec), "a program: error {exec}");
    for (what, call, arguments) in [
        (
            "a packet socket",
            libc::SYS_socket,
            &[number(libc::AF_PACKET), number(libc::SOCK_RAW), number(0)][..],
        ),
        (
            "a raw socket",
            libc::SYS_socket,
            &[number(libc::AF_INET), number(libc::SOCK_RAW), number(1)],
        ),
        ("ptrace", libc::SYS_ptrace, &[Arg::Number(16), Arg::Number(1)]),
        ("bpf", libc::SYS_bpf, &[Arg::Number(0)]),
        ("keyctl", libc::SYS_keyctl, &[Arg::Number(0)]),
        (
            "mount",
            libc::SYS_mount,
            &[Arg::Number(0), Arg::Text("/"), Arg::Number(0)],
        ),
        (
            "a user namespace",
            libc::SYS_unshare,
            &[number(libc::CLONE_NEWUSER)],
        ),
        (
            "becoming root",
            libc::SYS_setresuid,
            &[Arg::Number(0), Arg::Number(0), Arg::Number(0)],
        ),
        (
            "a signal to init",
            libc::SYS_kill,
            &[Arg::Number(1), Arg::Number(0)],
        ),
    ] {
        assert_eq!(taken.error(call, arguments)?, libc::EPERM, "{what}");
    }
    Ok(())
}

fn held(lab: &Lab, server: bool) -> Result<Value> {
    let (mut command, pid) = if server {
        (lab.server_command(), lab.server.pid()?)
    } else {
        (lab.agent_command(), lab.agent.pid()?)
    };
    let text = checked(command.args(["privileges", &pid.to_string(), "--json"]))?;
    let all: Value = serde_json::from_str(&text)?;
    Ok(all.get(0).context("nothing is said")?.clone())
}

fn passes(lab: &Lab) -> Result<()> {
    let _web = TcpService::echo(&lab.net.server, 80)?;
    let tried = Attempt::to(addr::SERVER4, 80).run(&lab.net.client)?;
    assert_eq!(tried.outcome, Outcome::Connected);
    lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Established)
        .map(drop)
}

#[test]
fn the_server() {
    with_lab(Options::default(), |lab| {
        let elsewhere = tempfile::tempdir()?;
        {
            let taken = Taken::new(lab.server.pid()?)?;
            // Its own state directory: that the call works at all is seen here.
            assert_eq!(opened_for_writing(&taken, &lab.dir().join("made-by-server"))?, 0);
            for path in [elsewhere.path().join("made"), Path::new("/etc/nufw-made").into()] {
                assert_eq!(
                    opened_for_writing(&taken, &path)?,
                    libc::EACCES,
                    "{}",
                    path.display()
                );
                assert!(!path.exists());
            }
            let secret = elsewhere.path().join("secret");
            std::fs::write(&secret, "x")?;
            let secret = secret.to_str().context("a path that is no text")?;
            let read = [
                Arg::Number(libc::AT_FDCWD.into()),
                Arg::Text(secret),
                Arg::Number(0),
            ];
            assert_eq!(
                taken.error(libc::SYS_openat, &read)?,
                libc::EACCES,
                "others' files"
            );
            nothing_forbidden(&taken)?;
        }
        assert!(lab.dir().join("made-by-server").exists());
        let held = held(lab, true)?;
        assert_eq!(held["effective"], serde_json::json!([]), "{held}");
        assert_eq!(held["permitted"], serde_json::json!([]));
        assert_eq!(held["no_new_privileges"], true);
        assert_eq!(held["filtered"], true, "in every thread");
        assert_eq!(held["sandbox"]["mode"], "enforce");
        assert!(held["sandbox"]["landlock"]["abi"].as_i64() > Some(0), "{held}");
        passes(lab)
    });
}

#[test]
fn the_agent() {
    with_lab(Options::default(), |lab| {
        {
            let taken = Taken::new(lab.agent.pid()?)?;
            for path in [
                lab.dir().join("made-by-agent"),
                Path::new("/etc/nufw-made").into(),
            ] {
                let error = opened_for_writing(&taken, &path)?;
                assert!(
                    [libc::EACCES, libc::EPERM].contains(&error),
                    "{error}: {}",
                    path.display()
                );
                assert!(!path.exists());
            }
            // What it does read: that the call works at all is seen here.
            let ca = lab.dir().join("pki/ca.crt");
            let ca = ca.to_str().context("a path that is no text")?;
            let read = [Arg::Number(libc::AT_FDCWD.into()), Arg::Text(ca), Arg::Number(0)];
            assert_eq!(taken.error(libc::SYS_openat, &read)?, 0);
            nothing_forbidden(&taken)?;
        }
        let held = held(lab, false)?;
        let admin = serde_json::json!(["CAP_NET_ADMIN"]);
        assert_eq!(
            (&held["effective"], &held["permitted"]),
            (&admin, &admin),
            "{held}"
        );
        assert_eq!(held["no_new_privileges"], true);
        assert_eq!(held["filtered"], true);
        let text = checked(
            lab.agent_command()
                .args(["privileges", &lab.agent.pid()?.to_string()]),
        )?;
        for line in ["CAP_NET_ADMIN", "no new privileges     yes", "Landlock"] {
            assert!(text.contains(line), "{text}");
        }
        passes(lab)
    });
}

#[test]
fn both_as_a_user_of_their_own() {
    if !two_users_possible() {
        return;
    }
    let options = Options::prepared()
        .nuauth("privileges.user", "nobody")
        .agent("privileges.user", "nobody");
    with_lab(options, |lab| {
        let owner = format!("{NOBODY}:{NOBODY}");
        // Keys that root reads and the user does not: said at the start, not at the first reload.
        let status = {
            lab.server.start()?;
            lab.server.wait_exit(std::time::Duration::from_mins(1))?
        };
        assert_eq!(status.code(), Some(78), "{}", lab.server.log()?);
        checked(
            std::process::Command::new("chown")
                .args(["-R", &owner])
                .arg(lab.dir()),
        )?;
        lab.start_all()?;
        for server in [true, false] {
            let held = held(lab, server)?;
            assert_eq!(held["uid"], NOBODY, "{held}");
            assert_eq!(held["gid"], NOBODY);
            let kept = if server {
                serde_json::json!([])
            } else {
                serde_json::json!(["CAP_NET_ADMIN"])
            };
            assert_eq!((&held["effective"], &held["bounding"]), (&kept, &kept));
        }
        passes(lab)?;
        lab.server.signal(lab::Signal::HUP)?;
        lab.server.wait_log("reloaded")?;
        Ok(())
    });
}

#[test]
fn a_user_that_does_not_exist_is_said() {
    with_lab(
        Options::prepared().agent("privileges.user", "no-such-user"),
        |lab| {
            lab.agent.start()?;
            let status = lab.agent.wait_exit(std::time::Duration::from_mins(1))?;
            let log = lab.agent.log()?;
            assert_eq!(status.code(), Some(78), "{log}");
            assert!(log.contains("there is no user no-such-user"), "{log}");
            Ok(())
        },
    );
}
