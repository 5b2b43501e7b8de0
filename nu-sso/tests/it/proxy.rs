//! The sample configuration of Squid, in Squid.

use crate::log::{Conn, block_on, store};
use crate::process::{NU_SSO, Proc, ask, free_port, program, until};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use tempfile::tempdir;

fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\norigin");
        }
    });
    port
}

#[test]
fn a_known_user_passes_by_name_and_nobody_else_does() {
    let Some(squid) = program("squid", "squid") else {
        return;
    };
    let dir = tempdir().unwrap();
    let path = dir.path().display();
    let mut store = block_on(store(dir.path()));
    let (port, origin) = (free_port(), origin());
    let helper = dir.path().join("nu-sso.toml");
    std::fs::write(&helper, format!("[log]\ndatabase = \"sqlite:{path}/nulog.db\"\n")).unwrap();
    let sample = include_str!("../../../conf/squid-nu-sso.conf").replace(
        "/usr/bin/nu-sso squid",
        &format!("{NU_SSO} --config {} squid", helper.display()),
    );
    assert!(sample.contains(NU_SSO));
    std::fs::write(dir.path().join("squid-nu-sso.conf"), sample).unwrap();
    let config = format!(
        "http_port 127.0.0.1:{port}\npid_filename none\ncache deny all\ncache_log {path}/cache.log\n\
         logformat who %ul %un %>Hs\naccess_log stdio:{path}/access.log who\nvisible_hostname lab\n\
         coredump_dir none\nshutdown_lifetime 0 seconds\npinger_enable off\n\
         include {path}/squid-nu-sso.conf\nhttp_access allow all\n"
    );
    std::fs::write(dir.path().join("squid.conf"), config).unwrap();
    if rustix::process::geteuid().is_root() {
        // Squid gives root away: what it and its helper use is for everybody here.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::set_permissions(entry.unwrap().path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    let mut command = Command::new(squid);
    command
        .args(["-N", "-n"])
        .arg(format!("t{port}"))
        .arg("-f")
        .arg(dir.path().join("squid.conf"));
    let mut squid = Proc(command.stdin(Stdio::null()).spawn().unwrap());
    let log = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    until("squid", || {
        assert!(squid.0.try_wait().unwrap().is_none(), "{}", log("cache.log"));
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });

    let request =
        format!("GET http://127.0.0.1:{origin}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let mut known = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let source = known.local_addr().unwrap().to_string();
    let conn = Conn::plain(1, "al ice", &source, &format!("127.0.0.1:{port}"));
    block_on(store.apply(&conn.live())).unwrap();
    let answer = ask(&mut known, &request);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("origin"),
        "{answer}\n{}",
        log("cache.log")
    );

    let mut unknown = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let answer = ask(&mut unknown, &request);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    until("the access log", || log("access.log").contains(" 403"));
    let access = log("access.log");
    assert!(
        access
            .lines()
            .any(|line| line.contains("al ice") && line.ends_with("200")),
        "{access}"
    );
    squid.signal("TERM");
    squid.wait();
}
