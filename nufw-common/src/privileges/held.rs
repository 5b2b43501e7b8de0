//! What a running process holds: user, capabilities, filters, and what it says of its sandbox.
//!
//! Reads `/proc` alone (`proc_pid_status(5)`) and changes nothing. Each thread has its own, so all are looked at.

use super::Capability;
use crate::exit::{Exit, Failure};
use crate::sandbox::{Confinement, Landlock};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of a sandbox's note that are read; one that is longer is none of ours.
const NOTE_LIMIT: u64 = 256 * 1024;

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// No process has that number.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// None runs.
    #[error("no {0} runs on this host (in this container); give the number of a process")]
    NotRunning(String),
    /// `/proc` cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// What was found cannot be told.
    #[error("cannot write what was found: {0}")]
    Write(#[from] io::Error),
}

impl From<HeldError> for Failure {
    fn from(error: HeldError) -> Self {
        let exit = match &error {
            HeldError::NoProcess(_) | HeldError::NotRunning(_) => Exit::Unavailable,
            HeldError::Read(..) => Exit::OsErr,
            HeldError::Write(_) => Exit::IoErr,
        };
        Self::new(exit, error)
    }
}

/// What a process holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Held {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// How many threads it has.
    pub threads: usize,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Capabilities that may be used at this moment, of any thread.
    pub effective: Vec<String>,
    /// Capabilities that may be taken up, of any thread.
    pub permitted: Vec<String>,
    /// Capabilities that a program started by it could have at most.
    pub bounding: Vec<String>,
    /// Whether neither it nor what it starts can gain rights, in every thread.
    pub no_new_privileges: bool,
    /// Whether system calls are filtered, in every thread.
    pub filtered: bool,
    /// How many filters there are, in the thread with fewest.
    pub filters: u32,
    /// What the process says that it is held to; none if it says nothing, or if this user may not look.
    pub sandbox: Option<Confinement>,
    /// Why nothing is known of the sandbox, if so.
    pub sandbox_unknown: Option<String>,
}

impl Held {
    /// Looks at a process.
    pub fn look(pid: u32) -> Result<Self, HeldError> {
        Self::look_in(Path::new("/proc"), pid)
    }

    fn look_in(proc: &Path, pid: u32) -> Result<Self, HeldError> {
        let directory = proc.join(pid.to_string());
        let main = Status::read(&directory.join("status")).map_err(|error| match error {
            HeldError::Read(_, error) if error.kind() == io::ErrorKind::NotFound => HeldError::NoProcess(pid),
            other => other,
        })?;
        let tasks = directory.join("task");
        let mut threads = Vec::new();
        for entry in fs::read_dir(&tasks).map_err(|error| HeldError::Read(tasks.clone(), error))? {
            // A thread that ended meanwhile holds nothing.
            if let Ok(status) = entry.map(|entry| entry.path().join("status"))
                && let Ok(status) = Status::read(&status)
            {
                threads.push(status);
            }
        }
        if threads.is_empty() {
            threads.push(main.clone());
        }
        let union = |set: fn(&Status) -> u64| threads.iter().fold(0, |all, status| all | set(status));
        let (sandbox, sandbox_unknown) = match note(&directory.join("fd")) {
            Ok(Some(confinement)) => (Some(confinement), None),
            Ok(None) => (None, Some("the process says nothing of a sandbox".to_owned())),
            Err(error) => (
                None,
                Some(format!(
                    "the process's note cannot be read ({error}); ask as root"
                )),
            ),
        };
        Ok(Self {
            pid,
            name: main.name,
            threads: threads.len(),
            uid: main.uid,
            gid: main.gid,
            groups: main.groups,
            effective: names(union(|status| status.effective)),
            permitted: names(union(|status| status.permitted)),
            bounding: names(union(|status| status.bounding)),
            no_new_privileges: threads.iter().all(|status| status.no_new_privileges),
            filtered: threads.iter().all(|status| status.filtered),
            filters: threads.iter().map(|status| status.filters).min().unwrap_or(0),
            sandbox,
            sandbox_unknown,
        })
    }

