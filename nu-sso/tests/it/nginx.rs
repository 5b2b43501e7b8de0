//! The sample configuration of nginx, in nginx.

use crate::log::{Conn, block_on, store};
use crate::process::{Proc, ask, free_port, program, serve, until};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use tempfile::tempdir;

/// An application that answers with the user it is told.
fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let users: Vec<_> = head
                .lines()
                .filter_map(|line| line.strip_prefix("x-remote-user: "))
                .collect();
            let body = format!("users={}", users.join("+"));
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

#[test]
fn the_application_learns_the_user_and_nobody_else_gets_in() {
    let Some(nginx) = program("nginx", "nginx-light") else {
        return;
    };
    let dir = tempdir().unwrap();
    let mut store = block_on(store(dir.path()));
    // nginx's workers would be another user's, and the directory is this one's.
    let _sso = serve(dir.path(), "[serve]\nallow-users = []\n");
    let (web, application) = (free_port(), application());
    let sample = include_str!("../../../conf/nginx-nu-sso.conf")
        .replace(
            "/run/nu-sso/nu-sso.sock",
            &format!("{}/sso.sock", dir.path().display()),
        )
        .replace("listen 80;", &format!("listen 127.0.0.1:{web};"))
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{application}"));
    assert!(sample.contains(&format!("127.0.0.1:{application}")) && sample.contains("sso.sock"));
    std::fs::write(dir.path().join("nginx-nu-sso.conf"), sample).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.path().display()))
        .concat();
    let root = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    let main = format!(
        "{root}daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}include {dir}/nginx-nu-sso.conf;\n}}\n",
        dir = dir.path().display()
    );
    let config = dir.path().join("nginx.conf");
    std::fs::write(&config, main).unwrap();
    let mut command = Command::new(nginx);
    command
        .arg("-c")
        .arg(&config)
        .arg("-e")
        .arg(dir.path().join("error.log"));
    // An own process for the worker too, which ends with its master.
    let nginx = Proc(command.stdin(Stdio::null()).spawn().unwrap());
    until("nginx", || TcpStream::connect(("127.0.0.1", web)).is_ok());

    let request = "GET /page HTTP/1.1\r\nHost: site\r\nX-Remote-User: mallory\r\nX-NuFW-Src: 9.9.9.9\r\nConnection: close\r\n\r\n";
    let mut known = TcpStream::connect(("127.0.0.1", web)).unwrap();
    let source = known.local_addr().unwrap().to_string();
    let conn = Conn::plain(1, "alice", &source, &format!("127.0.0.1:{web}"));
    block_on(store.apply(&conn.live())).unwrap();
    let answer = ask(&mut known, request);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("users=alice"),
        "{answer}"
    );

    let mut unknown = TcpStream::connect(("127.0.0.1", web)).unwrap();
    let answer = ask(&mut unknown, request);
    assert!(
        answer.starts_with("HTTP/1.1 401") && answer.ends_with("Log in to the firewall first.\n"),
        "{answer}"
    );

    let mut direct = TcpStream::connect(("127.0.0.1", web)).unwrap();
    let answer = ask(&mut direct, &request.replace("/page", "/.nu-sso"));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // In order, so that the worker goes as well.
    nginx.signal("TERM");
    let mut nginx = nginx;
    nginx.wait();
}
