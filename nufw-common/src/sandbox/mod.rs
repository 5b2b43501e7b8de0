//! What a daemon may do once it runs: a profile says it, and the kernel holds the daemon to it whatever it is made to try.
//!
//! Everything here is per thread in the kernel, and inherited: apply a profile before any other thread starts. Which paths
//! and sockets a daemon needs is the daemon's own business.

mod calls;
mod files;
mod state;

pub(crate) use state::NOTE;
pub use state::{Confinement, Landlock};

use crate::privileges::{self, Capability, PrivilegeError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How much the sandbox matters (key `privileges.sandbox`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The daemon refuses to start where the kernel cannot hold it to its profile.
    Enforce,
    /// As much as the kernel can do; what it cannot is said once.
    #[default]
    BestEffort,
    /// Neither Landlock nor seccomp. Capabilities are given up all the same.
    Off,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Enforce, Self::BestEffort, Self::Off]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| "expected \"enforce\", \"best-effort\" or \"off\"".to_owned())
    }
}

/// The section `[privileges]` of a daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Privileges {
    /// Whom the daemon becomes when it was started as root.
    pub user: Option<String>,
    /// How much the sandbox matters.
    pub sandbox: Mode,
}

/// A family of sockets that a daemon may make (`socket(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `AF_UNIX`: service manager, journal, local databases.
    Unix,
    /// `AF_INET` and `AF_INET6`, streams and datagrams; never raw.
    Internet,
    /// `AF_NETLINK`, protocols route and netfilter.
    Netlink,
}

/// Why a daemon is not confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Capabilities could not be given up.
    #[error(transparent)]
    Capabilities(#[from] PrivilegeError),
    /// The kernel has no Landlock, and the configuration insists.
    #[error(
        "this kernel has no Landlock ({0}), which privileges.sandbox = \"enforce\" asks for; boot with lsm=landlock,… (Linux 5.13 or later), or set \"best-effort\""
    )]
    NoLandlock(&'static str),
    /// Landlock refused the rules.
    #[error("Landlock does not take the rules: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// A path of the profile cannot be opened.
    #[error("Landlock cannot be told of {0}: {1}")]
    Path(PathBuf, #[source] io::Error),
    /// The filter of system calls was refused.
    #[error("the filter of system calls is not accepted: {0}")]
    Calls(String),
    /// `prctl(PR_SET_NO_NEW_PRIVS)` failed, or the note of what was done could not be made.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// What a daemon needs from the time on that it begins to serve.
#[derive(Debug, Clone)]
pub struct Profile {
    name: &'static str,
    capabilities: Vec<Capability>,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
    execute: Vec<PathBuf>,
    families: Vec<Family>,
    /// TCP ports that may be connected to; any when `None`.
    connect: Option<Vec<u16>>,
    /// TCP ports that may be bound after the start.
    bind: Vec<u16>,
    confines_children: bool,
    shares_sockets: bool,
}

impl Profile {
    /// A profile that allows nothing but computing, the daemon's own descriptors, and reading the system's libraries.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            capabilities: Vec::new(),
            read: files::SYSTEM.iter().map(PathBuf::from).collect(),
            write: Vec::new(),
            sockets: Vec::new(),
            execute: Vec::new(),
            families: Vec::new(),
            connect: Some(Vec::new()),
            bind: Vec::new(),
            confines_children: false,
            shares_sockets: false,
        }
    }

    /// Keeps a capability.
    #[must_use]
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// May read this file or what is beneath this directory. What is absent is left out.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// May read this file, and whatever takes its place by a rename: its directory, and where it is a symbolic link the
    /// directory that it leads to.
    #[must_use]
    pub fn read_replaceable(mut self, file: &Path) -> Self {
        self.read.push(directory_of(file));
        if let Ok(target) = file.canonicalize() {
            self.read.push(directory_of(&target));
        }
        self
    }

    /// May make, change and remove files in this directory, and read them.
    #[must_use]
    pub fn write(mut self, directory: impl Into<PathBuf>) -> Self {
        self.write.push(directory.into());
        self
    }

    /// May make and remove sockets in this directory.
    #[must_use]
    pub fn sockets(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sockets.push(directory.into());
        self
    }

    /// May start this program: a path, or a name that is looked for in `PATH`. Only the file that is there at this moment;
    /// one that replaces it needs a restart.
    #[must_use]
    pub fn execute(mut self, program: &str) -> Self {
        self.execute.extend(files::find_program(program));
        self
    }

    /// May start every program in this directory, also one that is put there later: where this program itself is, for one
    /// that starts itself again after an upgrade.
    #[must_use]
    pub fn execute_beneath(mut self, directory: impl Into<PathBuf>) -> Self {
        self.execute.push(directory.into());
        self
    }

    /// May make sockets of this family.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.families.push(family);
        self
    }

    /// May connect to this TCP port.
    #[must_use]
    pub fn connect(mut self, port: u16) -> Self {
        self.connect.get_or_insert_default().push(port);
        self
    }

    /// May listen on this TCP port, opened after the profile was applied.
    #[must_use]
    pub fn bind(mut self, port: u16) -> Self {
        self.bind.push(port);
        self
    }

    /// May look names of hosts up: reads `/etc` (its files are replaced by renames when the network changes) and what
    /// systemd-resolved says, and asks name servers by UDP and TCP.
    #[must_use]
    pub fn resolver(self) -> Self {
        self.read("/etc")
            .read("/run/systemd/resolve")
            .read("/run/resolvconf")
            .read("/run/NetworkManager")
            .family(Family::Unix)
            .family(Family::Internet)
            .connect(53)
    }

    /// May start processes that confine themselves further: for a supervisor.
    #[must_use]
    pub fn confines_children(mut self) -> Self {
        self.confines_children = true;
        self
    }

    /// Has sockets that others have too, and goes on with when this one is gone: it binds none, and sets no option that
    /// would change what they are.
    #[must_use]
    pub fn shares_sockets(mut self) -> Self {
        self.shares_sockets = true;
        self
    }

    /// Confines the calling thread, and every thread and process that it starts, for good.
    ///
    /// In mode [`Mode::Off`] only capabilities are given up and no new ones can be had.
    pub fn apply(&self, mode: Mode) -> Result<Confinement, SandboxError> {
        privileges::keep_only(&self.capabilities)?;
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| SandboxError::System("forbid new privileges", error.into()))?;
        let note = state::note().map_err(|error| SandboxError::System("keep a note", error))?;
        let mut confinement = self.describe(mode);
        if mode != Mode::Off {
            confinement.landlock = files::restrict(self, mode)?;
            match calls::restrict(self) {
                Ok(count) => confinement.calls = Some(count),
                Err(error) if mode == Mode::BestEffort => {
                    tracing::warn!(%error, "no system call is refused");
                }
                Err(error) => return Err(error),
            }
        }
        state::fill(note, &confinement).map_err(|error| SandboxError::System("keep a note", error))?;
        confinement.tell();
        Ok(confinement)
    }

    fn describe(&self, mode: Mode) -> Confinement {
        let shown = |paths: &[PathBuf]| {
            let mut shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            shown.sort();
            shown.dedup();
            shown
        };
        Confinement {
            profile: self.name.to_owned(),
            mode,
            capabilities: self.capabilities.iter().map(ToString::to_string).collect(),
            landlock: None,
            calls: None,
            read: shown(&self.read),
            write: shown(&[self.write.as_slice(), &self.sockets].concat()),
            execute: shown(&self.execute),
            connect: self.connect.clone(),
            bind: self.bind.clone(),
        }
    }
}

/// The directory that a file is in; the working directory for a bare name.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