    /// Looks at every process whose program has this name.
    pub fn of_program(name: &str) -> Result<Vec<Self>, HeldError> {
        let proc = Path::new("/proc");
        let all = fs::read_dir(proc).map_err(|error| HeldError::Read(proc.to_path_buf(), error))?;
        let mut found: Vec<u32> = all
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id() && runs(proc, *pid, name))
            .collect();
        found.sort_unstable();
        if found.is_empty() {
            return Err(HeldError::NotRunning(name.to_owned()));
        }
        // One that ended meanwhile holds nothing.
        Ok(found.into_iter().filter_map(|pid| Self::look(pid).ok()).collect())
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let words = |words: &[String]| match words {
            [] => "none".to_owned(),
            [first, ..] if words.len() > 12 => format!("{} of them, from {first}", words.len()),
            words => words.join(", "),
        };
        let yes = |yes: bool| if yes { "yes" } else { "NO" };
        writeln!(
            out,
            "{} (process {}, {} threads)",
            self.name, self.pid, self.threads
        )?;
        let mut line = |what: &str, value: &str| writeln!(out, "  {what:<22}{value}");
        line(
            "user",
            &format!("{}{}", self.uid, if self.uid == 0 { " (root)" } else { "" }),
        )?;
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        line(
            "group",
            &format!("{}, further ones: {}", self.gid, words(&groups)),
        )?;
        line("capabilities", &words(&self.effective))?;
        if self.permitted != self.effective {
            line("  can be taken up", &words(&self.permitted))?;
        }
        line("  can ever be had", &words(&self.bounding))?;
        line("no new privileges", yes(self.no_new_privileges))?;
        let filters = if self.filtered {
            format!("yes, by {} filters", self.filters)
        } else {
            "NO".to_owned()
        };
        line("system calls filtered", &filters)?;
        let Some(sandbox) = &self.sandbox else {
            let why = self.sandbox_unknown.as_deref().unwrap_or("unknown");
            return line("Landlock", &format!("the kernel does not show it, and {why}"));
        };
        let landlock = match sandbox.landlock {
            Some(Landlock { abi, complete: true }) => format!("complete (ABI {abi})"),
            Some(Landlock { abi, complete: false }) => format!("as far as this kernel goes (ABI {abi})"),
            None => "NO".to_owned(),
        };
        line(
            "Landlock",
            &format!("{landlock}; the kernel does not show it, the process says so"),
        )?;
        line(
            "sandbox",
            &format!("{}, profile {}", sandbox.mode, sandbox.profile),
        )?;
        line("  writes in", &words(&sandbox.write))?;
        line("  starts", &words(&sandbox.execute))?;
        line("  reads", &sandbox.read.join(", "))?;
        let ports: Option<Vec<String>> = sandbox
            .connect
            .as_ref()
            .map(|ports| ports.iter().map(ToString::to_string).collect());
        line(
            "  connects to TCP ports",
            &ports.map_or_else(|| "any".to_owned(), |ports| words(&ports)),
        )
    }
}

/// Prints what the process `pid` holds, or every process of `program`, as a table or as one JSON array.
pub fn print(program: &str, pid: Option<u32>, json: bool, out: &mut dyn Write) -> Result<(), HeldError> {
    let found = match pid {
        Some(pid) => vec![Held::look(pid)?],
        None => Held::of_program(program)?,
    };
    if json {
        serde_json::to_writer_pretty(&mut *out, &found).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for held in &found {
        held.write(out)?;
    }
    Ok(())
}

/// Whether the process runs a program of that name. The link of another user's process cannot be read: then the kernel's
/// name for it counts, which has 15 bytes.
fn runs(proc: &Path, pid: u32, name: &str) -> bool {
    let directory = proc.join(pid.to_string());
    match fs::read_link(directory.join("exe")) {
        Ok(program) => {
            let file = program
                .file_name()
                .and_then(|file| file.to_str())
                .unwrap_or_default();
            // A program that was replaced while it runs.
            file.strip_suffix(" (deleted)").unwrap_or(file) == name
        }
        Err(_) => fs::read_to_string(directory.join("comm"))
            .is_ok_and(|comm| comm.trim_end() == name.get(..15).unwrap_or(name)),
    }
}

/// What the process keeps in its memory file; the last one, where it inherited its parent's.
fn note(descriptors: &Path) -> io::Result<Option<Confinement>> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir(descriptors)? {
        let entry = entry?;
        let is_note = fs::read_link(entry.path()).is_ok_and(|target| {
            target
                .to_str()
                .and_then(|target| target.strip_prefix("/memfd:"))
                .is_some_and(|name| name.split(' ').next() == Some(crate::sandbox::NOTE))
        });
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && is_note
        {
            found.push((number, entry.path()));
        }
    }
    let Some((_, path)) = found.into_iter().max() else {
        return Ok(None);
    };
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, NOTE_LIMIT), &mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// What one thread's status says.
#[derive(Debug, Clone, Default)]
struct Status {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    effective: u64,
    permitted: u64,
    bounding: u64,
    no_new_privileges: bool,
    filtered: bool,
    filters: u32,
}

