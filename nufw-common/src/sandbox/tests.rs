//! The profile against the kernel: what is forbidden fails, what is needed works.
//!
//! Each test confines a thread of its own: that is what the kernel confines, and the others must stay free.

use super::*;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;

/// Runs `work` in a thread that is confined to the profile.
fn confined<T: Send + 'static>(profile: Profile, work: impl FnOnce(&Confinement) -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        let confinement = profile.apply(Mode::Enforce).unwrap();
        work(&confinement)
    })
    .join()
    .unwrap()
}

fn refused(result: io::Result<impl Sized>) -> bool {
    match result {
        Ok(_) => false,
        // Landlock says EACCES of files and ports, seccomp EPERM, and who reaches out of a scope hears EPERM.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// The number of an error of a bare system call; 0 if it worked.
fn call(number: libc::c_long, arguments: [libc::c_long; 5]) -> i32 {
    let [first, second, third, fourth, fifth] = arguments;
    #[expect(unsafe_code, reason = "calls that no crate wraps, tried on purpose")]
    // SAFETY: every caller passes numbers and null pointers alone, with which each of these calls fails or does nothing.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
    if result < 0 {
        io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    } else {
        0
    }
}

#[test]
fn what_no_daemon_needs_is_refused_by_the_filter() {
    let tried = confined(Profile::new("nothing"), |_| {
        let raw = i64::from(libc::SOCK_RAW);
        [
            ("ptrace", call(libc::SYS_ptrace, [16, 1, 0, 0, 0])),
            ("mount", call(libc::SYS_mount, [0; 5])),
            ("bpf", call(libc::SYS_bpf, [0; 5])),
            ("keyctl", call(libc::SYS_keyctl, [0; 5])),
            ("unshare", call(libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0])),
            ("setns", call(libc::SYS_setns, [-1, 0, 0, 0, 0])),
            ("io_uring_setup", call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0])),
            ("perf_event_open", call(libc::SYS_perf_event_open, [0; 5])),
            ("userfaultfd", call(libc::SYS_userfaultfd, [0; 5])),
            (
                "process_vm_readv",
                call(libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
            ),
            ("init_module", call(libc::SYS_init_module, [0; 5])),
            ("reboot", call(libc::SYS_reboot, [0; 5])),
            (
                "personality",
                call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0]),
            ),
            ("setresuid", call(libc::SYS_setresuid, [-1, -1, -1, 0, 0])),
            ("memfd_create", call(libc::SYS_memfd_create, [0; 5])),
            ("kill", call(libc::SYS_kill, [1, 0, 0, 0, 0])),
            ("tgkill of another", call(libc::SYS_tgkill, [1, 1, 0, 0, 0])),
            (
                "a packet socket",
                call(libc::SYS_socket, [libc::AF_PACKET.into(), raw, 0, 0, 0]),
            ),
            (
                "a raw socket",
                call(libc::SYS_socket, [libc::AF_INET.into(), raw, 1, 0, 0]),
            ),
            (
                "an alg socket",
                call(libc::SYS_socket, [libc::AF_ALG.into(), 5, 0, 0, 0]),
            ),
            (
                "a TCP socket",
                call(libc::SYS_socket, [libc::AF_INET.into(), 1, 0, 0, 0]),
            ),
            ("TIOCSTI", call(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0])),
            (
                "memory that is code and can be written",
                call(libc::SYS_mmap, [0, 4096, 7, 0x22, -1]),
            ),
            ("code out of data", call(libc::SYS_mprotect, [0, 4096, 5, 0, 0])),
            (
                "a process in a user namespace",
                call(libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0]),
            ),
        ]
    });
    for (what, error) in tried {
        assert_eq!(error, libc::EPERM, "{what}");
    }
}

#[test]
fn a_c_library_is_told_that_there_is_no_clone3_and_threads_go_on() {
    let (clone3, sum) = confined(Profile::new("nothing"), |_| {
        let threads: Vec<_> = (1..=4).map(|n| std::thread::spawn(move || n)).collect();
        let sum: i32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        (call(libc::SYS_clone3, [0; 5]), sum)
    });
    assert_eq!((clone3, sum), (libc::ENOSYS, 10));
}

#[test]
fn files_are_made_in_the_state_directory_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (state, other) = (dir.path().join("state"), dir.path().join("other"));
    fs::create_dir(&state).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("there"), "kept").unwrap();
    fs::write(other.join("removable"), "kept").unwrap();
    let kept = other.clone();
    confined(Profile::new("writer").write(&state), move |_| {
        fs::write(state.join("a"), "text").unwrap();
        fs::rename(state.join("a"), state.join("b")).unwrap();
        let mut file = File::options().append(true).open(state.join("b")).unwrap();
        file.write_all(b" and more").unwrap();
        file.sync_all().unwrap();
        file.set_len(4).unwrap();
        assert_eq!(fs::read(state.join("b")).unwrap(), b"text");
        fs::remove_file(state.join("b")).unwrap();
        assert!(refused(fs::write(other.join("new"), "x")));
        assert!(refused(fs::write(other.join("there"), "x")));
        assert!(refused(fs::remove_file(other.join("removable"))));
        assert!(
            refused(fs::read(other.join("there"))),
            "nor read what is not in the profile"
        );
        assert!(refused(fs::read_dir(&other)));
        assert!(refused(fs::write("/tmp/nufw-sandbox-test", "x")));
        assert!(
            refused(fs::create_dir(state.join("sub"))),
            "no directory is needed"
        );
    });
    assert_eq!(fs::read(kept.join("there")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(kept).unwrap().count(), 2);
}

