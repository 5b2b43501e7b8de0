//! A daemon or tool that the lab runs: its log goes to a file, and it never outlives the lab.
//!
//! A process can be started again with the same arguments; its log goes on in the same file.

use crate::netns::{Identity, NetNs};
use crate::wait::{wait_for, wait_some};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// How long a daemon may take to say what is waited for, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// What to run, where and as whom.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name in the lab, and of the log file.
    pub name: String,
    /// Where it runs.
    pub ns: NetNs,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to its environment.
    pub env: Vec<(String, String)>,
    /// Directory of its log.
    pub dir: PathBuf,
    /// As this user.
    pub uid: Option<u32>,
    /// With a disk of its own on this directory: options of tmpfs.
    pub disk: Option<(PathBuf, String)>,
}

impl Spec {
    /// A program on a host.
    pub fn new(name: &str, ns: &NetNs, program: PathBuf, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            ns: ns.clone(),
            program,
            args: Vec::new(),
            env: Vec::new(),
            dir: dir.to_owned(),
            uid: None,
            disk: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Prepares it without starting it.
    pub fn idle(self) -> Proc {
        Proc {
            log: self.dir.join(format!("{}.log", self.name)),
            spec: self,
            child: None,
            seen: 0,
        }
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Proc> {
        let mut process = self.idle();
        process.start()?;
        Ok(process)
    }
}

/// A process of the lab. Dropping it kills it.
#[derive(Debug)]
pub struct Proc {
    spec: Spec,
    log: PathBuf,
    child: Option<Child>,
    /// Where in the log the present run begins.
    seen: u64,
}

impl Proc {
    /// Starts it again with the same arguments.
    pub fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.spec.name);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .context("cannot open a log file")?;
        self.seen = log.metadata()?.len();
        let identity = Identity {
            uid: self.spec.uid,
            disk: self.spec.disk.clone(),
        };
        let child = self
            .spec
            .ns
            .command_as(&self.spec.program, &identity)
            .args(&self.spec.args)
            // A client of the lab knows nothing of the one of whoever runs it.
            .env_remove("XDG_RUNTIME_DIR")
            .env("XDG_CONFIG_HOME", &self.spec.dir)
            .envs(self.spec.env.iter().cloned())
            .current_dir(&self.spec.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {} ({})",
                    self.spec.name,
                    self.spec.program.display()
                )
            })?;
        self.child = Some(child);
        Ok(())
    }

    /// What it runs with; changes count from its next start.
    pub fn spec(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// Whether it was started and not seen to end.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id; fails when it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self
            .child
            .as_ref()
            .with_context(|| format!("{} does not run", self.spec.name))?
            .id())
    }

    /// The process ids of its workers, if it is an agent: the supervisor also runs the listing commands.
    pub fn workers(&self) -> Result<Vec<u32>> {
        self.children_with("--as-worker")
    }

    /// Kills the processes that it has started with this argument; gives how many there were.
    pub fn kill_children(&self, argument: &str) -> Result<usize> {
        let children = self.children_with(argument)?;
        for &child in &children {
            send(child, Signal::KILL)?;
        }
        Ok(children.len())
    }

    fn children_with(&self, wanted: &str) -> Result<Vec<u32>> {
        let parent = format!("\nPPid:\t{}\n", self.pid()?);
        let is_wanted = |pid: &u32| {
            // Whoever ends meanwhile is none.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            status.contains(&parent) && arguments.split('\0').any(|argument| argument == wanted)
        };
        Ok(std::fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(is_wanted)
            .collect())
    }

    /// The process id of its worker, if it is an agent; waits until there is one other than `not`.
    pub fn worker(&self, not: Option<u32>) -> Result<u32> {
        wait_some(&format!("a worker of {}", self.spec.name), PATIENCE, || {
            Ok(self.workers()?.into_iter().find(|pid| Some(*pid) != not))
        })
    }

    /// Sends a signal to its worker; gives the worker's process id.
    pub fn signal_worker(&self, signal: Signal) -> Result<u32> {
        let worker = self.worker(None)?;
        send(worker, signal)?;
        Ok(worker)
    }

    /// What it wrote since its last start.
    pub fn log(&self) -> Result<String> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.seen))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(plain(&String::from_utf8_lossy(&bytes)))
    }

    /// How many lines of its present log have the text.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains(text)).count())
    }

    /// Waits for a line with the text; fails at once when the process ends instead.
    pub fn wait_log(&mut self, text: &str) -> Result<String> {
        let what = format!("{} to log {text:?}", self.spec.name);
        wait_some(&what, PATIENCE, || {
            let ended = self.exited()?;
            if let Some(line) = self.log()?.lines().find(|line| line.contains(text)) {
                return Ok(Some(line.to_owned()));
            }
            match ended {
                Some(status) => bail!("{} ended ({status}) before it logged {text:?}", self.spec.name),
                None => Ok(None),
            }
        })
    }

    /// The status, if it ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => bail!("{} was not started", self.spec.name),
        }
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.spec.name);
        let status = wait_some(&what, within, || self.exited())?;
        self.child = None;
        Ok(status)
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(self.pid()?, signal)
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(PATIENCE)
    }

    /// Processor time used so far, all threads and workers, in microseconds.
    pub fn cpu_us(&self) -> Result<u64> {
        self.with_workers(Self::cpu_us_of)
    }

    fn with_workers(&self, of: impl Fn(u32) -> Result<u64>) -> Result<u64> {
        let all = std::iter::once(self.pid()?).chain(self.workers()?);
        all.map(of).sum()
    }

    fn cpu_us_of(pid: u32) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit_once(')').context("unreadable /proc/PID/stat")?.1;
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
    }

    /// Resident memory in bytes, with that of its workers.
    pub fn rss(&self) -> Result<u64> {
        self.with_workers(Self::rss_of)
    }

    fn rss_of(pid: u32) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// The whole log's last lines, for a failure report.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log)
            .map(|b| plain(&String::from_utf8_lossy(&b)))
            .unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        let shown = all
            .get(all.len().saturating_sub(lines)..)
            .unwrap_or_default()
            .join("\n");
        format!("--- {} ---\n{shown}\n", self.spec.name)
    }

    /// Waits for so many lines with the text; fails at once when the process ends.
    pub fn wait_count(&mut self, text: &str, lines: usize) -> Result<()> {
        wait_for(
            &format!("{} to log {text:?} {lines} times", self.spec.name),
            PATIENCE,
            || {
                if let Some(status) = self.exited()? {
                    bail!(
                        "{} ended ({status}) before it logged {text:?} {lines} times",
                        self.spec.name
                    );
                }
                Ok(self.count(text)? >= lines)
            },
        )
    }
}

/// Sends a signal. One that stops is over when every thread stands still: only then does nothing more come of the process.
fn send(pid: u32, signal: Signal) -> Result<()> {
    let number = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id out of range")?;
    kill_process(number, signal)?;
    if signal == Signal::STOP {
        wait_for("every thread to stand still", PATIENCE, || stands_still(pid))?;
    }
    Ok(())
}

/// Whether every thread of a process is stopped, or has ended.
fn stands_still(pid: u32) -> Result<bool> {
    let runs = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
        // A thread that ends meanwhile does nothing more either. The state follows the name, which may have any character.
        let stat = stat.unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("X", |(_, rest)| rest);
        !state.starts_with(['T', 'Z', 'X'])
    };
    Ok(!std::fs::read_dir(format!("/proc/{pid}/task"))?.any(runs))
}

impl Drop for Proc {
    fn drop(&mut self) {
        // The kernel kills it at the latest when this process ends.
        self.kill().ok();
    }
}

/// Without colour codes.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, code)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        rest = code.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}
