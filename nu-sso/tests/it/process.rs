//! Programs that a test starts, and ends with itself.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) const NU_SSO: &str = env!("CARGO_BIN_EXE_nu-sso");

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A child that does not outlive the test.
pub(crate) struct Proc(pub(crate) Child);

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Proc {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        until("the program to end", || match self.0.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        code
    }
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = nufw_common::clock::mono();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `nu-sso` on the log in a directory, with no other configuration than this text.
pub(crate) fn nu_sso(dir: &Path, config: &str) -> Command {
    let file = dir.join("nu-sso.toml");
    let text = format!(
        "[log]\ndatabase = \"sqlite:{}/nulog.db\"\n{config}",
        dir.display()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(NU_SSO);
    command.arg("--config").arg(file);
    command
}

/// `nu-sso serve` on a socket in the directory, ready.
pub(crate) fn serve(dir: &Path, config: &str) -> Proc {
    let mut command = nu_sso(dir, config);
    command
        .arg("serve")
        .arg("--listen")
        .arg(format!("unix:{}/sso.sock", dir.display()));
    start_ready(command)
}

pub(crate) fn start_ready(mut command: Command) -> Proc {
    let mut child = Proc(
        command
            .stderr(Stdio::piped())
            .env_remove("NUFW_LOG")
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "it ended before it was ready"
        );
        eprint!("{line}");
    }
    std::thread::spawn(move || {
        let mut rest = String::new();
        let _ = log.read_to_string(&mut rest);
        eprint!("{rest}");
    });
    child
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// One request over a new connection; the answer in lower case up to its end.
pub(crate) fn ask(stream: &mut (impl Read + Write), request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn unix(dir: &Path) -> UnixStream {
    let stream = UnixStream::connect(dir.join("sso.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A program of Debian's, or a loud skip.
pub(crate) fn program(name: &str, package: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let thread = std::thread::current();
        // Past the capture of the test harness, which would hide it.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {}: needs {name}: run `apt-get install {package}`",
            thread.name().unwrap_or("test")
        );
    }
    found
}