#[test]
fn a_profile_without_a_state_directory_opens_nothing_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("conf");
    fs::write(&file, "x").unwrap();
    let profile = Profile::new("reader").read(dir.path());
    confined(profile, move |_| {
        assert_eq!(fs::read(&file).unwrap(), b"x");
        let error = File::options().write(true).open(&file).unwrap_err();
        // The filter is asked before Landlock: it holds also on a kernel without.
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    });
}

#[test]
fn a_file_that_was_replaced_by_a_rename_can_still_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (conf, archive) = (dir.path().join("conf"), dir.path().join("archive"));
    fs::create_dir(&conf).unwrap();
    fs::create_dir(&archive).unwrap();
    fs::write(conf.join("users.toml"), "1").unwrap();
    fs::write(archive.join("key1"), "key 1").unwrap();
    let link = conf.join("key");
    std::os::unix::fs::symlink(archive.join("key1"), &link).unwrap();
    let profile = Profile::new("reader")
        .read_replaceable(&conf.join("users.toml"))
        .read_replaceable(&link);
    let (told, hear) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn({
        let conf = conf.clone();
        move || {
            profile.apply(Mode::Enforce).unwrap();
            told.send(()).unwrap();
            wait.recv().unwrap();
            (
                fs::read_to_string(conf.join("users.toml")).unwrap(),
                fs::read_to_string(conf.join("key")).unwrap(),
            )
        }
    });
    hear.recv().unwrap();
    fs::write(conf.join("users.new"), "2").unwrap();
    fs::rename(conf.join("users.new"), conf.join("users.toml")).unwrap();
    fs::write(archive.join("key2"), "key 2").unwrap();
    std::os::unix::fs::symlink(archive.join("key2"), conf.join("key.new")).unwrap();
    fs::rename(conf.join("key.new"), &link).unwrap();
    go.send(()).unwrap();
    assert_eq!(reader.join().unwrap(), ("2".to_owned(), "key 2".to_owned()));
}

#[test]
fn only_the_named_program_is_started() {
    let profile = Profile::new("starter").execute("true");
    confined(profile, |confinement| {
        assert_eq!(confinement.execute.len(), 1);
        assert!(Command::new("true").status().unwrap().success());
        assert!(refused(Command::new("false").status()), "another program");
        assert!(refused(Command::new("/bin/sh").args(["-c", "true"]).status()));
    });
    confined(Profile::new("none"), |_| {
        assert!(refused(Command::new("true").status()), "no program at all");
    });
}

#[test]
fn what_is_started_is_held_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("made");
    let profile = Profile::new("starter").execute("touch");
    let status = confined(profile, {
        let target = target.clone();
        move |_| Command::new("touch").arg(target).status().unwrap()
    });
    assert!(!status.success());
    assert!(!target.exists());
}

#[test]
fn tcp_goes_to_the_named_port_alone() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let (to, not) = (open.local_addr().unwrap(), closed.local_addr().unwrap());
    let profile = Profile::new("caller").family(Family::Internet).connect(to.port());
    confined(profile, move |confinement| {
        TcpStream::connect(to).unwrap();
        let ports = confinement.landlock.is_some_and(|landlock| landlock.abi >= 4);
        if ports {
            assert!(refused(TcpStream::connect(not)));
            assert!(
                refused(TcpListener::bind("127.0.0.1:0")),
                "nothing is listened on"
            );
        }
        // Name servers are asked by datagrams, which Landlock leaves alone.
        UdpSocket::bind("127.0.0.1:0").unwrap().connect(to).unwrap();
        assert!(
            refused(UnixDatagram::unbound()),
            "a family that is not in the profile"
        );
    });
}

#[test]
fn a_socket_is_made_where_sockets_may_be_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (run, other) = (dir.path().join("run"), dir.path().join("other"));
    fs::create_dir(&run).unwrap();
    fs::create_dir(&other).unwrap();
    let profile = Profile::new("listener").family(Family::Unix).sockets(&run);
    confined(profile, move |_| {
        let listener = UnixListener::bind(run.join("socket")).unwrap();
        fs::remove_file(run.join("socket")).unwrap();
        drop(listener);
        assert!(refused(UnixListener::bind(other.join("socket"))));
        assert!(refused(fs::write(run.join("file"), "x")), "a socket, not a file");
    });
}

