//! What tests arrange in a lab beside the usual: other clients, other agents, traces, disks that fill, locks.
//!
//! Nothing here is needed by the demonstration or the measurements.

use crate::command::{binary, checked, in_path};
use crate::daemons::{Lab, SERVER_NAME};
use crate::net::addr;
use crate::process::{Proc, Spec};
use crate::traffic::{Attempt, Outcome};
use crate::wait::wait_for;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take until something passes again.
const BACK: Duration = Duration::from_mins(1);

impl Lab {
    /// A user's client that runs as another user of the client host.
    pub fn client_as(&self, user: &str, uid: u32) -> Result<Spec> {
        let copy = self.dir().join("nutcpc");
        if !copy.exists() {
            // By a process of its own: a descriptor open for writing here would be inherited by whatever another thread
            // starts at that moment, and a program that is open for writing cannot be run.
            checked(Command::new("cp").arg(binary("nutcpc")?).arg(&copy))?;
        }
        let home = self.dir().join(format!("home-{uid}"));
        std::fs::create_dir_all(&home)?;
        std::fs::copy(self.dir().join("pki/ca.crt"), home.join("ca.crt"))?;
        std::fs::copy(self.dir().join("password"), home.join("password"))?;
        for path in [home.clone(), home.join("ca.crt"), home.join("password")] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid))?;
        }
        let mut spec = self.client_base(user)?;
        spec.program = copy;
        spec.uid = Some(uid);
        spec.dir.clone_from(&home);
        Ok(spec.args(["--user", user]).args([
            "--ca".into(),
            home.join("ca.crt"),
            "--password-file".into(),
            home.join("password"),
        ]))
    }

    /// A user's client with a password from a file.
    pub fn client_with_password(&self, user: &str, file: &Path) -> Result<Spec> {
        let ca = self.dir().join("pki/ca.crt");
        let files = ["--ca".into(), ca, "--password-file".into(), file.to_path_buf()];
        Ok(self.client_base(user)?.args(["--user", user]).args(files))
    }

    /// A client that logs in by a Kerberos ticket; where that is, its environment says.
    pub fn client_by_ticket(&self, name: &str) -> Result<Spec> {
        let ca = self.dir().join("pki/ca.crt");
        let spec = self.client_base(name)?.args(["--ca".into(), ca]);
        Ok(spec.args(["--kerberos"]))
    }

    /// A client with the certificate of that name.
    pub fn client_with_certificate(&self, name: &str) -> Result<Spec> {
        let pki = self.dir().join("pki");
        Ok(self.client_base(name)?.args([
            "--ca".into(),
            pki.join("ca.crt"),
            "--certificate".into(),
            pki.join(format!("{name}.crt")),
            "--key".into(),
            pki.join(format!("{name}.key")),
        ]))
    }

    /// A second agent with the same configuration, and more arguments.
    pub fn second_agent(&self, args: &[&str]) -> Result<Spec> {
        let spec = Spec::new(
            "second-agent",
            &self.net.gateway,
            binary("nufw-agent")?,
            self.dir(),
        );
        Ok(spec
            .args(["-f".into(), self.dir().join("nufw-agent.toml")])
            .env(
                "NUFW_AGENT_STATUS_SOCKET",
                &self.dir().join("second-agent.sock").display().to_string(),
            )
            .args(args.iter().copied()))
    }

    /// A server with another configuration file.
    pub fn server_with(&self, config: &Path) -> Result<Spec> {
        let spec = Spec::new(
            "second-server",
            &self.net.gateway,
            binary("nuauth-server")?,
            self.dir(),
        );
        Ok(spec.args(["--config".into(), config.to_path_buf()]))
    }

    /// `nuauth-server pki` on the lab's directory.
    pub fn pki(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("nuauth-server")?);
        command
            .arg("pki")
            .args(words)
            .arg("--dir")
            .arg(self.dir().join("pki"));
        Ok(command)
    }

    /// Waits until a connection of the client host to a TCP port of the server host passes.
    pub fn wait_passes(&self, port: u16) -> Result<()> {
        wait_for(&format!("a connection to port {port} to pass"), BACK, || {
            let attempt = Attempt::to(addr::SERVER4, port).within(Duration::from_secs(1));
            Ok(attempt.run(&self.net.client)?.outcome == Outcome::Connected)
        })
    }

    /// The server host ignores a port.
    pub fn drop_at_server(&self, protocol: &str, port: u16) -> Result<()> {
        let rule = format!("-w -A INPUT -p {protocol} --dport {port} -j DROP");
        checked(self.net.server.command("iptables").args(rule.split(' '))).map(drop)
    }

    /// How many packets the gateway's queue has seen.
    pub fn queued(&self) -> Result<u64> {
        let text = self
            .net
            .gateway
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"))??;
        // The eighth column is the id of the last packet.
        text.split_whitespace()
            .nth(7)
            .context("no queue is bound")?
            .parse()
            .context("not a number")
    }

    /// Queues what is for the gateway itself, too.
    pub fn apply_input_rules(&self) -> Result<()> {
        self.apply_rules(&["--hook=forward,input"])?;
        // The agent knows the server by its IPv4 address only.
        let server = addr::GATEWAY6;
        self.net.ip6tables(&format!(
            "-t mangle -I INPUT -d {server} -p tcp --dport 4129 -j ACCEPT"
        ))
    }

    /// Puts the log on a disk of its own, which only the server sees; for a server that does not run.
    pub fn log_on_small_disk(&mut self, options: &str) -> Result<()> {
        let disk = self.dir().join("disk");
        std::fs::create_dir_all(&disk)?;
        let config = self.dir().join("nuauth.toml");
        let text = std::fs::read_to_string(&config)?;
        let plain = format!("{}/nulog.db", self.dir().display());
        std::fs::write(
            &config,
            text.replace(&plain, &format!("{}/nulog.db", disk.display())),
        )?;
        self.server.spec().disk = Some((disk, options.to_owned()));
        self.use_small_disk();
        Ok(())
    }

    /// Holds the log's write lock, as a program that writes into it does.
    pub fn lock_database(&self) -> Result<DatabaseLock> {
        let mut child = Command::new("sqlite3")
            .arg(self.database())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start sqlite3")?;
        let (mut stdin, stdout) = (
            child.stdin.take().context("stdin")?,
            child.stdout.take().context("stdout")?,
        );
        writeln!(stdin, ".timeout 10000\nBEGIN IMMEDIATE;\nSELECT 'locked';")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        anyhow::ensure!(line.trim() == "locked", "the log could not be locked");
        Ok(DatabaseLock { child, _stdin: stdin })
    }

    /// Watches system calls of a process, and of its workers, from here on.
    pub fn trace(&self, process: &Proc, calls: &str) -> Result<Trace> {
        let (pid, workers) = (process.pid()?.to_string(), process.workers()?);
        let output = self.dir().join(format!("trace-{pid}"));
        let program = in_path("strace").context("strace is missing: run `apt-get install strace`")?;
        let mut strace = Spec::new(&format!("strace-{pid}"), &self.net.gateway, program, self.dir())
            .args([
                "-f",
                "-ttt",
                "-T",
                "-y",
                "-x",
                "-s",
                "100000",
                "-e",
                &format!("trace={calls}"),
                "-p",
                &pid,
            ])
            .args(
                workers
                    .iter()
                    .flat_map(|worker| ["-p".to_owned(), worker.to_string()]),
            )
            .args(["-o".into(), output.clone()])
            .start()?;
        strace.wait_count("attached", 1 + workers.len())?;
        Ok(Trace { strace, output })
    }

    fn client_base(&self, name: &str) -> Result<Spec> {
        let mut spec = Spec::new(
            &format!("nutcpc-{name}"),
            &self.net.client,
            binary("nutcpc")?,
            self.dir(),
        );
        spec = spec.env("NUFW_LOG", self.log_level());
        let (v4, v6) = (
            format!("{}:4129", addr::GATEWAY4),
            format!("[{}]:4129", addr::GATEWAY6),
        );
        Ok(spec.args(["--server", &v4, "--also", &v6, "--name", SERVER_NAME]))
    }
}

/// The log's write lock; given back when dropped.
#[derive(Debug)]
pub struct DatabaseLock {
    child: Child,
    _stdin: std::process::ChildStdin,
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A running trace.
#[derive(Debug)]
pub struct Trace {
    strace: Proc,
    output: PathBuf,
}

impl Trace {
    /// Ends the trace; its lines are `PID SECONDS call(…) = result <DURATION>`.
    pub fn finish(mut self) -> Result<String> {
        self.strace.signal(rustix::process::Signal::INT)?;
        self.strace.wait_exit(Duration::from_secs(30))?;
        let bytes = std::fs::read(&self.output).context("strace wrote no trace")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Makes a file readable by its owner only, as secrets must be.
pub fn make_private(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .context("cannot change a file's mode")
}
