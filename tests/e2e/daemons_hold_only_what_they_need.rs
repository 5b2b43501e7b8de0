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

/// What `privileges` says of a process.
fn held(lab: &Lab, pid: u32) -> Result<Value> {
    let text = checked(
        lab.agent_command()
            .args(["privileges", &pid.to_string(), "--json"]),
    )?;
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
        let held = held(lab, lab.server.pid()?)?;
        assert_eq!(held["effective"], serde_json::json!([]), "{held}");
        assert_eq!(held["permitted"], serde_json::json!([]));
        assert_eq!(held["no_new_privileges"], true);
        assert_eq!(held["filtered"], true, "in every thread");
        assert_eq!(held["sandbox"]["mode"], "enforce");
        assert!(held["sandbox"]["landlock"]["abi"].as_i64() > Some(0), "{held}");
        passes(lab)
    });
}

/// Neither half of the agent writes a file or reads others', and `privileges` says what each holds.
#[test]
fn the_agent() {
    with_lab(Options::default(), |lab| {
        let (supervisor, worker) = (lab.agent.pid()?, lab.agent.worker(None)?);
        for pid in [supervisor, worker] {
            let taken = Taken::new(pid)?;
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
            // The boundary: netlink is the supervisor's, and so is the name of the status socket.
            let netlink = [
                Arg::Number(libc::AF_NETLINK.into()),
                Arg::Number(libc::SOCK_RAW.into()),
                Arg::Number(libc::NETLINK_NETFILTER.into()),
            ];
            let expected = if pid == supervisor { 0 } else { libc::EPERM };
            assert_eq!(taken.error(libc::SYS_socket, &netlink)?, expected, "netlink");
            if pid == worker {
                // The sockets are its successors', too. NETLINK_DROP_MEMBERSHIP is 2 (linux/netlink.h).
                let deaf = [
                    Arg::Number(-1),
                    Arg::Number(libc::SOL_NETLINK.into()),
                    Arg::Number(2),
                ];
                assert_eq!(taken.error(libc::SYS_setsockopt, &deaf)?, libc::EPERM, "deaf");
                let status = lab.dir().join("agent.sock");
                let status = status.to_str().context("a path that is no text")?;
                assert_eq!(taken.error(libc::SYS_unlink, &[Arg::Text(status)])?, libc::EPERM);
                let parent = [Arg::Number(supervisor.into()), Arg::Number(0)];
                assert_eq!(
                    taken.error(libc::SYS_kill, &parent)?,
                    libc::EPERM,
                    "its supervisor"
                );
            }
        }
        let admin = serde_json::json!(["CAP_NET_ADMIN"]);
        let none = serde_json::json!([]);
        for (pid, profile, kept) in [
            (supervisor, "nufw-agent supervisor", &admin),
            (worker, "nufw-agent worker", &none),
        ] {
            let held = held(lab, pid)?;
            assert_eq!((&held["effective"], &held["permitted"]), (kept, kept), "{held}");
            assert_eq!(held["bounding"], admin, "{held}");
            assert_eq!(held["no_new_privileges"], true);
            assert_eq!(held["filtered"], true, "in every thread");
            assert_eq!(held["sandbox"]["profile"], profile, "{held}");
            assert_eq!(held["sandbox"]["mode"], "enforce");
            assert!(held["sandbox"]["landlock"]["abi"].as_i64() > Some(0), "{held}");
        }
        let held = held(lab, worker)?;
        assert_eq!(
            (&held["sandbox"]["write"], &held["sandbox"]["execute"]),
            (&none, &none)
        );
        let text = checked(lab.agent_command().args(["privileges", &supervisor.to_string()]))?;
        for line in ["CAP_NET_ADMIN", "no new privileges     yes", "Landlock"] {
            assert!(text.contains(line), "{text}");
        }
        passes(lab)
    });
}