#[test]
fn signals_reach_nobody_outside() {
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i64::from(other.id());
    let profile = Profile::new("killer").execute("true");
    let (error, abi) = confined(profile, move |confinement| {
        (
            call(libc::SYS_kill, [pid, 0, 0, 0, 0]),
            confinement.landlock.map_or(0, |landlock| landlock.abi),
        )
    });
    other.kill().unwrap();
    other.wait().unwrap();
    // The filter lets a daemon that starts programs end them; Landlock knows which are its own.
    assert_eq!(error, if abi >= 6 { libc::EPERM } else { 0 });
}

#[test]
fn a_process_says_what_it_is_held_to_and_nobody_can_change_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_path_buf();
    let profile = Profile::new("note").write(dir.path()).execute("true");
    let script = std::env::current_exe().unwrap();
    // Another process, since this one has as many notes as tests.
    let child = Command::new(script)
        .args([
            "--exact",
            "sandbox::tests::holds_a_note_for_another_test",
            "--ignored",
            "--nocapture",
        ])
        .env("NUFW_TEST_STATE", &state)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut out = io::BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("confined now") {
        line.clear();
        assert!(
            io::BufRead::read_line(&mut out, &mut line).unwrap() > 0,
            "the child ended"
        );
    }
    let held = privileges::Held::look(child.0.id()).unwrap();
    let sandbox = held.sandbox.expect("the note");
    assert_eq!(sandbox, profile.describe(Mode::Enforce).with(&sandbox));
    assert!(sandbox.landlock.is_some_and(|landlock| landlock.abi > 0));
    assert!(sandbox.calls.is_some_and(|calls| calls > 50));
    let note = fs::read_dir(format!("/proc/{}/fd", child.0.id()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains(NOTE)))
        .unwrap();
    let error = File::options()
        .write(true)
        .open(note)
        .unwrap()
        .write_all(b"x")
        .unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM), "sealed");
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "run by a_process_says_what_it_is_held_to_and_nobody_can_change_it"]
fn holds_a_note_for_another_test() {
    let state = std::env::var_os("NUFW_TEST_STATE").expect("run by another test");
    let profile = Profile::new("note").write(state).execute("true");
    profile.apply(Mode::Enforce).unwrap();
    let mut out = io::stdout().lock();
    writeln!(out, "\nconfined now").unwrap();
    out.flush().unwrap();
    io::stdin().read_line(&mut String::new()).unwrap();
}

impl Confinement {
    /// The same with what only the kernel knows.
    fn with(mut self, other: &Self) -> Self {
        (self.landlock, self.calls) = (other.landlock, other.calls);
        self
    }
}

#[test]
fn capabilities_are_given_up_even_without_a_sandbox() {
    std::thread::spawn(|| {
        let confinement = Profile::new("off").apply(Mode::Off).unwrap();
        assert_eq!((confinement.landlock, confinement.calls), (None, None));
        assert!(!privileges::has(Capability::CAP_SYS_ADMIN));
        assert!(rustix::thread::no_new_privs().unwrap());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "free").unwrap();
    })
    .join()
    .unwrap();
}

#[test]
fn a_supervisor_can_confine_what_it_starts_further() {
    let profile = Profile::new("supervisor").confines_children();
    confined(profile, |_| {
        std::thread::spawn(|| {
            Profile::new("worker").apply(Mode::Enforce).unwrap();
            assert_eq!(call(libc::SYS_seccomp, [0; 5]), libc::EPERM);
            assert!(refused(Command::new("true").status()));
        })
        .join()
        .unwrap();
    });
}

#[test]
fn whoever_shares_sockets_changes_nothing_about_them() {
    let profile = Profile::new("worker").family(Family::Internet).shares_sockets();
    let (one, other) = confined(profile, |_| {
        let option =
            |level: i32, option: i32| call(libc::SYS_setsockopt, [-1, level.into(), option.into(), 0, 0]);
        // NETLINK_DROP_MEMBERSHIP is 2 (linux/netlink.h).
        let refused = [
            option(libc::SOL_NETLINK, 2),
            option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            option(libc::SOL_SOCKET, libc::SO_LOCK_FILTER),
            option(libc::SOL_SOCKET, libc::SO_RCVBUF),
            call(libc::SYS_bind, [-1, 0, 0, 0, 0]),
            call(libc::SYS_listen, [-1, 0, 0, 0, 0]),
        ];
        let reaches_the_kernel = [
            option(libc::IPPROTO_TCP, libc::TCP_NODELAY),
            option(libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        ];
        (refused, reaches_the_kernel)
    });
    assert_eq!(one, [libc::EPERM; 6]);
    assert_eq!(other, [libc::EBADF; 2]);
}

#[test]
fn the_modes_have_their_names() {
    for mode in [Mode::Enforce, Mode::BestEffort, Mode::Off] {
        assert_eq!(mode.to_string().parse::<Mode>(), Ok(mode));
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.to_string());
    }
    assert!("on".parse::<Mode>().is_err());
}