impl Status {
    fn read(path: &Path) -> Result<Self, HeldError> {
        let text = fs::read_to_string(path).map_err(|error| HeldError::Read(path.to_path_buf(), error))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        let hex = |value: &str| u64::from_str_radix(value, 16).unwrap_or(0);
        // Real, effective, saved, and that of file systems.
        let second = |value: &str| {
            value
                .split_whitespace()
                .nth(1)
                .and_then(|id| id.parse().ok())
                .unwrap_or(0)
        };
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key {
                "Name" => value.clone_into(&mut status.name),
                "Uid" => status.uid = second(value),
                "Gid" => status.gid = second(value),
                "Groups" => {
                    status.groups = value
                        .split_whitespace()
                        .filter_map(|id| id.parse().ok())
                        .collect();
                }
                "CapEff" => status.effective = hex(value),
                "CapPrm" => status.permitted = hex(value),
                "CapBnd" => status.bounding = hex(value),
                "NoNewPrivs" => status.no_new_privileges = value == "1",
                // 2 is SECCOMP_MODE_FILTER.
                "Seccomp" => status.filtered = value == "2",
                "Seccomp_filters" => status.filters = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        status
    }
}

/// Names of the capabilities in a set; a number where the name is not known.
fn names(set: u64) -> Vec<String> {
    let known: Vec<Capability> = caps::all().into_iter().collect();
    let named: BTreeSet<(u8, String)> = (0..64)
        .filter(|bit| set >> bit & 1 == 1)
        .map(|bit| {
            let name = known
                .iter()
                .find(|capability| capability.index() == bit)
                .map_or_else(|| format!("capability {bit}"), ToString::to_string);
            (bit, name)
        })
        .collect();
    named.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tnufw-agent\nUmask:\t0077\nUid:\t990\t991\t990\t990\nGid:\t980\t981\t980\t980\nGroups:\t4 27 \nCapInh:\t0\nCapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nCapBnd:\t0000000000001000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    fn process(dir: &Path, threads: &[(&str, &str)]) {
        let directory = dir.join("77");
        fs::create_dir_all(directory.join("fd")).unwrap();
        fs::write(directory.join("status"), STATUS).unwrap();
        for (thread, status) in threads {
            let task = directory.join("task").join(thread);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("status"), status).unwrap();
        }
    }

    #[test]
    fn a_status_is_read_with_its_effective_ids() {
        let dir = tempfile::tempdir().unwrap();
        process(dir.path(), &[("77", STATUS)]);
        let held = Held::look_in(dir.path(), 77).unwrap();
        assert_eq!(
            (held.uid, held.gid, held.groups.as_slice()),
            (991, 981, &[4, 27][..])
        );
        assert_eq!(held.effective, ["CAP_NET_ADMIN"]);
        assert_eq!(
            (held.no_new_privileges, held.filtered, held.filters),
            (true, true, 3)
        );
        assert_eq!(held.sandbox, None);
    }

    #[test]
    fn one_thread_that_holds_more_is_the_whole_process() {
        let dir = tempfile::tempdir().unwrap();
        let loose = STATUS
            .replace("CapEff:\t0000000000001000", "CapEff:\t0000000000200000")
            .replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")
            .replace("Seccomp:\t2", "Seccomp:\t0")
            .replace("Seccomp_filters:\t3", "Seccomp_filters:\t0");
        process(dir.path(), &[("77", STATUS), ("78", &loose)]);
        let held = Held::look_in(dir.path(), 77).unwrap();
        assert_eq!(held.effective, ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(
            (held.no_new_privileges, held.filtered, held.filters),
            (false, false, 0)
        );
    }

    #[test]
    fn a_process_that_is_not_there_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = Held::look_in(dir.path(), 77).unwrap_err();
        assert_eq!(error.to_string(), "there is no process 77");
        let error = print("no-such-program", None, false, &mut Vec::new()).unwrap_err();
        assert!(
            error.to_string().starts_with("no no-such-program runs"),
            "{error}"
        );
    }
}