/// The channel to the supervisor among a worker's descriptors: its only socket that keeps the bounds of messages.
fn channel(worker: u32) -> Result<i64> {
    // Num RefCount Protocol Flags Type St Inode Path; type 5 is SOCK_SEQPACKET.
    let table = std::fs::read_to_string(format!("/proc/{worker}/net/unix"))?;
    let sockets: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            (fields.get(4) == Some(&"0005")).then(|| format!("socket:[{}]", fields.get(6).unwrap_or(&"")))
        })
        .collect();
    for entry in std::fs::read_dir(format!("/proc/{worker}/fd"))? {
        let path = entry?.path();
        let link = std::fs::read_link(&path)?;
        if sockets.iter().any(|socket| link.as_os_str() == socket.as_str()) {
            let name = path
                .file_name()
                .context("no name")?
                .to_string_lossy()
                .into_owned();
            return Ok(name.parse()?);
        }
    }
    anyhow::bail!("the worker has no channel")
}

/// A worker that was taken over asks for what is on no list: it is ended, its successor asks about the packets that it held,
/// and it goes on so however often.
#[test]
fn a_worker_that_asks_for_more_is_replaced_and_its_packets_wait() {
    with_lab(Options::default(), |lab| {
        let _web = TcpService::echo(&lab.net.server, 80)?;
        let mut worker = lab.agent.worker(None)?;
        for (times, nonsense) in [
            // A kind that there is not, a verdict that there is not, and that it is ready, for a second time.
            "c",
            "\u{3}\u{5}.\u{1}.........",
            "\u{1}",
        ]
        .into_iter()
        .enumerate()
        {
            let descriptor = channel(worker)?;
            let tried = {
                let taken = Taken::new(worker)?;
                let arguments = [
                    Arg::Number(descriptor),
                    Arg::Text(nonsense),
                    Arg::Number(i64::try_from(nonsense.len())?),
                ];
                let gateway = lab.net.client.clone();
                // While the worker stands still the packet waits in the queue, or in its hands afterwards.
                let trying = std::thread::spawn(move || Attempt::to(addr::SERVER4, 80).run(&gateway));
                let before = lab.queued()?;
                lab::wait_for(
                    "the packet to be queued",
                    std::time::Duration::from_secs(30),
                    || Ok(lab.queued()? > before || trying.is_finished()),
                )?;
                // It may be dead before it is seen to have done so.
                taken.error(libc::SYS_write, &arguments).ok();
                trying
            };
            lab.agent.wait_count("linked to the server", times + 2)?;
            let tried = tried
                .join()
                .map_err(|_| anyhow::anyhow!("the attempt panicked"))??;
            assert_eq!(tried.outcome, Outcome::Connected, "{nonsense:?}");
            worker = lab.agent.worker(Some(worker))?;
        }
        lab.agent
            .wait_log("the worker asks for what it may not have")
            .map(drop)
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
        for (pid, kept) in [
            (lab.server.pid()?, serde_json::json!([])),
            (lab.agent.pid()?, serde_json::json!(["CAP_NET_ADMIN"])),
            (lab.agent.worker(None)?, serde_json::json!([])),
        ] {
            let held = held(lab, pid)?;
            assert_eq!(
                (&held["uid"], &held["gid"]),
                (&NOBODY.into(), &NOBODY.into()),
                "{held}"
            );
            assert_eq!(held["effective"], kept);
        }
        passes(lab)?;
        lab.server.signal(lab::Signal::HUP)?;
        lab.server.wait_log("reloaded")?;
        // Another version takes over: still that user, and still with what it needs.
        lab.agent.signal(lab::Signal::USR2)?;
        lab.agent.wait_count("linked to the server", 2)?;
        let held = held(lab, lab.agent.pid()?)?;
        assert_eq!(
            (&held["uid"], &held["effective"][0]),
            (&NOBODY.into(), &"CAP_NET_ADMIN".into())
        );
        passes(lab)
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
