//! The agent as a process in the gateway's namespace, and what it logs.

use super::netns::Netns;
use super::peer::write_pki;
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    dir: TempDir,
}

/// A directory with certificates and a configuration.
pub(crate) fn directory(config: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_pki(dir.path());
    let config = format!("[server]\naddress = \"127.0.0.1\"\nname = \"nuauth.test\"\n{config}");
    fs::write(dir.path().join("nufw-agent.toml"), config).unwrap();
    dir
}

impl Agent {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(netns: &Netns, dir: TempDir, options: &[&str]) -> Self {
        Self::spawn(
            netns,
            dir,
            Command::new(env!("CARGO_BIN_EXE_nufw-agent")),
            options,
        )
    }

    /// Starts one as the unit does: not root, with one capability and no way to another.
    pub(crate) fn start_as_nobody(netns: &Netns, dir: TempDir) -> Self {
        // Where it is built, others may not look.
        let program = dir.path().join("nufw-agent");
        fs::copy(env!("CARGO_BIN_EXE_nufw-agent"), &program).unwrap();
        let owned = Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(dir.path())
            .status();
        assert!(owned.unwrap().success());
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .args(["--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"])
            .arg("--bounding-set=-all,+net_admin")
            .arg(program);
        Self::spawn(netns, dir, command, &[])
    }

    /// Starts a program of the caller's, as it comes.
    pub(crate) fn start_command(netns: &Netns, dir: TempDir, command: Command) -> Self {
        Self::spawn(netns, dir, command, &[])
    }

    /// Kills it, supervisor and worker, and gives its directory to another.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    fn spawn(netns: &Netns, dir: TempDir, mut command: Command, options: &[&str]) -> Self {
        let log = fs::File::create(dir.path().join("log")).unwrap();
        command
            .arg("-f")
            .arg(dir.path().join("nufw-agent.toml"))
            .args(options)
            .env("NUFW_LOG", "nufw_agent=debug")
            .stderr(log)
            .stdin(Stdio::null());
        let child = netns.run(move || command.spawn().unwrap());
        let mut agent = Self { child, dir };
        agent.wait_for_log("ready");
        agent
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of its worker; waits until there is one other than `not`.
    pub(crate) fn worker(&mut self, not: Option<u32>) -> u32 {
        for _ in 0..400 {
            let found = workers(self.pid()).into_iter().find(|pid| Some(*pid) != not);
            match found {
                Some(pid) => return pid,
                None => std::thread::sleep(Duration::from_millis(25)),
            }
        }
        panic!("the agent has no worker:\n{}", self.log());
    }

    /// Whether it has a worker at this moment.
    pub(crate) fn has_worker(&self) -> bool {
        !workers(self.pid()).is_empty()
    }

    /// Kills its worker as a crash would, and waits for the next.
    pub(crate) fn kill_worker(&mut self) -> u32 {
        let worker = self.worker(None);
        send("KILL", worker);
        self.worker(Some(worker))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits until it has logged something.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        self.wait_for_logs(text, 1);
    }

    /// Waits until it has logged something so many times.
    pub(crate) fn wait_for_logs(&mut self, text: &str, times: usize) {
        for _ in 0..400 {
            if self.log().matches(text).count() >= times {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the agent ended with {status}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the agent did not log {text:?}:\n{}", self.log());
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        send(name, self.child.id());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        for _ in 0..400 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the agent does not end:\n{}", self.log());
    }
}

/// Sends a signal to a process.
pub(crate) fn send(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// The value of a line of `/proc/PID/status`.
pub(crate) fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The workers of an agent: the supervisor also runs the listing commands.
fn workers(parent: u32) -> Vec<u32> {
    let is_worker = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text.contains(&format!("\nPPid:\t{parent}\n"))
            && arguments.split('\0').any(|argument| argument == "--as-worker")
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_worker)
        .collect()
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("the agent's log:\n{log}");
        }
    }
}
